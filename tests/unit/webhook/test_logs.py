"""What is written to the log, and what of it is not written for strangers."""

import asyncio
import io
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from webhook.common.logs import LINE_EVERY_S, LINES_AT_ONCE, configure_logging


class Log:
    """What both programs set up, at a time that stands still until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._stream = io.StringIO()
        monkeypatch.setattr("webhook.common.logs.time", SimpleNamespace(monotonic=lambda: self.now))
        configure_logging(self._stream, (), "info")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger) -> Log:
    root_logger.handlers.clear()
    return Log(monkeypatch)


async def test_of_what_asyncio_logs_some_of_a_kind_are_written_and_the_others_counted(log: Log) -> None:
    def went_wrong(error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": f"failed: {error}", "exception": error})

    for number in range(LINES_AT_ONCE + 5):
        went_wrong(ValueError(f"a stranger's {number}"))
    went_wrong(KeyError("ours"))
    log.now = LINE_EVERY_S
    went_wrong(ValueError("a stranger's again"))
    *strangers, ours, again = log.lines()
    assert len(strangers) == LINES_AT_ONCE
    assert (ours["level"], ours["logger"], ours["message"]) == ("ERROR", "asyncio", "failed: 'ours'")
    assert ("KeyError" in ours["exc_info"], "suppressed" in ours) == (True, False)
    assert (again["message"], again["suppressed"]) == ("failed: a stranger's again", 5)


def test_what_others_log_is_written_always(log: Log) -> None:
    for _ in range(LINES_AT_ONCE + 5):
        logging.getLogger("another").warning("hm")
    assert len(log.lines()) == LINES_AT_ONCE + 5
