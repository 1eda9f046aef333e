"""The program's maps may be out of reach for a moment; tests/kernel has all else of the shaper, on real ipvlan."""

from errno import ENOMEM

import pytest

from reconciler.shaping import Shaper
from reconciler.survey import Survey


class Program:
    """Has maps that cannot be read."""

    slots = 1
    closed = 0

    def read_counters(self, _class_id):
        raise OSError(ENOMEM, "Cannot allocate memory")

    read_limit = read_figures = read_counters

    def close(self):
        self.closed += 1


def test_a_program_that_cannot_be_taken_over_is_let_go_as_it_is_tried_again_and_again(monkeypatch):
    program = Program()
    monkeypatch.setattr("reconciler.shaping.survey", lambda _: Survey())
    monkeypatch.setattr("reconciler.shaping.Program.adopt", lambda *_: program)
    with pytest.raises(OSError, match="Cannot allocate"):
        Shaper.start(slots=1)
    assert program.closed == 1
