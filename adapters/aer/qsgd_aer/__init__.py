"""Qiskit Aer's simulators as QSGD simulators."""
