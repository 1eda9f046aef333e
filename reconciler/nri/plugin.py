"""An NRI plugin without its socket: bytes in, events out, and bytes to send in answer.

Source: containerd/nri v0.12.3, pkg/adaptation/plugin.go (the runtime's side) and pkg/stub/stub.go (a plugin's), and
containerd/ttrpc v1.2.9, server.go. The order on a connection: RegisterPlugin from here; Configure, Synchronize and then
hooks from the runtime. Configure may overtake the answer to RegisterPlugin, since they travel on two connections.

Before NRI 0.12 (containerd 2.3) the hooks of Pods have no methods of their own: all come as StateChange. A runtime that
gets an error for a hook fails the Pod.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from reconciler.nri.errors import ProtocolError
from reconciler.nri.messages import (
    MAX_PODS,
    PLUGIN_SERVICE,
    RUNTIME_SERVICE,
    Configure,
    Hook,
    PodSandbox,
    Synchronize,
    decode_pod,
    decode_state_change,
    encode_configure_response,
    encode_register_plugin,
    encode_synchronize_response,
)
from reconciler.nri.mux import PLUGIN_CONNECTION, RUNTIME_CONNECTION, Demultiplexer, frames
from reconciler.nri.ttrpc import Assembler, Code, Message, MessageType, Request, Response

PLUGIN_NAME: Final = "ipvlan-bandwidth"
PLUGIN_INDEX: Final = "10"
"""Two digits: the runtime calls plugins in the order of these."""
DEFAULT_REQUEST_TIMEOUT_NS: Final = 2_000_000_000
"""DefaultPluginRequestTimeout in pkg/api/timeouts.go."""
MAX_UNANSWERED: Final = 1024
"""How many calls may wait for an answer at once. A runtime has one; the bound is against a peer that is no runtime."""
LARGE_POD_BYTES: Final = 16 * 2**10
"""A Pod usually has one to three KiB; its author can make it a MiB, by labels and annotations."""
MAX_LARGE_PODS_BYTES: Final = 128 * 2**20
"""How many bytes of large Pods are kept of a replay: a hundred Pods of a MiB."""
_REGISTER_STREAM: Final = 1
# Without the name that was called: it can be as long as a message, and an answer with it longer.
_UNKNOWN_SERVICE: Final = Response(code=Code.UNIMPLEMENTED, message="unknown service")
_UNKNOWN_METHOD: Final = Response(code=Code.UNIMPLEMENTED, message="unknown method")


@dataclass(frozen=True, slots=True)
class Registered:
    """The runtime has accepted the plugin."""


@dataclass(frozen=True, slots=True)
class RegistrationRefused:
    """The runtime has refused the plugin, and leaves the connection open: close it."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Configured:
    """The runtime has described itself; the subscription is on its way to it."""

    configure: Configure


@dataclass(frozen=True, slots=True)
class Synchronized:
    """The replay is complete: all Pods of the node. Answer it by `accept` with `stream`.

    `deadline_ns` is how long the answer may take: four fifths of what the runtime waits before it drops the plugin.
    Decode `pods` with PodSandbox.decode. `left_out` others were too large.
    """

    stream: int
    deadline_ns: int
    pods: tuple[bytes, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class PodEvent:
    """A hook of one Pod, to be answered within the deadline, as Synchronized is. The runtime waits with this Pod."""

    stream: int
    deadline_ns: int
    hook: Hook
    pod: PodSandbox


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The runtime is about to stop; the end of the connection follows."""


Event = Registered | RegistrationRefused | Configured | Synchronized | PodEvent | ShutDown


@dataclass(slots=True)
class _Replay:
    """The Pods of the chunks so far."""

    pods: list[bytes] = field(default_factory=list)
    left_out: int = 0
    large_bytes: int = 0

    def keep(self, pods: Iterable[bytes]) -> None:
        """Add a chunk's Pods. Raises ProtocolError for more than MAX_PODS."""
        for pod in pods:
            if len(pod) > LARGE_POD_BYTES:
                if self.large_bytes + len(pod) > MAX_LARGE_PODS_BYTES:
                    self.left_out += 1
                    continue
                self.large_bytes += len(pod)
            self.pods.append(pod)
        if len(self.pods) > MAX_PODS:
            raise ProtocolError(f"NRI: more than {MAX_PODS} Pods in the chunks of Synchronize")


class Plugin:
    """The state of one connection; a new connection needs a new one.

    After each call of `register`, `feed` and `accept`, send what `take_outgoing` returns.
    """

    def __init__(self) -> None:
        self._outgoing = bytearray()
        self._demultiplexer = Demultiplexer()
        self._assemblers = {PLUGIN_CONNECTION: Assembler(), RUNTIME_CONNECTION: Assembler()}
        self._registering = False
        self._last_stream = 0
        self._request_timeout_ns = DEFAULT_REQUEST_TIMEOUT_NS
        self._replay = _Replay()
        self._unanswered: dict[int, Response] = {}

    def register(self) -> None:
        """Register the plugin: the first message on a connection, and due within 5 s of its start."""
        self._registering = True
        request = Request(RUNTIME_SERVICE, "RegisterPlugin", encode_register_plugin(PLUGIN_NAME, PLUGIN_INDEX))
        self._send(RUNTIME_CONNECTION, Message(_REGISTER_STREAM, MessageType.REQUEST, request.encode()))

    def feed(self, data: bytes) -> list[Event]:
        """The events in the bytes. Raises ProtocolError: close the connection then."""
        events: list[Event | None] = []
        for connection, piece in self._demultiplexer.feed(data):
            # Data for a connection that was not opened is dropped, as by the runtime's own multiplexer.
            assembler = self._assemblers.get(connection)
            messages = assembler.feed(piece) if assembler else []
            events.extend(self._receive(connection, message) for message in messages)
        return [event for event in events if event]

    def accept(self, stream: int) -> None:
        """Answer a stream's call with success, once."""
        self._answer(stream, self._unanswered.pop(stream))

    def take_outgoing(self) -> bytes:
        """The bytes to send now, b"" for none; each byte is returned once."""
        outgoing = bytes(self._outgoing)
        self._outgoing.clear()
        return outgoing

    def _receive(self, connection: int, message: Message) -> Event | None:
        if connection == RUNTIME_CONNECTION:
            return self._receive_response(message)
        if message.type != MessageType.REQUEST:
            return None
        if message.stream % 2 == 0 or message.stream <= self._last_stream:
            raise ProtocolError(f"ttRPC: request on stream {message.stream} after {self._last_stream}: odd and rising")
        self._last_stream = message.stream
        return self._receive_request(message.stream, Request.decode(message.payload))

    def _receive_response(self, message: Message) -> Event | None:
        if not self._registering or message.type != MessageType.RESPONSE or message.stream != _REGISTER_STREAM:
            return None
        self._registering = False
        response = Response.decode(message.payload)
        return Registered() if response.code == Code.OK else RegistrationRefused(response.code, response.message)

    def _receive_request(self, stream: int, request: Request) -> Event | None:
        if request.service != PLUGIN_SERVICE:
            self._answer(stream, _UNKNOWN_SERVICE)
            return None
        if request.method == "Configure":
            return self._configure(stream, Configure.decode(request.payload))
        if request.method == "Synchronize":
            return self._synchronize(stream, request)
        if request.method == "Shutdown":
            self._answer(stream, Response())
            return ShutDown()
        if request.method == "StateChange":
            changed, pod = decode_state_change(request.payload)
            return self._hook(stream, request, changed, pod)
        hook = Hook.of_method(request.method)
        if hook is None:
            self._answer(stream, _UNKNOWN_METHOD)
            return None
        return self._hook(stream, request, hook, decode_pod(request.payload))

    def _hook(self, stream: int, request: Request, hook: Hook | None, pod: PodSandbox) -> Event | None:
        """None is an event that was not subscribed to: nothing to do, and no error."""
        if hook is None:
            self._answer(stream, Response())
            return None
        self._await_answer(stream, Response())
        return PodEvent(stream, self._deadline_ns(request), hook, pod)

    def _configure(self, stream: int, configure: Configure) -> Event:
        if configure.request_timeout_ms > 0:
            self._request_timeout_ns = configure.request_timeout_ms * 1_000_000
        self._answer(stream, Response(encode_configure_response()))
        return Configured(configure)

    def _synchronize(self, stream: int, request: Request) -> Event | None:
        chunk = Synchronize.decode(request.payload)
        self._replay.keep(chunk.pods)
        response = Response(encode_synchronize_response(more=chunk.more))
        if chunk.more:
            self._answer(stream, response)
            return None
        replay, self._replay = self._replay, _Replay()
        self._await_answer(stream, response)
        return Synchronized(stream, self._deadline_ns(request), tuple(replay.pods), replay.left_out)

    def _deadline_ns(self, request: Request) -> int:
        waits_ns = self._request_timeout_ns
        if request.timeout_ns:
            # The rest of the timeout: the chunks of one Synchronize share one.
            waits_ns = max(0, min(waits_ns, request.timeout_ns))
        return waits_ns * 4 // 5

    def _await_answer(self, stream: int, response: Response) -> None:
        if len(self._unanswered) == MAX_UNANSWERED:
            raise ProtocolError(f"NRI: more than {MAX_UNANSWERED} calls at once")
        self._unanswered[stream] = response

    def _answer(self, stream: int, response: Response) -> None:
        self._send(PLUGIN_CONNECTION, Message(stream, MessageType.RESPONSE, response.encode()))

    def _send(self, connection: int, message: Message) -> None:
        self._outgoing += frames(connection, message.encode())
