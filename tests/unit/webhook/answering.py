"""HTTP servers on loopback, each of which answers everything with one handler, for the tests of KubeApi."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.unit.webhook.api_server import client
from webhook.common.kubeapi import KubeApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Start = Callable[[Handler], Awaitable[KubeApi]]


@asynccontextmanager
async def answering() -> AsyncIterator[Start]:
    """Gives what starts a server with a handler, and gives a client of it."""
    async with AsyncExitStack() as opened:

        async def start(handler: Handler) -> KubeApi:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", handler)
            server = await opened.enter_async_context(TestServer(application))
            api = client(f"http://127.0.0.1:{server.port}", "secret")
            opened.push_async_callback(api.close)
            return api

        yield start


async def forbidden(_: web.Request) -> web.Response:
    return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)
