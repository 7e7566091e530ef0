"""Braket's local simulators, in this process."""
