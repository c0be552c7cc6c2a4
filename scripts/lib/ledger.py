"""What the demo did: each step shown as it happens, and all of them in one table at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class StepFailed(Exception):
    """A step did not do what it should; the ledger has it."""


@dataclass
class Row:
    """One kind of step: how often it was done and how long each took."""

    part: str
    step: str
    seconds: list[float]
    result: str = "ok"


class Ledger:
    """The steps so far. Rows of the same part and step are one row of the table."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.part = ""
        self.rows: list[Row] = []
        self._started = time.monotonic()

    def begin(self, part: str) -> None:
        """Begin a part of the demo."""
        self.part = part
        self.console.print(f"\n[bold]{escape(part)}[/]")

    @contextlib.contextmanager
    def step(self, name: str, shown: str) -> Iterator[None]:
        """Do a step called `name` in the table, shown as `shown`. What it raises is noted and raised as StepFailed."""
        row = self._row(name)
        started = time.monotonic()
        with self.console.status(f"{escape(shown)} …") if self.console.is_terminal else contextlib.nullcontext():
            try:
                yield
            except Exception as error:
                row.seconds.append(time.monotonic() - started)
                row.result = "FAILED"
                self.console.print(
                    f"  [red]✗[/] {row.seconds[-1]:6.2f} s  {escape(shown)}: {escape(str(error))}", soft_wrap=True
                )
                raise StepFailed(f"{shown}: {error}") from error
            except BaseException:
                row.result = "interrupted"
                raise
        row.seconds.append(time.monotonic() - started)
        self.console.print(f"  [green]✓[/] {row.seconds[-1]:6.2f} s  {escape(shown)}", highlight=False, soft_wrap=True)

    def _row(self, name: str) -> Row:
        for row in self.rows:
            if (row.part, row.step) == (self.part, name):
                return row
        self.rows.append(Row(self.part, name, []))
        return self.rows[-1]

    def show(self) -> None:
        """The table of everything."""
        table = Table(title="onelun demo", title_justify="left")
        for heading in ("part", "step", "times", "ms, each", "result"):
            table.add_column(heading, justify="right" if heading in ("times", "ms, each") else "left")
        part = ""
        for row in self.rows:
            if part and row.part != part:
                table.add_section()
            shown = " ".join(f"{1000 * seconds:.0f}" for seconds in row.seconds)
            colour = "green" if row.result == "ok" else "red"
            table.add_row(
                row.part if row.part != part else "",
                row.step,
                str(len(row.seconds)),
                shown,
                f"[{colour}]{row.result}[/]",
            )
            part = row.part
        self.console.print()
        self.console.print(table)

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started
