"""NRI's messages."""

import contextlib
import itertools
import string
import tracemalloc
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import pods as views
from reconciler.nri.errors import ProtocolError
from reconciler.nri.messages import (
    ANNOTATIONS,
    LABELS,
    Configure,
    PodSandbox,
    Synchronize,
    decode_pod,
    encode_configure_response,
    encode_register_plugin,
    encode_synchronize_response,
)
from reconciler.nri.protobuf import Fields, integer_field, message_field, text_field
from tests.unit.nri.runtime_side import configure_request, pod_bytes, pod_request, synchronize_request

texts = st.text(max_size=65)
labels = st.dictionaries(st.sampled_from(LABELS), texts, max_size=4)
annotations = st.dictionaries(st.sampled_from(ANNOTATIONS), texts, max_size=4)
pods = st.builds(PodSandbox, st.text(), st.text(), st.text(), st.text(), labels, annotations, st.text())
FOUR_LETTERS = map("".join, itertools.product(string.ascii_lowercase, repeat=4))
MANY = dict.fromkeys(itertools.islice(FOUR_LETTERS, 65_000), "")
"""As many annotations as fit: Kubernetes limits them to 256 KiB."""


@given(pods)
def test_a_pod_is_read_as_the_runtime_wrote_it(pod: PodSandbox) -> None:
    assert decode_pod(pod_request(pod)) == pod


def test_of_labels_and_annotations_what_is_read_of_a_pod_is_kept_and_nothing_else() -> None:
    class Noting(dict[str, str]):
        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            read.add(key)
            return default

    read: set[str] = set()
    views.from_runtime(PodSandbox("id", "name", "uid", "default", Noting(), Noting()))
    assert read == {*LABELS, *ANNOTATIONS}
    pod = PodSandbox("id", "name", "uid", "default", {"app": "a"}, {"note": "b", ANNOTATIONS[0]: "9" * 262_000})
    kept = decode_pod(pod_request(pod))
    assert (kept.labels, kept.annotations) == ({}, {ANNOTATIONS[0]: "9" * 65})


def test_tens_of_thousands_of_annotations_cost_little_more_than_their_bytes() -> None:
    pod = PodSandbox("id", "name", "uid", "default", {}, {**MANY, ANNOTATIONS[0]: "10M"}, "/run/netns/x")
    request = pod_request(pod)
    tracemalloc.start()
    try:
        assert decode_pod(request).annotations == {ANNOTATIONS[0]: "10M"}
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    finally:
        tracemalloc.stop()


@given(st.lists(pods, max_size=4), st.booleans())
def test_a_chunk_of_the_replay_is_read_as_the_runtime_wrote_it(sent: list[PodSandbox], more: bool) -> None:
    chunk = Synchronize.decode(synchronize_request(*sent, more=more))
    assert ([PodSandbox.decode(pod) for pod in chunk.pods], chunk.more) == (sent, more)


@given(st.binary())
def test_garbage_is_a_message_or_a_protocol_error(data: bytes) -> None:
    for decode in (decode_pod, Synchronize.decode, Configure.decode):
        with contextlib.suppress(ProtocolError):
            decode(data)


def test_a_host_network_pod_has_no_netns_path() -> None:
    linux = message_field(5, text_field(1, "pid") + text_field(2, "/proc/1/ns/pid"))
    assert PodSandbox.decode(text_field(1, "id") + message_field(8, linux)).netns_path == ""


def test_a_pod_in_two_parts_is_merged_as_protobuf_wants() -> None:
    data = message_field(1, text_field(1, "id") + text_field(2, "old")) + message_field(1, text_field(2, "new"))
    assert decode_pod(data) == PodSandbox("id", "new", "", "")


def test_a_pods_event_without_a_pod_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="without a Pod"):
        decode_pod(b"")


def test_the_replay_is_bounded() -> None:
    one = PodSandbox("id", "name", "uid", "default")
    with patch("reconciler.nri.messages.MAX_PODS", 2):
        assert len(Synchronize.decode(synchronize_request(one, one)).pods) == 2
        with pytest.raises(ProtocolError, match="more than 2 Pods"):
            Synchronize.decode(synchronize_request(one, one, one))


def test_fields_of_another_wire_type_are_skipped_in_the_replay() -> None:
    assert Synchronize.decode(integer_field(1, 1) + text_field(3, "yes")) == Synchronize((), more=False)


def test_configure_tells_who_the_runtime_is_and_how_long_it_waits() -> None:
    assert Configure.decode(configure_request()) == Configure("containerd", "v2.4.2", 2000)


def test_the_registration_names_the_plugin_and_its_place() -> None:
    fields = Fields(encode_register_plugin("ipvlan-bandwidth", "10"))
    assert (fields.text(1), fields.text(2)) == ("ipvlan-bandwidth", "10")


def test_the_subscription_has_a_bit_for_each_hook() -> None:
    assert Fields(encode_configure_response()).integer(2) == 0b111


def test_more_is_echoed() -> None:
    assert Fields(encode_synchronize_response(more=True)).integer(2) == 1
    assert encode_synchronize_response(more=False) == b""


def test_the_encoding_helper_of_the_tests_leaves_room_for_no_network() -> None:
    assert b"network" not in pod_bytes(PodSandbox("id", "name", "uid", "default"))
