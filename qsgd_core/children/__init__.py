"""The two child processes that import a vendor's SDK, each by its ``main``."""
