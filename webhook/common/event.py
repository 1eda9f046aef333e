"""A core/v1 Event, as `kubectl describe` shows it: the webhook's and the reconciler's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

COMPONENT: Final = "ipvlan-bandwidth"
# The API server refuses an event's note beyond 1024 bytes (k8s.io/kubernetes/pkg/apis/core/validation/events.go).
MESSAGE_BYTES: Final = 1024
# How much of the object's name goes into the event's: a name has 253 characters at most, and a suffix has to fit.
NAME_LENGTH: Final = 200


def _fitting(message: str) -> str:
    """All of it, or the beginning of it and a mark that there was more."""
    whole, mark = message.encode(), "…"
    if len(whole) <= MESSAGE_BYTES:
        return message
    return whole[: MESSAGE_BYTES - len(mark.encode())].decode(errors="ignore") + mark


def event(
    about: Mapping[str, str],
    *,
    event_type: str,
    reason: str,
    message: str,
    instance: str,
    now: datetime,
    suffix: str,
    host: str | None = None,
) -> dict[str, Any]:
    """An Event about an object. `event_type` is Normal or Warning, `reason` one word; of `message`, what fits is told.

    `about` is an ObjectReference with the `uid` by which `kubectl describe` finds the event. The event is in the
    object's namespace, or in `default` if it has none, as the API server requires. `instance` is the reporting
    instance, on `host` if on one node; `suffix` makes the name unique.
    """
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{about['name'][:NAME_LENGTH]}.{suffix}",
            "namespace": about.get("namespace", "default"),
        },
        "involvedObject": {"apiVersion": "v1", **about},
        "type": event_type,
        "reason": reason,
        "message": _fitting(message),
        "source": {"component": COMPONENT} if host is None else {"component": COMPONENT, "host": host},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
