"""PennyLane devices as QSGD simulators."""
