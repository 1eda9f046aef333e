"""Prints what a command found: all of it, or the reason why not."""

import io
import os
import sys


def print_whole(text: str) -> str | None:
    """Print it, whatever the terminal's encoding. Returns why it could not all be printed."""
    if sys.stdout is None:
        return "it is closed"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Else Python tries to write the rest when it ends, and tells of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.strerror
    return None
