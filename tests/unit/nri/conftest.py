"""Fixtures of the tests of the NRI plugin."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.nri.runtime_socket import Runtime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    runtime = Runtime(tmp_path / "nri.sock")
    await runtime.listen()
    yield runtime
    await runtime.close()
