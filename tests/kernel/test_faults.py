"""A reconciler that is killed after each step of each kind of plan, and the one that comes after it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from reconciler.kernel import netns
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import IFB_NAME, ObservedLink, class_id
from reconciler.netns_scan import scan_netns
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from tests.kernel.lab import Pod, limits
from tests.losses import nothing_lost
from webhook.common.contract import Direction, Limits

SLOTS = 8
NOTHING, BOTH, OTHERS = limits(), limits(ingress="100M", egress="100M"), limits(ingress="20M", egress="50M")
INGRESS, EGRESS = limits(ingress="100M"), limits(egress="100M")


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of plan: how the Pod is before it, and what is wanted."""

    before: Limits
    wanted: Limits
    spoil: tuple[tuple[str, ...], ...] = ()


CHANGES = {
    "first shaping": Change(NOTHING, BOTH),
    "first shaping of ingress": Change(NOTHING, INGRESS),
    "other rates": Change(BOTH, OTHERS),
    "egress removed": Change(BOTH, INGRESS),
    "ingress removed": Change(BOTH, EGRESS),
    "ingress for egress": Change(EGRESS, INGRESS),
    "removal": Change(BOTH, NOTHING),
    "repair of the ifb": Change(BOTH, BOTH, (("ip", "link", "del", IFB_NAME),)),
    "repair of all": Change(
        BOTH,
        BOTH,
        (
            ("ip", "link", "del", IFB_NAME),
            ("tc", "qdisc", "del", "dev", "eth0", "clsact"),
            ("tc", "qdisc", "del", "dev", "eth0", "root"),
        ),
    ),
}


@pytest.fixture(scope="module")
def older() -> Iterator[Shaper]:
    """A Shaper whose program is another version's."""
    started = Shaper.start(slots=SLOTS + 1)
    yield started
    started.close()


@pytest.fixture(scope="module")
def spare() -> Iterator[Program]:
    loaded = Program.load(SLOTS)
    yield loaded
    loaded.close()


def forget(program: Program) -> None:
    """Its limits, as if it were just loaded."""
    for number in range(2, 2 * SLOTS + 2):
        program.write_limit(number, None)


@pytest.fixture
def next_one(spare: Program, monkeypatch: pytest.MonkeyPatch) -> Callable[[Pod], Shaper]:
    """Starts a Shaper as a new process would, but for the compiling: the spare program is as good as a new one."""

    def load(slots: int) -> Program:
        assert slots == SLOTS
        forget(spare)
        program, limits, state = (os.dup(each) for each in (spare.descriptor, spare.limits, spare.state))
        return Program(spare.bpf, slots, spare.program_id, program, limits, state, bytearray(spare.written))

    monkeypatch.setattr(Program, "load", load)
    return lambda pod: Shaper.start(slots=SLOTS, netns_paths=[Key(pod.uid, pod.netns)])


def held(pod: Pod) -> tuple[ObservedLink, ...]:
    """What the Pod's netns holds, but for which program and slot."""
    with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        links = observe_netns(netlink).links
    return tuple(
        replace(link, filters=tuple(replace(one, program_id=None, class_id=None) for one in link.filters))
        for link in links
    )


def in_force(pod: Pod) -> Limits:
    """The limits that packets meet: the filters find them in the map, and fq paces."""
    key = Key(pod.uid, pod.netns)
    found = scan_netns([key]).held.get(key, NOTHING)
    links = {link.link.name: link for link in held(pod)}
    ifb, slave = links.get(IFB_NAME), links["eth0"]
    redirect = slave.ours(Direction.INGRESS)
    met = {}
    if slave.ours(Direction.EGRESS) and slave.root.is_ours:
        met[Direction.EGRESS] = found.egress
    if redirect and redirect.redirects_to == IFB_NAME and ifb and ifb.link.is_up and ifb.root.is_ours:
        met[Direction.INGRESS] = found.ingress
    return Limits.of(met)


def killed_after(steps: int, shaper: Shaper, work: Callable[[], object]) -> bool:
    """Whether a process that does this work was killed right after so many steps, and did not come to its end."""
    process = os.fork()
    if process == 0:
        done, do = 0, shaper._do

        def count(*arguments: object) -> None:
            nonlocal done
            if done == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            do(*arguments)
            done += 1

        with suppress(BaseException):
            shaper._do = count
            work()
            os._exit(0)
        os._exit(1)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def stays(before: Limits, wanted: Limits) -> list[Direction]:
    return [each for each in Direction if before.get(each) and wanted.get(each)]


def check(before: Limits, between: Limits, wanted: Limits, when: str) -> None:
    """Raise LostError for a direction that was limited, and is to be, and is without either limit meanwhile."""
    nothing_lost(
        f"{direction} is limited to {between.get(direction)} {when}"
        for direction in stays(before, wanted)
        if between.get(direction) not in {before.get(direction), wanted.get(direction)}
    )


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_killed_after_any_step_the_next_one_ends_where_it_would_have_ended(
    shaper: Shaper, limited: Pod, next_one: Callable[[Pod], Shaper], change: Change
) -> None:
    clean = held(limited)
    shaper.shape(limited.uid, limited.netns, change.wanted)
    wanted = held(limited)
    steps = 0
    goes_on = True
    while goes_on:
        shaper.release(limited.uid, limited.netns)
        shaper.shape(limited.uid, limited.netns, change.before)
        for command in change.spoil:
            limited.run(*command)
        before = in_force(limited)
        goes_on = killed_after(steps, shaper, lambda: shaper.shape(limited.uid, limited.netns, change.wanted))
        when = f"after {steps} steps"
        check(before, in_force(limited), change.wanted, when)
        heir = next_one(limited)
        heir.shape(limited.uid, limited.netns, change.wanted)
        found = in_force(limited)
        check(change.wanted, found, change.wanted, when)
        assert found == change.wanted, when
        assert sorted(map(repr, held(limited))) == sorted(map(repr, wanted)), when
        assert heir.shape(limited.uid, limited.netns, change.wanted).steps == ()
        heir.shape(limited.uid, limited.netns, NOTHING)
        assert held(limited) == clean, when
        assert all(counted.pod_uid != limited.uid for counted in heir.counters())
        heir.close()
        steps += 1
    print(f"KILLED after each of {steps - 1} steps")
    assert steps > 1
    shaper.release(limited.uid, limited.netns)


def test_killed_while_it_replaces_an_older_program_no_packet_goes_without_a_limit(
    shaper: Shaper, older: Shaper, limited: Pod, next_one: Callable[[Pod], Shaper]
) -> None:
    steps = 0
    goes_on = True
    while goes_on:
        older.shape(limited.uid, limited.netns, BOTH)
        forget(shaper._program)
        goes_on = killed_after(steps, shaper, lambda: shaper.shape(limited.uid, limited.netns, BOTH))
        check(BOTH, in_force(limited), BOTH, f"after {steps} steps")
        heir = next_one(limited)
        heir.shape(limited.uid, limited.netns, BOTH)
        check(BOTH, in_force(limited), BOTH, f"after {steps} steps")
        assert heir.shape(limited.uid, limited.netns, BOTH).steps == ()
        heir.close()
        steps += 1
    assert steps - 1 == 4  # two limits, two filters
    older.release(limited.uid, limited.netns)
    shaper.release(limited.uid, limited.netns)


def test_a_limit_that_is_taken_back_while_the_program_changes_is_taken_off(
    older: Shaper, limited: Pod, next_one: Callable[[Pod], Shaper]
) -> None:
    clean = held(limited)
    older.shape(limited.uid, limited.netns, BOTH)
    heir = next_one(limited)
    assert heir.found == {(limited.uid, limited.netns): BOTH}
    heir.shape(limited.uid, limited.netns, NOTHING)
    assert held(limited) == clean
    heir.close()
    older.release(limited.uid, limited.netns)


def test_a_slots_class_ids_are_the_filters(shaper: Shaper, limited: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    with netns.opened(limited.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        links = {link.link.name: link for link in observe_netns(netlink).links}
    (slot,) = {link.ours(Direction.EGRESS).class_id // 2 for link in links.values() if link.ours(Direction.EGRESS)}
    assert links["eth0"].ours(Direction.EGRESS).class_id == class_id(slot, Direction.EGRESS)
    assert links[IFB_NAME].ours(Direction.EGRESS).class_id == class_id(slot, Direction.INGRESS)
    shaper.release(limited.uid, limited.netns)
