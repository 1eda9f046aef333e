"""Migrates another version's state of a Pod's packets to our program, before our filters replace its filters.

Without this, the new timelines begin at now while packets of the old ones still wait in fq: for the length of that
queue, a flooding Pod would send at twice its limit; counters and flows would also begin anew. State is copied only
between maps with values of the same size: a version that changes a field's meaning must change the size too.
"""

import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Final

from reconciler.kernel.buckets import decode_counters
from reconciler.kernel.program import Program
from reconciler.model import Bucket, ObservedLink, bucket_of, buckets, class_id
from reconciler.slots import Assignment, SlotOwner

logger = logging.getLogger(__name__)
_GENERATION_BYTES: Final = 8
"""The generation is the first field (`reconciler/kernel/shaper.c`)."""


def older_buckets(links: Sequence[ObservedLink], ours: Program) -> list[Bucket]:
    """The buckets of other programs that filters lead to."""
    return [bucket for bucket in dict.fromkeys(buckets(links)) if bucket.program_id != ours.program_id]


def migrate_state(links: Sequence[ObservedLink], ours: Program, owner: SlotOwner, assignment: Assignment) -> None:
    """Copy the state of each direction that only other programs shape. Raises OSError."""
    moved = {held.class_id for held in buckets(links) if held.program_id == ours.program_id}
    for held in older_buckets(links, ours):
        _, direction = bucket_of(held.class_id)
        target = class_id(assignment.slot, direction)
        state = _state(held, owner) if target not in moved else b""
        if state:
            ours.write_state(target, assignment.generation.to_bytes(_GENERATION_BYTES, sys.byteorder) + state)


def clear_left(left: Iterable[Bucket], owner: SlotOwner) -> None:
    """Clear the limits of buckets that none of the owner's filters leads to any more. A limit that stays is logged.

    Their program lasts for as long as it shapes another Pod. A reconciler of that version, adopting it again, would
    find limits that have since been changed or removed.
    """
    for bucket in left:
        try:
            _clear(bucket, owner)
        except OSError as error:
            logger.warning(
                "an older program keeps a Pod's limits", extra={"pod_uid": owner.pod_uid, "error": str(error)}
            )


def _clear(bucket: Bucket, owner: SlotOwner) -> None:
    older = Program.adopt(bucket.program_id)
    if older is not None:
        with closing(older):
            entry = older.read_limit(bucket.class_id)
            if entry is not None and (entry.pod_uid, entry.netns_inode) == (owner.pod_uid, owner.netns_inode):
                older.write_limit(bucket.class_id, None)


def _state(held: Bucket, owner: SlotOwner) -> bytes:
    """The state that a filter's program keeps for it, without the generation; empty if it cannot be read."""
    older = Program.adopt(held.program_id)
    if older is None:
        return b""
    with closing(older):
        if older.state is None:
            return b""
        entry, state = older.read_limit(held.class_id), older.read_state(held.class_id)
    if entry is None or (entry.pod_uid, entry.generation) != (owner.pod_uid, decode_counters(state).generation):
        return b""
    return state[_GENERATION_BYTES:]
