"""People are told what changed for their Pod, and nothing else."""

from dataclasses import replace

import pytest

from reconciler.model import IFB_NAME, ProblemKind, Splitting
from reconciler.report import NOTHING, Applied, Notice, Reason, applied, describe, lost, lost_notices, report
from reconciler.steps import SetRoot, SetUp
from webhook.common.contract import Direction, Limits, Quantity

M100 = Quantity(100_000_000)
M20 = Quantity(20_000_000)
BOTH = Applied(Limits(ingress=M100, egress=M100), ("eth0",))
ONE = Applied(Limits(egress=M20), ("eth0",))


def reasons(*args):
    return [notice.reason for notice in report(*args)]


def test_a_pod_that_becomes_limited():
    (notice,) = report(NOTHING, BOTH, ["fq"])
    assert (notice.type, notice.reason) == ("Normal", Reason.LIMITED)
    assert notice.message == "limited to ingress 100M, egress 100M bit/s on eth0"


def test_of_many_interfaces_some_are_named():
    many = Applied(BOTH.limits, tuple(f"net{number}" for number in range(64)))
    (notice,) = report(NOTHING, many, ["fq"])
    assert notice.message.endswith("on " + ", ".join(f"net{number}" for number in range(16)) + " and 48 more")


def test_an_adopted_pod_is_no_news():
    assert report(NOTHING, BOTH, []) == ()
    assert report(Applied(BOTH.limits), BOTH, []) == ()


def test_limits_that_held_while_the_owner_was_told_of_a_failure():
    (notice,) = report(BOTH, BOTH, [], is_mended=True)
    assert (notice.reason, notice.message) == (Reason.LIMITED, "limited to ingress 100M, egress 100M bit/s on eth0")
    assert [each.reason for each in report(ONE, BOTH, ["limits"], is_mended=True)] == [Reason.CHANGED]
    assert report(NOTHING, NOTHING, [], is_mended=True) == ()


def test_a_changed_limit():
    (notice,) = report(BOTH, ONE, ["limits"])
    assert notice.reason == Reason.CHANGED
    assert notice.message == "limits changed from ingress 100M, egress 100M bit/s to egress 20M bit/s"


def test_a_lifted_limit():
    (notice,) = report(ONE, NOTHING, ["filter"])
    assert notice == Notice(Reason.REMOVED, "no longer limited (was egress 20M bit/s)")


def test_an_interface_that_came_later():
    assert reasons(BOTH, Applied(BOTH.limits, ("eth0", "veth0")), ["fq"]) == [Reason.LIMITED]


def test_an_interface_that_shared_the_limit_and_is_there_under_another_name_without_it():
    both = replace(BOTH, interfaces=("eth0", "veth0"), indexes=frozenset({2, 3}))
    assert lost(both, {}) == {}
    assert lost(both, {3: "v0", 4: "veth1"}) == {3: "v0"}
    (notice,) = lost_notices({3: "v0", 5: "v1"})
    assert (notice.type, notice.reason) == ("Warning", ProblemKind.RENAMED)
    assert notice.message.startswith("v0, v1 shared the limit")
    assert lost_notices({}) == ()


def test_shaping_that_somebody_took_away():
    (notice,) = report(BOTH, BOTH, ["add fq on eth0", "add clsact on eth0"])
    assert (notice.type, notice.reason) == ("Warning", Reason.REPAIRED)
    assert "add fq on eth0; add clsact on eth0" in notice.message


def test_what_follows_the_nic_or_the_kernel_is_not_laid_to_somebody():
    update = SetRoot(IFB_NAME, Splitting(9022, 156_250), is_update=True)
    assert report(BOTH, BOTH, [update]) == ()
    (notice,) = report(BOTH, BOTH, [update, SetUp(IFB_NAME)])
    assert notice.message.endswith(f"put back: {SetUp(IFB_NAME)}")
    assert reasons(BOTH, BOTH, [SetRoot(IFB_NAME, Splitting(9022, 156_250))]) == [Reason.REPAIRED]


def test_nothing_to_repair_where_nothing_is_limited():
    assert report(NOTHING, NOTHING, ["leftover"]) == ()


def test_a_problem_is_told_once():
    problem = Notice("IngressUnsupported", "l3s")
    after = Applied(BOTH.limits, BOTH.interfaces, (problem,))
    assert reasons(NOTHING, after, ["fq"]) == [Reason.LIMITED, "IngressUnsupported"]
    assert report(after, after, []) == ()
    assert problem.type == "Warning"


def test_a_conflict_that_is_over_is_told():
    problem = Notice("Conflict", "tbf")
    blocked = Applied(BOTH.limits, BOTH.interfaces, (problem,))
    (notice,) = report(blocked, BOTH, ["fq"])
    assert (notice.type, notice.reason) == ("Normal", Reason.LIMITED)
    assert notice.message == "limited to ingress 100M, egress 100M bit/s on eth0: what stood in the way is gone"
    assert reasons(blocked, Applied(BOTH.limits, BOTH.interfaces, (Notice("Conflict", "sfq"),)), []) == ["Conflict"]


def test_limits_in_words():
    assert describe(Limits()) == "no limit"
    assert describe(Limits(ingress=M100)) == "ingress 100M bit/s"


def test_what_is_well_again_on_the_node_is_no_warning():
    assert {Notice(why, "").type for why in (Reason.STARTED, Reason.KERNEL_READY, Reason.RUNTIME_BACK)} == {"Normal"}


L3S = Notice("L3sIngress", "mode l3s")
WITHOUT_INGRESS = {Direction.INGRESS: ("eth0",)}
EGRESS_ONLY = applied(BOTH.limits, ("eth0",), WITHOUT_INGRESS, (L3S,))
NONE_OF_BOTH = applied(BOTH.limits, ("eth0",), dict.fromkeys(Direction, ("eth0",)), (Notice("Conflict", "ingress"),))
ON_ONE_LINK = applied(BOTH.limits, ("eth0", "eth1"), dict.fromkeys(Direction, ("eth1",)), (L3S,))


def test_only_what_holds_on_all_interfaces_is_in_force_and_all_that_was_asked_for_is_remembered():
    assert applied(BOTH.limits, ("eth0",), {}) == BOTH
    assert (EGRESS_ONLY.limits, EGRESS_ONLY.withheld) == (Limits(egress=M100), Limits(ingress=M100))
    assert (ON_ONE_LINK.limits, ON_ONE_LINK.withheld, ON_ONE_LINK.in_part) == (Limits(), BOTH.limits, True)
    assert {each.asked for each in (EGRESS_ONLY, NONE_OF_BOTH, ON_ONE_LINK)} == {BOTH.limits}
    assert not EGRESS_ONLY.in_part
    assert not NONE_OF_BOTH.in_part
    assert applied(BOTH.limits, (), {}, (L3S,)) == Applied(notices=(L3S,))


def test_what_could_not_be_had_is_not_told_as_in_force():
    limited, _ = report(NOTHING, EGRESS_ONLY, ["fq"])
    assert limited.message == "limited to egress 100M bit/s on eth0, but for what the warnings beside this say"
    assert reasons(NOTHING, NONE_OF_BOTH, ["limits"]) == ["Conflict"]
    assert reasons(NOTHING, ON_ONE_LINK, ["fq"]) == ["L3sIngress"]
    assert report(EGRESS_ONLY, EGRESS_ONLY, []) == ()


def test_a_restarted_reconciler_is_quiet_of_what_it_found_that_is_not_in_force_and_warns_again():
    assert reasons(Applied(BOTH.limits), EGRESS_ONLY, []) == ["L3sIngress"]
    assert reasons(Applied(BOTH.limits), NONE_OF_BOTH, []) == ["Conflict"]


@pytest.mark.parametrize("before", [EGRESS_ONLY, NONE_OF_BOTH, ON_ONE_LINK])
def test_what_comes_in_force_when_nothing_stands_in_the_way_any_more_is_told(before):
    (notice,) = report(before, BOTH, ["fq"])
    assert notice.reason == Reason.LIMITED
    assert notice.message == "limited to ingress 100M, egress 100M bit/s on eth0: what stood in the way is gone"
    (partly,) = report(NONE_OF_BOTH, EGRESS_ONLY, ["fq"])[:1]
    assert partly.message == "limited to egress 100M bit/s on eth0, but for what the warnings beside this say"


def test_what_comes_in_the_way_is_told_by_the_warning_alone():
    assert reasons(BOTH, NONE_OF_BOTH, []) == ["Conflict"]
    assert reasons(BOTH, EGRESS_ONLY, ["detach"]) == ["L3sIngress"]


def test_of_a_change_what_is_in_force_is_told():
    other = applied(Limits(ingress=M20, egress=M20), ("eth0",), WITHOUT_INGRESS, (L3S,))
    (notice,) = report(EGRESS_ONLY, other, ["limits"])
    assert notice.message == "limits changed from egress 100M bit/s to egress 20M bit/s"
    only_ingress = applied(Limits(ingress=M20), ("eth0",), WITHOUT_INGRESS, (L3S,))
    (notice,) = report(EGRESS_ONLY, only_ingress, ["limits"])
    assert notice.message == "limits changed from egress 100M bit/s to no limit"
    assert report(only_ingress, applied(Limits(ingress=M100), ("eth0",), WITHOUT_INGRESS, (L3S,)), ["limits"]) == ()
    assert report(only_ingress, NOTHING, ["limits"]) == ()


def test_the_end_of_a_limit_that_held_on_some_interfaces_is_told():
    (notice,) = report(ON_ONE_LINK, NOTHING, ["limits"])
    assert notice.message == "no longer limited (was in part, to ingress 100M, egress 100M bit/s)"
    (notice,) = report(EGRESS_ONLY, NOTHING, ["limits"])
    assert notice.message == "no longer limited (was egress 100M bit/s)"


def test_an_interface_is_of_another_mode_only_if_it_was_there_before() -> None:
    one = Applied(modes={"eth0": "l3"})
    both = Applied(modes={"eth0": "l3", "net1": "l2"})
    assert not both.has_other_modes(one)
    assert not one.has_other_modes(both)
    assert not one.has_other_modes(Applied())
    assert Applied(modes={"eth0": "l3s"}).has_other_modes(both)
