"""QSGD's provider example: imports nothing, so that listing it costs nothing."""
