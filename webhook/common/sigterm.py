"""SIGTERM while a program starts."""

import signal
import sys


def exit_on_sigterm() -> None:
    """Have SIGTERM end the process, until the program has a handler of its own: that comes only after its imports.

    As a container's first process, Python is not ended by SIGTERM without a handler; and the imports take a while.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
