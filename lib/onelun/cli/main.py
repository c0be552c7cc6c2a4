"""The `onelun` command: one subcommand a role. Each is imported only when it is called."""

from __future__ import annotations

import importlib

import click

import onelun

# Subcommand → module that has a click command of that name; importing pika and the rest for `--help` would be waste.
_COMMANDS = {
    "action": "onelun.cli.action",
    "ask": "onelun.cli.ask",
    "broker": "onelun.cli.broker",
    "compute": "onelun.cli.compute",
    "config": "onelun.cli.config",
    "fault": "onelun.cli.fault",
    "frontend": "onelun.cli.frontend",
    "nas": "onelun.cli.nas",
    "reconcile": "onelun.cli.reconcile",
    "register": "onelun.cli.register",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Lazy)
@click.version_option(onelun.__version__)
def main() -> None:
    """Shared block storage for OpenNebula from your own NAS servers."""


if __name__ == "__main__":
    main()
