"""The webhook's certificates on the embedded cluster: rotated, lost, damaged and overwritten while Pods are created."""

import os

import pytest

from tests.cluster import certificates, scenario
from tests.losses import nothing_lost

# The long run is of five minutes: 300.
SECONDS = float(os.environ.get("IPVLAN_BANDWIDTH_ROTATION_SECONDS", "90"))


@pytest.fixture(scope="module")
def installed(cluster):
    scenario.install(cluster)
    return cluster


def test_the_ca_is_rotated_every_half_minute_and_no_creation_fails(installed):
    outcome = certificates.rotate(installed, seconds=SECONDS)
    print(outcome)
    nothing_lost(outcome.lost)


def test_a_secret_lost_or_damaged_is_restored_and_no_creation_fails(installed):
    outcomes = certificates.lose_the_secret(installed)
    print(*outcomes, sep="\n")
    assert len(outcomes) == 6
    nothing_lost(each for outcome in outcomes for each in outcome.lost)
    for outcome in outcomes:
        expected = (
            "CertificateRenewed" if outcome.done == "Secret with a foreign certificate" else "CertificatesRestored"
        )
        assert expected in outcome.seen["events"], outcome


def test_a_ca_bundle_that_somebody_takes_away_is_put_back_and_creations_wait_for_no_longer(installed):
    # A replica mends ten times at once, then more slowly; one of the two may have mended all that was damaged so far.
    installed.kubectl("-n", scenario.OWN, "rollout", "restart", "deployment/webhook")
    scenario.roll_out_webhook(installed)
    outcomes = certificates.lose_the_bundle(installed)
    print(*outcomes, sep="\n")
    assert len(outcomes) == 4
    nothing_lost(each for outcome in outcomes for each in outcome.lost)
    assert all("CABundleRepaired" in outcome.seen["events"] for outcome in outcomes)
    described = installed.kubectl("-n", scenario.OWN, "describe", "deployment", "webhook").stdout
    assert "the caBundle was missing, and was put back" in described
