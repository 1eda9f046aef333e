"""The product taken away again, so this comes last of its folder."""

from reconciler.program_record import NAME
from tests.cluster import scenario, traffic
from tests.cluster.chaos.meter import above_limit
from tests.cluster.cluster import wait_for
from tests.cluster.layout import PROJECT
from tests.losses import nothing_lost


def test_uninstalled_limits_stay_until_clean_takes_them_away(installed, limited, unlimited):
    scenario.uninstall(installed)
    assert NAME in installed.node(1).run("ls", "/run/nri").stdout
    flow = traffic.measure(installed, limited[1], unlimited[2], seconds=3)
    nothing_lost(above_limit(flow, 100))
    assert 48 <= flow.mean <= 96, str(flow)
    installed.kubectl("apply", "-k", str(PROJECT / "manifests" / "clean"))
    wait_for(
        "the limit to go",
        lambda: traffic.measure(installed, limited[1], unlimited[2], seconds=2).mean > 200,
        90,
    )
    wait_for("the record of programs to go", lambda: NAME not in installed.node(1).run("ls", "/run/nri").stdout, 90)
    installed.kubectl("delete", "-k", str(PROJECT / "manifests" / "clean"), timeout=180)
