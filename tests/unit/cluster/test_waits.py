"""What tests on the embedded cluster wait for; the cluster is a stand-in with a clock of its own."""

import yaml

from tests.cluster import scenario
from tests.cluster.layout import HERE
from tests.unit.manifests.test_manifests import one

GRACE_S = one("Deployment", "webhook")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

# Kubernetes' controller of namespaces looks for what is left of one so much later.
LOOKS_S = GRACE_S // 2 + 1


def test_kubelet_starts_a_container_that_keeps_ending_again_long_before_a_test_gives_up():
    kubelet = yaml.safe_load((HERE / "node/kubelet.yaml").read_text())
    most_s = float(kubelet["crashLoopBackOff"]["maxContainerRestartPeriod"].removesuffix("s"))
    assert 1 <= most_s <= 5, "kubelet takes no less than a second"
    assert 10 * most_s < scenario.RESTART_S <= 60


class Lingering:
    """An installation whose webhook serves on as long as it may; its namespace's controller looks for Pods seldom."""

    def __init__(self):
        self.now = self.looks = 0
        self.ends = None

    def pods(self, *_):
        if self.ends is not None and self.ends <= self.now:
            return []
        return [{"metadata": {} if self.ends is None else {"deletionTimestamp": "then"}}] * 2

    def kubectl(self, *argv, **_):
        words = {word for word in argv if not word.startswith("--")}
        options = dict(word.partition("=")[::2] for word in argv if word.startswith("--"))
        if "scale" in words:
            assert options["--replicas"] == "0"
            self.tell(GRACE_S)
        elif "pod" in words:
            assert {"delete", scenario.OWN, scenario.WEBHOOK} <= words
            assert not self.pods() or self.ends is not None, "a ReplicaSet would put others in their place"
            self.tell(int(options["--grace-period"]))
            self.now = max(self.now, self.ends)
        elif "-k" in words:
            self.tell(GRACE_S)
            self.looks = self.now + LOOKS_S if self.pods() else self.now
        if "wait" in words or ("-k" in words and "--wait" not in options):
            self.now = max(self.now, self.looks)
            while self.pods():
                self.now += LOOKS_S

    def tell(self, grace_s):
        """A Pod that was told to end already ends no later by this."""
        self.ends = min(self.now + grace_s, self.ends or self.now + grace_s)


def test_uninstalling_waits_for_no_replica_that_lingers_and_until_all_is_gone():
    cluster = Lingering()
    scenario.uninstall(cluster)
    assert not cluster.pods()
    assert cluster.now < GRACE_S / 10
