"""`onelun fault`: the points at which a test can have something go wrong."""

from __future__ import annotations

import click

from onelun.faults.points import points


@click.group("fault")
def fault() -> None:
    """Look at the faults that tests plan; nothing goes wrong by itself."""


@fault.command("list")
def list_() -> None:
    """Print every step outwards, with the door that it goes through: before and after each, something can go wrong."""
    for point in points():
        click.echo(f"{point.name}  {point.kind}")
