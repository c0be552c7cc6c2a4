"""`onelun config show`: what is in force, and where it came from."""

from __future__ import annotations

import re
from typing import Any

import click
import msgspec

from onelun.config import load
from onelun.errors import OnelunError

# Up to the last @, so that what is hidden does not depend on how the rest of the URL is written.
_PASSWORD = re.compile(r"(?<=://)([^:@]*):.*@")


@click.group("config")
def config() -> None:
    """Look at the configuration."""


@config.command("show")
def show() -> None:
    """Print every setting in force with its origin; passwords are hidden."""
    try:
        loaded = load()
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    for key, value in _flat(msgspec.to_builtins(loaded.config)):
        shown = _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value
        click.echo(f"{key} = {shown!r}  # {loaded.origin.get(key, 'default')}")


def _flat(document: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            rows.append((f"{prefix}{key}", value))
    return rows
