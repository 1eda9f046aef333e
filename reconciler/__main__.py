"""`python -m reconciler`: run on a node, or look at and clean up what it put there."""

from __future__ import annotations

import sys

from reconciler.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
