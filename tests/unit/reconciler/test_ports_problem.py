"""A port that somebody else has is told of on the Node if that lasts, and so is its end."""

from types import SimpleNamespace

import pytest

from reconciler.node_problems import of_ports


class DoneError(Exception):
    """The looks are over."""


async def test_a_port_that_stays_taken_is_told_once_and_so_is_that_it_is_free():
    told, looks, ports = [], [*["cannot listen on port 9745"] * 9, None, None], SimpleNamespace(trouble=None)

    async def sleep(_):
        if not looks:
            raise DoneError
        ports.trouble = looks.pop(0)

    problem = of_ports(ports)
    with pytest.raises(DoneError):
        await problem.run(told.append, sleep)
    assert [(notice.type, notice.reason) for notice in told] == [("Warning", "CannotListen"), ("Normal", "Listening")]
    assert told[0].message == "cannot listen on port 9745. It is tried again, and limits are set meanwhile"
