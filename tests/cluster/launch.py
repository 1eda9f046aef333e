"""Starting and ending the processes of a cluster."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import layout, nodes, pki
from tests.cluster.commands import ClusterError, wait_for
from tests.cluster.layout import PROJECT, Layout, Settings, cache

NODE_MEMORY_MIB = 3072
END_TIMEOUT_S = 30.0
KEPT_LOGS = 3
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
ASSETS = {
    "KUBEBUILDER_ASSETS": ("etcd", "kube-apiserver", "kubectl"),
    "CONTAINERD": ("containerd", "containerd-shim-runc-v2", "ctr"),
}
"""Programs that are taken from the folder that an environment variable names, where they are there."""


def program(name: str) -> Path:
    """Path of one of the cluster's binaries.

    Raises ClusterError when there is none.
    """
    path = cache() / "bin" / name
    for variable, names in ASSETS.items():
        folder = existing(variable) if name in names else None
        if folder is not None and (Path(folder) / name).exists():
            path = Path(folder) / name
    if not path.exists():
        raise ClusterError(f"there is no {path}: `tests/setup/binaries.sh` builds it")
    return path


def existing(variable: str) -> str | None:
    """Path in this environment variable, if it is set.

    Raises ClusterError when there is nothing at that path.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    if not Path(value).exists():
        raise ClusterError(f"{variable}={value}: there is no such file or folder")
    return str(Path(value).resolve())


@dataclass(frozen=True, slots=True)
class Launched:
    """A cluster's processes as their launcher sees them."""

    unshare: subprocess.Popen[bytes]
    lifeline: int | None


def take_lock(paths: Layout) -> int | None:
    """Descriptor of the cluster's lock, taken; None when the cluster is up and holds it."""
    paths.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_up(paths: Layout) -> bool:
    """Whether the cluster's first process lives."""
    if not paths.lock.exists():
        return False
    lock = take_lock(paths)
    if lock is None:
        return True
    os.close(lock)
    return False


def start(paths: Layout, lock: int, disk: Path, *, detached: bool) -> Launched:
    """Start the cluster's process 1 in namespaces of its own; it starts the rest.

    It holds the lock from here on. Unless detached, it ends when this process does: a pipe between them closes.
    """
    sweep(paths)
    shutil.rmtree(paths.logs, ignore_errors=True)
    forget_old_logs(keep=paths.name)
    for node in layout.NODES:
        (paths.logs / f"node{node}").mkdir(parents=True)
    paths.volatile.mkdir()
    lifeline, ours = (None, None) if detached else os.pipe()
    # Made here, so that it listens in the machine's network namespace, and served in the cluster's.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        settings = Settings(
            name=paths.name,
            programs={name: str(program(name)) for name in (*CONTROL_PLANE, *nodes.NODE_PROGRAMS, *nodes.CNI_PLUGINS)},
            disk=str(disk),
            modules=str(nodes.modules(cache())),
            listen_fd=listener.fileno(),
            lifeline_fd=lifeline,
            multus=existing("MULTUS"),
            extra_cni_bin=existing("EXTRA_CNI_BIN"),
            node_memory_mib=NODE_MEMORY_MIB,
        )
        paths.settings.write_text(json.dumps(asdict(settings)))
        pki.write(paths.pki, f"https://127.0.0.1:{listener.getsockname()[1]}", paths.kubeconfig)
        handed_over = [lock] if lifeline is None else [lock, lifeline]
        namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        with (paths.logs / "supervisor.log").open("wb") as log:
            unshare = subprocess.Popen(
                [*namespaces, sys.executable, "-m", "tests.cluster.supervisor", str(paths.settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                pass_fds=[listener.fileno(), *handed_over],
                start_new_session=True,
            )
    for descriptor in handed_over:
        os.close(descriptor)
    return Launched(unshare, ours)


def end(paths: Layout, launched: Launched | None) -> None:
    """End the cluster, whoever started it, and leave only its logs.

    Raises TimedOut when it does not end.
    """
    if launched is not None and launched.lifeline is not None:
        os.close(launched.lifeline)
    if is_up(paths):
        for pid in _first_processes(paths):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if launched is not None:
        # The kernel lets `unshare` see the end of process 1 only when all others of its namespace are gone.
        launched.unshare.wait(timeout=END_TIMEOUT_S)
    wait_for(f"the end of cluster {paths.name}", lambda: not is_up(paths), END_TIMEOUT_S, every=0.05)
    sweep(paths)


def sweep(paths: Layout) -> None:
    """Remove all that the cluster left in its folder, except logs and lock."""
    if not paths.root.exists():
        return
    for entry in paths.root.iterdir():
        if entry not in (paths.lock, paths.logs):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _first_processes(paths: Layout) -> list[int]:
    """Process 1 of the cluster, in the machine's numbering, or the `unshare` above it should that have no child yet.

    Looked for by the command line, which names this cluster's settings file: a stored number could be another's by now.
    """
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if b"tests.cluster.supervisor" in argv and os.fsencode(paths.settings) in argv:
                    found.append(int(entry.name))
    return [pid for pid in found if _executable(pid) != "unshare"] or found


def _executable(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def forget_old_logs(keep: str) -> None:
    """Remove the folders of all but the latest clusters that are not up."""
    folders = [folder for folder in (cache() / "cluster").iterdir() if folder.name != keep]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
        lock = take_lock(Layout(folder.name))
        if lock is not None:
            shutil.rmtree(folder)
            os.close(lock)
