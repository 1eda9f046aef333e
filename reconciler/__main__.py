"""`python -m reconciler`: run on a node, or look at and clean up what it put there."""

from __future__ import annotations

import sys

from webhook.common.sigterm import exit_on_sigterm

if __name__ == "__main__":
    if "run" in sys.argv[1:]:
        exit_on_sigterm()
    from reconciler.cli import main  # only now, as importing takes a while

    sys.exit(main(sys.argv[1:]))
