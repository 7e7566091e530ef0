"""A classical twin of the device, and how results teach it."""
