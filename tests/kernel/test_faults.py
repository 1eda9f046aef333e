"""A reconciler that is killed after each step of each kind of plan, and the one that comes after it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from reconciler.kernel import netns
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import IFB_NAME, class_id
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from tests.kernel.held import BOTH, NOTHING, PLANS, Plan, check, held, in_force
from tests.kernel.lab import RECORD, Pod
from webhook.common.contract import Direction

SLOTS = 8


@pytest.fixture(scope="module")
def older() -> Iterator[Shaper]:
    """A Shaper whose program is another version's."""
    started = Shaper.start(slots=SLOTS + 1, record=RECORD)
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
    return lambda pod: Shaper.start(slots=SLOTS, netns_paths=[Key(pod.uid, pod.netns)], record=RECORD)


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


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_killed_after_any_step_the_next_one_ends_where_it_would_have_ended(
    shaper: Shaper, limited: Pod, next_one: Callable[[Pod], Shaper], plan: Plan
) -> None:
    clean = held(limited)
    shaper.shape(limited.uid, limited.netns, plan.wanted)
    wanted = held(limited)
    steps = 0
    goes_on = True
    while goes_on:
        shaper.release(limited.uid, limited.netns)
        shaper.shape(limited.uid, limited.netns, plan.before)
        for command in plan.spoil:
            limited.run(*command)
        before = in_force(limited)
        goes_on = killed_after(steps, shaper, lambda: shaper.shape(limited.uid, limited.netns, plan.wanted))
        when = f"after {steps} steps"
        check(before, in_force(limited), plan.wanted, when)
        heir = next_one(limited)
        heir.shape(limited.uid, limited.netns, plan.wanted)
        found = in_force(limited)
        check(plan.wanted, found, plan.wanted, when)
        assert found == plan.wanted, when
        assert sorted(map(repr, held(limited))) == sorted(map(repr, wanted)), when
        assert heir.shape(limited.uid, limited.netns, plan.wanted).steps == ()
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
