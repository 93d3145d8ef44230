"""``python -m integration.fabric``."""

from __future__ import annotations

import sys

from integration.fabric.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
