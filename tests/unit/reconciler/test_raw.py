"""Netlink messages of traffic control as a kernel sent them, and as nobody would."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.kernel.raw import filter_of, link_index_of, raw_attributes, text, traffic_control
from reconciler.model import HANDLE_CLSACT_OURS, INGRESS_PRIORITY, Filter
from webhook.common.contract import Direction

# Linux 6.1, as RTM_GETTFILTER listed them.
SHAPER = bytes.fromhex(
    "840000002c00050007000000ce0200000000000002000000d11b0000f3ffffff00030100080001006270660008000b000000000050000200"
    "0800030002000000200007006970766c616e2d62616e6477696474683a613433653934613935310008000b00030000000c000a003c394792"
    "89f3c49d08000800010000000800090008000000"
)
REDIRECT = bytes.fromhex(
    "0c0100002c00020003000000ce0200000000000002000000d11b0000f2ffffff0003f0ff0d0001006d61746368616c6c0000000008000b00"
    "00000000d000020008000300080000000c0004000000000000000000b8000200b40001000b0001006d697272656400005000040004000600"
    "1400010000000000000000000000000000000000040006001400070000000000000000000000000000000000040006001800030000000000"
    "0000000000000000000000000000000008000a00000000004c00020020000200010000000000000004000000010000000100000001000000"
    "0300000004000300240001005703000000000000570300000000000000000000000000000000000000000000"
)
SEEN_SHAPER = Filter(
    Direction.EGRESS,
    "bpf",
    1,
    HANDLE_CLSACT_OURS,
    name="ipvlan-bandwidth:a43e94a951",
    program_id=3,
    class_id=2,
)
SEEN_REDIRECT = Filter(Direction.INGRESS, "matchall", INGRESS_PRIORITY, HANDLE_CLSACT_OURS, redirects_to="vethbw0")
IFB = 3
NAMES = st.one_of(st.binary(max_size=15), st.text(max_size=3).map(str.encode))


def test_the_shaper_is_read():
    assert filter_of(Direction.EGRESS, SHAPER, {}) == SEEN_SHAPER
    assert SEEN_SHAPER.is_ours


def test_the_redirection_is_read_with_where_it_leads():
    assert filter_of(Direction.INGRESS, REDIRECT, {IFB: "vethbw0"}) == SEEN_REDIRECT
    assert filter_of(Direction.INGRESS, REDIRECT, {}) == replace(SEEN_REDIRECT, redirects_to=None)
    assert SEEN_REDIRECT.is_ours


def test_one_that_copies_packets_or_does_something_else_leads_nowhere():
    head = REDIRECT.index(b"mirred")
    copied = REDIRECT[:head] + REDIRECT[head:].replace(b"\1\0\0\0\3\0\0\0", b"\2\0\0\0\3\0\0\0")
    for other in (copied, REDIRECT.replace(b"mirred", b"pedit\0")):
        assert other != REDIRECT
        assert filter_of(Direction.INGRESS, other, {IFB: "vethbw0"}) == replace(SEEN_REDIRECT, redirects_to=None)


def test_what_has_no_handle_of_ours_is_known_by_kind_priority_and_handle_alone():
    foreign = SHAPER.replace(HANDLE_CLSACT_OURS.to_bytes(4, "little"), (7).to_bytes(4, "little"), 1)
    assert filter_of(Direction.EGRESS, foreign, {}) == Filter(Direction.EGRESS, "bpf", 1, 7)


def test_a_filter_of_another_chain_is_not_ours():
    chain = SHAPER.index(b"\x08\0\x0b\0") + 4
    other = SHAPER[:chain] + (5).to_bytes(4, "little") + SHAPER[chain + 4 :]
    assert filter_of(Direction.EGRESS, other, {}) == replace(SEEN_SHAPER, chain=5)
    assert not filter_of(Direction.EGRESS, other, {}).is_ours


def test_a_filter_of_one_protocol_is_not_ours_and_leaves_ours_no_place():
    ipv6 = REDIRECT[:32] + (INGRESS_PRIORITY << 16 | 0xDD86).to_bytes(4, "little") + REDIRECT[36:]
    read = filter_of(Direction.INGRESS, ipv6, {IFB: "vethbw0"})
    assert not read.is_ours
    assert (read.kind, read.priority) == ("matchall of one protocol", INGRESS_PRIORITY)


def test_the_link_is_told_by_either_message():
    assert traffic_control(SHAPER).link == traffic_control(REDIRECT).link == 2
    assert link_index_of(bytes(20) + b"\7\0\0\0" + bytes(8)) == 7


@given(
    st.one_of(
        st.binary(max_size=400),
        st.builds(lambda message, at: message[:at], st.sampled_from([SHAPER, REDIRECT]), st.integers(0, 300)),
        st.builds(
            lambda message, at, byte: message[:at] + bytes([byte]) + message[at + 1 :],
            st.sampled_from([SHAPER, REDIRECT]),
            st.integers(0, 300),
            st.integers(0, 255),
        ),
    )
)
def test_whatever_the_bytes_are_something_is_read(message):
    for hook in Direction:
        assert filter_of(hook, message, {IFB: "vethbw0"}).hook is hook
    assert isinstance(link_index_of(message), int)
    assert sum(map(len, raw_attributes(message, 0).values())) <= len(message)


def test_an_attribute_shorter_than_its_header_ends_them():
    assert raw_attributes(b"\5\0\1\0a\0\0\0" + b"\3\0\2\0" + b"\5\0\3\0b\0\0\0", 0) == {1: b"a"}


@given(NAMES, NAMES)
def test_no_two_names_become_the_same(one, other):
    assert (text(one) == text(other)) == (one.rstrip(b"\0") == other.rstrip(b"\0"))


@given(NAMES)
@example(b"e\x1b[2J")
@example("e\u202e".encode())
def test_no_name_has_a_character_that_a_terminal_obeys(value):
    assert text(value).isprintable()


def test_a_character_that_is_not_printable_is_told_from_the_bytes_of_its_escape():
    assert [text(each) for each in (b"e\x1b", b"e\xc2\x85", b"e\x85", rb"e\x85")] == [
        r"e\x1b",
        r"e\xc2\x85",
        r"e\x85",
        r"e\\x85",
    ]
