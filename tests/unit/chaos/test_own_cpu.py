"""The reconciler's CPU time in /proc's words."""

import os
from pathlib import Path

from tests.cluster.chaos import own_cpu
from tests.cluster.chaos.meter import Meter


def stat(pid, *ticks, name="python3"):
    user, system, of_children, system_of_children = (*ticks, 0, 0, 0, 0)[:4]
    return f"{pid} ({name}) S 1 1 1 0 -1 4194304 9 9 9 9 {user} {system} {of_children} {system_of_children} 20 0 3 0\n"


def test_what_it_took_meanwhile_is_the_difference_and_of_a_new_one_all():
    before = stat(7, 100, 50) + stat(8, 400)
    assert own_cpu.seconds(before, stat(7, 150, 60, 30, 10)) == 1.0
    assert own_cpu.seconds(before, stat(9, 200, 30, name="a ) b")) == 2.3
    assert own_cpu.seconds(before, "") == 0


def test_a_real_line_is_read():
    line = Path(f"/proc/{os.getpid()}/stat").read_text()
    took = sum(os.times()[:4])
    assert abs(own_cpu.seconds("", line) - took) < 1


def test_a_meter_tells_what_the_reconciler_took_where_it_was_measured():
    assert "CPU" not in str(Meter())
    assert str(Meter(own_cpu_s=2.34)).endswith("the node's reconciler took 2.3 s of CPU time")
