"""The Pod sandboxes of this node and their network namespaces, as the container runtime reports them.

A Pod can have several sandboxes in its life, and two at once while one is torn down: same uid, different netns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from reconciler import pods
from reconciler.nri.messages import PodSandbox
from reconciler.paths import canonical
from reconciler.pods import PodView
from webhook.common.contract import Limits


class Key(NamedTuple):
    """Names what can be limited: a Pod and one of its network namespaces."""

    pod_uid: str
    netns_path: str

    @property
    def has_owner(self) -> bool:
        """Whether the Pod is known: an empty uid is of a netns whose owner could not be read."""
        return bool(self.pod_uid)

    @property
    def has_netns(self) -> bool:
        """Whether the netns is known: an empty path is of a sandbox that has none, or of which none is told."""
        return bool(self.netns_path)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox: its id at the runtime, the path of its netns, and the Pod as it is known without the API server.

    That is the Pod as the runtime reported it at its start, unless something newer is known: see `Sandboxes`.
    """

    id: str
    pod: PodView
    netns_path: str

    @classmethod
    def from_nri(cls, pod: PodSandbox) -> Self:
        """A sandbox as the runtime reports it."""
        return cls(pod.id, pods.from_runtime(pod), canonical(pod.netns_path))

    @property
    def key(self) -> Key:
        """The Pod's uid and the netns, which own a slot in the kernel."""
        return Key(self.pod.uid, self.netns_path)


@dataclass(slots=True)
class Sandboxes:
    """The sandboxes of this node, by id. Those without a netns are on the host's network, as a rule."""

    _by_id: dict[str, Sandbox] = field(default_factory=dict)
    _started_without_netns: dict[str, Sandbox] = field(default_factory=dict)
    """Those that the runtime started without a netns."""
    _listed_without_netns: dict[str, Sandbox] = field(default_factory=dict)
    """Those that the last full list has without a netns; also stopped ones, whose netns is gone."""
    _stopped: dict[str, Key] = field(default_factory=dict)
    """Those whose end was reported, and which may still be listed, by id."""

    def add(self, sandbox: Sandbox) -> None:
        """Add a sandbox, or replace what was known of it."""
        self._stopped.pop(sandbox.id, None)
        self._by_id.pop(sandbox.netns_path, None)  # a sandbox that `place` added for this netns
        (self._by_id if sandbox.netns_path else self._started_without_netns)[sandbox.id] = sandbox

    def on_stopped(self, sandbox: Sandbox) -> None:
        """The containers of a sandbox have ended, and none will start in it, whatever a list or the kernel says.

        containerd reports this before it removes the network. If the removal fails, it keeps sandbox and netns.
        """
        self._stopped[sandbox.id] = sandbox.key

    def on_removed(self, sandbox_id: str) -> None:
        """A sandbox is gone: no list has it any more."""
        self._stopped.pop(sandbox_id, None)

    def has_stopped(self, key: Key) -> bool:
        """Whether the end of the sandbox with this key was reported."""
        return key in self._stopped.values()

    def id_of(self, told: Sandbox) -> str:
        """The id that a reported sandbox has here: its netns path if `place` added it, else the runtime's id."""
        placed = None if told.id in self._by_id else self._by_id.get(told.netns_path)
        return told.netns_path if placed is not None and placed.pod.uid == told.pod.uid else told.id

    def remove(self, sandbox_id: str) -> Sandbox | None:
        """Forget a sandbox; returns what was known of it.

        If it had a netns, the Pod's sandboxes listed without a netns are earlier ones that have ended.
        """
        listed = self._listed_without_netns.pop(sandbox_id, None)
        found = self._by_id.pop(sandbox_id, None)
        if found is not None:
            self._listed_without_netns = {
                key: each for key, each in self._listed_without_netns.items() if each.pod.uid != found.pod.uid
            }
        return found or self._started_without_netns.pop(sandbox_id, None) or listed

    def synchronize(self, sandboxes: Iterable[Sandbox]) -> None:
        """Take the runtime's full list. Sandboxes that are already known stay unchanged.

        Also if the list lacks them or their netns: containerd leaves out a sandbox whose state it cannot read at the
        moment, and 2.4 the netns of all those that 2.2 made (nri_api_linux.go, GetLinuxNamespaces). Only its netns
        shows whether a sandbox is gone.
        """
        listed = list(sandboxes)
        self._stopped = {each.id: self._stopped[each.id] for each in listed if each.id in self._stopped}
        told = [sandbox for sandbox in listed if sandbox.id not in self._stopped]
        for sandbox in told:
            if sandbox.netns_path and sandbox.id not in self._by_id:
                placed = self._by_id.pop(sandbox.netns_path, sandbox)
                self._by_id[sandbox.id] = replace(placed if placed.key == sandbox.key else sandbox, id=sandbox.id)
        self._listed_without_netns = {sandbox.id: sandbox for sandbox in told if sandbox.id not in self._by_id}
        started = self._started_without_netns
        self._started_without_netns = {key: started[key] for key in started.keys() & self._listed_without_netns.keys()}

    def place(self, key: Key, view: PodView | None) -> bool:
        """A Pod's netns was found by what it holds. True if that is new, and the Pod is known.

        The Pod is known if the runtime's list has it without a netns, or the API server reports it (`view`). Which of
        its sandboxes it is remains unknown, so the netns path serves as the id, until the netns is gone or the runtime
        names it after all.
        """
        uid, path = key
        pod = next((each.pod for each in self._listed_without_netns.values() if each.pod.uid == uid), view)
        if pod is None or self.at(path) is not None:
            return False
        self._by_id[path] = Sandbox(path, replace(pod, host_network=False), path)
        return True

    def started_without_netns(self) -> tuple[Sandbox, ...]:
        """Those that started without a netns, and still exist."""
        return tuple(self._started_without_netns.values())

    def uids(self) -> set[str]:
        """The uids of the Pods of all sandboxes, including those that may have ended."""
        held = (*self._by_id.values(), *self._started_without_netns.values(), *self._listed_without_netns.values())
        return {sandbox.pod.uid for sandbox in held}

    def listed_without_netns(self) -> tuple[Sandbox, ...]:
        """For each Pod without any other known sandbox: one that the last full list has without a netns.

        Most of these have ended.
        """
        known = {sandbox.pod.uid for sandbox in (*self._by_id.values(), *self._started_without_netns.values())}
        listed = {sandbox.pod.uid: sandbox for sandbox in self._listed_without_netns.values()}
        return tuple(sandbox for uid, sandbox in listed.items() if uid not in known)

    def keep_last_view(self, view: PodView) -> None:
        """Keep the last state of a Pod that the API server no longer has, for as long as its sandboxes last."""
        for sandbox in self.of(view.uid):
            self._by_id[sandbox.id] = replace(sandbox, pod=view)

    def adopt(self, key: Key, limits: Limits) -> bool:
        """Limits were found in the kernel: they are what was asked for last, and newer than the runtime's report.

        False if there is no such sandbox.
        """
        adopting = [sandbox for sandbox in self.of(key.pod_uid) if sandbox.key == key]
        for sandbox in adopting:
            self._by_id[sandbox.id] = replace(sandbox, pod=pods.with_limits(sandbox.pod, limits))
        return bool(adopting)

    def current(self, sandbox: Sandbox) -> Sandbox:
        """The current state of a sandbox, whose copy the caller may have held for a while; as given if it is gone."""
        return self._by_id.get(sandbox.id, sandbox)

    def of(self, uid: str) -> tuple[Sandbox, ...]:
        """All sandboxes of a Pod, the oldest first."""
        return tuple(sandbox for sandbox in self._by_id.values() if sandbox.pod.uid == uid)

    def at(self, netns_path: str) -> Sandbox | None:
        """The sandbox with this netns."""
        return next((sandbox for sandbox in self._by_id.values() if sandbox.netns_path == netns_path), None)

    def __contains__(self, sandbox: Sandbox) -> bool:
        """Whether the sandbox is still known."""
        return sandbox.id in self._by_id

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(tuple(self._by_id.values()))
