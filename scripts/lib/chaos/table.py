"""The table: what was tried, and what became of it."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.table import Table
from scripts.lib.chaos.trial import Result, Verdict

WORDS = (Verdict.SURVIVED, Verdict.REPEATED, Verdict.RECONCILED, Verdict.LOST, Verdict.LEAKED)
_EVERY = 50


class Tally:
    """Results, told as they come, and counted by what was done to the system."""

    def __init__(self, console: Console) -> None:
        self.results: list[Result] = []
        self.troubles: list[str] = []
        self._console = console
        self._began = time.monotonic()
        self._wanted = 0

    @property
    def bad(self) -> list[Result]:
        """What must not be."""
        return [result for result in self.results if result.bad]

    def begin(self, wanted: int) -> None:
        """The undisturbed runs are over: so many trials are to come."""
        self._wanted = wanted
        self.say(f"{wanted} trials")

    def add(self, result: Result) -> None:
        """Count a result; what must not be is told at once."""
        self.results.append(result)
        if result.bad:
            self.say(_told(result))
        elif len(self.results) % _EVERY == 0:
            self.say(f"{len(self.results)} of {self._wanted} trials, {len(self.bad)} of them bad")

    def trouble(self, sentence: str) -> None:
        """Something else than a trial went wrong."""
        self.troubles.append(sentence)
        self.say(sentence)

    def show(self) -> None:
        """Print one row a kind of fault, and all again that must not be."""
        table = Table("what happens", "tried", *map(str, WORDS), "late", "unclear")
        for kind in dict.fromkeys(result.what for result in self.results):
            table.add_row(*map(str, (kind, *_row([found for found in self.results if found.what == kind]))))
        for sentence in [*map(_told, self.bad), *self.troubles]:
            self._console.print(sentence)
        self._console.print(table)
        missed = Counter(result.plan.point for result in self.results if result.verdict is Verdict.MISSED)
        self.say(
            f"{len(self.results) - missed.total()} trials at {len({result.plan.point for result in self.results})} points;"
            f" {missed.total()} more came to nothing, {self._wanted - len(self.results)} were not begun"
        )
        for point, number in missed.most_common():
            self.say(f"{number} that came to nothing: {point}")

    def say(self, text: str) -> None:
        """A line, with the time."""
        self._console.print(f"{time.monotonic() - self._began:5.0f} s  {text}")


def _told(result: Result) -> str:
    plan = result.plan
    words = [str(result.verdict), *["late"] * result.late, *["unclear"] * result.unclear]
    often = f" ({plan.nth})" if plan.nth > 1 else ""
    return (
        f"{result.action}: {result.what} {plan.side} {plan.point}{often} in {plan.role}: {', '.join(words)}\n"
        f"         said: {result.said[-500:]}\n         {result.why[:900]}"
    )


def _row(results: list[Result]) -> list[int]:
    counted = Counter(result.verdict for result in results)
    counted.pop(Verdict.MISSED, 0)
    late, unclear = (sum(getattr(result, name) for result in results) for name in ("late", "unclear"))
    return [sum(counted.values()), *(counted[word] for word in WORDS), late, unclear]
