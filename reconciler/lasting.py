"""Tells on the Node of a trouble that lasts, and of its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from reconciler.report import Notice

LOOK_S = 10.0
PATIENT_LOOKS = 3
"""What is started again is away for some seconds: that is told only when it lasts."""
AGAIN_LOOKS = 300
"""What lasts is told again then, as the API server forgets events after an hour (--event-ttl)."""

log = logging.getLogger(__name__)


async def tell_what_lasts(
    trouble: Callable[[], str | None],
    *,
    begun: Callable[[str], Notice],
    over: Notice,
    tell_node: Callable[[Notice], None],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Look for ever; tell `begun` of a trouble that lasts, again while it does, and `over` once when it is no more."""
    looks = 0
    while True:
        await sleep(LOOK_S)
        what = trouble()
        told = None
        if what is None and looks >= PATIENT_LOOKS:
            told = over
        looks = looks + 1 if what else 0
        if what and looks % AGAIN_LOOKS == PATIENT_LOOKS:
            told = begun(what)
        if told:
            log.warning(told.message)
            tell_node(told)
