"""Matched classical controls: modulations as strong as a quantum one, with no quantum in them."""
