"""The netlink socket when the kernel's answer is not what one hopes for; tests/kernel has the real one."""

import errno
import struct

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.kernel.errors import NetlinkError
from reconciler.kernel.netlink import Netlink

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

    def settimeout(self, seconds):
        pass

    def setsockopt(self, *option):
        pass

    def send(self, data):
        self.sent.append(data)
        if self.full:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    def recvfrom(self, _):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (answer, (0, 0))


def indexes(kernel):
    return [each["index"] for each in Netlink(kernel).dump(ifinfmsg(), 18)]


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
        (TimeoutError("timed out"), errno.ETIMEDOUT),
    ],
)
def test_an_overrun_or_a_silent_kernel_is_a_netlink_error(failure, code):
    with pytest.raises(NetlinkError) as caught:
        indexes(Kernel(failure))
    assert caught.value.errno == code


def test_no_memory_for_a_request_is_a_netlink_error():
    with pytest.raises(NetlinkError, match="Cannot allocate memory"):
        Netlink(Kernel(full=True)).request(ifinfmsg(), 16)


def test_requests_sent_together_are_one_datagram_and_each_has_its_end():
    kernel = Kernel(ended(1), ended(2, errno.EBUSY))
    first, second = Netlink(kernel).request_all((ifinfmsg(), 16, 0), (ifinfmsg(), 16, 0))
    assert len(kernel.sent) == 1
    assert first is None
    assert second.errno == errno.EBUSY


def test_requests_sent_together_whose_end_nobody_tells_are_an_error():
    with pytest.raises(NetlinkError, match="did not answer"):
        Netlink(Kernel(ended(1), TimeoutError())).request_all((ifinfmsg(), 16, 0), (ifinfmsg(), 16, 0))
