"""Which Pod has which network namespace, as the container runtime tells.

A Pod can have several sandboxes in its life, and two at once while one is torn down: same uid, another netns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

from reconciler import pods
from reconciler.nri.messages import PodSandbox
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
    def told(cls, pod: PodSandbox) -> Self:
        """A sandbox as the runtime tells of it."""
        view = pods.from_runtime(
            pod.uid,
            pod.namespace,
            pod.name,
            labels=pod.labels,
            annotations=pod.annotations,
            netns_path=pod.netns_path,
        )
        return cls(pod.id, view, pod.netns_path)

    @property
    def key(self) -> Key:
        """The Pod's uid and the netns: what the kernel's slot belongs to."""
        return self.pod.uid, self.netns_path


@dataclass(slots=True)
class Sandboxes:
    """The sandboxes of this node, by id; those on the host's network are not kept."""

    _by_id: dict[str, Sandbox] = field(default_factory=dict)

    def add(self, sandbox: Sandbox) -> None:
        """Learn of a sandbox, or learn it anew."""
        if sandbox.netns_path:
            self._by_id[sandbox.id] = sandbox

    def remove(self, sandbox_id: str) -> Sandbox | None:
        """Forget a sandbox; gives what was known of it."""
        return self._by_id.pop(sandbox_id, None)

    def replace(self, sandboxes: Iterable[Sandbox]) -> tuple[Sandbox, ...]:
        """Take the runtime's full list; gives those that are gone. What was learnt of the others stays."""
        before = self._by_id
        self._by_id = {sandbox.id: before.get(sandbox.id, sandbox) for sandbox in sandboxes if sandbox.netns_path}
        return tuple(sandbox for sandbox in before.values() if sandbox.id not in self._by_id)

    def learn(self, view: PodView) -> None:
        """Keep the API server's last word of a Pod that it tells of no longer, for as long as its sandboxes last."""
        for sandbox in self.of(view.uid):
            self._by_id[sandbox.id] = replace(sandbox, pod=view)

    def adopt(self, key: Key, limits: Limits) -> bool:
        """Limits were found in the kernel: that is what was asked for last, and newer than the runtime's word.

        False if there is no such sandbox.
        """
        adopting = [sandbox for sandbox in self.of(key[0]) if sandbox.key == key]
        for sandbox in adopting:
            self._by_id[sandbox.id] = replace(sandbox, pod=pods.asking(sandbox.pod, limits))
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
