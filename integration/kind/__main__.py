"""``python -m integration.kind``."""

import sys

from integration.kind.cli import main

sys.exit(main(sys.argv[1:]))
