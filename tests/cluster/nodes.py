"""The nodes: user-mode-linux processes, each on an overlay of the machine's own root."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster import layout
from tests.cluster.layout import HERE, PROJECT, Layout, Settings

NODE_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet")
CNI_PLUGINS = ("host-local", "ipvlan", "loopback", "multus-standin", "ptp")
CNI_VERSION = "1.0.0"
UML_MODULES = Path("/usr/lib/uml/modules")


def modules(cache: Path) -> Path:
    """Copy of user-mode-linux' modules with the index that modprobe needs, made once."""
    version = max(UML_MODULES.iterdir()).name
    target = cache / "modules"
    if not (target / "lib/modules" / version / "modules.dep").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(UML_MODULES / version, target / "lib/modules" / version)
        subprocess.run(["depmod", "-b", target, version], check=True)
    return target / "lib/modules"


def command(paths: Layout, settings: Settings, node: int) -> list[str]:
    """Command line of the node's kernel."""
    own = paths.volatile / f"node{node}"
    return [
        # A node that waits for processes of the control plane lets the packets of its Pods wait too, as no machine with
        # a CPU of its own does.
        "nice",
        "--adjustment=-20",
        "env",
        f"TMPDIR={own / 'memory'}",
        "linux.uml",
        f"mem={settings.node_memory_mib}M",
        f"umid=node{node}",
        f"uml_dir={own}",
        "rootfstype=hostfs",
        f"rootflags={own / 'root'}",
        "rw",
        "init=/opt/cluster/node/init.sh",
        f"ubd0={own / 'disk.cow'},{settings.disk}",
        f"vec0:transport=tap,ifname=m{node},depth=128",
        f"vec1:transport=tap,ifname=d{node},depth=128,gro=1",
        # As on Debian's, Ubuntu's and SUSE's nodes: containerd then confines every container by its default profile.
        "security=apparmor",
        "apparmor=1",
        "con=null",
        "con0=null,fd:1",
        "quiet",
    ]


def prepare(paths: Layout, settings: Settings, node: int) -> None:
    """Make the node's root, inside the cluster's mount namespace."""
    own = paths.volatile / f"node{node}"
    root, upper, work = own / "root", own / "upper", own / "work"
    for folder in (root, upper, work, own / "memory"):
        folder.mkdir(parents=True)
    overlay = f"lowerdir=/,upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", overlay, root], check=True)
    logs = paths.logs / f"node{node}"
    _bind(logs, root / "var/log")
    _bind(Path(settings.modules), root / "usr/lib/modules")
    # Tests run their scripts on the nodes; init.sh puts it at the path that it has on the machine, wherever that is.
    _bind(PROJECT, root / "opt/cluster/project", "ro")
    for mount_point in ("var/lib/containerd", "var/lib/kubelet", "var/lib/cni", "sys", "proc", "dev", "run", "tmp"):
        (root / mount_point).mkdir(parents=True, exist_ok=True)
    cluster = root / "opt/cluster"
    shutil.copytree(HERE / "node", cluster / "node", ignore=shutil.ignore_patterns("__pycache__"))
    (cluster / "bin").mkdir()
    for program in NODE_PROGRAMS:
        # The overlay cannot hold links out of itself, and copies would cost memory.
        _bind(Path(settings.programs[program]), cluster / "bin" / program)
    (cluster / "sbin").mkdir()
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        # user-mode-linux has no nf_tables for IPv4: plugins must find the legacy tools first.
        (cluster / "sbin" / name).symlink_to(f"/usr/sbin/{name.replace('tables', 'tables-legacy', 1)}")
    _plugins(root / "opt/cni/bin", settings)
    _configuration(root, paths, settings, node)


def _bind(source: Path, target: Path, options: str = "rw") -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    subprocess.run(["mount", "--bind", "-o", options, source, target], check=True)


def _plugins(folder: Path, settings: Settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plugins = [Path(settings.programs[name]) for name in CNI_PLUGINS]
    if settings.extra_cni_bin is not None:
        plugins += [path for path in sorted(Path(settings.extra_cni_bin).iterdir()) if os.access(path, os.X_OK)]
    for plugin in plugins:
        (folder / plugin.name).touch()
        _bind(plugin, folder / plugin.name)
    if settings.multus is not None:
        _bind(Path(settings.multus), folder / "multus")


def _configuration(root: Path, paths: Layout, settings: Settings, node: int) -> None:
    kubernetes, cni = root / "etc/kubernetes", root / "etc/cni"
    for folder in (kubernetes, cni / "net.d", cni / "multus/net.d", root / "etc/cluster"):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(paths.pki / "ca.crt", kubernetes / "ca.crt")
    shutil.copy(paths.pki / f"node{node}.conf", kubernetes / "kubelet.conf")
    shutil.copy(paths.pki / "multus.conf", kubernetes / "multus.conf")
    for old in (*(cni / "net.d").iterdir(), *(cni / "multus/net.d").iterdir()):
        old.unlink()
    for name, config in cni_configuration(node, real_multus=settings.multus is not None).items():
        (cni / name).write_text(json.dumps(config, indent=2))
    routes = [f"{layout.pod_subnet(n)} {layout.management_address(n)}" for n in layout.NODES if n != node]
    (root / "etc/cluster/node.env").write_text(
        f"NODE=node{node}\nMANAGEMENT_ADDRESS={layout.management_address(node)}\nGATEWAY={layout.GATEWAY}\n"
        f"POD_ROUTES='{chr(10).join(routes)}'\nPROJECT='{PROJECT}'\n"
    )
    (root / "etc/hostname").write_text(f"node{node}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{layout.management_address(node)} node{node}\n")


def cni_configuration(node: int, *, real_multus: bool) -> dict[str, dict[str, Any]]:
    """Files of /etc/cni. In `net.d` the first is what the runtime takes, and the other what that delegates to.

    host-local knows only its own node, so the ipvlan network has a range of its own on each: the
    NetworkAttachmentDefinition leaves its configuration empty, which means the file of that name in the folder that
    Multus reads when its own configuration names none.
    """
    third = 10 + node
    ipvlan_range = {
        "rangeStart": f"172.51.{third}.1",
        "rangeEnd": f"172.51.{third}.250",
        "gateway": layout.IPVLAN_GATEWAY,
    }
    routes = [{"dst": "0.0.0.0/0"}]
    ipvlan_ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "172.51.0.0/16", **ipvlan_range}]],
        "routes": routes,
    }
    primary_ipam = {"type": "host-local", "subnet": layout.pod_subnet(node), "routes": routes}
    multus = {
        "cniVersion": CNI_VERSION,
        "name": "multus-cni-network",
        "type": "multus" if real_multus else "multus-standin",
        "kubeconfig": "/etc/kubernetes/multus.conf",
        "cniDir": "/var/lib/cni/multus",
        "binDir": "/opt/cni/bin",
        "clusterNetwork": "/etc/cni/net.d/10-cluster.conflist",
    }
    return {
        "net.d/00-multus.conf": multus,
        "net.d/10-cluster.conflist": {
            "cniVersion": CNI_VERSION,
            "name": "cluster",
            "plugins": [{"type": "ptp", "ipam": primary_ipam}],
        },
        "multus/net.d/ipvlan.conflist": {
            "cniVersion": CNI_VERSION,
            "name": "ipvlan",
            "plugins": [{"type": "ipvlan", "master": "ens192", "mode": "l2", "ipam": ipvlan_ipam}],
        },
    }
