"""A row of the bench: what is measured, beside what, and what came of it. Nothing here measures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

_Place = TypeVar("_Place")


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios, and between what half of them lie."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_times(self.middle)} x ({_times(self.low)} to {_times(self.high)})"


def ratio_of(ours: Sequence[float], beside: Sequence[float]) -> Ratio:
    """The ratio of seconds that were measured in turn: the pairs, so that what disturbs one disturbs both."""
    ratios = [mine / other for mine, other in zip(ours, beside, strict=True)]
    if len(ratios) < 2:
        return Ratio(*ratios * 3)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(middle, low, high)


@dataclass(frozen=True)
class Found:
    """What a row showed. `met` is whether a goal was met that is no ratio."""

    ours: str
    beside: str = "—"
    ratio: Ratio | None = None
    met: bool | None = None


def compared(ours: Sequence[float], beside: Sequence[float], *, met: bool | None = None) -> Found:
    """Of seconds, in pairs."""
    return Found(seconds(statistics.median(ours)), seconds(statistics.median(beside)), ratio_of(ours, beside), met)


class Unmeasurable(Exception):
    """This machine cannot show it; one sentence says why. That is no failure."""


@dataclass(frozen=True)
class Missing:
    """A row without a figure, and why. It `failed` unless the machine just cannot show it."""

    reason: str
    failed: bool


Result = Found | Missing


@dataclass(frozen=True)
class Row(Generic[_Place]):
    """One line of the table. `most` is the goal of its ratio, `goal` one in words that its Found tells of."""

    name: str
    what: str
    beside: str
    measure: Callable[[_Place], Found]
    most: float | None = None
    goal: str = ""

    @property
    def aim(self) -> str:
        """The goal, as it is shown."""
        return ", ".join(filter(None, (f"≤ {self.most:g} x" if self.most else "", self.goal))) or "—"

    def met(self, result: Result) -> bool | None:
        """Whether the goal was met; None when there is none, or nothing to tell."""
        if isinstance(result, Missing):
            return None
        told = [] if result.met is None else [result.met]
        if self.most is not None and result.ratio is not None:
            told.append(result.ratio.middle <= self.most)
        return all(told) if told else None

    def verdict(self, result: Result) -> str:
        """A word for the table."""
        if isinstance(result, Missing):
            return "FAILED" if result.failed else "not measured"
        return {None: "", True: "met", False: "missed"}[self.met(result)]


@dataclass(frozen=True)
class Part(Generic[_Place]):
    """Rows that need the same thing to stand. `place` makes it, and clears it away; `about` describes it in a line."""

    name: str
    place: Callable[[], AbstractContextManager[_Place]]
    rows: tuple[Row[_Place], ...]
    about: Callable[[_Place], str] = lambda _place: ""


def seconds(value: float) -> str:
    """As a person reads it."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms" if value >= 0.1 else f"{1000 * value:.1f} ms"


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
