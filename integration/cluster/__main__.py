"""``python -m integration.cluster``."""

import sys

from integration.cluster.cli import main

sys.exit(main(sys.argv[1:]))
