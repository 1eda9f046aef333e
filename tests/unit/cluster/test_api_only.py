"""An API server for one test leaves nothing behind, however the test ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.commands import wait_for
from tests.cluster.layout import PROJECT

STARTED = """
import sys, time
from pathlib import Path
from tests.cluster.api_only import ApiOnly

plane = ApiOnly(Path(sys.argv[1]))
plane.start()
print(*(process.pid for process in plane._running.values()), flush=True)
time.sleep(60)
"""


def runs(pid: int) -> bool:
    """Whether it does, and is not only left for somebody to ask for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_etcd_and_the_api_server_end_with_a_test_run_that_is_killed(tmp_path):
    # The API server is ready once both programs have begun: from then on they are to end.
    until_killed = "touch $0.up; exec sleep 60"
    does = {
        "etcd": until_killed,
        "kube-apiserver": until_killed,
        "kubectl": f"cd {tmp_path}; test -e etcd.up -a -e kube-apiserver.up",
    }
    for name, script in does.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environ = {**os.environ, "KUBEBUILDER_ASSETS": str(tmp_path)}
    command = [sys.executable, "-c", STARTED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, cwd=PROJECT) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert [runs(pid) for pid in pids] == [True, True]
        parent.kill()
    try:
        wait_for("the end of both", lambda: not any(runs(pid) for pid in pids), 10, every=0.05)
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)
