"""What was found, told as it comes, and as a table for docs/reliability.md at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console


@dataclass(frozen=True)
class Row:
    """One figure. `met` is None where nothing is demanded."""

    part: str
    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


class Report:
    """The rows so far, and everything that went wrong besides."""

    def __init__(self, console: Console) -> None:
        self.rows: list[Row] = []
        self._console = console
        self._began = time.monotonic()
        self._part = ""

    @property
    def missed(self) -> list[Row]:
        """The goals that were not met."""
        return [row for row in self.rows if row.met is False]

    def begin(self, part: str) -> None:
        """The rows that follow are that part's."""
        self._part = part
        self.say(part)

    def say(self, text: str) -> None:
        """A line of progress."""
        self._console.print(f"{time.monotonic() - self._began:6.0f} s  {text}", markup=False, highlight=False)

    def row(self, what: str, figure: str, goal: str = "", *, met: bool | None = None) -> None:
        """Note a figure."""
        self.rows.append(Row(self._part, what, figure, goal, met))
        self.say(f"{what}: {figure}{' MISSED: ' + goal if met is False else ''}")

    def left(self, lines: str) -> None:
        """Note what is left when all was given back, one line each; the first ones are told."""
        found = lines.splitlines()
        figure = "; ".join(line[:150] for line in found[:3]) + (f"; {len(found) - 3} more" if len(found) > 3 else "")
        self.row("left when all was given back", figure or "nothing", "nothing", met=not found)

    def show(self) -> None:
        """Print the table, as Markdown."""
        print("\n| part | what | figure | goal | |\n|---|---|---|---|---|")
        told = {None: "", True: "met", False: "missed"}
        for row in self.rows:
            print(f"| {row.part} | {row.what} | {row.figure} | {row.goal} | {told[row.met]} |")


def spread(seconds: Sequence[float]) -> str:
    """The median, what all but one in a hundred stayed below, and the longest."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"median {statistics.median(ordered):.2f} s, p99 {p99:.2f} s, longest {ordered[-1]:.2f} s"
