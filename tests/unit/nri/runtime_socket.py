"""What the tests of the transport share: a runtime on a Unix socket, and a handler that takes notes."""

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.nri.messages import PodSandbox
from reconciler.nri.transport import NriPlugin
from reconciler.nri.ttrpc import Response
from tests.unit.nri.runtime_side import RuntimeSide, configure_request, synchronize_request
from tests.waiting import PATIENCE_S, background

POD = PodSandbox("sandbox", "test-0", "uid-0", "default", netns_path="/run/netns/x")
OTHER = PodSandbox("sandbox-1", "test-1", "uid-1", "default", netns_path="/run/netns/y")


@dataclass
class Recorder:
    """A handler that notes what it hears, after doing what the test wants of it."""

    heard: list[tuple[str, object]] = field(default_factory=list)
    does: Callable[[str], Awaitable[None]] | None = None

    async def _hear(self, what: str, about: object) -> None:
        if self.does:
            await self.does(what)
        self.heard.append((what, about))

    async def on_synchronize(self, pods: Sequence[PodSandbox]) -> None:
        await self._hear("synchronize", [pod.name for pod in pods])

    async def on_run(self, pod: PodSandbox) -> None:
        await self._hear("run", pod.name)

    def on_hook_timeout(self, pod: PodSandbox) -> None:
        self.heard.append(("late", pod.name))

    async def on_stop(self, pod: PodSandbox) -> None:
        await self._hear("stop", pod.name)

    async def on_remove(self, pod: PodSandbox) -> None:
        await self._hear("remove", pod.name)


def waiting(what: str, *gates: asyncio.Event) -> Callable[[str], Awaitable[None]]:
    """What a Recorder does that hears this: it waits, the first time for the first of these, and so on."""
    left = iter(gates)

    async def does(heard: str) -> None:
        if heard == what and (gate := next(left, None)):
            await gate.wait()

    return does


@dataclass
class Connection:
    """An accepted connection, seen from the runtime."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    side: RuntimeSide = field(default_factory=RuntimeSide)

    async def answer(self) -> Response:
        """The next answer of the plugin."""
        while True:
            data = await self.reader.read(65_536)
            assert data, "the plugin closed the connection"
            for response in self.side.responses(data).values():
                return response

    async def call(self, method: str, payload: bytes) -> Response:
        self.writer.write(self.side.call(method, payload))
        return await self.answer()

    async def start(self, *pods: PodSandbox, request_timeout_ms: int = 2000) -> None:
        """All that a runtime does before it calls hooks."""
        self.side.read(await self.reader.read(65_536))
        self.writer.write(self.side.registered())
        await self.call("Configure", configure_request(request_timeout_ms=request_timeout_ms))
        await self.call("Synchronize", synchronize_request(*pods))

    async def ended(self) -> None:
        while await self.reader.read(65_536):
            pass


class Runtime:
    """A runtime that listens on a socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._accepted: asyncio.Queue[Connection] = asyncio.Queue()
        self._connections: list[Connection] = []
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def accept(self) -> Connection:
        return await asyncio.wait_for(self._accepted.get(), PATIENCE_S)

    async def close(self) -> None:
        for connection in self._connections:
            connection.writer.close()
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self._connections.append(connection)
        await self._accepted.put(connection)


@dataclass
class Waits:
    """A sleep that lasts no time, and remembers for how long it should have lasted."""

    seconds: list[float] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    enough_after: int = 1

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) >= self.enough_after:
            self.enough.set()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(plugin: NriPlugin) -> AsyncIterator[NriPlugin]:
    """The plugin at work, for at most as long as a test may take."""
    async with background(plugin.run()), asyncio.timeout(PATIENCE_S):
        yield plugin


def bytes_unread(connected: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(connected, termios.FIONREAD, bytes(4)), sys.byteorder)
