"""The Pod sandboxes of this node and their network namespaces, as the container runtime tells of them.

A Pod can have several sandboxes in its life, and two at once while one is torn down: same uid, another netns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

from reconciler import pods
from reconciler.nri.messages import PodSandbox
from reconciler.paths import canonical
from reconciler.pods import PodView
from webhook.contract import Limits

Key = tuple[str, str]
"""A Pod's uid and the path of its netns."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox: its id at the runtime, the path of its netns, and the Pod as it is known without the API server.

    That is as the runtime told of it when it began, unless something newer was learnt: see `Sandboxes`.
    """

    id: str
    pod: PodView
    netns_path: str

    @classmethod
    def from_nri(cls, pod: PodSandbox) -> Self:
        """A sandbox as the runtime tells of it."""
        view = pods.from_runtime(
            pod.uid,
            pod.namespace,
            pod.name,
            labels=pod.labels,
            annotations=pod.annotations,
            netns_path=pod.netns_path,
        )
        return cls(pod.id, view, canonical(pod.netns_path))

    @property
    def key(self) -> Key:
        """The Pod's uid and the netns: what the kernel's slot belongs to."""
        return self.pod.uid, self.netns_path


@dataclass(slots=True)
class Sandboxes:
    """The sandboxes of this node, by id. Those without a netns are on the host's network, as a rule."""

    _by_id: dict[str, Sandbox] = field(default_factory=dict)
    _started_without_netns: dict[str, Sandbox] = field(default_factory=dict)
    """Those that began without a netns."""
    _listed_without_netns: dict[str, Sandbox] = field(default_factory=dict)
    """Those that the last full list has without one; stopped ones too, whose netns is gone."""
    _stopped: dict[str, Key] = field(default_factory=dict)
    """Those whose end was told, and which may be listed still, by id."""

    def add(self, sandbox: Sandbox) -> None:
        """Learn of a sandbox, or learn it anew."""
        self._stopped.pop(sandbox.id, None)
        self._by_id.pop(sandbox.netns_path, None)  # one that was placed there
        (self._by_id if sandbox.netns_path else self._started_without_netns)[sandbox.id] = sandbox

    def stopped(self, sandbox: Sandbox) -> None:
        """The containers of a sandbox have ended, and none starts in it any more, whatever a list or the kernel says.

        containerd tells of this before it takes the network down. Where that fails, it keeps sandbox and netns.
        """
        self._stopped[sandbox.id] = sandbox.key

    def removed(self, sandbox_id: str) -> None:
        """A sandbox is gone: no list has it any more."""
        self._stopped.pop(sandbox_id, None)

    def has_stopped(self, key: Key) -> bool:
        """Whether it is the netns of one whose end was told."""
        return key in self._stopped.values()

    def id_of(self, told: Sandbox) -> str:
        """The id of a sandbox that the runtime tells of: the netns stands for it where the Pod was placed there."""
        placed = None if told.id in self._by_id else self._by_id.get(told.netns_path)
        return told.netns_path if placed is not None and placed.pod.uid == told.pod.uid else told.id

    def remove(self, sandbox_id: str) -> Sandbox | None:
        """Forget a sandbox; gives what was known of it.

        Of a Pod whose sandbox had a netns, those that the list had without are earlier ones that have ended.
        """
        listed = self._listed_without_netns.pop(sandbox_id, None)
        found = self._by_id.pop(sandbox_id, None)
        if found is not None:
            self._listed_without_netns = {
                key: each for key, each in self._listed_without_netns.items() if each.pod.uid != found.pod.uid
            }
        return found or self._started_without_netns.pop(sandbox_id, None) or listed

    def synchronize(self, sandboxes: Iterable[Sandbox]) -> None:
        """Take the runtime's full list. Who is known already stays, and as it is known.

        Also who is not in it, or without a netns: containerd leaves out a sandbox whose state it cannot tell at the
        moment, and 2.4 the netns of all those that 2.2 made (nri_api_linux.go, GetLinuxNamespaces). Whether a sandbox
        is gone is seen by its netns alone.
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
        """A Pod's netns was found by what it holds. True if it is news, and the Pod is known.

        That is if the runtime's list has it without a netns, or the API server tells of it: `view`. Which of its
        sandboxes it is cannot be told, so the netns stands for the id: it goes with the netns, or when the runtime
        names the netns after all.
        """
        uid, path = key
        pod = next((each.pod for each in self._listed_without_netns.values() if each.pod.uid == uid), view)
        if pod is None or self.at(path) is not None:
            return False
        self._by_id[path] = Sandbox(path, replace(pod, host_network=False), path)
        return True

    def started_without_netns(self) -> tuple[Sandbox, ...]:
        """Those that began without a netns, and are there still."""
        return tuple(self._started_without_netns.values())

    def uids(self) -> set[str]:
        """The Pods that any of them are of, also of those that may have ended."""
        held = (*self._by_id.values(), *self._started_without_netns.values(), *self._listed_without_netns.values())
        return {sandbox.pod.uid for sandbox in held}

    def listed_without_netns(self) -> tuple[Sandbox, ...]:
        """Of each Pod of which nothing else is known, one that the last full list has without a netns.

        Most of these have ended.
        """
        known = {sandbox.pod.uid for sandbox in (*self._by_id.values(), *self._started_without_netns.values())}
        listed = {sandbox.pod.uid: sandbox for sandbox in self._listed_without_netns.values()}
        return tuple(sandbox for uid, sandbox in listed.items() if uid not in known)

    def update(self, view: PodView) -> None:
        """Keep the API server's last word of a Pod that it tells of no longer, for as long as its sandboxes last."""
        for sandbox in self.of(view.uid):
            self._by_id[sandbox.id] = replace(sandbox, pod=view)

    def adopt(self, key: Key, limits: Limits) -> bool:
        """Limits were found in the kernel: that is what was asked for last, and newer than the runtime's word.

        False if there is no such sandbox.
        """
        adopting = [sandbox for sandbox in self.of(key[0]) if sandbox.key == key]
        for sandbox in adopting:
            self._by_id[sandbox.id] = replace(sandbox, pod=pods.with_limits(sandbox.pod, limits))
        return bool(adopting)

    def current(self, sandbox: Sandbox) -> Sandbox:
        """A sandbox as it is known by now, for whoever has held it for a while; as given if it is gone."""
        return self._by_id.get(sandbox.id, sandbox)

    def of(self, uid: str) -> tuple[Sandbox, ...]:
        """All sandboxes of a Pod, the oldest first."""
        return tuple(sandbox for sandbox in self._by_id.values() if sandbox.pod.uid == uid)

    def at(self, netns_path: str) -> Sandbox | None:
        """The sandbox whose netns this is."""
        return next((sandbox for sandbox in self._by_id.values() if sandbox.netns_path == netns_path), None)

    def __contains__(self, sandbox: Sandbox) -> bool:
        """Whether the sandbox is there still."""
        return sandbox.id in self._by_id

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(tuple(self._by_id.values()))
