"""The table of the bench, on a terminal and in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from scripts.lib.bench.row import Missing, Result, Row

BEGIN = "<!-- scripts/bench --write: from here -->"
END = "<!-- scripts/bench --write: to here -->"
HEADINGS = ("row", "what", "beside it", "onelun", "beside it", "ratio", "goal", "")


@dataclass(frozen=True)
class Line:
    """A row, and what came of it."""

    row: Row
    result: Result

    def cells(self) -> tuple[str, ...]:
        """As HEADINGS has them; a row without figures has its reason instead."""
        row, result = self.row, self.result
        if isinstance(result, Missing):
            told = (result.reason, "—", "—")
        else:
            told = (result.ours, result.beside, str(result.ratio or "—"))
        return (row.name, row.what, row.beside, *told, row.aim, row.verdict(result))

    def sentence(self) -> str:
        """For the progress."""
        name, _what, _beside, ours, beside, ratio, aim, verdict = self.cells()
        if isinstance(self.result, Missing):
            return f"{name}: {verdict}: {ours}"
        told = ", ".join(word for word in (ours, f"{beside} beside it", ratio) if not word.startswith("—"))
        return f"{name}: {told}" + (f"; goal {aim}: {verdict}" if verdict else "")


def table(lines: Sequence[Line]) -> Table:
    """For a terminal."""
    made = Table(*HEADINGS, title="onelun bench", title_justify="left")
    colours = {"met": "green", "missed": "red", "FAILED": "bold red", "not measured": "yellow"}
    for line in lines:
        *cells, verdict = line.cells()
        made.add_row(*cells, f"[{colours[verdict]}]{verdict}[/]" if verdict else "")
    return made


def ending(lines: Sequence[Line]) -> str:
    """How it went, in a line."""
    words = [line.row.verdict(line.result) for line in lines]
    told = [f"{words.count(word)} {word}" for word in ("met", "missed", "not measured", "FAILED") if word in words]
    return f"{len(lines)} row{'' if len(lines) == 1 else 's'}: {', '.join(told) or 'none has a goal'}"


def markdown(lines: Sequence[Line], machine: Sequence[str]) -> str:
    """What stands between the markers."""
    return "\n".join([*(f"* {fact}" for fact in machine), "", *_rows(lines), "", f"{ending(lines)}.", ""])


def _rows(lines: Sequence[Line]) -> Iterator[str]:
    for cells in (HEADINGS, ("---",) * len(HEADINGS), *(line.cells() for line in lines)):
        yield f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def with_results(page: str, results: str) -> str:
    """The page with these results instead of the last ones. Raises ValueError when it has not one place for them."""
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _last, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"the page needs one line {BEGIN!r} and after it one {END!r}")
    return f"{before}{begin}\n{results}\n{end}{after}"
