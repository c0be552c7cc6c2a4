"""`scripts/load`: what holds under load; one table, and whether the goals are met."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import click
from rich.console import Console
from scripts.lib.load import catalogue, cycles, memory, mixed, pressure
from scripts.lib.load.report import Report
from tests.support.sandbox.place import SandboxError

PARTS = ("mixed", "cycles", "catalogue", "memory", "pressure")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="A part; all unless told.")
@click.option("--rounds", default=10, type=click.IntRange(1), show_default=True, help="mixed: rounds.")
@click.option(
    "--at-once", default=200, type=click.IntRange(1), show_default=True, help="mixed, pressure: actions at once."
)
@click.option("--cycles", "number", default=1000, type=click.IntRange(80), show_default=True, help="cycles: how many.")
@click.option("--volumes", default=10_000, type=click.IntRange(1), show_default=True, help="catalogue: volumes in all.")
@click.option(
    "--in-pool", default=5000, type=click.IntRange(1), show_default=True, help="catalogue: of them in the pool."
)
@click.option(
    "--repeats", default=15, type=click.IntRange(1), show_default=True, help="catalogue: times of each action."
)
@click.option("--requests", default=50_000, type=click.IntRange(40), show_default=True, help="memory: actions.")
def load(
    only: tuple[str, ...],
    rounds: int,
    at_once: int,
    number: int,
    volumes: int,
    in_pool: int,
    repeats: int,
    requests: int,
) -> None:
    """Put a sandbox under load; exits with 1 when anything failed, is left behind, or misses its goal."""
    report = Report(Console(width=150, soft_wrap=True))
    parts: dict[str, Callable[[], None]] = {
        "mixed": lambda: mixed.run(report, rounds, at_once),
        "cycles": lambda: cycles.run(report, number),
        "catalogue": lambda: catalogue.run(report, volumes, in_pool, repeats),
        "memory": lambda: memory.run(report, requests),
        "pressure": lambda: pressure.run(report, at_once),
    }
    interrupted = False
    for name in only or PARTS:
        try:
            parts[name]()
        except (SandboxError, RuntimeError) as error:
            report.row("broke off", str(error), "none", met=False)
        except KeyboardInterrupt:
            report.say("interrupted; the sandboxes are gone")
            interrupted = True
            break
    report.show()
    print(
        f"\n{os.cpu_count()} processors; {len(report.missed) or 'no'} goal{'' if len(report.missed) == 1 else 's'} missed"
    )
    sys.exit(130 if interrupted else 1 if report.missed else 0)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _stop)
    load()
