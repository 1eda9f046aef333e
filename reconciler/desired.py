"""The desired limits of a Pod, from its annotations: pure, and defined for any Pod that the cluster may hold."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.pods import PodView
from reconciler.report import Notice, Reason
from webhook.common.contract import (
    DEFAULT_NETWORK_ANNOTATION,
    MANAGED_LABEL,
    NETWORK_LABEL,
    NEVER_OPTED_IN,
    Direction,
    InvalidQuantity,
    Limits,
    Quantity,
)


@dataclass(frozen=True, slots=True)
class DesiredLimits:
    """The limits that a Pod should have now, and the notices for its owner."""

    limits: Limits
    notices: tuple[Notice, ...] = ()


def desired_limits(view: PodView, last_good: Limits) -> DesiredLimits:
    """Decide the limits of a Pod.

    `last_good` are the limits in force so far. An annotation that became invalid by bypassing the webhook (such as by a
    write through `pods/status`) leaves its direction's limit as it is; so does the loss of the managed label.
    """
    if view.host_network or not view.annotated:
        return DesiredLimits(Limits())
    if not view.managed and not last_good:
        return DesiredLimits(Limits(), (_not_managed(view),))
    limits: dict[Direction, Quantity | None] = {}
    notices: list[Notice] = []
    for direction in Direction:
        text, last = view.asked(direction), last_good.get(direction)
        try:
            limits[direction] = None if text is None else Quantity.parse(text)
        except InvalidQuantity as error:
            limits[direction] = last
            notices.append(_invalid(direction, error, last))
    return DesiredLimits(Limits.of(limits), tuple(notices))


def _not_managed(view: PodView) -> Notice:
    if view.static:
        remedy = (
            "Static Pods never are: to have it limited, add the label "
            f'{MANAGED_LABEL}: "true" to its manifest on the node; kubelet then starts it anew'
        )
    elif view.namespace in NEVER_OPTED_IN:
        remedy = "Pods of this namespace are never admitted: take the annotations away or run it in another namespace"
    else:
        remedy = (
            f"Label this Pod {MANAGED_LABEL}=true to have it limited. To have others admitted when they are created, "
            f"label their namespace {NETWORK_LABEL}=NAMESPACE.NAME (they then get that network as eth0, unless they "
            f"name another in {DEFAULT_NETWORK_ANNOTATION})"
        )
    return Notice(
        Reason.NOT_MANAGED,
        "this Pod has bandwidth annotations and runs on ipvlan, but was never admitted by the ipvlan-bandwidth "
        f"webhook, so it is not limited. {remedy}",
    )


def _invalid(direction: Direction, error: InvalidQuantity, last: Quantity | None) -> Notice:
    kept = f"the limit of {last} stays" if last else "no limit is set"
    return Notice(Reason.INVALID, f"{direction.annotation}: {error}; {kept} in this direction")
