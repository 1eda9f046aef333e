"""Records events on the Node for a problem that lasts, and for its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from reconciler.report import Notice

POLL_S = 10.0
POLLS_BEFORE_EVENT = 3
"""A restart takes some seconds: only a problem that lasts longer is reported."""
POLLS_BEFORE_REPEAT = 300
"""A lasting problem is reported again then, as the API server forgets events after an hour (--event-ttl)."""

logger = logging.getLogger(__name__)


async def report_node_problem(
    problem: Callable[[], str | None],
    *,
    begun: Callable[[str], Notice],
    over: Notice,
    record_node: Callable[[Notice], None],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Poll for ever; record `begun` for a problem that lasts, repeatedly while it does, and `over` once at its end."""
    polls = 0
    while True:
        await sleep(POLL_S)
        what = problem()
        told = None
        if what is None and polls >= POLLS_BEFORE_EVENT:
            told = over
        polls = polls + 1 if what else 0
        if what and polls % POLLS_BEFORE_REPEAT == POLLS_BEFORE_EVENT:
            told = begun(what)
        if told:
            logger.warning(told.message)
            record_node(told)
