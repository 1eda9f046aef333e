"""The plugin on the runtime's Unix socket: connects, registers, calls the handler, and connects again after an end.

Whatever fails on this side, the Pod starts (fail-open): an add-on that has failed must not stop a node.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from reconciler.nri.errors import ProtocolError
from reconciler.nri.messages import Hook, PodSandbox
from reconciler.nri.plugin import (
    DEFAULT_REQUEST_TIMEOUT_NS,
    PLUGIN_INDEX,
    PLUGIN_NAME,
    Configured,
    Event,
    Plugin,
    PodEvent,
    Registered,
    RegistrationRefused,
    Synchronized,
)
from reconciler.paths import NRI_SOCKET
from webhook.common.backoff import delay_s

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

FINISH_S: Final = DEFAULT_REQUEST_TIMEOUT_NS / 1e9 * 4 / 5
"""How long calls may go on at the end of the process: the deadline of a hook, unless the runtime has another."""
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 2.0
"""Between connections. Short, as Pods that start in between start without a limit, and a try costs next to nothing."""
REGISTER_WITHIN_S: Final = 30.0
"""Accepts are serial in the runtime, and each plugin before this one may take 5 s to register.

The replay, which comes next, has no timeout. A runtime that waits for its own lock to begin it cannot give up: it would
take the lock for a connection that is gone, and another for the next.
"""
_READ_BYTES: Final = 65_536
_REPLAY_AWAITED: Final = (
    "it has taken the plugin, but not told of its Pods yet; a container that is being stopped can hold that up for its "
    "whole grace period (containerd#14083)"
)
_CUT_SHORT: Final = (
    "it took the plugin and closed the connection before it told of its Pods; its log says why ('failed to "
    "synchronize': of a list that it cannot split, as of containers with megabytes of environment)"
)
_CUT_SHORT_WITHIN_S: Final = 30.0
"""A list that cannot be split ends a connection at once; a longer connection was held up until the runtime ended."""
_CHANCE: Final = 1
"""So many in a row may be due to a runtime being stopped, and are no sign of a lasting problem."""


class Handler(Protocol):
    """Handles the runtime's events about Pods.

    The runtime stops all its sandbox and container calls on the node meanwhile: return within milliseconds, and do not
    block the event loop. After the deadline the runtime is answered, and the handler goes on. So one call may overlap
    the next, but calls about one sandbox run one after the other, in order, and later calls wait for `on_synchronize`.
    """

    async def on_synchronize(self, pods: Sequence[PodSandbox], /) -> None:
        """All Pods of the node, at each connect. Stopped sandboxes are among them, so two may have one uid."""

    async def on_run(self, pod: PodSandbox, /) -> None:
        """The Pod's network is set up, and none of its containers has started."""

    def on_hook_timeout(self, pod: PodSandbox, /) -> None:
        """`on_run` has passed its deadline: the runtime goes on, and starts the Pod's containers."""

    async def on_stop(self, pod: PodSandbox, /) -> None:
        """The Pod's containers have ended; its network is about to be taken down."""

    async def on_remove(self, pod: PodSandbox, /) -> None:
        """The sandbox is gone, its network namespace too."""


class _RefusedError(Exception):
    """The runtime does not want the plugin."""


_Handling = asyncio.Task[None]
"""A handler at work."""


@dataclass(frozen=True, slots=True)
class _Connection:
    plugin: Plugin
    writer: asyncio.StreamWriter
    limit: asyncio.Timeout

    def send(self) -> None:
        """Send the plugin's pending bytes; nothing once the connection has ended."""
        outgoing = self.plugin.take_outgoing()
        if not self.writer.is_closing():
            self.writer.write(outgoing)

    def keep(self) -> bool:
        """Lift the timeout, now that the runtime has accepted the plugin. False if the connection has ended already."""
        if self.writer.is_closing() or self.limit.expired():
            return False
        self.limit.reschedule(None)
        return True


class NriPlugin:
    """One plugin for as long as the process lives; `connected` is true while the runtime calls it."""

    def __init__(
        self,
        handler: Handler,
        *,
        socket_path: str = NRI_SOCKET,
        register_within_s: float = REGISTER_WITHIN_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fraction: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sleep` and `fraction` (0 to 1) make the wait between connections; `monotonic` says how long one lasted."""
        self.socket_path = socket_path
        self.connected = False
        self.registered = False
        """Whether the runtime has accepted the plugin; before `connected` is true, it has not yet listed its Pods.

        False for a runtime that keeps closing the connection in between: its list is not waited for.
        """
        self.trouble = "it has not been tried yet: first the shaper's program is loaded"
        """Why it is not connected, as far as known from a try."""
        self._handler = handler
        self._register_within_s = register_within_s
        self._sleep = sleep
        self._fraction = fraction
        self._monotonic = monotonic
        self._tasks: set[asyncio.Task[Any]] = set()
        self._latest: dict[str, _Handling] = {}
        self._replay: _Handling | None = None
        self._taken_at: float | None = None
        self._cut_short = 0

    async def run(self, *, after: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve the runtime until cancelled, then close the connection and cancel what the handler still does.

        `after` is awaited before the first connection, as a connection may make the runtime let Pods start.
        """
        failures = 0
        told = ""
        try:
            if after is not None:
                await after()
            while True:
                reason = self.trouble = await self._connect_and_serve()
                failures = 1 if self.connected else failures + 1
                if self.connected or reason != told:
                    logger.warning("NRI at %s: %s; connecting again", self.socket_path, reason)
                    told = reason
                self.connected = self.registered = False
                await self._sleep(self._delay_s(failures))
        finally:
            self.connected = self.registered = False
            running = list(self._tasks)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def finish(self, within_s: float = FINISH_S) -> None:
        """Wait for the calls at work and their answers, before `run` is cancelled: cut off, their Pods start unlimited.

        Calls that come meanwhile are served too, within the same time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    def _delay_s(self, failures: int) -> float:
        return delay_s(failures, FIRST_DELAY_S, LONGEST_DELAY_S) * (0.5 + self._fraction() / 2)

    async def _connect_and_serve(self) -> str:
        """Serves one connection. Returns why it ended, in words."""
        plugin, self._taken_at = Plugin(), None
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket_path)
        except FileNotFoundError:
            return (
                "no such socket: is NRI on, and open to plugins from outside (containerd: disable = false and "
                "disable_connections = false under io.containerd.nri.v1.nri; CRI-O: enable_nri = true under crio.nri)?"
            )
        except PermissionError:
            return "cannot connect: permission denied; where SELinux enforces, seLinuxOptions: {type: spc_t} is needed"
        except OSError as error:
            return f"cannot connect: {error.strerror or error}; is the container runtime up?"
        try:
            async with asyncio.timeout(self._register_within_s) as limit:
                await self._serve(reader, _Connection(plugin, writer, limit))
        except TimeoutError:
            return f"not registered within {self._register_within_s:g} s"
        except OSError as error:
            ended = f"connection lost: {error.strerror or error}"
        except (ProtocolError, _RefusedError) as error:
            return str(error)
        else:
            ended = "the runtime closed the connection"
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return self._why_ended(ended)

    def _why_ended(self, ended: str) -> str:
        """Counts and reports a connection that was cut short; else returns `ended`."""
        if self.connected or self._taken_at is None:
            return ended
        if self._monotonic() - self._taken_at > _CUT_SHORT_WITHIN_S:
            self._cut_short = 0
            return ended
        self._cut_short += 1
        return _CUT_SHORT

    async def _serve(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        connection.plugin.register()
        while True:
            connection.send()
            await connection.writer.drain()
            data = await reader.read(_READ_BYTES)
            if not data:
                return
            for event in connection.plugin.feed(data):
                self._dispatch(event, connection)

    def _dispatch(self, event: Event, connection: _Connection) -> None:
        match event:
            case Synchronized() | PodEvent():
                self._spawn(self._answer(event, self._start(event), connection))
            case RegistrationRefused(code, message):
                raise _RefusedError(f"the runtime refuses the plugin: {message} (code {code})")
            case Configured(configure):
                logger.info("NRI: %s %s", configure.runtime_name, configure.runtime_version)
                self._taken_at = self._monotonic() if connection.keep() else None
                self.registered = self._taken_at is not None and self._cut_short <= _CHANCE
                self.trouble = _REPLAY_AWAITED if self._cut_short <= _CHANCE else _CUT_SHORT
            case Registered():
                logger.debug("NRI: registered as %s-%s", PLUGIN_INDEX, PLUGIN_NAME)
            case _:
                logger.info("NRI: the runtime is shutting down")

    def _start(self, event: Synchronized | PodEvent) -> _Handling:
        """Starts the handler, behind those that it must not overtake."""
        if isinstance(event, Synchronized):
            at_work = [*self._latest.values(), *([self._replay] if self._replay else [])]
            self._replay = self._spawn(self._call(event, at_work))
            return self._replay
        sandbox = event.pod.id
        before = [task for task in (self._latest.get(sandbox), self._replay) if task]
        task = self._spawn(self._call(event, before))
        self._latest[sandbox] = task
        task.add_done_callback(lambda done: self._latest.get(sandbox) is done and self._latest.pop(sandbox))
        return task

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A task that is referenced until it ends, and is cancelled with the plugin."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _call(self, event: Synchronized | PodEvent, before: Sequence[_Handling]) -> None:
        """Runs the handler. Logs its error rather than raising it: the answer may already have been sent."""
        if before:
            await asyncio.wait(before)
        try:
            match event:
                case Synchronized():
                    await self._handler.on_synchronize(await _decoded(event))
                case PodEvent(hook=Hook.RUN_POD_SANDBOX):
                    await self._handler.on_run(event.pod)
                case PodEvent(hook=Hook.STOP_POD_SANDBOX):
                    await self._handler.on_stop(event.pod)
                case _:
                    await self._handler.on_remove(event.pod)
        except Exception:  # the Pod is to start even if the handler fails
            logger.exception("NRI: %s failed", _describe(event))

    async def _answer(self, event: Synchronized | PodEvent, handling: _Handling, connection: _Connection) -> None:
        """Answers the runtime when the handler is done, or at the deadline."""
        deadline_seconds = event.deadline_ns / 1e9
        await asyncio.wait({handling}, timeout=deadline_seconds)
        if not handling.done():
            logger.warning("NRI: %s takes longer than %.3f s: going on", _describe(event), deadline_seconds)
            if isinstance(event, PodEvent) and event.hook is Hook.RUN_POD_SANDBOX:
                self._handler.on_hook_timeout(event.pod)
        connection.plugin.accept(event.stream)
        connection.send()
        if isinstance(event, Synchronized) and connection.keep():
            self.connected = self.registered = True
            self._cut_short = 0


async def _decoded(event: Synchronized) -> list[PodSandbox]:
    """The Pods of the replay, read one at a time: a large one takes tens of milliseconds, and others wait for the loop.

    One that cannot be read does not affect the others.
    """
    pods = []
    left_out = ["large Pods take too much memory"] * event.left_out
    for data in event.pods:
        try:
            pods.append(PodSandbox.decode(data))
        except ProtocolError as error:
            left_out.append(str(error))
        await asyncio.sleep(0)
    if left_out:
        logger.warning("NRI: %d Pods of the replay are left out: %s", len(left_out), left_out[0])
    return pods


def _describe(event: Synchronized | PodEvent) -> str:
    if isinstance(event, Synchronized):
        return f"the replay of {len(event.pods)} Pods"
    return f"{event.hook.method} of {event.pod.namespace}/{event.pod.name}"
