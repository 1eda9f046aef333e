"""What is known of Pods; tests/unit/reconciler/test_controller*.py have it at work."""

from reconciler.known import Known
from reconciler.pods import PodView
from reconciler.sandboxes import Sandbox


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
