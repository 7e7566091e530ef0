"""The term itself: its arithmetic, how it is added, what it amounts to."""
