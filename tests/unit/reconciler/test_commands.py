"""What `observe` prints, and what `clean` does."""

import asyncio
import fcntl
import json
import os
from dataclasses import replace

import pytest

from reconciler import commands
from reconciler.commands import _names, rows, run_clean, run_observe, table
from reconciler.counters import DirectionCounters, PodCounters
from reconciler.inspection import Inspection
from reconciler.kernel import buckets
from reconciler.kernel.errors import ShapingError
from reconciler.kernel.observe import observe_netns
from reconciler.model import LimitEntry
from reconciler.program_record import NAME
from tests.unit.reconciler.link_messages import Kernel, link
from webhook.common.contract import Direction
from webhook.common.kubeapi import KubeApi

COUNTED = PodCounters(
    "u1",
    "/run/netns/a",
    {
        Direction.INGRESS: DirectionCounters(
            bits_per_second=100_000_000, bytes=3028, packets=2, drops=1, marks=0, queue_ns=12_345_678
        ),
        Direction.EGRESS: DirectionCounters(bits_per_second=524_288, bytes=0, packets=0, drops=0, marks=0),
    },
)
SEEN = Inspection(("eth0", "vethbw0"), COUNTED)


def test_a_row_for_each_limited_direction():
    found = rows("/run/netns/a", SEEN, {"u1": "shop/web-0"})
    assert [(row.pod, row.direction, row.bits_per_second, row.drops) for row in found] == [
        ("shop/web-0", "ingress", 100_000_000, 1),
        ("shop/web-0", "egress", 524_288, 0),
    ]


def test_a_pod_whose_name_is_not_known_is_named_by_its_uid():
    assert rows("/run/netns/a", SEEN, {})[0].pod == "uid u1"


def test_a_namespace_without_a_limit_has_no_row():
    assert rows("/run/netns/a", Inspection((), None), {}) == ()


def test_the_table_is_aligned_and_reads_limits_as_people_write_them():
    assert table(rows("/run/netns/a", SEEN, {"u1": "shop/web-0"})).splitlines() == [
        "POD         INTERFACES    DIRECTION  LIMIT   BYTES  PACKETS  DROPS  MARKS  QUEUE",
        "shop/web-0  eth0,vethbw0  egress     524288  0      0        0      0      0.0ms",
        "shop/web-0  eth0,vethbw0  ingress    100M    3028   2        1      0      12.3ms",
    ]


def test_a_limit_that_others_have_made_invalid_is_shown_as_it_is():
    figures = DirectionCounters(bits_per_second=500, bytes=3028, packets=2, drops=0, marks=0)
    written = PodCounters("u1", "/run/netns/a", {Direction.EGRESS: figures})
    assert table(rows("/run/netns/a", Inspection(("eth0",), written), {"u1": "shop/web-0"})).splitlines() == [
        "POD         INTERFACES  DIRECTION  LIMIT  BYTES  PACKETS  DROPS  MARKS  QUEUE",
        "shop/web-0  eth0        egress     500?   3028   2        0      0      0.0ms",
    ]


def test_limits_are_shown_without_figures_where_another_version_keeps_these(tmp_path, capsys, monkeypatch):
    older = Inspection(("eth0",), None, {Direction.EGRESS: LimitEntry(20_000_000, 3, "u1", 5)})
    assert table(rows("/run/netns/a", older, {"u1": "shop/web-0"})).splitlines() == [
        "POD         INTERFACES  DIRECTION  LIMIT  BYTES  PACKETS  DROPS  MARKS  QUEUE",
        "shop/web-0  eth0        egress     20M    -      -        -      -      -",
    ]
    monkeypatch.setattr(commands, "_namespaces", lambda _: ["/run/netns/a"])
    monkeypatch.setattr(commands, "inspect", lambda _: older)
    assert run_observe(tmp_path, node="", as_json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["pod_uid"], row["direction"], row["bits_per_second"]) == ("u1", "egress", 20_000_000)
    assert [row[each] for each in ("bytes", "packets", "drops", "marks", "queue_ns")] == [None] * 5


def test_what_an_interface_is_called_does_nothing_to_a_terminal():
    (held,) = observe_netns(Kernel(link(2, "e\x1b[2J\u202e", "ipvlan"))).links
    printed = table(rows("/run/netns/a", Inspection((held.link.name,), COUNTED), {}))
    assert all(line.isprintable() for line in printed.splitlines())
    assert r"e\x1b[2J" in printed


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "another version's"])
def test_what_a_map_says_of_a_uid_does_nothing_to_a_terminal_nor_makes_the_table_wider(counted):
    uid = buckets.decode_limit(buckets.encode_limit(LimitEntry(20_000_000, 3, "\x1b[2J\r\n" + 30 * "\a", 5))).pod_uid
    limits = {Direction.EGRESS: LimitEntry(20_000_000, 3, uid, 5)}
    seen = Inspection(("eth0",), replace(COUNTED, pod_uid=uid) if counted else None, {} if counted else limits)
    found = rows("/run/netns/a", seen, {})
    assert all(each.pod_uid.startswith(r"\x1b[2J\x0d\x0a") and len(each.pod_uid) <= 40 for each in found)
    printed = table(found).splitlines()
    assert len(printed) == 1 + len(found)
    assert all(line.isprintable() for line in printed)


def test_a_folder_that_is_not_there_is_a_failure_and_says_so(tmp_path, capsys):
    assert run_observe(tmp_path / "missing", node="", as_json=True) == 1
    assert run_clean(tmp_path / "missing", tmp_path) == 1
    captured = capsys.readouterr()
    assert captured.out == "[]\n"
    assert "cannot look into" in captured.err


def test_what_is_no_network_namespace_is_no_pods(tmp_path, capsys):
    (tmp_path / "stray").write_text("")
    run_observe(tmp_path, node="", as_json=False)
    assert capsys.readouterr().out.startswith("POD")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("odd"), "a defect of the reconciler, please report it: ValueError('odd')"),
        (ShapingError("no"), "no"),
    ],
)
def test_what_cannot_be_done_in_one_namespace_is_told_and_the_others_are_done(
    tmp_path, capsys, monkeypatch, error, told
):
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    monkeypatch.setattr(commands, "_namespaces", lambda _: [one, other])

    def do(path, outcome):
        if path == one:
            raise error
        return outcome

    monkeypatch.setattr(commands, "clean", lambda path: do(path, ["delete the ifb"]))
    monkeypatch.setattr(commands, "inspect", lambda path: do(path, SEEN))
    assert run_clean(tmp_path, tmp_path) == 1
    assert capsys.readouterr() == (f"{other}: delete the ifb\n", f"{one}: {told}\n")
    assert run_observe(tmp_path, node="", as_json=False) == 1
    seen = capsys.readouterr()
    assert seen.out.count("uid u1") == 2
    assert seen.err == f"{one}: {told}\n"


def test_the_record_of_programs_goes_too_and_one_that_cannot_is_told(tmp_path, capsys):
    record = tmp_path / NAME
    (tmp_path / "netns").mkdir()
    record.touch()
    assert run_clean(tmp_path / "netns", tmp_path) == 0
    assert not record.exists()
    assert run_clean(tmp_path / "netns", tmp_path) == 0
    assert capsys.readouterr() == (f"{record}: deleted\n", "")
    record.mkdir()
    assert run_clean(tmp_path / "netns", tmp_path) == 1
    assert "cannot delete the record of the shaper's programs: " in capsys.readouterr().err


async def test_clean_waits_for_the_end_of_a_reconciler_as_it_would_put_back_what_goes(tmp_path, monkeypatch, caplog):
    cleaned = []

    def clean(path):
        cleaned.append(path)
        return ()

    monkeypatch.setattr(commands, "_namespaces", lambda _: ["/run/netns/a"])
    monkeypatch.setattr(commands, "clean", clean)
    record = tmp_path / NAME
    record.touch()
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    cleaning = asyncio.create_task(asyncio.to_thread(run_clean, tmp_path, tmp_path))
    done, _ = await asyncio.wait({cleaning}, timeout=0.25)
    assert (done, cleaned, record.exists()) == (set(), [], True)
    assert caplog.messages == ["a reconciler works on this node: waiting for its end"]
    os.close(held)
    assert await cleaning == 0
    assert (cleaned, record.exists()) == (["/run/netns/a"], False)


def test_clean_needs_no_reconciler_and_no_runtime_and_tells_what_it_cannot_know(tmp_path, capsys):
    (tmp_path / "netns").mkdir()
    assert run_clean(tmp_path / "netns", tmp_path / "missing") == 0
    (tmp_path / "file").touch()
    assert run_clean(tmp_path / "netns", tmp_path / "file") == 1
    assert "cannot know whether a reconciler works on this node: " in capsys.readouterr().err


async def test_pods_are_named_one_at_a_time_as_all_that_they_say_may_be_more_than_the_memory(monkeypatch):
    class Api:
        async def read_list(self, path, params, take):
            assert (path, params) == ("/api/v1/pods", {"fieldSelector": "spec.nodeName=n"})
            for item in ({"metadata": {"uid": "u1", "namespace": "shop", "name": "web-0"}}, {"metadata": None}, 3):
                take(item)
            return {"metadata": {"resourceVersion": "7"}, "items": []}

        async def close(self):
            pass

    async def connect(**_):
        return Api()

    monkeypatch.setattr(KubeApi, "connect", connect)
    assert await _names("n") == {"u1": "shop/web-0"}
