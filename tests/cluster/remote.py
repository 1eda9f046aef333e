"""The machine's end of a node's agent: `python -m tests.cluster.remote SOCKET REQUEST` behaves like the command itself.

A process of its own, so that pipes, exit status and kill work on it as on any other process.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tests.cluster.node.agent import HEADER, read_frame

CONNECTION_LOST = 255


def _send(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    connection.sendall(HEADER.pack(kind, len(payload)) + payload)


def _feed(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, 65536):
            _send(connection, b"I", data)
        _send(connection, b"E", b"")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    import termios  # noqa: PLC0415 - only for a person at a terminal
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def run(path: str, request: dict[str, Any], *, terminal: bool = False) -> int:
    """Run the request on the node behind this Unix socket; gives the command's exit status."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.ExitStack() as stack:
        connection.connect(path)
        if terminal:
            size = shutil.get_terminal_size()
            environment = {"TERM": os.environ.get("TERM", "xterm"), **request.get("env", {})}
            request = {**request, "env": environment, "terminal": [size.lines, size.columns]}
            stack.enter_context(_raw_terminal())
        _send(connection, b"R", json.dumps(request).encode())
        threading.Thread(target=_feed, args=(connection,), daemon=True).start()
        stream = connection.makefile("rb")
        with contextlib.suppress(ConnectionError):
            while (frame := read_frame(stream)) is not None:
                kind, payload = frame
                if kind == b"X":
                    return int(payload)
                target = sys.stdout.buffer if kind == b"O" else sys.stderr.buffer
                target.write(payload)
                target.flush()
    sys.stderr.write("the node's agent closed the connection: is the cluster up?\n")
    return CONNECTION_LOST


if __name__ == "__main__":
    try:
        # Not sys.exit: the thread that reads standard input may hold its lock.
        status = run(sys.argv[1], json.loads(sys.argv[2]))
        sys.stdout.flush()
        os._exit(status)
    except (OSError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{sys.argv[1]}: {error}\n")
        os._exit(CONNECTION_LOST)
