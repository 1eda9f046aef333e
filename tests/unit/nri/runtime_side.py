"""The runtime's side of NRI, as bytes: what containerd says to a plugin, and how it reads the answers.

It follows containerd/nri v0.12.3, pkg/adaptation/plugin.go. The cluster's tests run it on containerd itself.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.nri.messages import PLUGIN_SERVICE, PodSandbox
from reconciler.nri.mux import MAX_SENT_PAYLOAD_BYTES, PLUGIN_CONNECTION, RUNTIME_CONNECTION, Demultiplexer
from reconciler.nri.protobuf import integer_field, message_field, text_field
from reconciler.nri.ttrpc import Assembler, Message, MessageType, Request, Response


def frame(connection: int, data: bytes) -> bytes:
    """One frame whatever its size: a runtime's frames are as large as its messages."""
    return struct.pack(">II", connection, len(data)) + data


def text_map_field(number: int, items: Mapping[str, str]) -> bytes:
    """A map<string, string>."""
    return b"".join(message_field(number, text_field(1, key) + text_field(2, items[key])) for key in items)


def pod_bytes(pod: PodSandbox) -> bytes:
    """PodSandbox as containerd fills it: other namespaces, cgroups and IP addresses are there too."""
    namespaces = message_field(5, text_field(1, "ipc"))
    if pod.netns_path:
        namespaces += message_field(5, text_field(1, "network") + text_field(2, pod.netns_path))
    return (
        text_field(1, pod.id)
        + text_field(2, pod.name)
        + text_field(3, pod.uid)
        + text_field(4, pod.namespace)
        + text_map_field(5, pod.labels)
        + text_map_field(6, pod.annotations)
        + text_field(7, "runc")
        + message_field(8, text_field(3, "/kubepods/burstable") + namespaces)
        + text_field(10, "172.16.0.7")
    )


def pod_request(pod: PodSandbox) -> bytes:
    return message_field(1, pod_bytes(pod))


def state_change(event: int, pod: PodSandbox) -> bytes:
    """What a runtime before NRI 0.12 sends for every hook of a Pod."""
    return integer_field(1, event) + message_field(2, pod_bytes(pod))


def configure_request(*, request_timeout_ms: int = 2000) -> bytes:
    return (
        text_field(2, "containerd")
        + text_field(3, "v2.4.2")
        + integer_field(4, 5000)
        + integer_field(5, request_timeout_ms)
        + text_field(6, "v0.12.3")
    )


def synchronize_request(*pods: PodSandbox, more: bool = False) -> bytes:
    containers = message_field(2, text_field(1, "container-id"))
    return b"".join(message_field(1, pod_bytes(pod)) for pod in pods) + containers + integer_field(3, int(more))


@dataclass
class RuntimeSide:
    """One connection, seen from the runtime."""

    stream: int = -1
    demultiplexer: Demultiplexer = field(default_factory=Demultiplexer)
    assemblers: dict[int, Assembler] = field(
        default_factory=lambda: {PLUGIN_CONNECTION: Assembler(), RUNTIME_CONNECTION: Assembler()}
    )

    def call(self, method: str, payload: bytes = b"", *, timeout_ns: int = 0, service: str = PLUGIN_SERVICE) -> bytes:
        self.stream += 2
        request = Request(service, method, payload, timeout_ns)
        return frame(PLUGIN_CONNECTION, Message(self.stream, MessageType.REQUEST, request.encode()).encode())

    def registered(self, *, code: int = 0, message: str = "", stream: int = 1) -> bytes:
        response = Response(code=code, message=message)
        return frame(RUNTIME_CONNECTION, Message(stream, MessageType.RESPONSE, response.encode()).encode())

    def read(self, data: bytes) -> list[tuple[int, Message]]:
        """The plugin's messages by connection."""
        messages = []
        for connection, piece in self.demultiplexer.feed(data):
            assert len(piece) <= MAX_SENT_PAYLOAD_BYTES
            messages += [(connection, message) for message in self.assemblers[connection].feed(piece)]
        return messages

    def responses(self, data: bytes) -> dict[int, Response]:
        """The plugin's answers by stream."""
        return {
            message.stream: Response.decode(message.payload)
            for connection, message in self.read(data)
            if connection == PLUGIN_CONNECTION and message.type == MessageType.RESPONSE
        }
