"""`onelun nas`: the NAS agent in the foreground."""

from __future__ import annotations

import asyncio
import os
from functools import partial

import click

from onelun.cli.check import Part, report
from onelun.cli.engines import backend_of, exporter_of
from onelun.cli.serving import loaded, log_to_stderr, notifying, run_until_signalled, section
from onelun.config import Config, Nas
from onelun.nas.agent import NasAgent
from onelun.nas.identity import Identity, known_agent
from onelun.rpc.client import Client
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.server import Server


@click.group("nas", invoke_without_command=True)
@click.option("--debug", is_flag=True, help="Log every command that is run.")
@click.pass_context
def nas(context: click.Context, *, debug: bool) -> None:
    """Serve the volumes of this NAS until SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    log_to_stderr(debug=debug)
    config = loaded()
    run_until_signalled(_serve(config, section(config.nas, "nas")))


@nas.command("take-pool")
@click.argument("pool")
def take_pool(pool: str) -> None:
    """Make this agent the owner of POOL, whichever agent was: only when that one is off for good."""
    config = loaded()
    mine = section(config.nas, "nas")
    if pool not in mine.pools:
        raise click.ClickException(f"[nas.pools] has no {pool}")
    os.makedirs(mine.state, mode=0o700, exist_ok=True)
    asyncio.run(backend_of(pool, mine.pools[pool]).take(Identity(mine.state).agent))
    click.echo(f"pool {pool} now belongs to this agent")


@nas.command("check")
def check() -> None:
    """Name what would stand in the way of serving: pools, targets, broker. Changes nothing; exits with 1 when there is any."""
    config = loaded()
    mine = section(config.nas, "nas")
    agent = known_agent(mine.state)
    parts: dict[str, Part] = {
        f"pool {name}": partial(backend_of(name, pool).check, agent, None) for name, pool in mine.pools.items()
    }
    report(config, mine.name, {**parts, f"exporter {mine.exporter}": exporter_of(mine).check})


async def _serve(config: Config, mine: Nas) -> None:
    link = Link(
        config.broker.url, name=mine.name, exchange=config.broker.exchange, heartbeat_s=config.broker.heartbeat_s
    )
    client = Client(link, config.limits)
    backends = {name: backend_of(name, pool) for name, pool in mine.pools.items()}
    agent = NasAgent(mine.name, mine.state, backends, exporter_of(mine), client, config.limits, mine.default_pool)
    journal = Journal(os.path.join(mine.state, "journal.sqlite"))
    server = Server(link, mine.name, journal, agent.handlers(), role="nas", limits=config.limits)
    try:
        await agent.start()
        await link.open()
        async with agent.working(), notifying(server.serving.wait()):
            await server.serve()
    finally:
        await journal.close()
        await client.close()
        await link.close()
        agent.close()
