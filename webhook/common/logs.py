"""Structured logs: the webhook's on standard output, the reconciler's on standard error."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, TextIO

from pythonjsonlogger.json import JsonFormatter

from webhook.common.token_bucket import TokenBucket

# For each kind of line that strangers can cause. Writing a line blocks everything else, and thousands a second would
# push the lines that matter out of the part of a log that the kubelet keeps.
LINES_AT_ONCE: Final = 20
LINE_EVERY_S: Final = 1.0


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
    handler.addFilter(_AsyncioLogFilter(time.monotonic).passes)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in packages:
        logging.getLogger(package).setLevel(level.upper())


class LogRateLimiter:
    """Tells whether one more line of a kind may be written. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._bucket = TokenBucket(LINES_AT_ONCE, LINE_EVERY_S, monotonic)
        self._suppressed = 0

    def admit(self) -> dict[str, int] | None:
        """Take a token: what to log with the line, as how many were suppressed before. None: do not write it."""
        if not self._bucket.take():
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        return {"suppressed": suppressed} if suppressed else {}


class _AsyncioLogFilter:
    """Limits each kind of line that asyncio itself logs, such as an exception nobody awaits: strangers may cause it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._kinds: defaultdict[object, LogRateLimiter] = defaultdict(lambda: LogRateLimiter(monotonic))

    def passes(self, record: logging.LogRecord) -> bool:
        """A filter, as `logging` has them."""
        if record.name != "asyncio":
            return True
        # By exception type, as the message may differ each time. So lines that strangers cause suppress no other kind.
        kind = record.exc_info[0] if record.exc_info else None
        more = self._kinds[kind].admit()
        vars(record).update(more or {})
        return more is not None
