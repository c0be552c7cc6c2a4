"""scripts/chaos tries each point in as many scripts as it is told, and in all kinds of them."""

from __future__ import annotations

from collections import Counter

from scripts.lib.chaos.steps import spread, trials

# Rows with the role and name of each point that they pass.
PASSES = {
    "tm.clone": [("nas1", "a/put"), ("nas1", "b/rename"), ("node1", "c/chown")],
    "tm.clone.ssh": [("nas1", "a/put")],
    "tm.ln": [("nas1", "a/put"), ("node2", "c/chown")],
    "tm.delete": [("nas1", "a/put"), ("nas1", "b/rename")],
}


def test_a_script_and_a_point_are_one_trial_whatever_rows_of_it_take_it():
    assert [(row, plan.point) for row, _, plan in trials(PASSES, ["hang"])].count(("tm.clone.ssh", "a/put")) == 0


def test_each_point_is_in_so_many_scripts_and_no_more():
    wanted = trials(PASSES, ["hang"])

    kept = spread(wanted, 2)

    assert Counter(plan.point for _, _, plan in kept) == {"a/put": 2, "b/rename": 2, "c/chown": 2}
    assert {script for _, script, _ in kept} == {"tm.clone", "tm.ln", "tm.delete"}


def test_all_points_come_before_the_second_script_of_one():
    kept = spread(trials(PASSES, ["hang"]), 3)

    assert {plan.point for _, _, plan in kept[:3]} == {"a/put", "b/rename", "c/chown"}


def test_with_no_limit_all_are_kept_once():
    wanted = trials(PASSES, ["die", "fail"])

    kept = spread(wanted, 99)

    assert sorted(map(repr, kept)) == sorted(map(repr, wanted))


def test_a_step_that_is_taken_several_times_is_a_trial_each_time():
    passes = {"tm.ln": [("nas1", "a/run"), ("nas1", "a/run"), ("node1", "a/run"), ("nas1", "a/run")]}

    wanted = trials(passes, ["die"])

    assert [(plan.role, plan.side, plan.nth) for _, _, plan in wanted] == [
        ("nas1", "before", 1),
        ("nas1", "after", 1),
        ("nas1", "after", 2),
        ("node1", "before", 1),
        ("node1", "after", 1),
        ("nas1", "after", 3),
    ]
