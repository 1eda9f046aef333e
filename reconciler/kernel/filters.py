"""The filters of a network namespace's links. However many a Pod has, few are read each time, ours among them.

The kernel lists a chain by priority, and filters of one priority in an order of their own (tc_dump_tfilter). If a list
is not read to its end, what matters is requested separately: the first filters of all, those at our place, and our own
by its handle.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from reconciler.kernel.attributes import TrafficControlMessage
from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.netlink import RTM_GETTFILTER, Listing, Netlink
from reconciler.kernel.raw import ETH_P_ALL_BIG_ENDIAN, filter_of
from reconciler.model import EGRESS_PRIORITY, INGRESS_PRIORITY, OUR_HANDLES, Filter
from webhook.common.contract import Direction

T = TypeVar("T")

PARENTS: Final = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}
OUR_KINDS: Final = {Direction.INGRESS: "matchall", Direction.EGRESS: "bpf"}
OUR_PRIORITIES: Final = {Direction.INGRESS: INGRESS_PRIORITY, Direction.EGRESS: EGRESS_PRIORITY}
MOST_FILTERS: Final = 1000
"""The most filters to read of one hook of a link."""
MOST_FILTERS_OF_ALL: Final = 4000
"""The most for all hooks of one observation: 20 ms."""
_FEW: Final = 16
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP})


class Filters:
    """Reads filters for one observation. `names` are the links' names by index."""

    def __init__(self, netlink: Netlink, names: Mapping[int, str]) -> None:
        self._netlink, self._names = netlink, names
        self._left = MOST_FILTERS_OF_ALL

    def of(self, index: int, hooks: Iterable[Direction] = PARENTS) -> tuple[Filter, ...]:
        """The filters at hooks of a link: all, or up to the bounds and at our places. Raises NetlinkError."""
        return tuple(held for hook in hooks for held in dict.fromkeys(self._at(index, hook)))

    def _at(self, index: int, hook: Direction) -> Iterator[Filter]:
        most = max(_FEW, min(MOST_FILTERS, self._left))
        listing = self._listed(_at_hook(index, hook), most)
        self._left -= len(listing.messages)
        yield from self._decoded(hook, listing)
        # In a list of more than a few filters, the kernel may leave out a matchall (mall_walk).
        if listing.are_all and len(listing.messages) <= _FEW:
            return
        for priority in (0, OUR_PRIORITIES[hook]):
            few = self._listed(_at_hook(index, hook, priority, ("TCA_CHAIN", 0)), _FEW)
            yield from self._decoded(hook, few)
        for handle in OUR_HANDLES:
            yield from self._decoded(hook, Listing(self._asked(place_of(index, hook, handle))))

    def _decoded(self, hook: Direction, listing: Listing) -> Iterator[Filter]:
        """Each priority also has a message of its own, without a handle, before those of its filters."""
        found = [filter_of(hook, message, self._names) for message in listing.messages]
        yield from (held for held in found if held.handle)
        if listing.before_too_long and found:  # so the filter that is too long has this priority
            yield Filter(hook, found[-1].kind, found[-1].priority, 0, chain=found[-1].chain)

    def _listed(self, request: TrafficControlMessage, most: int) -> Listing:
        return _unless_gone(self._netlink.dump, request, RTM_GETTFILTER, most) or Listing([])

    def _asked(self, request: TrafficControlMessage) -> list[bytes]:
        answer = _unless_gone(self._netlink.ask, request, RTM_GETTFILTER)
        return [answer] if answer else []


def _unless_gone(ask: Callable[..., T], *arguments: object) -> T | None:
    """An answer; None if the clsact, with all it held, was deleted between two requests."""
    try:
        return ask(*arguments)
    except NetlinkError as error:
        if error.errno not in _GONE:
            raise
        return None


def _at_hook(index: int, hook: Direction, priority: int = 0, *attributes: tuple[str, object]) -> TrafficControlMessage:
    """A request for filters: of all priorities and chains, if none is given."""
    request = TrafficControlMessage()
    request["index"], request["parent"], request["info"] = index, PARENTS[hook], priority << 16
    request["attrs"] = list(attributes)
    return request


def place_of(index: int, hook: Direction, handle: int) -> TrafficControlMessage:
    """The message that refers to a filter of ours, whether it exists or not."""
    message = _at_hook(index, hook, OUR_PRIORITIES[hook], ("TCA_KIND", OUR_KINDS[hook]))
    message["info"] |= ETH_P_ALL_BIG_ENDIAN
    message["handle"] = handle
    return message
