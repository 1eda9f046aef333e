"""The plugin on a Unix socket: connections that end, and those that never stand."""

import asyncio
import errno
import logging
from pathlib import Path

import pytest

from reconciler.nri.transport import NriPlugin
from reconciler.nri.ttrpc import Response
from tests.unit.nri.runtime_side import configure_request, pod_request, synchronize_request
from tests.unit.nri.runtime_socket import POD, Recorder, Runtime, Waits, bytes_unread, running
from tests.waiting import background, until


async def test_without_a_socket_it_says_once_what_to_look_for_and_tries_again_ever_more_slowly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits(enough_after=8)
    path = str(tmp_path / "nri.sock")
    async with running(NriPlugin(Recorder(), socket_path=path, sleep=waits.sleep, fraction=lambda: 1.0)):
        await waits.enough.wait()
    assert waits.seconds[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        f"NRI at {path}: no such socket: is NRI on, and open to plugins from outside (containerd: disable = false and "
        "disable_connections = false under io.containerd.nri.v1.nri; CRI-O: enable_nri = true under crio.nri)?; "
        "connecting again"
    )


async def test_what_is_in_the_way_is_known_to_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(_path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("asyncio.open_unix_connection", forbidden)
    waits = Waits()
    plugin = NriPlugin(Recorder(), socket_path=str(tmp_path / "nri.sock"), sleep=waits.sleep)
    assert plugin.trouble.startswith("it has not been tried yet")
    async with running(plugin):
        await waits.enough.wait()
    assert "permission denied; where SELinux enforces" in plugin.trouble


async def test_a_socket_that_nobody_serves_is_told_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime(tmp_path / "nri.sock")
    await runtime.listen()
    await runtime.close()
    waits = Waits()
    async with running(NriPlugin(Recorder(), socket_path=runtime.path, sleep=waits.sleep)):
        await waits.enough.wait()
    assert "cannot connect: Connection refused" in caplog.text


async def test_after_a_served_connection_it_connects_again_without_delay(runtime: Runtime) -> None:
    waits = Waits()
    plugin = NriPlugin(Recorder(), socket_path=runtime.path, sleep=waits.sleep, fraction=lambda: 0.0)
    async with running(plugin):
        for _ in range(3):
            connection = await runtime.accept()
            await connection.start()
            connection.writer.close()
        await until(lambda: len(waits.seconds) == 3)
    assert waits.seconds == [0.05] * 3


async def test_a_refused_registration_ends_the_connection_and_is_told(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(NriPlugin(Recorder(), socket_path=runtime.path)):
        connection = await runtime.accept()
        connection.writer.write(connection.side.registered(code=2, message="invalid plugin name"))
        await connection.ended()
        await runtime.accept()
    assert "the runtime refuses the plugin: invalid plugin name (code 2)" in caplog.text


async def test_garbled_bytes_end_the_connection_and_are_told(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(NriPlugin(Recorder(), socket_path=runtime.path)):
        connection = await runtime.accept()
        connection.writer.write(b"\xff" * 64)
        await connection.ended()
        await runtime.accept()
    assert "mux: a frame of 4294967295 bytes" in caplog.text


async def test_a_runtime_that_says_nothing_is_left(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that replays is kept, also when that time is over: the loop's clock goes on past it at once."""

    async def with_more_time(seconds: float) -> None:
        plugin._register_within_s = 10  # a machine that stalls is not to break the second
        await asyncio.sleep(seconds)

    plugin = NriPlugin(Recorder(), socket_path=runtime.path, register_within_s=0.02, sleep=with_more_time)
    async with running(plugin):
        await (await runtime.accept()).ended()
        connection = await runtime.accept()
        await connection.start()
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 11)
        assert await connection.call("RunPodSandbox", pod_request(POD)) == Response()
    assert "not registered within 0.02 s" in caplog.text


async def test_a_replay_that_a_stopping_container_holds_up_is_waited_for_and_who_asks_is_told(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = NriPlugin(Recorder(), socket_path=runtime.path, register_within_s=10)
    async with running(plugin):
        connection = await runtime.accept()
        await connection.call("Configure", configure_request())
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 11)
        await asyncio.sleep(0.05)
        assert (plugin.registered, plugin.connected) == (True, False)
        assert "a container that is being stopped can hold that up" in plugin.trouble
        await connection.call("Synchronize", synchronize_request(POD))
        assert (plugin.registered, plugin.connected) == (True, True)
        assert "connecting again" not in caplog.text
        connection.writer.close()
        await until(lambda: not plugin.registered and not plugin.connected)


async def test_a_runtime_that_takes_the_plugin_and_tells_of_no_pods_is_not_taken_for_one_that_is_held_up(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """NRI splits a list that is too large for one message, but not below eight objects: then it closes."""
    cut_short = "it took the plugin and closed the connection before it told of its Pods"
    plugin = NriPlugin(Recorder(), socket_path=runtime.path, sleep=Waits().sleep)
    async with running(plugin):
        said = []
        for _ in range(3):
            connection = await runtime.accept()
            await connection.call("Configure", configure_request())
            said.append((plugin.registered, plugin.trouble))
            await connection.call("Synchronize", synchronize_request(POD, more=True))
            connection.writer.close()
            await connection.writer.wait_closed()
            await until(lambda: not plugin.registered and plugin.trouble.startswith(cut_short))
        first, second, third = said
        assert first == second
        assert first[0]
        assert "a container that is being stopped" in first[1]
        assert not third[0], "nobody waits for it"
        assert third[1].startswith(cut_short)
        assert "megabytes of environment" in third[1]
        assert caplog.text.count("connecting again") == 1
        await (await runtime.accept()).start()
        assert (plugin.registered, plugin.connected) == (True, True)


async def test_a_runtime_that_ends_while_it_is_held_up_is_waited_for_again_however_often(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time it is the runtime that is started again, and not its list that is too large."""
    passed_s = 0.0
    plugin = NriPlugin(Recorder(), socket_path=runtime.path, sleep=Waits().sleep, monotonic=lambda: passed_s)
    async with running(plugin):
        for held_up_s in (0.0, 31.0, 0.0, 31.0, 31.0, 31.0):  # one that ends at once may be chance
            connection = await runtime.accept()
            await connection.call("Configure", configure_request())
            assert plugin.registered
            assert "a container that is being stopped" in plugin.trouble
            passed_s += held_up_s
            connection.writer.close()
            await connection.writer.wait_closed()
            await until(lambda: not plugin.registered)
    assert plugin.trouble == "the runtime closed the connection"
    assert caplog.text.count("it took the plugin and closed the connection before") == 2


async def test_it_connects_when_what_is_to_be_done_first_is_done(runtime: Runtime) -> None:
    done = asyncio.Event()
    plugin = NriPlugin(Recorder(), socket_path=runtime.path)
    accepted = asyncio.create_task(runtime.accept())
    async with background(plugin.run(after=done.wait)):
        await asyncio.sleep(0.05)
        assert not accepted.done()
        done.set()
        await (await accepted).start()
        assert plugin.connected


async def test_a_connection_that_breaks_is_told(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    async with running(NriPlugin(Recorder(), socket_path=runtime.path)):
        connection = await runtime.accept()
        connection.side.read(await connection.reader.read(65_536))
        # A socket that is closed with bytes unread resets the connection.
        assert isinstance(connection.writer.transport, asyncio.ReadTransport)
        connection.writer.transport.pause_reading()
        connection.writer.write(connection.side.call("What"))
        await until(lambda: bytes_unread(connection.writer.get_extra_info("socket")) > 0)
        connection.writer.transport.abort()
        await runtime.accept()
    assert "connection lost: Connection reset by peer" in caplog.text


async def test_a_shutdown_of_the_runtime_is_answered(runtime: Runtime) -> None:
    async with running(NriPlugin(Recorder(), socket_path=runtime.path)):
        connection = await runtime.accept()
        assert await connection.call("Shutdown", b"") == Response()
