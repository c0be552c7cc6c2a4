"""`onelun nas`: the NAS agent in the foreground."""

from __future__ import annotations

import asyncio
import os

import click

from onelun.cli.serving import loaded, log_to_stderr, run_until_signalled, section
from onelun.config import Config, Nas, Pool
from onelun.errors import Rejected
from onelun.model import Portal
from onelun.nas.agent import NasAgent
from onelun.nas.backends.base import Backend
from onelun.nas.backends.file import FileBackend
from onelun.nas.exporters.base import Exporter
from onelun.nas.exporters.tgt import TgtExporter
from onelun.nas.identity import Identity
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
    asyncio.run(_backend(pool, mine.pools[pool]).take(Identity(mine.state).agent))
    click.echo(f"pool {pool} now belongs to this agent")


async def _serve(config: Config, mine: Nas) -> None:
    link = Link(
        config.broker.url, name=mine.name, exchange=config.broker.exchange, heartbeat_s=config.broker.heartbeat_s
    )
    client = Client(link, config.limits)
    backends = {name: _backend(name, pool) for name, pool in mine.pools.items()}
    agent = NasAgent(mine.name, mine.state, backends, _exporter(mine), client, config.limits, mine.default_pool)
    journal = Journal(os.path.join(mine.state, "journal.sqlite"))
    server = Server(link, mine.name, journal, agent.handlers(), role="nas", limits=config.limits)
    try:
        await agent.start()
        await link.open()
        async with agent.working():
            await server.serve()
    finally:
        await journal.close()
        await client.close()
        await link.close()
        agent.close()


def _backend(name: str, pool: Pool) -> Backend:
    if pool.backend == "file":
        return FileBackend(name, pool.path)
    raise Rejected(f"nas.pools.{name}.backend is {pool.backend!r}; there is: file")


def _exporter(mine: Nas) -> Exporter:
    if mine.exporter != "tgt":
        raise Rejected(f"nas.exporter is {mine.exporter!r}; there is: tgt")
    if mine.tgt is None:
        raise Rejected("nas.exporter is tgt, and there is no section [nas.tgt] that says where tgtd is")
    return TgtExporter(mine.name, mine.tgt.control, Portal(mine.tgt.address, mine.tgt.port))
