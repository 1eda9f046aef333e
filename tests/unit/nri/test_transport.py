"""The plugin on a Unix socket: what its handler hears, and what the runtime is answered."""

import asyncio
import time
from dataclasses import replace

import pytest

from reconciler.nri.messages import Hook, PodSandbox
from reconciler.nri.protobuf import message_field
from reconciler.nri.transport import NriPlugin
from reconciler.nri.ttrpc import Response
from tests.unit.nri.runtime_side import pod_request, synchronize_request
from tests.unit.nri.runtime_socket import OTHER, POD, Recorder, Runtime, running, waiting
from tests.unit.reconciler.memory import remembered
from tests.waiting import PATIENCE_S, turns, until


async def test_the_handler_hears_the_replay_and_each_hook_and_each_is_answered(runtime: Runtime) -> None:
    handler = Recorder()
    async with running(NriPlugin(handler, socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start(POD, OTHER)
        for hook in Hook:
            assert await connection.call(hook.method, pod_request(POD)) == Response()
    assert handler.heard == [
        ("synchronize", ["test-0", "test-1"]),
        ("run", "test-0"),
        ("stop", "test-0"),
        ("remove", "test-0"),
    ]


async def test_a_replay_in_chunks_is_heard_once(runtime: Runtime) -> None:
    handler = Recorder()
    async with running(NriPlugin(handler, socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.call("Synchronize", synchronize_request(POD, more=True))
        assert handler.heard == []
        await connection.call("Synchronize", synchronize_request(OTHER))
        assert handler.heard == [("synchronize", ["test-0", "test-1"])]


async def test_others_have_their_turn_between_any_two_pods_of_the_replay(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    read_at: list[int] = []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def decode(_data: bytes) -> PodSandbox:
        read_at.append(turns)
        return POD

    monkeypatch.setattr(PodSandbox, "decode", decode)
    others = asyncio.create_task(take_turns())
    async with running(NriPlugin(Recorder(), socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.call("Synchronize", synchronize_request(POD, POD, more=True))
        assert read_at == [], "the runtime waits for the answer to a chunk, and reading may take long"
        await connection.call("Synchronize", synchronize_request(POD))
    others.cancel()
    assert len(set(read_at)) == 3


async def test_a_replay_that_takes_long_to_read_is_answered_for_and_hooks_are_heard_after_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_data: bytes) -> PodSandbox:
        time.sleep(0.01)
        return POD

    monkeypatch.setattr(PodSandbox, "decode", decode)
    handler = Recorder()
    async with running(NriPlugin(handler, socket_path=runtime.path)) as plugin:
        connection = await runtime.accept()
        await connection.start(*[POD] * 100, request_timeout_ms=50)
        assert (plugin.connected, handler.heard) == (True, [])
        for hook in Hook:
            await connection.call(hook.method, pod_request(POD))
        await until(lambda: len(handler.heard) == 5)
    assert [what for what, _ in handler.heard] == ["late", "synchronize", "run", "stop", "remove"]


async def test_a_pod_that_cannot_be_read_or_is_too_large_does_not_keep_others_from_being_heard(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.nri.plugin.LARGE_POD_BYTES", 1000)
    monkeypatch.setattr("reconciler.nri.plugin.MAX_LARGE_PODS_BYTES", 0)
    large, malformed = replace(POD, labels={"a": "b" * 1000}), message_field(1, b"\xff")
    handler = Recorder()
    async with running(NriPlugin(handler, socket_path=runtime.path)) as plugin:
        connection = await runtime.accept()
        await connection.call("Synchronize", malformed + synchronize_request(large, more=True))
        await connection.call("Synchronize", malformed + synchronize_request(OTHER))
        assert plugin.connected
    assert handler.heard == [("synchronize", ["test-1"])]
    assert "3 Pods of the replay are left out: large Pods take too much memory" in caplog.text


async def test_it_is_connected_from_the_answered_replay_to_the_end_of_the_connection(runtime: Runtime) -> None:
    plugin = NriPlugin(Recorder(), socket_path=runtime.path)
    async with running(plugin):
        connection = await runtime.accept()
        assert not plugin.connected
        await connection.start()
        assert plugin.connected
        connection.writer.close()
        await until(lambda: not plugin.connected)
        await (await runtime.accept()).start()
        assert plugin.connected
    assert not plugin.connected


async def test_a_handler_that_fails_lets_the_pod_start_and_is_logged(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_what: str) -> None:
        raise RuntimeError("no slot is free")

    async with running(NriPlugin(Recorder(does=fails), socket_path=runtime.path)) as plugin:
        connection = await runtime.accept()
        await connection.start()
        assert plugin.connected
        assert await connection.call("RunPodSandbox", pod_request(POD)) == Response()
    assert "NRI: RunPodSandbox of default/test-0 failed" in caplog.text
    assert "no slot is free" in caplog.text


async def test_a_handler_whose_own_work_is_cancelled_lets_the_pod_start(runtime: Runtime) -> None:
    async def is_cancelled(_what: str) -> None:
        raise asyncio.CancelledError

    async with running(NriPlugin(Recorder(does=is_cancelled), socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start()
        assert await connection.call("RunPodSandbox", pod_request(POD)) == Response()


async def test_a_slow_handler_is_answered_for_at_the_deadline_and_goes_on(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = asyncio.Event()
    handler = Recorder(does=waiting("run", go_on))
    async with running(NriPlugin(handler, socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start(request_timeout_ms=50)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        assert await connection.call("RunPodSandbox", pod_request(POD)) == Response()
        assert loop.time() - begin >= 0.039
        assert "RunPodSandbox of default/test-0 takes longer than 0.040 s" in caplog.text
        assert handler.heard[1:] == [("late", "test-0")]
        go_on.set()
        await until(lambda: ("run", "test-0") in handler.heard)


async def test_sandboxes_that_came_and_went_are_not_remembered(runtime: Runtime) -> None:
    handler, held = Recorder(), set()
    async with running(NriPlugin(handler, socket_path=runtime.path)) as plugin:

        async def look(_what: str) -> None:
            held.update(remembered(plugin, r"sandbox-\d+").values())

        connection = await runtime.accept()
        await connection.start()
        handler.does = look
        for number in range(50):
            pod = replace(POD, id=f"sandbox-{number}")
            for hook in Hook:
                assert await connection.call(hook.method, pod_request(pod)) == Response()
        await until(lambda: not plugin._tasks)
        assert remembered(plugin, r"sandbox-\d+") == {}
    assert len(held) == 50, "each was, while it was at work"


async def test_a_sandbox_is_not_stopped_before_its_slow_start_is_done_but_others_do_not_wait(runtime: Runtime) -> None:
    go_on = asyncio.Event()
    handler = Recorder(does=waiting("run", go_on))
    async with running(NriPlugin(handler, socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start(request_timeout_ms=50)
        await connection.call("RunPodSandbox", pod_request(POD))
        await connection.call("StopPodSandbox", pod_request(POD))
        await connection.call("RunPodSandbox", pod_request(OTHER))
        assert handler.heard[1:] == [("late", "test-0"), ("run", "test-1")]
        go_on.set()
        await until(lambda: len(handler.heard) == 5)
        assert handler.heard[3:] == [("run", "test-0"), ("stop", "test-0")]


async def test_hooks_are_heard_after_a_slow_replay_also_on_the_next_connection(runtime: Runtime) -> None:
    go_on = asyncio.Event()
    handler = Recorder(does=waiting("synchronize", go_on))
    async with running(NriPlugin(handler, socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start(request_timeout_ms=50)
        await connection.call("RunPodSandbox", pod_request(POD))
        connection.writer.close()
        connection = await runtime.accept()
        await connection.start(POD, request_timeout_ms=50)
        await connection.call("StopPodSandbox", pod_request(POD))
        assert handler.heard == [("late", "test-0")]
        go_on.set()
        await until(lambda: len(handler.heard) == 5)
    assert [what for what, _ in handler.heard[1:]] == ["synchronize", "run", "synchronize", "stop"]


async def test_a_connection_that_ends_within_a_hook_leaves_the_handler_at_work(runtime: Runtime) -> None:
    go_on = asyncio.Event()
    handler = Recorder(does=waiting("run", go_on))
    async with running(NriPlugin(handler, socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start()
        connection.writer.write(connection.side.call("RunPodSandbox", pod_request(POD)))
        connection.writer.close()
        await runtime.accept()
        go_on.set()
        await until(lambda: ("run", "test-0") in handler.heard)


async def test_a_replay_that_ends_after_its_connection_does_not_make_it_connected(runtime: Runtime) -> None:
    go_on = asyncio.Event()
    handler = Recorder(does=waiting("synchronize", go_on))
    async with running(NriPlugin(handler, socket_path=runtime.path)) as plugin:
        connection = await runtime.accept()
        connection.writer.write(connection.side.call("Synchronize", synchronize_request(POD)))
        connection.writer.close()
        await runtime.accept()
        go_on.set()
        await until(lambda: handler.heard == [("synchronize", ["test-0"])])
        await asyncio.sleep(0)
        assert not plugin.connected


async def test_cancelling_closes_the_connection_and_ends_what_the_handler_does(runtime: Runtime) -> None:
    ended = asyncio.Event()

    async def waits(what: str) -> None:
        if what == "run":
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with running(NriPlugin(Recorder(does=waits), socket_path=runtime.path)):
        connection = await runtime.accept()
        await connection.start(request_timeout_ms=50)
        await connection.call("RunPodSandbox", pod_request(POD))
        await connection.call("StopPodSandbox", pod_request(POD))
    assert ended.is_set()
    await asyncio.wait_for(connection.ended(), PATIENCE_S)


async def test_before_the_end_calls_at_work_are_finished_and_answered_and_those_that_come_meanwhile_too(
    runtime: Runtime,
) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    handler, answers = Recorder(does=waiting("run", first, second)), {}
    async with running(NriPlugin(handler, socket_path=runtime.path)) as plugin:
        connection = await runtime.accept()
        await connection.start()
        connection.writer.write(connection.side.call("RunPodSandbox", pod_request(POD)))
        await until(lambda: len(plugin._latest) == 1)
        finishing = asyncio.create_task(plugin.finish(PATIENCE_S))
        connection.writer.write(connection.side.call("RunPodSandbox", pod_request(OTHER)))
        await until(lambda: len(plugin._latest) == 2)
        first.set()
        await until(lambda: len(plugin._latest) == 1)
        await turns()
        assert not finishing.done()
        second.set()
        await finishing
        assert handler.heard[1:] == [("run", "test-0"), ("run", "test-1")]
    while data := await connection.reader.read(65_536):
        answers |= connection.side.responses(data)
    assert list(answers.values()) == [Response()] * 2


async def test_a_call_that_takes_too_long_does_not_hold_up_the_end(runtime: Runtime) -> None:
    async with running(NriPlugin(Recorder(does=waiting("run", asyncio.Event())), socket_path=runtime.path)) as plugin:
        await plugin.finish()
        connection = await runtime.accept()
        await connection.start()
        connection.writer.write(connection.side.call("RunPodSandbox", pod_request(POD)))
        await until(lambda: plugin._latest)
        await plugin.finish(0.01)
        assert plugin._latest
