"""The netlink socket when the kernel's answer is not what one hopes for; tests/kernel has the real one."""

import errno
import struct

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import MOST_QDISCS, dump_qdiscs
from reconciler.kernel.raw import link_index_of

DONE, ERROR, NEWLINK = 3, 2, 16
INTERRUPTED = 0x10


def message(kind, *, sequence, flags=0, body=b""):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def link(sequence, index, flags=0):
    return message(NEWLINK, sequence=sequence, flags=flags, body=struct.pack("=BBHiII", 0, 0, 0, index, 0, 0))


def done(sequence, flags=0):
    return message(DONE, sequence=sequence, flags=flags, body=bytes(4))


def ended(sequence, code=0):
    return message(ERROR, sequence=sequence, body=struct.pack("=i", -code) + bytes(16))


class Kernel:
    """A socket that gives scripted answers, or errors."""

    def __init__(self, *answers, full=False):
        self.answers, self.sent, self.full = list(answers), [], full

    def setsockopt(self, *option):
        pass

    def close(self):
        self.closed = True

    def send(self, data):
        self.sent.append(data)
        if self.full:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    def recvfrom(self, _):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (answer, (0, 0))


def over(*kernels):
    """A Netlink that gets these, one after the other, when it opens a socket."""
    left = list(kernels)
    return Netlink(lambda: left.pop(0))


def listing(kernel, most=100):
    return over(kernel).dump(ifinfmsg(), 18, most)


def indexes(kernel, most=100):
    return [link_index_of(each) for each in listing(kernel, most).messages]


def test_a_list_that_changed_while_it_was_made_is_made_again():
    kernel = Kernel(link(1, 7, INTERRUPTED), done(1), link(2, 7) + link(2, 8), done(2))
    assert indexes(kernel) == [7, 8]
    assert len(kernel.sent) == 2


def test_that_a_list_is_torn_may_be_told_only_at_its_end():
    assert indexes(Kernel(link(1, 7), done(1, INTERRUPTED), link(2, 8), done(2))) == [8]


def test_a_list_that_never_stands_still_is_an_error_and_not_a_loop():
    torn = [part for sequence in range(1, 6) for part in (link(sequence, 7, INTERRUPTED), done(sequence))]
    with pytest.raises(NetlinkError, match="changed each of 5 times"):
        indexes(Kernel(*torn))


def test_answers_to_an_earlier_request_are_passed_over():
    assert indexes(Kernel(link(0, 3), done(0), link(1, 7), done(1))) == [7]


def test_what_another_process_sends_is_no_answer_of_the_kernel_s():
    forged = link(1, 9) + done(1)
    assert indexes(Kernel((forged, (4711, 0)), link(1, 7), (forged, (4711, 0)), done(1))) == [7]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (OSError(errno.ENOBUFS, "No buffer space available"), errno.ENOBUFS),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), errno.ETIMEDOUT),
    ],
)
def test_an_overrun_or_a_silent_kernel_is_a_netlink_error(failure, code):
    with pytest.raises(NetlinkError) as caught:
        indexes(Kernel(failure))
    assert caught.value.errno == code


def test_no_memory_for_a_request_is_a_netlink_error():
    with pytest.raises(NetlinkError, match="Cannot allocate memory"):
        over(Kernel(full=True)).request(ifinfmsg(), 16)


def test_requests_sent_together_are_one_datagram_and_each_has_its_end():
    kernel = Kernel(ended(1), ended(2, errno.EBUSY))
    first, second = over(kernel).request_all((ifinfmsg(), 16, 0), (ifinfmsg(), 16, 0))
    assert len(kernel.sent) == 1
    assert first is None
    assert second.errno == errno.EBUSY


def test_requests_sent_together_whose_end_nobody_tells_are_an_error():
    with pytest.raises(NetlinkError, match="did not answer"):
        over(Kernel(ended(1), BlockingIOError())).request_all((ifinfmsg(), 16, 0), (ifinfmsg(), 16, 0))


def test_no_more_is_read_than_was_asked_for_and_what_is_asked_next_has_a_socket_of_its_own():
    first, second = Kernel(*(link(1, number) for number in range(9))), Kernel(link(2, 7), done(2))
    netlink = over(first, second)
    cut = netlink.dump(ifinfmsg(), 18, 3)
    assert [link_index_of(each) for each in cut.messages] == [0, 1, 2]
    assert not cut.are_all and not cut.before_too_long
    assert len(first.answers) == 5
    assert netlink.dump(ifinfmsg(), 18, 3).are_all
    assert first.closed and not second.answers


def test_as_many_as_may_be_are_all():
    assert listing(Kernel(link(1, 7), link(1, 8), done(1)), most=2).are_all


def test_nor_are_more_bytes_read_than_so_many_objects_usually_have():
    long = message(NEWLINK, sequence=1, body=bytes(3000))
    assert not listing(Kernel(long, long, done(1)), most=2).are_all
    assert listing(Kernel(long, done(1)), most=2).are_all


def test_all_tries_together_read_no_more_bytes_than_one():
    torn = message(NEWLINK, sequence=1, flags=INTERRUPTED, body=bytes(3000)), done(1)
    again = message(NEWLINK, sequence=2, body=bytes(3000)), done(2)
    assert not listing(Kernel(*torn, *again), most=2).are_all


def test_what_is_too_long_to_be_listed_ends_the_list():
    cut = listing(Kernel(link(1, 7), message(DONE, sequence=1, body=struct.pack("=i", -errno.EMSGSIZE))))
    assert len(cut.messages) == 1
    assert not cut.are_all and cut.before_too_long


def test_any_other_refusal_of_a_list_is_an_error():
    with pytest.raises(NetlinkError, match="Operation not permitted"):
        listing(Kernel(ended(1, errno.EPERM)))


def test_more_qdiscs_than_are_read_are_an_error_in_words_for_whom_they_belong_to():
    one = message(36, sequence=1, body=bytes(20))
    assert len(dump_qdiscs(over(Kernel(one * MOST_QDISCS, done(1))))) == MOST_QDISCS
    with pytest.raises(NetlinkError, match=f"more than {MOST_QDISCS} qdiscs.* delete those"):
        dump_qdiscs(over(Kernel(one * MOST_QDISCS, one, done(1))))
