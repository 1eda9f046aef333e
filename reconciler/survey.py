"""What the network namespaces of this node's Pods hold when the reconciler starts: all that it knows of its past.

Programs of other versions are read too: a Pod that one of them shapes keeps its limit until it is moved, also where its
annotation has turned bad meanwhile, and loses it where the annotation has gone.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from os import fstat
from typing import Final

from reconciler.counters import in_force
from reconciler.kernel import netns
from reconciler.kernel.errors import NetnsGoneError
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import ObservedLink
from reconciler.sandboxes import Key
from reconciler.slots import Tenant
from webhook.contract import Direction, Limits

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """`held` has those network namespaces that hold anything of ours, or could not be read, with their limits.

    The limits are those in force, as far as they can be read. `program_ids` are the programs that shape somewhere.
    """

    paths: Mapping[Tenant, str] = field(default_factory=dict)
    program_ids: tuple[int, ...] = ()
    held: Mapping[Key, Limits] = field(default_factory=dict)


def survey(netns_paths: Iterable[Key]) -> Survey:
    """Look into each network namespace; one that cannot be read is told in the log."""
    paths: dict[Tenant, str] = {}
    held: dict[Key, Limits] = {}
    programs: dict[int, Program | None] = {}
    with ExitStack() as opened:
        for pod_uid, path in netns_paths:
            try:
                with netns.opened(path) as descriptor, Netlink.inside(descriptor) as netlink:
                    paths[Tenant(pod_uid, fstat(descriptor).st_ino)] = path
                    links = observe_netns(netlink).links
            except NetnsGoneError:
                continue
            except Exception as error:  # noqa: BLE001 - what a Pod does to its netns must cost no other Pod anything
                _LOG.warning("not looked into %s: %s", path, error)
                held[pod_uid, path] = Limits()
                continue
            for program_id in _program_ids(links) - programs.keys():
                programs[program_id] = Program.adopt(None, [program_id])
                if (program := programs[program_id]) is not None:
                    opened.enter_context(closing(program))
            if any(link.is_touched for link in links):
                held[pod_uid, path] = _limits(pod_uid, links, programs)
    return Survey(paths, tuple(programs), held)


def _program_ids(links: Iterable[ObservedLink]) -> set[int]:
    filters = (held.ours(Direction.EGRESS) for held in links)
    return {held.program_id for held in filters if held is not None and held.program_id is not None}


def _limits(pod_uid: str, links: Iterable[ObservedLink], programs: Mapping[int, Program | None]) -> Limits:
    """What the filters find in their programs' maps."""
    rates: dict[Direction, int] = {}
    for link in links:
        held = link.ours(Direction.EGRESS)
        if held is None or held.class_id is None or held.program_id is None:
            continue
        program = programs.get(held.program_id)
        entry = program.read_limit(held.class_id) if program else None
        if entry is not None and entry.pod_uid == pod_uid:
            direction = Direction.INGRESS if held.class_id % 2 else Direction.EGRESS
            rates[direction] = entry.bits_per_second
    return in_force(rates)
