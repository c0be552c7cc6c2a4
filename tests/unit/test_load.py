"""scripts/load says when a goal is missed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from scripts.lib.load.crowd import Crowd
from scripts.lib.load.memory import grown
from scripts.lib.load.report import Report, spread
from scripts.lib.oned import Outcome

MIB = 1 << 20


@pytest.fixture
def report() -> Report:
    return Report(Console(file=io.StringIO()))


def test_a_failed_action_misses_the_goal(report: Report):
    crowd = Crowd(2)

    crowd.run([("good", lambda: Outcome(0, "", "", 0.1)), ("bad", lambda: Outcome(1, "", "no room", 0.1))])
    crowd.tell(report, "two")

    assert [row.figure.partition(";")[0] for row in report.missed] == ["1 of 2 failed"]
    assert crowd.failures == ["bad: no room"]


def test_actions_that_all_succeed_meet_it(report: Report):
    crowd = Crowd(2)

    crowd.run([("good", lambda: Outcome(0, "", "", 0.1))] * 5)
    crowd.tell(report, "five")

    assert report.rows
    assert report.missed == []


def test_memory_that_grows_misses_the_goal(report: Report):
    grown(report, {"nas1": 100 * MIB, "node1": 100 * MIB}, {"nas1": 104 * MIB, "node1": 106 * MIB}, 0.05)

    assert ["node1" in row.what for row in report.missed] == [True]


def test_what_is_left_is_told_by_its_first_lines(report: Report):
    report.left("\n".join(f"volume {number}" for number in range(9)))

    assert report.missed[0].figure == "volume 0; volume 1; volume 2; 6 more"


def test_nothing_left_is_good(report: Report):
    report.left("")

    assert report.missed == []


def test_a_spread_of_one_is_that_one():
    assert spread([2.0]) == "median 2.00 s, p99 2.00 s, longest 2.00 s"
