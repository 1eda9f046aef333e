"""Pods that ran before, without anything of ours in their netns: the API server is asked first, for a while."""

import asyncio

import pytest

from reconciler.controller import LIST_TIMEOUT_S
from tests.unit.reconciler.controller_bench import M20, M100, STARTED, A, B, Bench, api_pod, sandbox, unshaped_seconds
from webhook.common.contract import Limits


@pytest.fixture
async def patient(begin):
    """A controller that has found one Pod, which began with a limit, and nothing in the kernel; its clock stands."""
    patient = Bench()
    patient.gate = asyncio.Event()
    await begin(patient)
    await patient.controller.on_synchronize([sandbox()])
    await patient.settle()
    return patient


async def test_a_limit_that_was_taken_away_before_a_restart_does_not_come_back(patient):
    patient.controller.on_netns_changed([A])
    patient.controller.enqueue("u1")
    await patient.settle()
    patient.on_pods([api_pod(status=STARTED)])
    await patient.settle()
    patient.gate.set()
    await patient.settle()
    assert not any(patient.kernel.held.values())
    assert patient.told.notices == []
    assert unshaped_seconds(patient) == 0
    assert patient.controller.pod_counts() == (0, 0, 0, 0, 0)


async def test_a_pod_that_started_while_nobody_was_there_is_limited_and_told_when_the_api_server_has_told_of_it(
    patient,
):
    assert patient.kernel.held == {}
    patient.on_pods([api_pod(ingress="20M", status=STARTED)])
    await patient.settle()
    assert patient.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert {reason for _, reason in patient.told.notices} == {"BandwidthLimited", "RanUnlimited"}


async def test_a_pod_that_the_api_servers_first_list_does_not_have_is_as_it_began(patient):
    patient.on_pods([api_pod("u2")])
    await patient.settle()
    assert patient.kernel.held == {("u1", A): Limits(ingress=M100)}


async def test_the_runtimes_word_counts_when_the_api_server_stays_away_and_at_once_for_a_pod_that_starts(patient):
    await patient.controller.on_run(sandbox("s2", uid="u2", path=B))
    assert patient.kernel.held == {("u2", B): Limits(ingress=M100)}
    await patient.controller.on_synchronize([sandbox(), sandbox("s2", uid="u2", path=B)])
    await patient.settle()
    assert set(patient.kernel.held) == {("u2", B)}
    assert patient.slept.count(LIST_TIMEOUT_S) == 1
    patient.gate.set()
    await patient.settle()
    assert patient.kernel.held == {("u1", A): Limits(ingress=M100), ("u2", B): Limits(ingress=M100)}
    await patient.controller.on_synchronize([sandbox("s3", uid="u3", path="/run/netns/c")])
    await patient.settle()
    assert ("u3", "/run/netns/c") in patient.kernel.held, "it was waited for once"


async def test_a_sandbox_that_a_replay_told_of_before_its_hook_waits_no_longer(patient):
    await patient.controller.on_run(sandbox())
    assert patient.kernel.held == {("u1", A): Limits(ingress=M100)}
