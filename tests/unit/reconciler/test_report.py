"""People are told what changed for their Pod, and nothing else."""

from reconciler.report import NOTHING, Applied, Notice, Reason, describe, report
from webhook.contract import Limits, Quantity

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


def test_an_adopted_pod_is_no_news():
    assert report(NOTHING, BOTH, []) == ()
    assert report(Applied(BOTH.limits), BOTH, []) == ()


def test_a_changed_limit():
    (notice,) = report(BOTH, ONE, ["limits"])
    assert notice.reason == Reason.CHANGED
    assert notice.message == "limits changed from ingress 100M, egress 100M bit/s to egress 20M bit/s"


def test_a_lifted_limit():
    (notice,) = report(ONE, NOTHING, ["filter"])
    assert notice == Notice(Reason.REMOVED, "no longer limited (was egress 20M bit/s)")


def test_an_interface_that_came_later():
    assert reasons(BOTH, Applied(BOTH.limits, ("eth0", "veth0")), ["fq"]) == [Reason.LIMITED]


def test_shaping_that_somebody_took_away():
    (notice,) = report(BOTH, BOTH, ["add fq on eth0", "add clsact on eth0"])
    assert (notice.type, notice.reason) == ("Warning", Reason.REPAIRED)
    assert "add fq on eth0; add clsact on eth0" in notice.message


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
