"""`onelun compute`: the compute agent in the foreground."""

from __future__ import annotations

import os

import click

from onelun.cli.serving import loaded, log_to_stderr, run_until_signalled, section
from onelun.compute.agent import ComputeAgent, run_dir
from onelun.compute.connectors.base import Connector
from onelun.compute.connectors.userspace import UserspaceConnector
from onelun.config import Compute, Config
from onelun.errors import Rejected
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.server import Server


@click.command("compute")
@click.option("--debug", is_flag=True, help="Log every command that is run.")
def compute(*, debug: bool) -> None:
    """Connect volumes on this host for its VMs until SIGTERM. What is connected then stays connected."""
    log_to_stderr(debug=debug)
    config = loaded()
    run_until_signalled(_serve(config, section(config.compute, "compute")))


async def _serve(config: Config, mine: Compute) -> None:
    link = Link(
        config.broker.url, name=mine.name, exchange=config.broker.exchange, heartbeat_s=config.broker.heartbeat_s
    )
    agent = ComputeAgent(mine, config.limits, _connector(mine))
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
            await server.serve()
        finally:
            await journal.close()
    finally:
        await link.close()
        agent.close()


def _connector(mine: Compute) -> Connector:
    if mine.connector != "userspace":
        raise Rejected(f"compute.connector is {mine.connector!r}; there is: userspace")
    return UserspaceConnector(f"{run_dir(mine)}/targets", node=mine.name)
