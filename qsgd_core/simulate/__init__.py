"""Exact simulation in torch: closed forms of the paper's circuit, and a batched state vector."""
