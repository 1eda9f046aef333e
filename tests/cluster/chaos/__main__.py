"""`python -m tests.cluster.chaos [NAME ...]`: does bad things to a running installation and says what was lost.

Names are of scenarios; `quick` means those that are part of `make test` too; none means all. Exit status 1 when
anything was lost. The results replace those of the same names in tests/cluster/results.
"""

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

from tests.cluster.chaos import registry, report
from tests.cluster.chaos.lab import Lab
from tests.cluster.chaos.registry import Outcome, Scenario
from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.layout import PROJECT
from tests.revision import revision

RESULTS = PROJECT / "tests" / "cluster" / "results"


def main() -> int:
    """Exit with 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    try:
        chosen = registry.select(options.names)
    except KeyError as error:
        parser.error(f"no scenario has the name {error}; --list names them")
    if options.list:
        for each in chosen:
            print(f"{each.name:22} {each.seconds:4} s {'(quick) ' if each.quick else ''}{each.does}")
        return 0
    rows: dict[str, report.Row] = {}
    day, version = dt.datetime.now(dt.UTC).date().isoformat(), revision()
    print(f"{len(chosen)} scenarios, about {sum(each.seconds for each in chosen)} s after the start", flush=True)
    with Cluster("chaos", say=lambda line: print(line, file=sys.stderr, flush=True)).running() as cluster:
        lab = Lab(cluster)
        lab.prepare()
        for each in chosen:
            began = time.monotonic()
            outcome = run(lab, each)
            seconds = round(time.monotonic() - began, 1)
            rows[each.name] = report.Row(
                each.name, each.does, outcome.seen, outcome.lost, seconds, day, version, report.RULE
            )
            print(rows[each.name], flush=True)
            _store(options.results, rows)
    print("\n" + "\n".join(map(str, rows.values())))
    lost = [row.name for row in rows.values() if not row.passed]
    print(f"\n{len(rows)} scenarios, " + (f"something was lost in {', '.join(lost)}" if lost else "nothing was lost"))
    return 1 if lost else 0


def run(lab: Lab, chosen: Scenario) -> Outcome:
    """One scenario; what it could not do counts as lost."""
    try:
        return registry.attempt(lab, chosen)
    except ClusterError as error:
        print(f"{chosen.name}: {error}", file=sys.stderr, flush=True)
        return Outcome("it did not come to its end", (str(error).splitlines()[0],))


def _store(folder: Path, rows: dict[str, report.Row]) -> None:
    order = tuple(each.name for each in registry.scenarios())
    report.write(folder, report.merge(folder / "chaos.json", rows, order))


if __name__ == "__main__":
    sys.exit(main())
