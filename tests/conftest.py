"""What Hypothesis is to do in all tests: a busy machine breaks no property, and what breaks one can be run again.

And what is told of tests that failed, and passed when they were done once more.
"""

import os

import pytest

# In the guests of tests/kernel nothing uses it, and an emulated CPU would import it for seconds.
if "IN_GUEST" not in os.environ:
    from hypothesis import settings

    settings.register_profile("ipvlan-bandwidth", deadline=None, print_blob=True)
    settings.load_profile("ipvlan-bandwidth")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the attempts that failed had printed: of them `--rerun-show-tracebacks` tells only where they failed."""
    for report in terminalreporter.stats.get("rerun", []):
        for name, text in report.sections:
            terminalreporter.write_sep("-", f"{report.nodeid}: {name}")
            terminalreporter.write_line(text)
