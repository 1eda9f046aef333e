"""The plugin's state on one connection."""

import contextlib
import itertools
import struct
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.nri.errors import ProtocolError
from reconciler.nri.messages import PLUGIN_SERVICE, RUNTIME_SERVICE, Configure, Hook, PodSandbox
from reconciler.nri.mux import PLUGIN_CONNECTION, RUNTIME_CONNECTION
from reconciler.nri.plugin import (
    Configured,
    Event,
    Plugin,
    PodEvent,
    Registered,
    RegistrationRefused,
    ShutDown,
    Synchronized,
)
from reconciler.nri.protobuf import Fields
from reconciler.nri.ttrpc import MAX_MESSAGE_BYTES, Message, MessageType, Request, Response
from tests.unit.nri.runtime_side import (
    RuntimeSide,
    configure_request,
    frame,
    pod_bytes,
    pod_request,
    state_change,
    synchronize_request,
)
from webhook.common.contract import INGRESS_ANNOTATION, MANAGED_LABEL

DEADLINE_NS = 1_600_000_000
LABELS, ANNOTATIONS = {MANAGED_LABEL: "true"}, {INGRESS_ANNOTATION: "10M"}
POD = PodSandbox("sandbox", "test-0", "uid-0", "default", LABELS, ANNOTATIONS, "/run/netns/x")
OTHER = PodSandbox("sandbox-1", "test-1", "uid-1", "default")


def new_plugin() -> Plugin:
    plugin = Plugin()
    plugin.register()
    plugin.take_outgoing()
    return plugin


def whole_life(runtime: RuntimeSide) -> bytes:
    return b"".join(
        [
            runtime.call("Configure", configure_request()),
            runtime.registered(),
            runtime.call("Synchronize", synchronize_request(POD, more=True)),
            runtime.call("Synchronize", synchronize_request(OTHER)),
            runtime.call("RunPodSandbox", pod_request(POD)),
            runtime.call("CreateContainer", b"\x00 not read"),
            runtime.call("StopPodSandbox", pod_request(POD)),
            runtime.call("RemovePodSandbox", pod_request(POD)),
            runtime.call("Shutdown"),
        ]
    )


WHOLE_LIFE: list[Event] = [
    Configured(Configure("containerd", "v2.4.2", 2000)),
    Registered(),
    Synchronized(5, DEADLINE_NS, (pod_bytes(POD), pod_bytes(OTHER))),
    PodEvent(7, DEADLINE_NS, Hook.RUN_POD_SANDBOX, POD),
    PodEvent(11, DEADLINE_NS, Hook.STOP_POD_SANDBOX, POD),
    PodEvent(13, DEADLINE_NS, Hook.REMOVE_POD_SANDBOX, POD),
    ShutDown(),
]


def test_registering_calls_the_runtime_on_its_connection() -> None:
    plugin = Plugin()
    assert plugin.take_outgoing() == b""
    plugin.register()
    [(connection, message)] = RuntimeSide().read(plugin.take_outgoing())
    request = Request.decode(message.payload)
    assert (connection, message.stream, message.type) == (RUNTIME_CONNECTION, 1, MessageType.REQUEST)
    assert (request.service, request.method) == (RUNTIME_SERVICE, "RegisterPlugin")
    assert Fields(request.payload).text(1) == "ipvlan-bandwidth"
    assert plugin.take_outgoing() == b""


def test_a_whole_life_is_told_and_what_needs_no_thought_is_answered() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    assert plugin.feed(whole_life(runtime)) == WHOLE_LIFE
    answers = runtime.responses(plugin.take_outgoing())
    assert sorted(answers) == [1, 3, 9, 15]
    assert Fields(answers[1].payload).integer(2) == 0b111
    assert Fields(answers[3].payload).integer(2) == 1
    assert (answers[9].code, answers[9].message) == (12, "unknown method")
    assert answers[15] == Response()


@given(st.lists(st.integers(0, 2000)))
def test_the_same_is_told_and_answered_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    data = whole_life(RuntimeSide())
    plugin, whole = new_plugin(), new_plugin()
    whole.feed(data)
    bounds = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    events = [event for start, end in itertools.pairwise(bounds) for event in plugin.feed(data[start:end])]
    assert events == WHOLE_LIFE
    assert plugin.take_outgoing() == whole.take_outgoing()


@given(st.binary())
def test_garbage_is_told_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        new_plugin().feed(data)


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_byte_gone_wrong_is_told_or_a_protocol_error(place: int, flip: int) -> None:
    data = bytearray(whole_life(RuntimeSide()))
    data[place % len(data)] ^= flip
    with contextlib.suppress(ProtocolError):
        new_plugin().feed(bytes(data))


@given(st.sampled_from(["Configure", "Synchronize", "RunPodSandbox", "StateChange", "Shutdown", "?"]), st.binary())
def test_a_garbled_payload_is_told_or_a_protocol_error(method: str, payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        new_plugin().feed(RuntimeSide().call(method, payload))


def test_a_hook_that_is_accepted_is_answered_with_nothing() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    plugin.feed(runtime.call("RunPodSandbox", pod_request(POD)))
    assert plugin.take_outgoing() == b""
    plugin.accept(1)
    assert runtime.responses(plugin.take_outgoing()) == {1: Response()}


@pytest.mark.parametrize("hook", Hook)
def test_a_runtime_before_nri_0_12_says_all_hooks_by_one_method(hook: Hook) -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    assert plugin.feed(runtime.call("StateChange", state_change(hook.event, POD))) == [
        PodEvent(1, DEADLINE_NS, hook, POD)
    ]
    assert plugin.take_outgoing() == b""
    plugin.accept(1)
    assert runtime.responses(plugin.take_outgoing()) == {1: Response()}


@pytest.mark.parametrize("event", [0, 4, 11, 99])
def test_a_change_that_was_not_subscribed_is_no_error_as_the_runtime_would_fail_the_pod(event: int) -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    assert plugin.feed(runtime.call("StateChange", state_change(event, POD))) == []
    assert runtime.responses(plugin.take_outgoing()) == {1: Response()}


def test_calls_may_be_answered_in_another_order() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    plugin.feed(runtime.call("RunPodSandbox", pod_request(POD)) + runtime.call("RunPodSandbox", pod_request(OTHER)))
    plugin.accept(3)
    plugin.accept(1)
    assert list(runtime.responses(plugin.take_outgoing())) == [3, 1]


def test_a_second_replay_starts_afresh() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    plugin.feed(runtime.call("Synchronize", synchronize_request(POD)))
    [event] = plugin.feed(runtime.call("Synchronize", synchronize_request(OTHER)))
    assert event == Synchronized(3, DEADLINE_NS, (pod_bytes(OTHER),))


def test_the_chunks_of_a_replay_are_bounded_together() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    with patch("reconciler.nri.plugin.MAX_PODS", 1):
        plugin.feed(runtime.call("Synchronize", synchronize_request(POD, more=True)))
        with pytest.raises(ProtocolError, match="more than 1 Pods in the chunks"):
            plugin.feed(runtime.call("Synchronize", synchronize_request(POD, more=True)))


def test_of_large_pods_only_so_many_bytes_are_kept_and_the_others_are_counted() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    large, small = replace(POD, name="x" * 1000), pod_bytes(OTHER)
    with (
        patch("reconciler.nri.plugin.LARGE_POD_BYTES", 1000),
        patch("reconciler.nri.plugin.MAX_LARGE_PODS_BYTES", 2 * len(pod_bytes(large))),
    ):
        for stream in (3, 7):
            plugin.feed(runtime.call("Synchronize", synchronize_request(OTHER, large, more=True)))
            [event] = plugin.feed(runtime.call("Synchronize", synchronize_request(large, large, OTHER)))
            assert event == Synchronized(stream, DEADLINE_NS, (small, *[pod_bytes(large)] * 2, small), left_out=1)


@pytest.mark.parametrize(
    ("configured_ms", "call_ns", "deadline_ns"),
    [
        (5000, 0, 4_000_000_000),
        (0, 0, DEADLINE_NS),
        (-1, 0, DEADLINE_NS),
        (2000, 1_000_000_000, 800_000_000),
        (2000, 9_000_000_000, DEADLINE_NS),
        (2000, -1, 0),
    ],
)
def test_the_deadline_is_four_fifths_of_what_the_runtime_waits(
    configured_ms: int, call_ns: int, deadline_ns: int
) -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    plugin.feed(runtime.call("Configure", configure_request(request_timeout_ms=configured_ms)))
    [event] = plugin.feed(runtime.call("RunPodSandbox", pod_request(POD), timeout_ns=call_ns))
    assert isinstance(event, PodEvent)
    assert event.deadline_ns == deadline_ns


def test_a_refused_registration_is_told_with_its_reason() -> None:
    assert new_plugin().feed(RuntimeSide().registered(code=2, message="bad name")) == [
        RegistrationRefused(2, "bad name")
    ]


def test_answers_to_nothing_that_was_asked_are_dropped() -> None:
    runtime = RuntimeSide()
    assert Plugin().feed(runtime.registered()) == []
    plugin = new_plugin()
    assert plugin.feed(runtime.registered(stream=3)) == []
    assert plugin.feed(frame(RUNTIME_CONNECTION, Message(1, MessageType.REQUEST, b"").encode())) == []
    assert plugin.feed(runtime.registered()) == [Registered()]
    assert plugin.feed(runtime.registered()) == []


def test_other_services_connections_and_types_of_message_are_no_error() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    assert plugin.feed(runtime.call("RunPodSandbox", service="other.Service")) == []
    assert runtime.responses(plugin.take_outgoing()) == {1: Response(code=12, message="unknown service")}
    assert plugin.feed(frame(7, b"what nobody opened")) == []
    assert plugin.feed(frame(PLUGIN_CONNECTION, struct.pack(">IIBB", 0, 3, 3, 5))) == []
    assert plugin.take_outgoing() == b""


@pytest.mark.parametrize(
    ("service", "method", "unknown"),
    [("x" * (MAX_MESSAGE_BYTES - 5), "", "service"), (PLUGIN_SERVICE, "x" * (MAX_MESSAGE_BYTES - 64), "method")],
    ids=["service", "method"],
)
def test_a_call_to_nothing_here_is_answered_however_long_the_name_that_it_calls(
    service: str, method: str, unknown: str
) -> None:
    """With the service's name in it, the answer would be longer than what may be sent."""
    plugin, runtime = new_plugin(), RuntimeSide()
    assert plugin.feed(runtime.call(method, service=service)) == []
    assert runtime.responses(plugin.take_outgoing()) == {1: Response(code=12, message=f"unknown {unknown}")}


@pytest.mark.parametrize("stream", [0, 1, 2, 3, 4])
def test_the_runtimes_streams_are_odd_and_rise(stream: int) -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    plugin.feed(runtime.call("Shutdown") + runtime.call("Shutdown"))
    with pytest.raises(ProtocolError, match=f"stream {stream} after 3"):
        plugin.feed(frame(PLUGIN_CONNECTION, Message(stream, MessageType.REQUEST, b"").encode()))


def test_calls_without_an_answer_are_bounded() -> None:
    plugin, runtime = new_plugin(), RuntimeSide()
    with patch("reconciler.nri.plugin.MAX_UNANSWERED", 1):
        plugin.feed(runtime.call("RunPodSandbox", pod_request(POD)))
        with pytest.raises(ProtocolError, match="more than 1 calls at once"):
            plugin.feed(runtime.call("RunPodSandbox", pod_request(POD)))
