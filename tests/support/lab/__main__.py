"""`scripts/lab`: build, run."""

from __future__ import annotations

import sys
import time

import click
from tests.support.lab import root as roots
from tests.support.lab.machine import KINDS, machine
from tests.support.lab.single import run_once
from tests.support.sandbox.place import SandboxError

_STARTED = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    click.echo(f"{time.monotonic() - _STARTED:5.1f} s  {text}", err=True)


@click.group()
def lab() -> None:
    """Guests with kernels of their own: LVM-thin, ZFS, LIO and open-iscsi on one machine."""


@lab.command()
@click.option("--refresh", is_flag=True, help="Ask the package sources for newer packages first.")
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
def build(kinds: tuple[str, ...], *, refresh: bool) -> None:
    """Make what guests of these KINDS boot from, unless the cache has it; all kinds without a word."""
    root = roots.build(say, refresh=refresh)
    for kind in kinds or KINDS:
        machine(kind).build(root, say)
    click.echo(root)


@lab.command("run", context_settings={"ignore_unknown_options": True})
@click.option("--disk", "disks", multiple=True, metavar="SIZE", help="An empty data disk, such as 2G; may be repeated.")
@click.option("--memory", default=512, show_default=True, help="Its memory in MiB.")
@click.option("--limit", "limit_s", default=600.0, show_default=True, help="Seconds that the command may take.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("argv", nargs=-1, required=True)
def run_(kind: str, argv: tuple[str, ...], disks: tuple[str, ...], memory: int, limit_s: float) -> None:
    """Run a command in a throw-away guest: scripts/lab run [--disk 2G] uml -- CMD...

    The checkout is /checkout there; data disks are in $ONELUN_LAB_DISKS (/dev/ubdb, /dev/ubdc ...).
    """
    root = roots.build(say)
    machine(kind).build(root, say)
    sys.exit(run_once(kind, argv, disks, memory, limit_s, say, root))


if __name__ == "__main__":
    try:
        lab(standalone_mode=False, prog_name="scripts/lab")
    except (SandboxError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else error
        click.echo(f"scripts/lab: {message}", err=True)
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
