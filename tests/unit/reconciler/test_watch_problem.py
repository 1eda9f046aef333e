"""A reconciler that may not follow Pods says so; one whose API server is away is ready all the same."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from reconciler.node_problems import POLL_S, of_watch
from tests.waiting import background, turns
from webhook.common.kubeapi import ApiError
from webhook.common.reflector import Reflector

FORBIDDEN = ApiError(403, "Forbidden", 'pods is forbidden: User "reconciler" cannot list resource "pods"')
UNAUTHORIZED = ApiError(401, "Unauthorized", "Unauthorized")
AWAY = ApiError(0, "Unreachable", "no answer")
BUSY = ApiError(503, "ServiceUnavailable", "later")


class DoneError(Exception):
    """The looks are over."""


class Node:
    """An API server that says `error`, if any; the watch on its Pods, and what is said of that."""

    def __init__(self, error: ApiError | None = None, looks: list[ApiError | None] | None = None) -> None:
        self.error, self.looks = error, looks or []
        self.cut = asyncio.Event()
        self.told = []
        self.reflector = Reflector(
            self,
            "/api/v1/pods",
            params={},
            on_sync=lambda _: None,
            on_event=lambda *_: None,
            sleep=lambda _: asyncio.sleep(0),
        )
        self.problem = of_watch(self.reflector)

    async def read_list(self, *_):
        if self.error:
            raise self.error
        return {"metadata": {"resourceVersion": "7"}, "items": []}

    async def watch(self, _path, _params, on_open):
        on_open()
        await self.cut.wait()
        raise ApiError(410, "Expired", "too old resource version")
        yield {}

    async def sleep(self, seconds):
        """What the looks find."""
        assert seconds == POLL_S
        if not self.looks:
            raise DoneError
        self.reflector.refused = self.looks.pop(0)

    async def says(self, error: ApiError | None) -> None:
        self.error = error
        self.cut.set()
        await turns(50)
        self.cut.clear()
        await turns(50)


@asynccontextmanager
async def following(error: ApiError | None):
    node = Node(error)
    async with background(node.reflector.run()):
        await turns(50)
        yield node


@pytest.mark.parametrize(
    ("error", "remedy"), [(FORBIDDEN, "ClusterRole"), (UNAUTHORIZED, "delete the reconciler's Pod of this node")]
)
async def test_what_may_not_list_pods_is_not_ready_and_says_what_to_do_until_it_may(error, remedy):
    async with following(error) as node:
        reason = node.problem.why_not_ready()
        assert reason.startswith(f"may not list and watch Pods: HTTP {error.status} ({error.message}): ")
        assert remedy in reason
        assert not node.reflector.connected
        await node.says(None)
        assert node.problem.why_not_ready() is None
        assert node.reflector.connected


@pytest.mark.parametrize("error", [AWAY, BUSY])
async def test_an_api_server_that_is_away_is_no_reason_to_be_unready(error):
    async with following(error) as node:
        assert node.problem.why_not_ready() is None
        assert not node.reflector.connected


async def test_what_was_refused_stays_so_while_nobody_answers():
    async with following(FORBIDDEN) as node:
        await node.says(AWAY)
        assert "HTTP 403" in node.problem.why_not_ready()


async def test_what_listed_once_stays_ready():
    async with following(None) as node:
        await node.says(FORBIDDEN)
        assert node.problem.why_not_ready() is None
        assert not node.reflector.connected


async def test_a_refusal_that_lasts_is_told_on_the_node_once_and_so_is_its_end():
    node = Node(looks=[FORBIDDEN, FORBIDDEN, None, *[FORBIDDEN] * 5, None, None])
    with pytest.raises(DoneError):
        await node.problem.run(node.told.append, node.sleep)
    refused, connected = node.told
    assert (refused.type, refused.reason) == ("Warning", "WatchRefused")
    assert "HTTP 403" in refused.message and "ClusterRole" in refused.message
    assert (connected.type, connected.reason) == ("Normal", "WatchConnected")
