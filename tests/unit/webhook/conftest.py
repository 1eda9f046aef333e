"""Fixtures of the tests of the API server's client."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.webhook.answering import Start, answering


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server with one handler for everything, and gives a KubeApi that calls it."""
    async with answering() as start:
        yield start
