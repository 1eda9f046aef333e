"""What is known of Pods; tests/unit/reconciler/test_controller*.py have it at work."""

import pytest

from reconciler.known import Known, Wanted
from reconciler.pods import PodView
from reconciler.report import Applied
from reconciler.sandboxes import Sandbox
from webhook.contract import Limits, Quantity

M20 = Limits(egress=Quantity(20_000_000))


def test_what_the_kernel_holds_for_a_sandbox_that_is_gone_is_not_remembered():
    known = Known()
    there = Sandbox("s1", PodView("u1", "shop", "web-0"), "/run/netns/a")
    known.sandboxes.add(there)
    known.adopt(("u9", "/run/netns/b"), M20, M20)
    known.adopt(("u1", "/run/netns/b"), M20, M20)
    assert known.is_settled(there)
    assert not known._states
    known.adopt(there.key, Limits(), Limits())
    assert not known.is_settled(there)


def test_what_was_to_be_and_is_not_in_force_is_no_limit_yet():
    known = Known()
    held = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="20M"), "/run/netns/a")
    known.sandboxes.add(held)
    known.adopt(held.key, M20, Limits())
    assert known.intent(held).limits == M20
    assert known.began_unlimited(held)
    assert known.wanted() == Wanted(1, 0, 0, 0)


def test_a_pod_of_which_the_runtime_names_no_netns_is_found_by_what_its_netns_holds():
    known = Known()
    told = Sandbox("s1", PodView("u1", "shop", "web-0", host_network=True), "")
    known.replayed([told])
    known.adopt(("u1", "/run/netns/a"), M20, M20)
    (found,) = known.sandboxes
    assert (found.key, found.pod.host_network) == (("u1", "/run/netns/a"), False)
    assert known.intent(found).limits == known.applied(found).limits == M20
    known.replayed([told])
    known.adopt(("u1", "/run/netns/a"), M20, M20)
    assert list(known.sandboxes) == [found]
    # Another sandbox of the Pod may have that id: its end is not this one's.
    known.sandboxes.remove("s1")
    assert list(known.sandboxes) == [found]


def test_only_a_pod_that_asks_for_a_limit_and_is_not_on_the_hosts_network_lacks_a_netns():
    known = Known()
    for number, view in enumerate(
        (
            PodView("u0", "shop", "web-0", managed=True, egress="20M"),
            PodView("u1", "shop", "web-1", managed=True, egress="20M", host_network=True),
            PodView("u2", "shop", "web-2", managed=True),
        )
    ):
        known.began(Sandbox(f"s{number}", PodView(view.uid, "shop", view.name, host_network=True), ""))
        known.seen(view)
    known.began(Sandbox("s3", PodView("u3", "shop", "web-3", host_network=True), ""))
    assert [sandbox.id for sandbox in known.lost()] == ["s0"]
    assert known.wanted() == Wanted(1, 0, 0, 0)
    known.replayed([])
    assert known.lost() == ()


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
    known = Known()
    again = Sandbox("s-u0-before", pods[0][0].pod, "")
    there = Sandbox("s-u4-next", PodView("u4", "shop", "web"), "/run/netns/u4")
    known.replayed([again, there, *(sandbox for sandbox, _ in pods)])
    for _, view in pods[:-1]:
        known.seen(view)
    assert known.lost() == (), "another sandbox may be about to come"
    known.expect_no_next()
    assert known.lost() == known.lost("u0") == (pods[0][0],)
    assert known.wanted() == Wanted(2, 0, 0, 0)
    assert known.failed(pods[0][0], "no netns") == (0, True)
    known.replayed([pods[0][0]])
    known.expect_no_next()
    assert known.wanted() == Wanted(2, 0, 0, 1)
    assert known.sandboxes.remove("s-u0") == pods[0][0]
    assert known.lost() == ()
    known.replayed([])
    assert [uid for uid, path in known._states if not path] == []


def test_what_the_kernel_holds_for_a_sandbox_that_a_list_left_out_counts_when_another_list_has_it():
    known = Known()
    named = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="100M"), "/run/netns/a")
    known.replayed([])
    known.adopt(named.key, M20, M20)
    known.replayed([])
    known.replayed([named])
    assert known.applied(named).limits == known.intent(named).limits == M20
    assert not known.began_unlimited(named)
    assert not known.waits(named)


def test_what_a_netns_holds_that_does_not_tell_whose_it_is_is_its_pods_when_the_runtime_names_it():
    known = Known()
    named = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="100M"), "/run/netns/a")
    known.adopt(("", "/run/netns/a"), Limits(), None)
    known.replayed([named])
    assert known.waits(named), "it may have limits, which the API server alone knows"
    assert not known.began_unlimited(named)
    assert named.key not in known.latecomers
    begun = Sandbox("s2", PodView("u2", "shop", "web-0", managed=True, egress="100M"), "/run/netns/b")
    known.adopt(("", "/run/netns/b"), Limits(), None)
    known.began(begun)
    known.adopt(("", "/run/netns/b"), Limits(), None)
    known.replayed([named, begun])
    assert not known.waits(begun), "nothing was in it when it began"


def test_a_sandbox_that_begins_holds_nothing_whatever_was_found():
    known = Known()
    begun = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="100M"), "/run/netns/a")
    known.replayed([])
    known.adopt(begun.key, M20, M20)
    known.began(begun)
    known.replayed([begun])
    assert known.applied(begun).limits == Limits()


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
    known, view = Known(), PodView("u1", "shop", "web-0", managed=True, egress="20M")
    known.seen(view)
    known.listed([view])
    held, again = Sandbox("s1", view, "/run/netns/a"), Sandbox("s2", view, "/run/netns/b")
    known.began(held)
    known.succeeded(held, M20, Applied(M20), now_s=0.0, there_since_s=0.0)

    def let_go(sandbox):
        known.sandboxes.remove(sandbox.id)
        known.forget(sandbox)

    ends = {
        "forget": lambda: let_go(held),
        "forget again": lambda: let_go(again),
        "began again": lambda: known.began(again),
        "deleted": lambda: known.deleted(view),
        "listed": lambda: known.listed([]),
    }
    for step in end:
        assert known._last_good == {"u1": M20}
        ends[step]()
    assert known._last_good == {}


def test_nothing_is_left_of_a_sandbox_that_was_let_go_whatever_was_known_of_it():
    known = Known()
    held = Sandbox("s1", PodView("u1", "shop", "web-0", managed=True, egress="20M"), "/run/netns/a")
    known.began(held)
    known.adopt(held.key, M20, None)
    known.failed(held, "no")
    known.looked_for(held, is_there=False)
    known.late(held.key, 1.0)
    assert held.key in known._states
    known.sandboxes.remove("s1")
    known.forget(held)
    assert known._states == {}
    assert held.key not in known.latecomers


def test_who_holds_a_sandbox_for_a_while_has_what_was_learnt_of_its_pod_since():
    known = Known()
    held = Sandbox("s1", PodView("u1", "shop", "web-0"), "/run/netns/a")
    known.sandboxes.add(held)
    known.adopt(held.key, M20, M20)
    assert known.intent(held).limits == M20
    last = PodView("u1", "shop", "web-0", started_s=1.0)
    known.deleted(last)
    assert known.view(held) == last
    known.sandboxes.remove("s1")
    assert known.view(held) == held.pod
