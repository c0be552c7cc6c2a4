"""The trash's age when the wall clock jumps."""

import time

import pytest

from onelun.nas.ageing import Ageing
from onelun.nas.catalogue import Catalogue

DAY_S, YEAR_S = 86400.0, 365 * 86400.0
BEGIN_S = 1_800_000_000.0


class Clocks:
    """The wall clock, and the time since the boot."""

    def __init__(self):
        self.wall_s, self.boot_s = BEGIN_S, 1000.0

    def pass_by(self, seconds):
        self.wall_s += seconds
        self.boot_s += seconds


@pytest.fixture
def clocks(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr(time, "time", lambda: clocks.wall_s)
    monkeypatch.setattr(time, "clock_gettime", lambda _: clocks.boot_s)
    return clocks


@pytest.fixture
def catalogue(tmp_path):
    opened = Catalogue(str(tmp_path / "catalogue.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def ageing(clocks, catalogue):
    """One that has seen the clock when it was right."""
    ageing = Ageing(catalogue, DAY_S)
    assert ageing.older_than() == BEGIN_S - DAY_S
    return ageing


def test_what_came_a_day_ago_goes(clocks, ageing):
    clocks.pass_by(2 * DAY_S)

    assert ageing.older_than() == BEGIN_S + DAY_S


def test_a_clock_that_jumps_ahead_makes_nothing_old(clocks, ageing):
    clocks.wall_s += YEAR_S

    assert ageing.older_than() == BEGIN_S - DAY_S


def test_a_jump_is_remembered_by_the_next_agent(clocks, ageing, catalogue):
    clocks.wall_s += YEAR_S
    ageing.older_than()

    clocks.pass_by(100)

    assert Ageing(catalogue, DAY_S).older_than() == BEGIN_S + 100 - DAY_S


def test_the_new_clock_is_believed_when_all_that_was_there_has_had_its_time(clocks, ageing):
    clocks.wall_s += YEAR_S
    ageing.older_than()

    clocks.pass_by(DAY_S)

    assert ageing.older_than() == BEGIN_S + YEAR_S
    assert ageing.older_than() == BEGIN_S + YEAR_S


def test_a_clock_that_jumps_back_is_believed_at_once(clocks, ageing):
    clocks.wall_s -= YEAR_S

    assert ageing.older_than() == BEGIN_S - YEAR_S - DAY_S


def test_a_jump_that_is_taken_back_leaves_no_doubt(clocks, ageing):
    clocks.wall_s += YEAR_S
    ageing.older_than()
    clocks.wall_s -= YEAR_S
    assert ageing.older_than() == BEGIN_S - DAY_S

    clocks.pass_by(5 * DAY_S)

    assert ageing.older_than() == BEGIN_S + 4 * DAY_S
