"""The features that the node's kernel must have, and the messages when it lacks them. Pure.

They are found by trying (`reconciler.kernel.probe`), not by kernel version: distributions backport features, and leave
modules out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Feature(StrEnum):
    """A feature that is probed."""

    IPVLAN = "ipvlan"
    FQ = "fq"
    TBF = "tbf"
    CLSACT = "clsact"
    CLS_BPF = "cls_bpf"
    IFB = "ifb"
    REDIRECT = "redirect"
    SET_TSTAMP = "set_tstamp"
    JIT = "jit"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One feature: what it is, its kernel option and modules, and what is lost without it.

    `is_vital`: without it some limit that a Pod asks for cannot be kept, so the node's reconciler is not ready.
    """

    name: str
    option: str
    loss: str
    modules: str = ""
    is_vital: bool = True


REQUIREMENTS: Final[Mapping[Feature, Requirement]] = {
    Feature.IPVLAN: Requirement("ipvlan interfaces", "CONFIG_IPVLAN", "no Pod can have one to be limited", "ipvlan"),
    Feature.FQ: Requirement("qdisc fq", "CONFIG_NET_SCH_FQ", "no limit can be kept", "sch_fq"),
    Feature.TBF: Requirement(
        "qdisc tbf",
        "CONFIG_NET_SCH_TBF",
        "ingress limits below 100M let packets that come merged pass as bursts of up to 64 KiB",
        "sch_tbf",
        is_vital=False,
    ),
    Feature.CLSACT: Requirement("qdisc clsact", "CONFIG_NET_SCH_INGRESS", "no limit can be kept", "sch_ingress"),
    Feature.CLS_BPF: Requirement("BPF filters", "CONFIG_NET_CLS_BPF", "no limit can be kept", "cls_bpf"),
    Feature.IFB: Requirement("ifb interfaces", "CONFIG_IFB", "no ingress limit can be kept", "ifb"),
    Feature.REDIRECT: Requirement(
        "matchall filters with the action mirred",
        "CONFIG_NET_CLS_MATCHALL and CONFIG_NET_ACT_MIRRED",
        "no ingress limit can be kept",
        "cls_matchall act_mirred",
    ),
    Feature.SET_TSTAMP: Requirement(
        "BPF helper bpf_skb_set_tstamp",
        "Linux 5.18",
        "packets that waited for an ingress limit carry wrong receive times (SO_TIMESTAMP) in their Pods",
        is_vital=False,
    ),
    Feature.JIT: Requirement(
        "BPF compiler to machine code, or it is off",
        "CONFIG_BPF_JIT and net.core.bpf_jit_enable=1",
        "each packet of a limited Pod costs more CPU time",
        is_vital=False,
    ),
}

# Features that no module adds while the kernel runs, or only for a program that is loaded afterwards.
NEVER_LATER: Final = frozenset({Feature.SET_TSTAMP, Feature.JIT})


@dataclass(frozen=True, slots=True)
class Lack:
    """What the kernel lacks. `reason` names it in events, `message` says what that means and what to do."""

    feature: Feature
    message: str
    is_vital: bool


def lacks(missing: Mapping[Feature, str]) -> tuple[Lack, ...]:
    """What to report, vital features first; `missing` are the features whose probe failed, with the error."""
    found = [Lack(feature, _message(feature, missing[feature]), REQUIREMENTS[feature].is_vital) for feature in missing]
    return tuple(sorted(found, key=lambda lack: (not lack.is_vital, list(Feature).index(lack.feature))))


def _message(feature: Feature, cause: str) -> str:
    wanted = REQUIREMENTS[feature]
    what = f"this node's kernel has no {wanted.name} ({wanted.option}), so {wanted.loss}"
    why = f" [{cause}]" if cause else ""
    if wanted.modules:
        advice = f"load {wanted.modules} (modprobe -a; where a node loads no modules on demand, by its configuration)"
        return f"{what}: {advice}, or install the package of the kernel that has it{why}"
    return what + why
