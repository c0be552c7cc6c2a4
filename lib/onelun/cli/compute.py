"""`onelun compute`: the compute agent in the foreground."""

from __future__ import annotations

import os

import click

from onelun.cli.check import report
from onelun.cli.engines import connector_of
from onelun.cli.serving import allow_faults, loaded, log_to_stderr, notifying, run_until_signalled, section
from onelun.compute.agent import ComputeAgent
from onelun.compute.tending import tending
from onelun.config import Compute, Config
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.server import Server


@click.group("compute", invoke_without_command=True)
@click.option("--debug", is_flag=True, help="Log every command that is run.")
@click.pass_context
def compute(context: click.Context, *, debug: bool) -> None:
    """Connect volumes on this host for its VMs until SIGTERM. What is connected then stays connected."""
    if context.invoked_subcommand is not None:
        return
    log_to_stderr(debug=debug)
    config = loaded()
    mine = section(config.compute, "compute")
    allow_faults(config, mine.name)
    run_until_signalled(_serve(config, mine))


@compute.command("check")
def check() -> None:
    """Name what would stand in the way of serving: connector, broker. Changes nothing; exits with 1 when there is any."""
    config = loaded()
    mine = section(config.compute, "compute")
    report(config, mine, mine.name, {f"connector {mine.connector}": connector_of(mine).check})


async def _serve(config: Config, mine: Compute) -> None:
    broker = config.broker_of(mine)
    link = Link(broker.url, name=mine.name, exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    connector = connector_of(mine)
    agent = ComputeAgent(mine, config.limits, connector)
    try:
        # The lock of the state directory comes first: two agents must not write one journal.
        await agent.start()
        journal = Journal(os.path.join(mine.state, "journal.sqlite"))
        server = Server(
            link,
            mine.name,
            journal,
            agent.handlers(),
            role="compute",
            limits=config.limits,
            initiator=mine.initiator.lower(),
        )
        await link.open()
        try:
            async with tending(connector), notifying(_ready(server, agent, mine)):
                await server.serve()
        finally:
            await journal.close()
    finally:
        await agent.release()
        await link.close()
        agent.close()


async def _ready(server: Server, agent: ComputeAgent, mine: Compute) -> None:
    await server.serving.wait()
    await agent.readiness.wait(mine.ready_s)
