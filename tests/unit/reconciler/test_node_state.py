"""What is known of Pods; tests/unit/reconciler/test_controller*.py have it at work."""

from dataclasses import replace

import pytest

from reconciler.model import ProblemKind
from reconciler.node_state import NodeState, PodCounts
from reconciler.pods import PodView
from reconciler.report import Applied, Notice
from reconciler.sandboxes import Key, Sandbox
from webhook.common.contract import Limits, Quantity

M20 = Limits(egress=Quantity(20_000_000))


def test_what_the_kernel_holds_for_a_sandbox_that_is_gone_is_not_remembered():
    state = NodeState()
    there = Sandbox("s1", PodView("u1", "shop", "web-0"), "/run/netns/a")
    state.sandboxes.add(there)
    state.adopt(Key("u9", "/run/netns/b"), M20, M20)
    state.adopt(Key("u1", "/run/netns/b"), M20, M20)
    assert state.is_settled(there)
    assert not state._states
    state.adopt(there.key, Limits(), Limits())
    assert not state.is_settled(there)


def test_what_was_to_be_and_is_not_in_force_is_no_limit_yet():
    state = NodeState()
    held = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="20M"), "/run/netns/a")
    state.sandboxes.add(held)
    state.adopt(held.key, M20, Limits())
    assert state.desired(held).limits == M20
    assert state.started_unlimited(held)
    assert state.pod_counts() == PodCounts(1, 0, 0, 0, 0)


def test_a_pod_of_which_the_runtime_names_no_netns_is_found_by_what_its_netns_holds():
    state = NodeState()
    told = Sandbox("s1", PodView("u1", "shop", "web-0", host_network=True), "")
    state.on_synchronized([told])
    state.on_failed(told, "the program cannot be loaded")
    state.adopt(Key("u1", "/run/netns/a"), M20, M20)
    (found,) = state.sandboxes
    assert state.is_failing(found), "its owner was told so"
    assert not state.is_failing(told)
    assert (found.key, found.pod.host_network) == (("u1", "/run/netns/a"), False)
    assert state.desired(found).limits == state.applied(found).limits == M20
    state.on_synchronized([told])
    state.adopt(Key("u1", "/run/netns/a"), M20, M20)
    assert list(state.sandboxes) == [found]
    # Another sandbox of the Pod may have that id: its end is not this one's.
    state.sandboxes.remove("s1")
    assert list(state.sandboxes) == [found]


def test_only_a_pod_that_asks_for_a_limit_and_is_not_on_the_hosts_network_lacks_a_netns():
    state = NodeState()
    for number, view in enumerate(
        (
            PodView("u0", "shop", "web-0", managed=True, egress="20M"),
            PodView("u1", "shop", "web-1", managed=True, egress="20M", host_network=True),
            PodView("u2", "shop", "web-2", managed=True),
        )
    ):
        state.on_started(Sandbox(f"s{number}", PodView(view.uid, "shop", view.name, host_network=True), ""))
        state.on_seen(view)
    state.on_started(Sandbox("s3", PodView("u3", "shop", "web-3", host_network=True), ""))
    assert [sandbox.id for sandbox in state.unlocated()] == ["s0"]
    assert state.pod_counts() == PodCounts(1, 0, 0, 0, 0)
    state.on_synchronized([])
    assert state.unlocated() == ()


NO_IPVLAN = Applied(notices=(Notice(ProblemKind.NO_IPVLAN, "no ipvlan"),))


def on_another_network(view):
    """A sandbox that was looked at, and has no ipvlan interface."""
    state, sandbox = NodeState(), Sandbox("s1", view, "/run/netns/a")
    state.on_started(sandbox)
    state.on_succeeded(sandbox, M20, NO_IPVLAN, now_s=0.0, netns_created_s=0.0)
    return state


WANTS = PodView("u1", "shop", "web-0", managed=True, egress="20M")


def test_a_pod_that_wants_a_limit_and_has_no_ipvlan_counts_as_such_once_it_was_looked_at():
    state = NodeState()
    state.on_started(Sandbox("s1", WANTS, "/run/netns/a"))
    assert state.pod_counts() == PodCounts(1, 0, 0, 0, 0)
    state = on_another_network(WANTS)
    assert state.pod_counts() == PodCounts(1, 0, 0, 0, 1)
    (sandbox,) = state.sandboxes
    state.on_failed(sandbox, "no")
    assert state.pod_counts() == PodCounts(1, 0, 0, 1, 0)
    state.on_succeeded(sandbox, M20, Applied(M20, ("eth0",)), now_s=0.0, netns_created_s=0.0)
    assert state.pod_counts() == PodCounts(1, 1, 0, 0, 0)


def test_a_pod_whose_limit_was_taken_away_or_that_is_on_the_hosts_network_lacks_no_ipvlan():
    state = on_another_network(WANTS)
    state.on_seen(PodView("u1", "shop", "web-0", managed=True))
    assert state.pod_counts() == PodCounts(0, 0, 0, 0, 0)
    state.on_seen(replace(WANTS, host_network=True))
    assert state.pod_counts() == PodCounts(0, 0, 0, 0, 0)


def test_a_pod_that_has_ended_lacks_no_ipvlan_though_its_netns_is_still_there():
    """Where the CNI fails to take its network down, the interface may be gone before the netns."""
    state = on_another_network(WANTS)
    state.on_listed([WANTS])
    assert state.pod_counts().no_ipvlan == 1
    state.on_seen(replace(WANTS, ended=True))
    assert state.pod_counts() == PodCounts(1, 0, 0, 0, 0)
    state = on_another_network(WANTS)
    state.on_listed([])
    assert state.pod_counts() == PodCounts(1, 0, 0, 0, 0), "it has finished, or was deleted"
    state = on_another_network(replace(WANTS, static=True))
    state.on_listed([])
    assert state.pod_counts().no_ipvlan == 1, "the API server has a static Pod under another uid"


def listed_nowhere(uid, **kwargs):
    return Sandbox(f"s-{uid}", PodView(uid, "shop", "web", host_network=True), ""), PodView(
        uid, "shop", "web", managed=True, **{"egress": "20M", "running": True, **kwargs}
    )


def test_of_those_listed_without_a_netns_one_lacks_it_whose_pod_runs_and_of_which_nothing_else_is_known():
    pods = (
        listed_nowhere("u0"),
        listed_nowhere("u1", running=False),
        listed_nowhere("u2", host_network=True),
        listed_nowhere("u3", egress=None),
        listed_nowhere("u4"),
        listed_nowhere("u5"),
    )
    state = NodeState()
    again = Sandbox("s-u0-before", pods[0][0].pod, "")
    there = Sandbox("s-u4-next", PodView("u4", "shop", "web"), "/run/netns/u4")
    state.on_synchronized([again, there, *(sandbox for sandbox, _ in pods)])
    for _, view in pods[:-1]:
        state.on_seen(view)
    assert state.unlocated() == (), "another sandbox may be about to come"
    state.stop_expecting_new_sandboxes()
    assert state.unlocated() == state.unlocated("u0") == (pods[0][0],)
    assert state.pod_counts() == PodCounts(2, 0, 0, 0, 0)
    assert state.on_failed(pods[0][0], "no netns") == (0, True)
    state.on_synchronized([pods[0][0]])
    state.stop_expecting_new_sandboxes()
    assert state.pod_counts() == PodCounts(2, 0, 0, 1, 0)
    assert state.sandboxes.remove("s-u0") == pods[0][0]
    assert state.unlocated() == ()
    state.on_synchronized([])
    assert [uid for uid, path in state._states if not path] == []


def test_what_the_kernel_holds_for_a_sandbox_that_a_list_left_out_counts_when_another_list_has_it():
    state = NodeState()
    named = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="100M"), "/run/netns/a")
    state.on_synchronized([])
    state.adopt(named.key, M20, M20)
    state.on_synchronized([])
    state.on_synchronized([named])
    assert state.applied(named).limits == state.desired(named).limits == M20
    assert not state.started_unlimited(named)
    assert not state.awaits_api_server(named)


def test_what_a_netns_holds_that_does_not_tell_whose_it_is_is_its_pods_when_the_runtime_names_it():
    state = NodeState()
    named = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="100M"), "/run/netns/a")
    state.adopt(Key("", "/run/netns/a"), Limits(), None)
    state.on_synchronized([named])
    assert state.awaits_api_server(named), "it may have limits, which the API server alone knows"
    assert not state.started_unlimited(named)
    assert named.key not in state.ran_unlimited
    begun = Sandbox("s2", PodView("u2", "shop", "web-0", managed=True, egress="100M"), "/run/netns/b")
    state.adopt(Key("", "/run/netns/b"), Limits(), None)
    state.on_started(begun)
    state.adopt(Key("", "/run/netns/b"), Limits(), None)
    state.on_synchronized([named, begun])
    assert not state.awaits_api_server(begun), "nothing was in it when it began"


def test_a_sandbox_that_begins_holds_nothing_whatever_was_found():
    state = NodeState()
    begun = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="100M"), "/run/netns/a")
    state.on_synchronized([])
    state.adopt(begun.key, M20, M20)
    state.on_started(begun)
    state.on_synchronized([begun])
    assert state.applied(begun).limits == Limits()


@pytest.mark.parametrize(
    "end",
    [
        ("forget", "deleted"),
        ("forget", "listed"),
        ("deleted", "forget"),
        ("listed", "forget"),
        ("began again", "deleted", "forget", "forget again"),
    ],
    ids=", ".join,
)
def test_the_last_good_limit_is_kept_for_as_long_as_the_pod_may_be_given_another_sandbox(end):
    state, view = NodeState(), PodView("u1", "shop", "web-0", managed=True, egress="20M")
    state.on_seen(view)
    state.on_listed([view])
    held, again = Sandbox("s1", view, "/run/netns/a"), Sandbox("s2", view, "/run/netns/b")
    state.on_started(held)
    state.on_succeeded(held, M20, Applied(M20), now_s=0.0, netns_created_s=0.0)

    def let_go(sandbox):
        state.sandboxes.remove(sandbox.id)
        state.forget(sandbox)

    ends = {
        "forget": lambda: let_go(held),
        "forget again": lambda: let_go(again),
        "began again": lambda: state.on_started(again),
        "deleted": lambda: state.on_deleted(view),
        "listed": lambda: state.on_listed([]),
    }
    for step in end:
        assert state._last_good == {"u1": M20}
        ends[step]()
    assert state._last_good == {}


def test_nothing_is_left_of_a_sandbox_that_was_let_go_whatever_was_known_of_it():
    state = NodeState()
    held = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="20M"), "/run/netns/a")
    state.on_started(held)
    state.adopt(held.key, M20, None)
    state.on_failed(held, "no")
    state.on_netns_looked_up(held, is_there=False)
    state.on_hook_timeout(held.key, 1.0)
    assert held.key in state._states
    state.sandboxes.remove("s1")
    state.forget(held)
    assert state._states == {}
    assert held.key not in state.ran_unlimited


def test_who_holds_a_sandbox_for_a_while_has_what_was_learnt_of_its_pod_since():
    state = NodeState()
    held = Sandbox("s1", PodView("u1", "shop", "web-0"), "/run/netns/a")
    state.sandboxes.add(held)
    state.adopt(held.key, M20, M20)
    assert state.desired(held).limits == M20
    last = PodView("u1", "shop", "web-0", started_s=1.0)
    state.on_deleted(last)
    assert state.view(held) == last
    state.sandboxes.remove("s1")
    assert state.view(held) == held.pod
