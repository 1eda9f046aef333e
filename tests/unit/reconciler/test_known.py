"""What is known of Pods; tests/unit/reconciler/test_controller*.py have it at work."""

from reconciler.known import Known
from reconciler.pods import PodView
from reconciler.sandboxes import Sandbox
from webhook.contract import Limits, Quantity


def test_what_the_kernel_may_hold_for_a_sandbox_that_is_gone_is_not_remembered():
    known = Known()
    there = Sandbox("s1", PodView("u1", "shop", "web-0"), "/run/netns/a")
    known.sandboxes.add(there)
    known.doubt(("u9", "/run/netns/b"))
    known.doubt(("u1", "/run/netns/b"))
    assert known.is_settled(there)
    assert not known._unsure
    known.doubt(there.key)
    assert not known.is_settled(there)


def test_who_holds_a_sandbox_for_a_while_has_what_was_learnt_of_its_pod_since():
    known = Known()
    held = Sandbox("s1", PodView("u1", "shop", "web-0"), "/run/netns/a")
    known.sandboxes.add(held)
    known.adopt(held.key, Limits(egress=Quantity(20_000_000)))
    assert known.intent(held).limits == Limits(egress=Quantity(20_000_000))
    last = PodView("u1", "shop", "web-0", started_s=1.0)
    known.deleted(last)
    assert known.view(held) == last
    known.sandboxes.remove("s1")
    assert known.view(held) == held.pod
