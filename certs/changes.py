"""Changes of credentials, for events, metrics and logs. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can happen to credentials."""

    MADE = "made"
    """New credentials were made, as none were known."""
    RESTORED = "restored"
    """The Secret was lost or damaged, and written again from a replica's memory."""
    ANNOUNCED = "announced"
    """A new authority will be trusted."""
    PUBLISHED = "published"
    """The bundle in the webhook's configuration follows the Secret, and the overlap of a new authority begins."""
    ROTATED = "rotated"
    """The new authority signs."""
    RENEWED = "renewed"
    """There is another serving certificate."""
    RETIRED = "retired"
    """A former authority is trusted no longer."""
    BUNDLE_REPAIRED = "bundle_repaired"
    """Somebody changed the bundle in the webhook's configuration; it was put back."""
    STUCK = "stuck"
    """None of these can happen: reading or writing fails."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to credentials, and why, for people."""

    kind: Kind
    text: str
