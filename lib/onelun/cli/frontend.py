"""`onelun frontend`: the resident front-end in the foreground."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from onelun.cli.check import report
from onelun.cli.check_frontend import parts_of
from onelun.cli.serving import loaded, log_to_stderr, notifying, run_until_signalled, section
from onelun.config import Config
from onelun.config import Frontend as Settings
from onelun.deadline import Deadline
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.frame import parse_version
from onelun.driver.running import Context
from onelun.frontend.server import Frontend
from onelun.registration.place import place_of
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.schema import Reply, Request


@click.group("frontend", invoke_without_command=True)
@click.option("--debug", is_flag=True, help="Log every command that is run.")
@click.pass_context
def frontend(context: click.Context, *, debug: bool) -> None:
    """Run the actions that OpenNebula's scripts hand in, until SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    log_to_stderr(debug=debug)
    config = loaded()
    run_until_signalled(_serve(config, section(config.frontend, "frontend")))


@frontend.command("check")
def check() -> None:
    """Name what is wrong with registration, scripts, socket, hosts, pools and broker, and exit with 1 then. Changes nothing."""
    config = loaded()
    mine = section(config.frontend, "frontend")
    report(config, "frontend", parts_of(config, mine, place_of(os.environ), _Calling(config)))


class _Calling:
    """An Asker with a connection of its own for each request: parts are looked at one by one, and some ask nobody."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def ask(
        self,
        node: str,
        request: Request,
        *,
        deadline: Deadline,
        id: str | None = None,  # noqa: A002 - it is what the protocol calls it
        on_progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """As the Asker's."""
        link = link_of(self._config)
        client = Client(link, self._config.limits)
        try:
            await link.open()
            return await client.ask(node, request, deadline=deadline, id=id, on_progress=on_progress)
        finally:
            await client.close()
            await link.close()


async def _serve(config: Config, mine: Settings) -> None:
    link = link_of(config)
    client = Client(link, config.limits)
    server = Frontend(context_of(config, mine, client))
    try:
        await link.open()
        async with notifying(server.ready.wait()):
            await server.serve()
    finally:
        await client.close()
        await link.close()


def link_of(config: Config) -> Link:
    """The front-end's connection to the broker, not opened yet."""
    return Link(
        config.broker.url, name="frontend", exchange=config.broker.exchange, heartbeat_s=config.broker.heartbeat_s
    )


def context_of(config: Config, mine: Settings, asker: Asker) -> Context:
    """What all actions share. Raises Rejected when the configured release is none."""
    # A wrong release is told at the start, rather than by each action.
    parse_version(mine.opennebula_version)
    return Context(mine, config.limits, asker, Api(mine.api, mine.api_auth) if mine.api else None)
