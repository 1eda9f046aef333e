"""Many Pods at once, and many in turn: what they took is all given back, by us and by the kernel."""

import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.kernel.errors import NoSlotLeftError
from reconciler.netns_scan import scan_netns
from reconciler.resync import PERIOD_S
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from tests.kernel import clock, lab
from tests.kernel.lab import Pod, limits
from tests.kernel.node import Node
from tests.unit.reconciler.memory import remembered

SLOTS = 250
ROUNDS, WARM_ROUNDS, AT_A_TIME = 10, 3, 100
BOTH = limits(ingress="100M", egress="100M")
GONE_WITHIN_S = 20
# A thread's stack, an arena of the allocator, what Python keeps for the next object: not what each Pod would leave.
MOST_GROWTH_KIB = 1024
ADDRESSES = 26


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds, and the kernel for it."""

    descriptors: int
    threads: int
    resident_kib: int
    slots: int
    limits: int


@pytest.fixture(scope="module")
def roomy() -> Iterator[Shaper]:
    """With the slots of a node of usual size."""
    started = Shaper.start(slots=SLOTS, record=lab.RECORD)
    yield started
    started.close()


def path(name: str) -> str:
    return f"/run/netns/{name}"


def batch(lines: Iterable[str]) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def create(names: Sequence[str]) -> None:
    """Pods; of every tenth the slave has an address, which the kernel gives to one slave at a time."""
    batch(
        line
        for name in names
        for line in (f"netns add {name}", f"link add eth0 link eA netns {name} type ipvlan mode l2")
    )
    for number, name in enumerate(names[::10]):
        lab.add_address(Pod(name, name, ""), f"172.51.9.{number}/16", "eth0")


def delete(names: Iterable[str]) -> None:
    batch(f"netns del {name}" for name in names)


def there() -> set[str]:
    return {each.name for each in Path("/run/netns").iterdir()}


@pytest.fixture
def tidy(wire: None, roomy: Shaper) -> Iterator[None]:  # noqa: ARG001 - the order of set-up
    """What a test that fails would leave: the names that its second attempt has as well, and slots."""
    before = there()
    yield
    delete(there() - before)
    roomy.collect({})


def entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def held(shaper: Shaper) -> Held:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    written = [shaper._program.read_limit(number) for number in range(2, 2 * SLOTS + 2)]
    return Held(
        descriptors=entries("/proc/self/fd"),
        threads=threading.active_count(),
        resident_kib=int(status["VmRSS"].split()[0]),
        slots=len(shaper.counters()),
        limits=sum(entry is not None for entry in written),
    )


def gone() -> bool:
    """Whether the kernel has taken down what was deleted, in the background: then every address can be had again."""
    names = [f"after-{number}" for number in range(ADDRESSES)]
    batch(line for name in names for line in (f"netns add {name}", f"link add eth0 link eA netns {name} type ipvlan"))
    waiting = list(enumerate(names))
    for _ in range(GONE_WITHIN_S * 10):
        waiting = [(number, name) for number, name in waiting if not has_address(name, number)]
        if not waiting:
            break
        lab.sleep(0.1)
    delete(names)
    return not waiting


def has_address(name: str, number: int) -> bool:
    """Whether the kernel gives the Pod's slave this address, which it gives to one slave at a time."""
    command = ["ip", "-n", name, "addr", "add", f"172.51.9.{number}/16", "dev", "eth0"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.usefixtures("tidy")
def test_a_thousand_pods_in_turn_leave_nothing(roomy: Shaper) -> None:
    with Node(roomy) as running:
        begun = now = None
        for number in range(ROUNDS):
            pods = [Pod(f"turn-{number}-{each}", f"turn-{number}-{each}", "") for each in range(AT_A_TIME)]
            create([pod.name for pod in pods])
            for pod in pods:
                running.start(pod, ingress="100M", egress="100M")
            assert len(roomy.counters()) == AT_A_TIME
            assert running.watched == {pod.netns for pod in pods}
            # Some are told of before they go, some after, and some not at all.
            for pod in pods[::3]:
                running.stop(pod)
            delete([pod.name for pod in pods])
            for pod in pods[1::3]:
                running.stop(pod)
            for pod in (*pods[::3], *pods[1::3]):
                running.remove(pod)
            assert running.watched == {pod.netns for pod in pods[2::3]}
            assert len(roomy.counters()) == len(pods[2::3])
            running.collect()
            assert running.watched == set()
            lab.sleep(1)  # so that all are looked at that something was heard of
            running.told.clear()
            now = held(roomy)
            print(f"TURN {number}: {now}")
            if number == WARM_ROUNDS:  # what the first hundreds took once, as caches, is no leak
                begun = now

        def ways() -> list[str]:
            """But for the loop that looks at Pods, which is where it was with the last of them."""
            found = remembered(running.controller, r"(/run/netns/)?turn-\d+-\d+")
            return [way for way in found if "_tasks[]()" not in way]

        clock.until(lambda: not ways(), seconds=2 * PERIOD_S, show=ways)  # the resync forgets at its next step
        assert begun
        assert replace(held(roomy), resident_kib=0) == replace(begun, resident_kib=0)
        assert now.slots == now.limits == 0
        assert now.resident_kib - begun.resident_kib < MOST_GROWTH_KIB
        assert gone()


@pytest.mark.usefixtures("tidy")
def test_as_many_pods_at_once_as_there_are_slots_one_more_and_room_again(roomy: Shaper) -> None:
    names = [f"once-{number}" for number in range(SLOTS + 1)]
    create(names)
    *first, last = names
    roomy.shape(last, path(last), BOTH)  # with which the first look at a Pod takes what it keeps for all
    roomy.release(last, path(last))
    before = held(roomy)
    for name in first:
        assert roomy.shape(name, path(name), BOTH).interfaces == ("eth0",)
    with pytest.raises(NoSlotLeftError, match="raise the reconciler's --slots"):
        roomy.shape(last, path(last), BOTH)
    assert len({counted.pod_uid for counted in roomy.counters()}) == SLOTS
    heir = Shaper.start(slots=SLOTS, netns_paths=[Key(name, path(name)) for name in names], record=lab.RECORD)
    assert heir.adopted
    assert heir.found == {(name, path(name)): BOTH for name in first}
    assert all(heir.shape(name, path(name), BOTH).steps == () for name in first)
    heir.close()
    roomy.release(first[0], path(first[0]))
    assert roomy.shape(last, path(last), BOTH).steps
    delete(names)
    assert roomy.collect({}) == SLOTS
    after = held(roomy)
    print(f"ONCE before {before}, after {after}")
    assert replace(after, resident_kib=0) == replace(before, resident_kib=0)
    assert gone()


@pytest.mark.usefixtures("tidy")
def test_a_pod_deleted_and_made_again_at_the_same_name_is_another(roomy: Shaper) -> None:
    create(["again"])
    roomy.shape("first", path("again"), BOTH)
    delete(["again"])
    create(["again"])
    assert roomy.shape("second", path("again"), limits(egress="20M")).steps
    roomy.release("first", path("again"))
    assert scan_netns([Key("second", path("again"))]).held == {("second", path("again")): limits(egress="20M")}
    assert [counted.pod_uid for counted in roomy.counters()] == ["second"]
    delete(["again"])
    roomy.release("second", path("again"))
    assert roomy.counters() == []
