"""What a test may do to the parts of a running cluster: freeze, thaw, kill and start them, and compact etcd.

The supervisor serves a Unix socket; each connection is one request, a line of JSON, and one answer, another.
"""

import asyncio
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tests.cluster.commands import ClusterError
from tests.cluster.flags import ETCD

TIMEOUT_S = 30.0


@dataclass(slots=True)
class Part:
    """One process of the cluster with all of its children, on the supervisor's side."""

    name: str
    command: Sequence[str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    wanted: bool = field(default=True)
    """Whether its end is a fault, and not a test's doing."""

    async def start(self) -> asyncio.subprocess.Process:
        """Start it, for the first time or again; its log goes on."""
        with self.log.open("ab") as output:
            self.process = await self._spawn(output)
        self.wanted = True
        return self.process

    async def _spawn(self, output: BinaryIO) -> asyncio.subprocess.Process:
        # A session of its own: a node is one process a program that runs on it, and all must go together.
        return await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def signal(self, number: int) -> None:
        """Send it, and its children, a signal. Raises ProcessLookupError when it does not run."""
        if self.process is None or self.process.returncode is not None:
            raise ProcessLookupError(f"{self.name} does not run")
        os.killpg(self.process.pid, number)

    async def kill(self) -> None:
        """End it as a loss of power does, and wait until it is gone."""
        self.wanted = False
        self.signal(signal.SIGKILL)
        assert self.process is not None
        await self.process.wait()


def serve(parts: dict[str, Part], start: Callable[[Part], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The handler of a connection; `start` starts a part and minds it from then on."""

    async def carry_out(request: dict[str, Any]) -> None:
        if request["do"] == "compact":
            await asyncio.to_thread(compact)
            return
        part = parts[request["part"]]
        match request["do"]:
            case "freeze":
                part.signal(signal.SIGSTOP)
            case "thaw":
                part.signal(signal.SIGCONT)
            case "kill":
                await part.kill()
            case "start":
                await start(part)
            case other:
                raise ValueError(f"{other}: no such thing to do")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await carry_out(json.loads(await reader.readline()))
            answer = ""
        except (OSError, KeyError, ValueError) as error:
            answer = f"{type(error).__name__}: {error}"
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    return handle


def compact(etcd: str = ETCD) -> None:
    """Forget all of etcd's history, so that no watch can be resumed from it.

    Something is written first: a watch of the last version that there is would miss nothing, and the API server resumes
    it. Source: etcd's gRPC gateway, api/etcdserverpb/rpc.proto, KV.Put and KV.Compact.
    """
    revision = int(_ask_etcd(etcd, "kv/put", {"key": "Y29tcGFjdA==", "value": "MQ=="})["header"]["revision"])
    _ask_etcd(etcd, "kv/compaction", {"revision": revision, "physical": True})


def _ask_etcd(etcd: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{etcd}/v3/{path}", json.dumps(body).encode())  # noqa: S310 - etcd's own address
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)


def ask(path: Path, do: str, part: str = "") -> None:
    """Have the supervisor behind this socket do something. Raises ClusterError when it cannot."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
        connection.sendall(json.dumps({"do": do, "part": part}).encode() + b"\n")
        answer = json.loads(connection.makefile().readline() or '"no answer"')
    if answer:
        raise ClusterError(f"cannot {do} {part}: {answer}")
