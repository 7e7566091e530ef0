"""Simulators with the recorded noise of IBM's devices."""
