"""`onelun nas`: the NAS agent in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import partial

import click

from onelun.cli.check import Part, report
from onelun.cli.engines import backend_of, exporter_of
from onelun.cli.serving import allow_faults, loaded, log_to_stderr, notifying, run_until_signalled, section
from onelun.config import Config, Nas
from onelun.errors import OnelunError
from onelun.nas.agent import CATALOGUE, NasAgent
from onelun.nas.catalogue import Catalogue
from onelun.nas.formatting import Formatting
from onelun.nas.identity import Identity, known_agent
from onelun.nas.maintenance import Maintenance
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
    mine = section(config.nas, "nas")
    allow_faults(config, mine.name)
    run_until_signalled(_serve(config, mine))


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


@nas.command("maintenance")
@click.argument("switch", type=click.Choice(["on", "off"]), required=False)
@click.argument("pools", nargs=-1)
@click.option("--reason", default="", help="Why, in one line; it is told to whoever would place something there.")
def maintenance(switch: str | None, pools: tuple[str, ...], reason: str) -> None:
    """Begin (on) or end (off) the maintenance of POOLS, of all where none is named, and print which pools are in it.

    Nothing new is placed in such a pool; what is there goes on working. It lasts until it is ended, and the agent, which may
    run or not, knows at once. Repeating it changes nothing but the reason.
    """
    mine = section(loaded().nas, "nas")
    try:
        os.makedirs(mine.state, mode=0o700, exist_ok=True)
        with _kept(mine) as kept:
            if switch is not None:
                kept.change(pools, on=switch == "on", reason=reason)
            told = _sentences(kept, mine)
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"cannot use the catalogue in {mine.state}: {error}") from error
    click.echo("\n".join(told) or "no pool is in maintenance")


@nas.command("check")
def check() -> None:
    """Name what would stand in the way of serving: pools, targets, broker. Changes nothing; exits with 1 when there is any."""
    config = loaded()
    mine = section(config.nas, "nas")
    agent = known_agent(mine.state)
    parts: dict[str, Part] = {
        f"pool {name}": partial(backend_of(name, pool).check, agent, None) for name, pool in mine.pools.items()
    }
    parts[f"exporter {mine.exporter}"] = exporter_of(mine).check
    checked: dict[str, Part] = {**parts, "maintenance": partial(_maintenance, mine)}
    report(config, mine, mine.name, checked, Formatting(mine.name).lacking())


@contextlib.contextmanager
def _kept(mine: Nas) -> Iterator[Maintenance]:
    """What the catalogue says of maintenance; an agent that runs may use it meanwhile."""
    catalogue = Catalogue(os.path.join(mine.state, CATALOGUE))
    try:
        yield Maintenance(catalogue, mine.pools)
    finally:
        catalogue.close()


def _sentences(kept: Maintenance, mine: Nas) -> list[str]:
    return [sentence for pool in mine.pools if (sentence := kept.of(pool)) is not None]


async def _maintenance(mine: Nas) -> list[str]:
    """A maintenance that somebody may have forgotten to end."""
    if not os.path.exists(os.path.join(mine.state, CATALOGUE)):
        return []
    with _kept(mine) as kept:
        return [f"{told}; end it with `onelun nas maintenance off`" for told in _sentences(kept, mine)]


async def _serve(config: Config, mine: Nas) -> None:
    broker = config.broker_of(mine)
    link = Link(broker.url, name=mine.name, exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
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
