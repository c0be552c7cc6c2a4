"""`onelun frontend`: the resident front-end in the foreground."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

import click

from onelun.cli.check import report
from onelun.cli.check_frontend import parts_of
from onelun.cli.serving import allow_faults, loaded, log_to_stderr, notifying, run_until_signalled, section
from onelun.config import Config
from onelun.config import Frontend as Settings
from onelun.deadline import Deadline
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.frame import parse_version
from onelun.driver.running import Context
from onelun.errors import OnelunError
from onelun.frontend.server import Frontend
from onelun.model import Kind, Owner
from onelun.naming import Source
from onelun.registration.place import place_of
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import AdoptZvol, ReleaseZvol, ZvolAdopted, ZvolReleased
from onelun.rpc.schema import Reply, Request

_R = TypeVar("_R", bound=Reply)
MIB = 1 << 20


@click.group("frontend", invoke_without_command=True)
@click.option("--debug", is_flag=True, help="Log every command that is run.")
@click.pass_context
def frontend(context: click.Context, *, debug: bool) -> None:
    """Run the actions that OpenNebula's scripts hand in, until SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    log_to_stderr(debug=debug)
    config = loaded()
    mine = section(config.frontend, "frontend")
    allow_faults(config, "frontend")
    run_until_signalled(_serve(config, mine))


@frontend.command("check")
def check() -> None:
    """Name what is wrong with registration, scripts, socket, hosts, pools and broker, and exit with 1 then. Changes nothing."""
    config = loaded()
    mine = section(config.frontend, "frontend")
    report(config, mine, "frontend", parts_of(config, mine, place_of(os.environ), _Calling(config, mine)))


@frontend.command("adopt")
@click.argument("place")
@click.option("--as", "name", help="What the volume is to be called; what it is called already otherwise.")
@click.option(
    "--image", "image_id", type=click.IntRange(min=0), help="The image that has it, where there is one already."
)
def adopt(place: str, name: str | None, image_id: int | None) -> None:
    """Make PLACE, such as nas1/tank/data, a volume: a zvol, thin LV or file in the pool's place. Its data is not touched.

    Prints its SOURCE and its size in MB, for `oneimage create --source`. It may be repeated, also with --image later: only
    that image is then allowed to remove it. What is open or mounted is refused.
    """
    config = loaded()
    mine = section(config.frontend, "frontend")
    nas, pool, found = _parts(place)
    owner = Owner(kind=Kind.IMAGE, cloud=mine.cloud, image_id=image_id)
    request = AdoptZvol(zvol=found, zpool=pool, name=name, owner=owner)
    adopted = _asked(config, mine, nas, request, ZvolAdopted)
    click.echo(f"{Source(nas, pool, adopted.zvol)} {-(-adopted.size_bytes // MIB)}")


@frontend.command("release")
@click.argument("source")
def release(source: str) -> None:
    """Let go of the volume SOURCE with its data: the reverse of adopt. No host may have it, and it may have no snapshots.

    Prints what it is called in the pool's place from now on. Take its image out of OpenNebula with oneimage delete --force.
    """
    config = loaded()
    mine = section(config.frontend, "frontend")
    nas, pool, volume = _parts(source)
    request = ReleaseZvol(zvol=volume, zpool=pool, cloud=mine.cloud)
    released = _asked(config, mine, nas, request, ZvolReleased)
    click.echo(released.name or f"there is no volume {volume} in pool {pool}")


def _parts(text: str) -> tuple[str, str, str]:
    nas, _, behind = text.partition("/")
    pool, _, name = behind.partition("/")
    if not name or "/" in name:
        raise click.ClickException(f"{text[:120]!r} should be NAS/POOL/NAME, such as nas1/tank/data")
    return nas, pool, name


def _asked(config: Config, mine: Settings, nas: str, request: Request, kind: type[_R]) -> _R:
    deadline = Deadline.after(config.limits.finish_s)
    try:
        reply = asyncio.run(_Calling(config, mine).ask(nas, request, deadline=deadline))
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    assert isinstance(reply, kind)
    return reply


class _Calling:
    """An Asker with a connection of its own for each request: parts are looked at one by one, and some ask nobody."""

    def __init__(self, config: Config, mine: Settings) -> None:
        self._config = config
        self._mine = mine

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
        link = link_of(self._config, self._mine)
        client = Client(link, self._config.limits)
        try:
            await link.open()
            return await client.ask(node, request, deadline=deadline, id=id, on_progress=on_progress)
        finally:
            await client.close()
            await link.close()


async def _serve(config: Config, mine: Settings) -> None:
    link = link_of(config, mine)
    client = Client(link, config.limits)
    server = Frontend(context_of(config, mine, client))
    try:
        await link.open()
        async with notifying(server.ready.wait()):
            await server.serve()
    finally:
        await client.close()
        await link.close()


def link_of(config: Config, mine: Settings) -> Link:
    """The front-end's connection to the broker, not opened yet."""
    broker = config.broker_of(mine)
    return Link(broker.url, name="frontend", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)


def context_of(config: Config, mine: Settings, asker: Asker) -> Context:
    """What all actions share. Raises Rejected when the configured release is none."""
    # A wrong release is told at the start, rather than by each action.
    parse_version(mine.opennebula_version)
    return Context(mine, config.limits, asker, Api(mine.api, mine.api_auth) if mine.api else None)
