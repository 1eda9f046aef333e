"""Small OCI images made of the machine's own tools, written without any container engine."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

TOOLS = ("iperf3", "ip", "tc", "ss")


def _directory(path: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def layer(files: Mapping[str, Path], links: Mapping[str, str]) -> bytes:
    """Tar of these files and symbolic links (path in the image -> source, target) and a /tmp that anyone may use.

    The same input gives the same bytes: no times, no owners.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        parents = {str(parent) for path in (*files, *links) for parent in Path(path).parents} - {"."}
        for parent in sorted(parents):
            tar.addfile(_directory(parent, 0o755))
        tar.addfile(_directory("tmp", 0o1777))
        for path, source in sorted(files.items()):
            data = source.read_bytes()
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
        for path, target in sorted(links.items()):
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def write_archive(target: Path, name: str, content: bytes, command: Iterable[str]) -> None:
    """OCI archive of one image with one layer.

    Source: OCI image specification 1.1, image-layout.md; the annotation is containerd's.
    """
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layer_descriptor = put(content, "application/vnd.oci.image.layer.v1.tar")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [layer_descriptor],
    }
    descriptor = put(json.dumps(manifest).encode(), manifest["mediaType"])
    index = {
        "schemaVersion": 2,
        "manifests": [{**descriptor, "annotations": {"io.containerd.image.name": name}}],
    }
    with tarfile.open(target, "w") as tar:
        entries = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        entries |= {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
        for path, data in entries.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _with_libraries(programs: Iterable[str]) -> dict[str, Path]:
    """Files of these programs and of the shared libraries that they load, by path in the image."""
    files: dict[str, Path] = {}
    for program in programs:
        located = shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if located is None:
            raise FileNotFoundError(f"there is no {program} on this machine: `tests/setup/system.sh` installs it")
        files[f"usr/bin/{program}"] = Path(located).resolve()
        libraries = subprocess.run(["ldd", located], capture_output=True, text=True, check=False).stdout
        for match in re.finditer(r"(/\S+) \(0x", libraries):
            files[match.group(1).lstrip("/")] = Path(match.group(1)).resolve()
    return files


def write_test_images(folder: Path) -> list[Path]:
    """Archives of `localhost/pause:1`, the sandbox, and `localhost/tools:1`: busybox, iperf3, iproute2."""
    busybox = Path("/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"bin/{applet}": "busybox" for applet in applets if applet not in {"busybox", *TOOLS}}
    pause, tools = folder / "pause.tar", folder / "tools.tar"
    shell = {"bin/busybox": busybox}
    write_archive(pause, "localhost/pause:1", layer(shell, {}), ["/bin/busybox", "sleep", "2147483647"])
    write_archive(tools, "localhost/tools:1", layer(shell | _with_libraries(TOOLS), links), ["/usr/bin/iperf3", "-s"])
    return [pause, tools]
