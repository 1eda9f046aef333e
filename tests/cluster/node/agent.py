"""Runs commands on a node for whoever connects: the standard library alone, as it starts in user-mode-linux.

Each connection is one command. Frames both ways: one byte of kind, four of length (big-endian), the payload.
To the agent: R a request (JSON: argv, or pod and argv, env, terminal [rows, columns]), then I bytes for its standard
input, E the input's end. From it: O standard output, D standard error ("diagnostics"), X the exit status, in decimal.
When the connection goes, the command goes.
"""

import contextlib
import json
import os
import pathlib
import pty
import signal
import socket
import struct
import subprocess
import sys
import threading
from typing import Any, BinaryIO

PORT = 7700
HEADER = struct.Struct("!cI")
TASKS = pathlib.Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io")


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """Next frame, or None at the end."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    kind, length = HEADER.unpack(header)
    return kind, stream.read(length)


def sandbox_pid(pod: str) -> int:
    """Pid, on this node, of the pause process of NAMESPACE/NAME's sandbox; the youngest, if there are several.

    Raises LookupError when the Pod has no sandbox here.
    """
    namespace, name = pod.split("/")
    found: list[tuple[float, int]] = []
    for bundle in TASKS.glob("*"):
        with contextlib.suppress(OSError, ValueError):
            annotations = json.loads((bundle / "config.json").read_text()).get("annotations", {})
            wanted = ("sandbox", namespace, name)
            keys = ("container-type", "sandbox-namespace", "sandbox-name")
            if tuple(annotations.get(f"io.kubernetes.cri.{key}") for key in keys) == wanted:
                pid = int((bundle / "init.pid").read_text())
                os.kill(pid, 0)
                found.append((bundle.stat().st_mtime, pid))
    if not found:
        raise LookupError(f"Pod {pod} has no running sandbox on {socket.gethostname()}")
    return max(found)[1]


class Command:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._sending = threading.Lock()

    def run(self) -> None:
        with self._connection, contextlib.suppress(OSError):
            frame = read_frame(self._stream)
            if frame is not None:
                self._serve(json.loads(frame[1]))

    def _send(self, kind: bytes, payload: bytes) -> None:
        with self._sending:
            self._connection.sendall(HEADER.pack(kind, len(payload)) + payload)

    def _serve(self, request: dict[str, Any]) -> None:
        argv = request["argv"]
        terminal = request.get("terminal")
        try:
            if "pod" in request:
                argv = ["nsenter", f"--net=/proc/{sandbox_pid(request['pod'])}/ns/net", *argv]
            process, outputs, inward = self._start(argv, {**os.environ, **request.get("env", {})}, terminal)
        except (OSError, LookupError) as error:
            self._send(b"D", f"{error}\n".encode())
            self._send(b"X", b"127")
            return
        pumps = [threading.Thread(target=self._pump, args=pair, daemon=True) for pair in outputs]
        threading.Thread(target=self._feed, args=(process, inward), daemon=True).start()
        for pump in pumps:
            pump.start()
        status = process.wait()
        for pump in pumps:
            # A background process may keep the pipe: then its output is not this command's any more.
            pump.join(timeout=0.5)
        self._send(b"X", str(status if status >= 0 else 128 - status).encode())
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _start(
        self, argv: list[str], env: dict[str, str], terminal: list[int] | None
    ) -> tuple[subprocess.Popen[bytes], list[tuple[int, bytes]], int]:
        if terminal is None:
            pipe = subprocess.PIPE
            process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            outputs = [(os.dup(process.stdout.fileno()), b"O"), (os.dup(process.stderr.fileno()), b"D")]
            inward = os.dup(process.stdin.fileno())
            for end in (process.stdin, process.stdout, process.stderr):
                end.close()
            return process, outputs, inward
        import fcntl  # noqa: PLC0415 - only a person's terminal needs these two, and imports are slow here
        import termios  # noqa: PLC0415

        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *terminal, 0, 0))

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - nothing else makes a terminal the session's own
        )
        os.close(slave)
        return process, [(master, b"O")], os.dup(master)

    def _pump(self, descriptor: int, kind: bytes) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(descriptor, 65536):
                self._send(kind, data)
        os.close(descriptor)

    def _feed(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        is_open = True
        with contextlib.suppress(OSError, ValueError):
            while (frame := read_frame(self._stream)) is not None:
                kind, payload = frame
                if kind == b"E" and is_open:
                    os.close(descriptor)
                    is_open = False
                elif kind == b"I" and is_open:
                    with contextlib.suppress(BrokenPipeError):
                        while payload:
                            payload = payload[os.write(descriptor, payload) :]
        if is_open:
            os.close(descriptor)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    with socket.create_server((sys.argv[1], PORT), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Command(connection).run, daemon=True).start()


if __name__ == "__main__":
    main()
