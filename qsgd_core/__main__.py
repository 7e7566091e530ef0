"""``python -m qsgd_core`` is ``qsgd``."""

from __future__ import annotations

import sys

from qsgd_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
