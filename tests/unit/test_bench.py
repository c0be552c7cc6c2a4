"""What the bench computes and writes; it measures nothing here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from scripts.lib.bench.__main__ import NAMES, PAGE, PARTS, Bench, main
from scripts.lib.bench.machine import cpu_model, memory_gib
from scripts.lib.bench.page import BEGIN, END, Line, ending, markdown, table, with_results
from scripts.lib.bench.row import Found, Missing, Part, Ratio, Row, Unmeasurable, compared, ratio_of, seconds


def row(name: str = "attach", **words) -> Row:
    return Row(name, "a volume to a node", "by hand", lambda _place: Found("1"), **words)


def bench() -> Bench:
    return Bench(Console(quiet=True))


class Standing:
    """A place, and whether it was cleared away."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.ended = False

    def __enter__(self):
        if self.fails == "up":
            raise OSError("no room")
        return self

    def __exit__(self, *_error):
        self.ended = True
        if self.fails == "down":
            raise OSError("left behind")


def test_a_ratio_is_the_median_of_the_pairs_ratios() -> None:
    # The last pair was disturbed as a whole: its ratio says the same as the others'.
    found = ratio_of([1.0, 2.2, 3.6, 40.0, 1000.0], [1.0, 2.0, 3.0, 40.0, 1000.0])

    assert found == Ratio(1.0, 1.0, pytest.approx(1.1))


def test_one_pair_is_enough() -> None:
    assert ratio_of([3.0], [2.0]) == Ratio(1.5, 1.5, 1.5)


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_of([1.0, 2.0], [1.0])


def test_a_comparison_shows_medians_and_their_pairs() -> None:
    found = compared([0.010, 0.012, 0.5], [0.010, 0.010, 0.5])

    assert (found.ours, found.beside, str(found.ratio)) == ("12.0 ms", "10.0 ms", "1.00 x (1.00 to 1.10)")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0104, "10.4 ms"), (0.0999, "99.9 ms"), (0.25, "250 ms"), (1.0, "1.00 s"), (61.237, "61.24 s")],
)
def test_seconds_are_shown_as_a_person_reads_them(value: float, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("goals", "found", "verdict"),
    [
        ({"most": 1.3}, Found("1", ratio=Ratio(1.3, 1, 2)), "met"),
        ({"most": 1.3}, Found("1", ratio=Ratio(1.31, 1, 2)), "missed"),
        ({"most": 1.3, "goal": "≤ 1 s"}, Found("1", ratio=Ratio(1.0, 1, 2), met=False), "missed"),
        ({"most": 1.3, "goal": "≤ 1 s"}, Found("1", ratio=Ratio(1.4, 1, 2), met=True), "missed"),
        ({"goal": "none failed"}, Found("1", met=True), "met"),
        ({}, Found("1", ratio=Ratio(9, 9, 9)), ""),
        ({"most": 1.3}, Missing("no LVM", failed=False), "not measured"),
        ({"most": 1.3}, Missing("no LVM", failed=True), "FAILED"),
    ],
)
def test_a_row_says_whether_its_goal_was_met(goals: dict, found: Found | Missing, verdict: str) -> None:
    assert row(**goals).verdict(found) == verdict


def test_a_goal_is_shown_whole() -> None:
    assert row(most=1.3, goal="≤ 1 s").aim == "≤ 1.3 x, ≤ 1 s"
    assert row().aim == "—"


def test_what_a_row_raises_is_its_result_and_the_next_is_measured() -> None:
    def fails(_place: object) -> Found:
        raise RuntimeError("qemu-img\nfailed")

    def cannot(_place: object) -> Found:
        raise Unmeasurable("no TLS here")

    place = Standing()
    rows = [Row(name, "", "", measure) for name, measure in (("a", fails), ("b", cannot), ("c", lambda _: Found("1")))]
    told = bench()
    told.part(Part("part", lambda: place, tuple(rows)), rows)

    assert [line.result for line in told.lines] == [
        Missing("qemu-img failed", failed=True),
        Missing("no TLS here", failed=False),
        Found("1"),
    ]
    assert place.ended


def test_rows_whose_place_does_not_come_up_are_all_named() -> None:
    rows = [row("a"), row("b")]
    told = bench()
    told.part(Part("part", lambda: Standing("up"), tuple(rows)), rows)

    assert [(line.row.name, line.result) for line in told.lines] == [
        ("a", Missing("no room", failed=True)),
        ("b", Missing("no room", failed=True)),
    ]


def test_what_is_left_behind_is_a_line_of_its_own() -> None:
    rows = [row("a")]
    told = bench()
    told.part(Part("part", lambda: Standing("down"), tuple(rows)), rows)

    assert [line.result for line in told.lines] == [Found("1"), Missing("left behind", failed=True)]


LINES = [
    Line(row("attach", most=1.3), Found("2 ms", "1 ms", Ratio(2.0, 1.9, 2.1))),
    Line(row("tls"), Missing("no a|b", failed=False)),
    Line(row("action", most=1.5), Found("1 ms", "1 ms", Ratio(1.0, 1.0, 1.0))),
]


def test_the_page_has_a_line_for_each_row_and_the_machine() -> None:
    text = markdown(LINES, ["2 processors"])

    assert text.splitlines()[0] == "* 2 processors"
    assert "| attach | a volume to a node | by hand | 2 ms | 1 ms | 2.00 x (1.90 to 2.10) | ≤ 1.3 x | missed |" in text
    assert "| tls | a volume to a node | by hand | no a/b | — | — | — | not measured |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}
    assert ending(LINES) == "3 rows: 1 met, 1 missed, 1 not measured"


def test_the_terminal_shows_the_same_rows() -> None:
    assert table(LINES).row_count == 3


def test_results_take_the_place_of_the_last_ones_alone() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n"

    once = with_results(page, "new")

    assert once == f"# Title\n\n{BEGIN}\n\nnew\n{END}\n\nafter\n"
    assert with_results(once, "new") == once


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_page_without_one_place_for_them_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs"):
        with_results(page, "new")


def test_the_documented_page_takes_results_and_names_every_row() -> None:
    page = Path(PAGE).read_text()

    assert "new" in with_results(page, "new")
    cells = re.findall(r"^\| (`[^|]+) \|", page.partition(BEGIN)[0], re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall("`([a-z-]+)`", cell)) == sorted(NAMES)


def test_rows_have_names_of_their_own() -> None:
    assert len(set(NAMES)) == len(NAMES) == sum(len(part.rows) for part in PARTS)


def test_a_page_of_single_rows_is_refused() -> None:
    done = CliRunner().invoke(main, ["--write", "--only", NAMES[0]])

    assert done.exit_code == 2
    assert "--write makes the whole page" in done.output


def test_the_processor_and_the_memory_are_the_kernels_words() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n") == "Some CPU @ 2 GHz"
    assert memory_gib("MemTotal:       24601388 kB\nMemFree: 1 kB\n") == 24
