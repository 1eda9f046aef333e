"""Structured logs: the webhook's on standard output, the reconciler's on standard error."""

import logging
from collections.abc import Iterable
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter


def configure_logging(stream: TextIO, packages: Iterable[str], level: str) -> None:
    """One JSON object a line, with the time in UTC; these packages from `level` on, all others from WARNING on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter(
            ["timestamp", "levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in packages:
        logging.getLogger(package).setLevel(level.upper())
