"""`onelun frontend`: the resident front-end in the foreground."""

from __future__ import annotations

import click

from onelun.cli.serving import loaded, log_to_stderr, run_until_signalled, section
from onelun.config import Config
from onelun.config import Frontend as Settings
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.frame import parse_version
from onelun.driver.running import Context
from onelun.frontend.server import Frontend
from onelun.rpc.client import Client
from onelun.rpc.link import Link


@click.command("frontend")
@click.option("--debug", is_flag=True, help="Log every command that is run.")
def frontend(*, debug: bool) -> None:
    """Run the actions that OpenNebula's scripts hand in, until SIGTERM."""
    log_to_stderr(debug=debug)
    config = loaded()
    run_until_signalled(_serve(config, section(config.frontend, "frontend")))


async def _serve(config: Config, mine: Settings) -> None:
    link = link_of(config)
    client = Client(link, config.limits)
    server = Frontend(context_of(config, mine, client))
    try:
        await link.open()
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
