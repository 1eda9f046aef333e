"""The state of one sandbox, apart from its netns and what its Pod asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.desired import DesiredLimits
from reconciler.report import NOTHING, Applied


@dataclass(slots=True)
class SandboxState:
    """All in one record, so that nothing is left of a forgotten sandbox."""

    applied: Applied = NOTHING
    """What is in force."""
    wanted: DesiredLimits | None = None
    """What it was given last, or is being given."""
    failures: int = 0
    """How many times in a row it could not be given what it should have."""
    failure: str = ""
    """What the Pod's owner was told of the last of these."""
    unverified: bool = False
    """Whether the kernel may hold something for it, whether limits are wanted or not."""
    awaiting_api_server: bool = False
    """Reported only by a replay so far; the API server, which knows later changes, has not reported it."""
    unreadable: bool = False
    """Whether it may have had limits in force that could not be read: no event says then that it had none."""
    started: bool = False
    """Whether the runtime reported its start, and still lists it: it exists until the runtime reports its end.

    Not if the runtime did not wait: then it may have ended before it was reconciled.
    """
    netns_seen: bool | None = None
    """Whether its netns was ever there; None if it was never looked up."""
