"""What tests on the embedded cluster wait for; the cluster is a stand-in with a clock of its own."""

import yaml

from tests.cluster import scenario
from tests.cluster.layout import HERE
from tests.unit.manifests.test_manifests import one

GRACE_S = one("Deployment", "webhook")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_kubelet_starts_a_container_that_keeps_ending_again_long_before_a_test_gives_up():
    kubelet = yaml.safe_load((HERE / "node/kubelet.yaml").read_text())
    most_s = float(kubelet["crashLoopBackOff"]["maxContainerRestartPeriod"].removesuffix("s"))
    assert 1 <= most_s <= 5, "kubelet takes no less than a second"
    assert 10 * most_s < scenario.RESTART_S <= 60


class Lingering:
    """An installation whose webhook serves on as long as it may, so that its namespace stays as long."""

    def __init__(self):
        self.now, self.ends = 0, None

    def kubectl(self, *argv, **_):
        words = [word for word in argv if not word.startswith("--")]
        options = dict(word.partition("=")[::2] for word in argv if word.startswith("--"))
        if "delete" in words:
            told = self.now + int(options.get("--grace-period", GRACE_S))
            if "pod" in words:
                assert {scenario.OWN, scenario.WEBHOOK} <= set(words), "the webhook's alone"
            self.ends = min(told, self.ends or told)  # a later one may but shorten it
        if words[0] == "wait" or ("delete" in words and options.get("--wait") != "false"):
            self.now = max(self.now, self.ends)
        return ""


def test_uninstalling_waits_for_no_replica_that_lingers_and_until_all_is_gone():
    cluster = Lingering()
    scenario.uninstall(cluster)
    assert cluster.ends is not None
    assert cluster.ends <= cluster.now < GRACE_S / 10
