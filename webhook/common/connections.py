"""Bounds the number of open connections: at the bound, the least useful one makes room.

A newcomer is a connection that has sent no request yet, also while TLS is still to come. A client that only connects
stays one; an API server's connection is one for some milliseconds. So at the bound the oldest newcomer is closed once
it has had enough time to send a request. Further connections wait in the kernel's queue until then, and no connection
of a burst is cut off, however large it is. Only where newcomers are few is another connection closed at once: the one
idle for longest, else the one whose request has been arriving for longest, and never one that waits for its answer.
"""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

_Handshake: TypeAlias = asyncio.Task[None]


@dataclass(slots=True)
class _Newcomer:
    """A connection without a request so far: its handshake or aiohttp's handler, and when it came (monotonic)."""

    who: _Handshake | web.RequestHandler
    since_s: float


class Connections:
    """The connections of a server: at most `most`; a newcomer has `first_request_s` to send a request."""

    def __init__(self, server: web.Server, most: int, first_request_s: float) -> None:
        self._server = server
        self._most = most
        self._first_request_s = first_request_s
        self._handshakes: set[_Handshake] = set()
        # In order of arrival.
        self._new: dict[socket.socket, _Newcomer] = {}
        # In the order of their last answers.
        self._idle: dict[web.RequestHandler, None] = {}
        # In the order in which their requests began.
        self._busy: dict[web.RequestHandler, web.BaseRequest] = {}
        # For ending connections. A transport may be closing already, and wait for ever for a client that reads nothing:
        # aiohttp or asyncio has let go of it then, and `abort` does nothing or fails.
        self._sockets: dict[web.RequestHandler, socket.socket] = {}

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self._server.connections) + len(self._handshakes)

    def handshake(self, connection: socket.socket, handshake: Coroutine[None, None, None]) -> None:
        """Run the coroutine that does the handshake of a new connection."""

        def over(task: _Handshake) -> None:
            self._handshakes.discard(task)
            newcomer = self._new.get(connection)
            if newcomer is not None and newcomer.who is task:  # it was never established
                del self._new[connection]
            if task.cancelled():  # perhaps before its first step
                connection.close()

        loop = asyncio.get_running_loop()
        task = loop.create_task(handshake)
        self._handshakes.add(task)
        self._new[connection] = _Newcomer(task, loop.time())
        task.add_done_callback(over)

    def established(self, connection: web.RequestHandler, its_socket: socket.socket) -> None:
        """TLS is established and aiohttp has the connection, perhaps with a request already."""
        self._sockets[connection] = its_socket
        if connection in self._busy or connection in self._idle:
            self._new.pop(its_socket, None)
        elif its_socket in self._new:
            self._new[its_socket].who = connection
        if len(self._sockets) > 2 * self._most:
            self._forget_closed()

    def cancel_handshakes(self) -> None:
        """Cancel the handshakes that are not finished."""
        for task in self._handshakes:
            task.cancel()

    def request_started(self, request: web.BaseRequest) -> None:
        """A request has arrived, at least its head."""
        connection = request.protocol
        self._idle.pop(connection, None)
        if (its_socket := self._sockets.get(connection)) is not None:
            self._new.pop(its_socket, None)
        self._busy[connection] = request

    def request_finished(self, connection: web.RequestHandler) -> None:
        """The connection's request has been answered."""
        self._busy.pop(connection, None)
        self._idle[connection] = None
        if len(self._idle) > self._most:
            self._forget_closed()

    async def wait_for_room(self) -> None:
        """Return when one more connection is allowed."""
        while self.number >= self._most:
            self._end_one()
            # The loop takes a few rounds to see it gone. When all wait for answers, one of them gets its answer before
            # long.
            await asyncio.sleep(0.001)

    def _end_one(self) -> None:
        self._forget_closed()
        oldest = next(iter(self._new.values()), None)
        if oldest is not None and asyncio.get_running_loop().time() - oldest.since_s >= self._first_request_s:
            if isinstance(oldest.who, asyncio.Task):
                oldest.who.cancel()
            else:
                self._end(oldest.who)
            return
        if 2 * len(self._new) >= self._most:
            # A burst or a flood: API servers' idle connections are kept, as they serve API servers through either.
            return
        least = next(iter(self._idle), None)
        if least is None:
            least = next((each for each, request in self._busy.items() if not request.content.is_eof()), None)
        if least is not None:
            self._end(least)

    def _end(self, connection: web.RequestHandler) -> None:
        its_socket, transport = self._sockets.get(connection), connection.transport
        if its_socket is not None:
            with contextlib.suppress(OSError):  # the client was quicker
                its_socket.shutdown(socket.SHUT_RDWR)
        if transport is not None and not transport.is_closing():  # it may have paused reading, and miss the end
            transport.abort()

    def _forget_closed(self) -> None:
        established = set(self._server.connections)
        self._idle = {each: None for each in self._idle if each in established}
        self._sockets = {each: held for each, held in self._sockets.items() if each in established}
        self._new = {
            its_socket: each
            for its_socket, each in self._new.items()
            if isinstance(each.who, asyncio.Task) or each.who in established
        }
