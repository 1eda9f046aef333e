"""The commands `observe` and `clean`: read, or remove, what the kernel holds for this node's Pods.

Both look into the network namespaces themselves, so they are right even when no reconciler runs. Only the Pods' names
come from the API server; without it, the uid is shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from reconciler import pods
from reconciler.inspection import Inspection, clean, inspect
from reconciler.kernel.buckets import is_rate
from reconciler.kernel.errors import HostNetnsError, NetnsGoneError, ShapingError, defect
from reconciler.kernel.raw import text
from reconciler.node_lock import acquire_node_lock
from reconciler.program_record import ProgramRecord
from webhook.common.contract import Quantity
from webhook.common.endpoint import ConfigurationError
from webhook.common.kubeapi import ApiError, KubeApi
from webhook.common.printing import print_whole

_UID_LENGTH: Final = 40
"""What the shaper's map has room for; a uid has 36."""
_COLUMNS = ("POD", "INTERFACES", "DIRECTION", "LIMIT", "BYTES", "PACKETS", "DROPS", "MARKS", "QUEUE")


@dataclass(frozen=True, slots=True)
class Row:
    """One direction of one Pod: its limit in bit/s, what was charged, dropped and marked, and the queue at present.

    These figures are None where another version keeps them in its own layout.
    """

    pod: str
    pod_uid: str
    netns: str
    interfaces: tuple[str, ...]
    direction: str
    bits_per_second: int
    bytes: int | None = None
    packets: int | None = None
    drops: int | None = None
    marks: int | None = None
    queue_ns: int | None = None


def rows(netns: str, inspection: Inspection, names: Mapping[str, str]) -> tuple[Row, ...]:
    """What one network namespace holds; names are NAMESPACE/NAME by Pod uid."""
    if inspection.counters is not None:
        uid, counted = inspection.counters.pod_uid, inspection.counters.directions
        held = [(direction, uid, asdict(figures)) for direction, figures in counted.items()]
    else:
        limits = inspection.uncounted.items()
        held = [(direction, each.pod_uid, {"bits_per_second": each.bits_per_second}) for direction, each in limits]
    return tuple(
        Row(
            pod=names.get(uid, f"uid {_shown(uid)}"),
            pod_uid=_shown(uid),
            netns=netns,
            interfaces=inspection.interfaces,
            direction=direction.value,
            **figures,
        )
        for direction, uid, figures in held
    )


def _shown(uid: str) -> str:
    """A uid as a terminal may have it: a Pod's own program can have anything in its maps."""
    return text(uid.encode())[:_UID_LENGTH]


def table(found: Iterable[Row]) -> str:
    """The rows as a table for a terminal, by Pod."""
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for row in sorted(found, key=lambda row: (row.pod, row.direction)):
        figures = ("-" if each is None else str(each) for each in (row.bytes, row.packets, row.drops, row.marks))
        queue = "-" if row.queue_ns is None else f"{row.queue_ns / 1e6:.1f}ms"
        lines.append((row.pod, ",".join(row.interfaces), row.direction, _limit(row.bits_per_second), *figures, queue))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _limit(bits_per_second: int) -> str:
    """A limit as people write it; in bits with a question mark where it is none, as others may have written it."""
    return str(Quantity(bits_per_second)) if is_rate(bits_per_second) else f"{bits_per_second}?"


def run_observe(folder: Path, *, node: str, as_json: bool) -> int:
    """Print what the kernel holds; exit status 1 when some namespace could not be read."""
    names = asyncio.run(_names(node)) if node else {}
    found: list[Row] = []
    failed = False
    paths = _namespaces(folder)
    for path in paths or ():
        try:
            found += rows(path, inspect(path), names)
        except (NetnsGoneError, HostNetnsError):
            continue
        except Exception as error:  # noqa: BLE001 - a Pod may do anything to its netns; the others are still read
            failed = True
            _print_error(path, error)
    text = json.dumps([asdict(row) for row in found], indent=2) if as_json else table(found)
    printed = _printed(f"{text}\n")
    return 0 if printed and not failed and paths is not None else 1


def run_clean(folder: Path, record_folder: Path) -> int:
    """Remove all that is ours from every network namespace, and the record of our programs.

    First waits for the end of a reconciler: on a node that was cut off it may be ending just now, and would put back
    what goes. Exit status 1 when some could not be removed.
    """
    with ExitStack() as held:
        waited = _wait_for_reconciler(record_folder, held)
        cleaned = _clean(folder, record_folder)
    return 0 if waited and cleaned else 1


def _wait_for_reconciler(record_folder: Path, held: ExitStack) -> bool:
    """Take the node's lock, which `held` releases. False if that cannot be; without the folder there is no reconciler.

    A wait has no end but the reconciler's: the DaemonSet's rollout shows the node as not clean meanwhile.
    """
    if not record_folder.exists():
        return True
    try:
        lock = asyncio.run(acquire_node_lock(asyncio.Event(), record_folder))
    except ShapingError as error:
        sys.stderr.write(f"cannot know whether a reconciler works on this node: {error}\n")
        return False
    if lock is not None:
        held.callback(os.close, lock)
    return True


def _clean(folder: Path, record_folder: Path) -> bool:
    """Whether all that is ours was removed."""
    failed = False
    paths = _namespaces(folder)
    done: list[str] = []
    for path in paths or ():
        try:
            steps = clean(path)
        except (NetnsGoneError, HostNetnsError):
            continue
        except Exception as error:  # noqa: BLE001 - as above; the others are still cleaned
            failed = True
            _print_error(path, error)
        else:
            done += (f"{path}: {step}\n" for step in steps)
    try:
        done += (f"{path}: deleted\n" for path in ProgramRecord(record_folder).remove())
    except OSError as error:
        failed = True
        sys.stderr.write(f"cannot delete the record of the shaper's programs: {error}\n")
    return _printed("".join(done)) and not failed and paths is not None


def _printed(text: str) -> bool:
    """Whether all of it could be printed. What was to be done comes first: whoever reads may have gone."""
    if (why := print_whole(text)) is not None:
        with suppress(OSError, AttributeError):  # standard error may be gone too
            sys.stderr.write(f"cannot write to standard output: {why}\n")
    return why is None


def _print_error(path: str, error: Exception) -> None:
    why = error if isinstance(error, ShapingError) else defect(error)
    sys.stderr.write(f"{path}: {why}\n")


def _namespaces(folder: Path) -> list[str] | None:
    try:
        return sorted(str(path) for path in folder.iterdir())
    except OSError as error:
        sys.stderr.write(f"cannot look into {folder}, where the runtime keeps Pods' network namespaces: {error}\n")
        return None


async def _names(node: str) -> dict[str, str]:
    try:
        api = await KubeApi.connect(user_agent="ipvlan-bandwidth-observe")
    except ConfigurationError as error:
        sys.stderr.write(f"Pods are named by uid: {error}\n")
        return {}
    names: dict[str, str] = {}

    def take(item: Any) -> None:
        if view := pods.from_api(item):
            names[view.uid] = str(view)

    try:
        await api.read_list("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"}, take)
    except ApiError as error:
        sys.stderr.write(f"Pods are named by uid, as the API server does not tell: {error}\n")
        return {}
    finally:
        await api.close()
    return names
