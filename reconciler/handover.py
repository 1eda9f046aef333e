"""Hands over what another version's shaper knows of a Pod's packets, before its filters are replaced by ours.

Without it the new timelines begin at now while packets of the old ones still wait in fq: for as long as the queue was,
a Pod that floods would carry twice its limit; counters and flows would begin anew as well. Only between maps whose
values have the same size: so a version that gives a field of them another meaning must give them another size.
"""

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from reconciler.kernel.buckets import decode_counters
from reconciler.kernel.program import Program
from reconciler.model import Filter, ObservedLink, bucket_of, class_id
from reconciler.slots import Assignment, Tenant
from webhook.contract import Direction

_GENERATION_BYTES: Final = 8
"""It stands first (`reconciler/kernel/shaper.c`)."""


def hand_over(links: Sequence[ObservedLink], ours: Program, tenant: Tenant, assignment: Assignment) -> None:
    """Copy the state of each direction that only other programs shape. Raises OSError."""
    shapers = [held for link in links if (held := link.ours(Direction.EGRESS)) and held.class_id is not None]
    moved = {held.class_id for held in shapers if held.program_id == ours.program_id}
    for held in shapers:
        _, direction = bucket_of(held.class_id or 0)
        target = class_id(assignment.slot, direction)
        if target not in moved and held.program_id != ours.program_id:
            state = _state(held, tenant)
            if state:
                ours.write_state(target, assignment.generation.to_bytes(_GENERATION_BYTES, sys.byteorder) + state)


def _state(held: Filter, tenant: Tenant) -> bytes:
    """What its program keeps for a filter, without the generation; nothing where that cannot be read."""
    older = None if held.program_id is None else Program.adopt(None, [held.program_id])
    if older is None or held.class_id is None:
        return b""
    with closing(older):
        if older.state is None:
            return b""
        entry, state = older.read_limit(held.class_id), older.read_state(held.class_id)
    if entry is None or (entry.pod_uid, entry.generation) != (tenant.pod_uid, decode_counters(state).generation):
        return b""
    return state[_GENERATION_BYTES:]
