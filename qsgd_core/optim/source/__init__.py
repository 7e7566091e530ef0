"""Where the modulation s of a step comes from."""
