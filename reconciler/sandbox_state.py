"""The state of one sandbox, beside where it is and what its Pod asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.report import NOTHING, Applied


@dataclass(slots=True)
class SandboxState:
    """All of it in one record, so that nothing is left of a sandbox that is forgotten."""

    applied: Applied = NOTHING
    """What is in force."""
    failures: int = 0
    """How often it could not be given what it should have, one after the other."""
    why: str = ""
    """Why it could not, the last time."""
    unverified: bool = False
    """Whether the kernel may hold something for it, whether limits are wanted or not."""
    awaiting_api_server: bool = False
    """Whether a replay told of it, as it began, and the API server has not been heard of it, which knows of changes."""
    unreadable: bool = False
    """Whether it may have had limits in force, which could not be read: nobody is told that there were none."""
    started: bool = False
    """Whether the runtime told of it as it began, and lists it still: it is there until the runtime tells of its end.

    Not if the runtime did not wait: then it may have ended before it was reconciled.
    """
    netns_seen: bool | None = None
    """Whether its netns was ever there, where that was looked for."""
