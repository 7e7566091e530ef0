"""A device that logs in as soon as it is imported."""

raise RuntimeError("acme_device.service was imported")
