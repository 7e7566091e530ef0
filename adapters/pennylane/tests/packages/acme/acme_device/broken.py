"""A device whose SDK is missing."""

import an_sdk_nobody_has  # noqa: F401
