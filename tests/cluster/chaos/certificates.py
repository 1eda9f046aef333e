"""The webhook's certificates rotated, lost and overwritten: `tests.cluster.certificates`, as rows of the table."""

from collections.abc import Iterable

from tests.cluster import certificates
from tests.cluster.chaos.lab import Lab
from tests.cluster.chaos.registry import Outcome, registered

ROTATED_S = 300


@registered(
    "certificates-rotated",
    f"a new CA every {certificates.ROTATION_S:.0f} s for {ROTATED_S // 60} minutes; Pods are created all the time",
    seconds=ROTATED_S + 60,
)
def rotated(lab: Lab) -> Outcome:
    return _together([certificates.rotate(lab.cluster, seconds=ROTATED_S)])


@registered(
    "secret-lost",
    "the webhook's Secret deleted, emptied, filled with garbage, with a foreign CA, with a foreign certificate, with a "
    "key that does not match, one after the other, while Pods are created all the time",
    seconds=36,
)
def secret_lost(lab: Lab) -> Outcome:
    return _together(certificates.lose_the_secret(lab.cluster))


@registered(
    "bundle-overwritten",
    "the caBundle emptied, overwritten with garbage and with another CA; the configuration deleted and applied again; "
    "while Pods are created all the time",
    seconds=13,
)
def bundle_overwritten(lab: Lab) -> Outcome:
    return _together(certificates.lose_the_bundle(lab.cluster))


def _together(outcomes: Iterable[certificates.Outcome]) -> Outcome:
    seen, lost = [], []
    for each in outcomes:
        figures = ", ".join(f"{name} {figure}" for name, figure in each.seen.items() if name != "events")
        seen.append(f"{each.done}: {figures}")
        lost += [f"{each.done}: {what}" for what in each.lost]
    return Outcome("; ".join(seen), tuple(lost))
