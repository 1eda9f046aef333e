"""The nodes' disk: containerd's root folder with all images already in it.

Importing a large image inside user-mode-linux takes minutes; here containerd on the machine does it in seconds, once,
and every node boots from a copy-on-write view of the result.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import oci
from tests.cluster.layout import cache

SIZE = "8G"  # sparse: what nodes may come to need, not what the file takes
KEPT = 3
START_TIMEOUT_S = 30.0

CONTAINERD = """
version = 3
root = "{root}"
state = "{work}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri"]
[grpc]
address = "{work}/containerd.sock"
[ttrpc]
address = "{work}/containerd.ttrpc.sock"
"""


def _digest(archives: Sequence[Path]) -> str:
    digest = hashlib.sha256(CONTAINERD.encode() + SIZE.encode())
    for archive in archives:
        with archive.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def prepare(binaries: Path, archives: Sequence[Path]) -> Path:
    """Disk with the test images and these archives' images; made when there is none of exactly this content."""
    folder = cache() / "disks"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as work:
        everything = [*oci.write_test_images(Path(work)), *archives]
        disk = folder / f"{_digest(everything)}.ext4"
        if disk.exists():
            os.utime(disk)
            return disk
        command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
        inside = [sys.executable, "-m", "tests.cluster.disk", str(binaries), work, *map(str, everything)]
        done = subprocess.run([*command, *inside], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"making the nodes' disk failed:\n{done.stdout}{done.stderr}")
        (Path(work) / "disk.ext4").rename(disk)
    for old in sorted(folder.glob("*.ext4"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()
    return disk


def _import(binaries: Path, work: Path, archives: Sequence[Path]) -> None:
    """Inside namespaces of its own: import all, make the file system."""
    root = work / "root"
    (root / "kubelet").mkdir(parents=True)
    config = work / "containerd.toml"
    config.write_text(CONTAINERD.format(root=root, work=work))
    environment = {**os.environ, "PATH": f"{binaries}:/usr/sbin:/usr/bin:/sbin:/bin"}
    with (work / "containerd.log").open("wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", config], env=environment, stdout=log, stderr=log)
    ctr = ["ctr", "--address", str(work / "containerd.sock"), "--namespace", "k8s.io"]
    deadline = time.monotonic() + START_TIMEOUT_S
    while subprocess.run([*ctr, "version"], env=environment, capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            sys.exit("containerd did not start:\n" + (work / "containerd.log").read_text()[-2000:])
        time.sleep(0.1)
    for archive in archives:
        subprocess.run([*ctr, "images", "import", str(archive)], env=environment, check=True)
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(timeout=30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", root, work / "disk.ext4", SIZE], check=True)
    shutil.rmtree(root)


if __name__ == "__main__":
    _import(Path(sys.argv[1]), Path(sys.argv[2]), [Path(argument) for argument in sys.argv[3:]])
