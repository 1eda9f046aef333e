"""The scenarios: what is done to a working installation, and what must not be lost by it.

A scenario is a function of the Lab that gives an Outcome, registered by the decorator below. To add some, write a
module beside this one and name it in MODULES.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from tests.cluster.chaos.lab import Lab
from tests.losses import Doubt

MODULES = ("webhook", "certificates", "reconciler", "control_plane", "node", "load", "authors")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen, in a sentence with figures, and what was lost: nothing, where all is well."""

    seen: str
    lost: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    """What was carried too slowly: lost as well, when it is so again (`attempt`)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table."""

    name: str
    does: str
    run: Callable[[Lab], Outcome]
    seconds: int
    """How long it takes, about."""
    quick: bool
    """Whether it is part of `make test` too."""


@dataclass(slots=True)
class _Registry:
    by_name: dict[str, Scenario] = field(default_factory=dict)


_REGISTRY = _Registry()


def registered(
    name: str, does: str, *, seconds: int, quick: bool = False
) -> Callable[[Callable[[Lab], Outcome]], Callable[[Lab], Outcome]]:
    """Register a function as the scenario of that name."""

    def register(run: Callable[[Lab], Outcome]) -> Callable[[Lab], Outcome]:
        if name in _REGISTRY.by_name:
            raise ValueError(f"there are two scenarios named {name}")
        _REGISTRY.by_name[name] = Scenario(name, does, run, seconds, quick)
        return run

    return register


def attempt(lab: Lab, chosen: Scenario) -> Outcome:
    """What a scenario lost; where something was slow and nothing else, of a second run of it, which says so.

    The one CPU of an emulated node stalls a flow now and then, with or without anything done to it; what is broken is
    so each time.
    """
    first = chosen.run(lab)
    if not first.slow or first.lost:
        return replace(first, lost=(*first.lost, *map(Doubt, first.slow)), slow=())
    second = chosen.run(lab)
    return Outcome(f"{second.seen}; once before: {'; '.join(first.slow)}", (*second.lost, *map(Doubt, second.slow)))


def scenarios() -> tuple[Scenario, ...]:
    """All of them, in the order of MODULES."""
    for module in MODULES:
        importlib.import_module(f"tests.cluster.chaos.{module}")
    # One may have been imported before, by another or by a test.
    return tuple(sorted(_REGISTRY.by_name.values(), key=lambda each: MODULES.index(each.run.__module__.split(".")[-1])))


def select(names: Iterable[str]) -> tuple[Scenario, ...]:
    """Those of these names, `quick` for the quick ones; all for no name. Raises KeyError for a name that none has."""
    known, wanted = scenarios(), list(names)
    if unknown := set(wanted) - {each.name for each in known} - {"quick"}:
        raise KeyError(", ".join(sorted(unknown)))
    return tuple(each for each in known if not wanted or each.name in wanted or (each.quick and "quick" in wanted))
