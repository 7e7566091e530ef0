"""Amazon Braket for QSGD. Importing this package imports no SDK."""
