"""A PennyLane plugin."""
