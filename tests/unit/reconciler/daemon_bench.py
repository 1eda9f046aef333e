"""What a daemon in a test talks to: an API server without Pods, what would tell of changes, and ports that are free."""

import asyncio
import os

from reconciler.daemon import Settings
from tests.ports import free_ports


class Api:
    """An API server without Pods, which takes a moment for each event. It may also leave lists unanswered."""

    def __init__(self, *, answers=True):
        self.refusal, self.created, self.closed = None, [], False
        self._answers = answers

    async def connect(self, **_):
        """In the place of KubeApi: the server is its own client."""
        return self

    async def create(self, _path, body):
        await asyncio.sleep(0.01)
        self.created.append(body["message"])

    async def read_list(self, _path, params, _take):
        assert params["fieldSelector"].startswith("spec.nodeName=node1,")
        if not self._answers:
            await asyncio.Event().wait()
        if self.refusal:
            raise self.refusal
        return {"metadata": {"resourceVersion": "1"}, "items": []}

    async def watch(self, _path, _params, on_open):
        on_open()
        await asyncio.Event().wait()
        yield

    async def close(self):
        self.closed = True


class Monitor:
    """Hears what a test says."""

    def __init__(self):
        self.closed = False
        self._ends, self._said = os.pipe(), []

    def fileno(self):
        return self._ends[0]

    def says(self, changes):
        self._said.append(changes)
        os.write(self._ends[1], b".")

    def read(self):
        os.read(self._ends[0], 1)
        return self._said.pop(0)

    def watch(self, netns_path):
        pass

    def unwatch(self, netns_path):
        pass

    def close(self):
        self.closed = True
        for end in self._ends:
            os.close(end)


def settings_in(folder):
    """Of a daemon whose runtime's socket is in this folder."""
    port, probe_port = free_ports(2)
    return Settings("node1", folder / "nri.sock", "127.0.0.1", port, probe_port, slots=7)
