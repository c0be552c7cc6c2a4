"""`scripts/bench`: every figure that onelun promises, measured beside what it could be; one table."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
from rich.console import Console
from scripts.lib.bench import catalogue, clones, lab, sandbox, tls
from scripts.lib.bench.machine import description
from scripts.lib.bench.page import Line, ending, markdown, table, with_results
from scripts.lib.bench.row import Missing, Part, Result, Row, Unmeasurable

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PAGE = os.path.join(ROOT, "docs", "performance.md")
PARTS: tuple[Part[Any], ...] = (sandbox.PART, catalogue.PART, tls.PART, lab.PART, *clones.PARTS)
NAMES = tuple(row.name for part in PARTS for row in part.rows)
# A machine that has made no guests yet builds them first.
ROW_S, PLACE_S = 600, 2400
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """SIGTERM, SIGHUP or Ctrl-C."""


class TooLong(Exception):
    """A row, or what it needs, took more than its time."""


class Bench:
    """Measures rows, and tells each as it is done."""

    def __init__(self, console: Console) -> None:
        self.lines: list[Line] = []
        self.facts: list[str] = []
        self._console = console

    def part(self, part: Part[Any], rows: list[Row[Any]]) -> None:
        """Rows of a part. What fails fails for them alone."""
        try:
            with contextlib.ExitStack() as standing:
                with self._under_way(f"{part.name}: making ready", PLACE_S):
                    place = standing.enter_context(part.place())
                    if about := part.about(place):
                        self.facts.append(about)
                for row in rows:
                    self._add(row, self._result(row, place))
        except Exception as error:  # noqa: BLE001 - whatever it was: the other parts have their rows all the same
            told = _missing(error)
            for row in rows:
                if all(line.row is not row for line in self.lines):
                    self._add(row, told)
            if self.lines[-1].result is not told:
                self._add(Row(part.name, "cleared away", "—", lambda _place: None), told)

    def _result(self, row: Row[Any], place: Any) -> Result:
        try:
            with self._under_way(f"{row.name}: {row.what}", ROW_S):
                return row.measure(place)
        except Exception as error:  # noqa: BLE001 - as above
            return _missing(error)

    @contextlib.contextmanager
    def _under_way(self, what: str, limit_s: int) -> Iterator[None]:
        signal.alarm(limit_s)
        try:
            with self._console.status(f"{what} …") if self._console.is_terminal else contextlib.nullcontext():
                yield
        except TooLong:
            raise TooLong(f"it took more than {limit_s} s") from None
        finally:
            signal.alarm(0)

    def _add(self, row: Row[Any], result: Result) -> None:
        self.lines.append(Line(row, result))
        self._console.print(f"  {self.lines[-1].sentence()}", highlight=False, markup=False, soft_wrap=True)


def _missing(error: Exception) -> Missing:
    words = " ".join(str(error).split()) or type(error).__name__
    return Missing(words, failed=not isinstance(error, Unmeasurable))


def _stop(number: int, _frame: object) -> None:
    if number == signal.SIGALRM:
        raise TooLong
    # The end of what was made must not be interrupted: what it leaves nobody else knows of.
    for each in (*_ENDS, signal.SIGALRM):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted


def measured(names: Iterable[str], console: Console) -> Bench:
    """The rows of these names."""
    bench = Bench(console)
    for part in PARTS:
        if rows := [row for row in part.rows if row.name in names]:
            console.print(f"[bold]{part.name}[/]")
            bench.part(part, rows)
    return bench


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(NAMES), help="A row; may be repeated. All of them unless told."
)
@click.option("--write", is_flag=True, help="Put the table, and what this machine is, into docs/performance.md.")
def main(only: tuple[str, ...], *, write: bool) -> None:
    """Measure what onelun promises, each figure side by side with what it could be; about 15 minutes.

    Ends with 1 when a row failed. One that this machine cannot measure is shown with the reason, and so is a goal that was
    missed: these are no errors.
    """
    if write and only:
        raise click.UsageError("--write makes the whole page: it goes without --only")
    for each in (*_ENDS, signal.SIGALRM):
        signal.signal(each, _stop)
    console = Console(width=None if Console().is_terminal else 180)
    bench = measured(only or NAMES, console)
    console.print(table(bench.lines))
    facts = [*description(), *bench.facts]
    for fact in facts:
        console.print(fact, highlight=False, soft_wrap=True)
    console.print(ending(bench.lines), highlight=False)
    if any(isinstance(line.result, Missing) and line.result.failed for line in bench.lines):
        console.print("docs/performance.md stays as it was: rows failed" if write else "rows failed")
        sys.exit(1)
    if write:
        with open(PAGE) as file:
            page = with_results(file.read(), markdown(bench.lines, facts))
        with open(PAGE, "w") as file:
            file.write(page)
        console.print("docs/performance.md has it now")


if __name__ == "__main__":
    try:
        main(standalone_mode=False, prog_name="scripts/bench")
    except click.ClickException as error:
        click.echo(f"scripts/bench: {error.format_message()}", err=True)
        sys.exit(2)
    except Interrupted:
        click.echo("scripts/bench: interrupted; what it had made is gone", err=True)
        sys.exit(130)
