"""Process 1 of the embedded cluster: everything else is its descendant, in its own PID, mount and network namespaces.

So when it ends, however it ends, the kernel ends all the rest and takes the bridges, taps and mounts away.
`unshare ... python -m tests.cluster.supervisor SETTINGS` is started by tests.cluster.cluster only.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.cluster import control, flags, layout, nodes
from tests.cluster.control import Part
from tests.cluster.layout import Layout, Settings

READY_TIMEOUT_S = 90.0
LOG_TAIL_BYTES = 1500


class ComponentError(Exception):
    """A process of the cluster ended, or did not come up. The text is for a person."""


def _links() -> None:
    """Two bridges, management and data, and for each node a tap on both."""
    batch = [
        "link set lo up",
        "link add management type bridge",
        "link add data type bridge",
        f"address add {layout.GATEWAY}/24 dev management",
        f"address add {layout.API_ADDRESS}/32 dev management",
        f"address add {layout.IPVLAN_GATEWAY}/16 dev data",
        "link set management up",
        "link set data up",
    ]
    for node in layout.NODES:
        for bridge, tap in (("management", f"m{node}"), ("data", f"d{node}")):
            batch += [f"tuntap add dev {tap} mode tap", f"link set {tap} master {bridge} up"]
        batch.append(f"route add {layout.pod_subnet(node)} via {layout.management_address(node)}")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(batch), text=True, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _mount_volatile(paths: Layout) -> None:
    """All that the cluster writes, apart from logs, is in memory and in this mount namespace only."""
    options = ["-t", "tmpfs", "-o", "size=75%,mode=0755"]
    subprocess.run(["mount", *options, "volatile", paths.volatile], check=True)


def _control_plane(paths: Layout) -> dict[str, list[str]]:
    """Arguments, by program."""
    pki = paths.pki
    return {
        "etcd": flags.etcd(paths.volatile / "etcd"),
        # 443, so that Pods reach the `kubernetes` Service's address and port without a kube-proxy.
        "kube-apiserver": flags.kube_apiserver(
            pki,
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--advertise-address={layout.GATEWAY}",
            # Webhooks are reached at their Pods' addresses, not their Service's.
            "--enable-aggregator-routing=true",
            "--allow-privileged=true",
            address="0.0.0.0",  # noqa: S104 - in a network namespace of its own
            port=443,
        ),
        "kube-controller-manager": [
            f"--kubeconfig={pki}/controller-manager.conf",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
        ],
        "kube-scheduler": [f"--kubeconfig={pki}/scheduler.conf", "--leader-elect=false"],
    }


class Supervisor:
    """Starts the parts, passes connections in and out, and ends when a part does."""

    def __init__(self, paths: Layout, settings: Settings) -> None:
        self._paths = paths
        self._settings = settings
        self._parts: dict[str, Part] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until a part fails or the lifeline is cut; raises ComponentError."""
        _links()
        _mount_volatile(self._paths)
        commands = _control_plane(self._paths)
        for name in ("etcd", "kube-apiserver"):
            await self._start(name, [self._settings.programs[name], *commands[name]])
        for node in layout.NODES:
            nodes.prepare(self._paths, self._settings, node)
            await self._start(f"node{node}", nodes.command(self._paths, self._settings, node))
        await self._relay()
        await self._api_ready()
        for name in ("kube-controller-manager", "kube-scheduler"):
            await self._start(name, [self._settings.programs[name], *commands[name]])
        await asyncio.wait([self._failed, asyncio.create_task(self._lifeline())], return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            self._failed.result()

    async def _start(self, name: str, command: Sequence[str]) -> None:
        self._parts[name] = Part(name, command, self._paths.logs / f"{name}.log")
        await self._mind(self._parts[name])

    async def _mind(self, part: Part) -> None:
        process = await part.start()

        async def watch() -> None:
            status = await process.wait()
            tail = part.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            if part.wanted and not self._failed.done():
                self._failed.set_exception(
                    ComponentError(f"{part.name} ended with status {status}. The end of its log, {part.log}:\n{tail}")
                )

        self._keep(asyncio.create_task(watch()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _api_ready(self) -> None:
        """Raises ComponentError."""
        context = ssl.create_default_context(cafile=str(self._paths.pki / "ca.crt"))
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        answer = b""
        while asyncio.get_running_loop().time() < deadline:
            if self._failed.done():
                self._failed.result()
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(layout.GATEWAY, 443, ssl=context)
                writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
                answer = await reader.read()
                writer.close()
                if answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
                    return
            await asyncio.sleep(0.1)
        raise ComponentError(f"kube-apiserver was not ready in {READY_TIMEOUT_S:.0f} s; it last said {answer!r}")

    async def _relay(self) -> None:
        """The machine's way in: its loopback port to the API server, a Unix socket to each node's agent, and ours."""
        outside = socket.socket(fileno=self._settings.listen_fd)
        await asyncio.start_server(_pass_to(layout.GATEWAY, 443), sock=outside)
        for node in layout.NODES:
            way = _pass_to(layout.management_address(node), layout.AGENT_PORT)
            await asyncio.start_unix_server(way, path=self._paths.agent(node))
        await asyncio.start_unix_server(control.serve(self._parts, self._mind), path=self._paths.control)

    async def _lifeline(self) -> None:
        """Ends when the launcher's end of the pipe is closed, by it or by its death."""
        if self._settings.lifeline_fd is None:
            await asyncio.Event().wait()
            return
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._settings.lifeline_fd, closed.set)
        await closed.wait()


def _pass_to(host: str, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        # When either side is through, the other has nothing to wait for: a command's client or the command is gone.
        copies = {asyncio.create_task(copy(reader, inner_writer)), asyncio.create_task(copy(inner_reader, writer))}
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, inner_writer):
            end.close()
        await asyncio.wait(copies)

    return handle


def main() -> None:
    """Run from the settings file named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    paths = Layout(settings.name)

    async def run() -> None:
        await Supervisor(paths, settings).run()

    try:
        asyncio.run(run())
    except (ComponentError, OSError, subprocess.CalledProcessError) as error:
        paths.failure.write_text(f"{error}\n")
        # Not sys.exit: asyncio has nothing to tidy up that the end of process 1 does not.
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
