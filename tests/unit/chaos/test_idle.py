"""Which seconds of a flow had no CPU left."""

from tests.cluster.chaos.idle import Counted


def counted(*idle, every=0.5, since=100.0):
    """Looks at counters of 50 ticks each, from a moment on, of which these shares were idle."""
    made, ticks, total = Counted(), 0, 0
    made.look(since, "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 1 1")
    for number, share in enumerate(idle, 1):
        ticks, total = ticks + round(50 * share), total + 50
        made.look(since + number * every, f"cpu  {total - ticks} 0 0 {ticks} 0 0 0 0 0 0\ncpu0 1 1")
    return made


def test_a_second_without_idle_cpu_is_busy_and_so_are_its_neighbours():
    assert counted(1, 1, 1, 1, 0, 0.08, 1, 1, 1, 1).busy_seconds(100.0) == {1, 2, 3, 4}
    assert counted(1, 0.5, 0.1).busy_seconds(100.0) == frozenset()


def test_stolen_time_is_not_idle():
    made = Counted()
    made.look(0, "cpu  0 0 0 0 0 0 0 0 0 0\n")
    made.look(1, "cpu  10 0 0 4 0 0 0 86 0 0\n")
    assert made.busy_seconds(0) == {-1, 0, 1, 2}


def test_all_of_a_period_that_was_told_late_is_busy():
    assert counted(0, every=4).busy_seconds(100.0) == {-1, 0, 1, 2, 3, 4, 5}


def test_what_was_not_looked_at_is_not_busy():
    assert Counted().busy_seconds(0) == frozenset()
