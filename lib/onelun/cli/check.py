"""What `onelun ROLE check` does: name beforehand what would stand in the way of serving."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import click

from onelun.cli.check_tls import findings
from onelun.config import Config, Role
from onelun.deadline import Deadline
from onelun.errors import OnelunError
from onelun.rpc.link import Link

# One part may be stuck in the kernel; that is a finding too.
_PART_S = 30.0

Part = Callable[[], Awaitable[list[str]]]


def report(config: Config, mine: Role, name: str, parts: Mapping[str, Part], notes: Sequence[str] = ()) -> None:
    """Print one line for each thing that is wrong, beginning with its part, and exit with 1; or say that all is well.

    `notes` are told after that: what is missing, and only some may ever want.
    The broker is tried as the agent `name`, without taking that name from an agent that serves.
    """
    # What parts meet on their way is in the sentences; without a handler warnings would go to stderr as well.
    logging.getLogger().addHandler(logging.NullHandler())
    found = asyncio.run(_all({**parts, "broker": lambda: _broker(config, mine, name)}))
    for part, sentence in found:
        click.echo(f"{part}: {sentence}")
    if found:
        raise click.exceptions.Exit(1)
    click.echo(f"{name} can serve: {', '.join((*parts, 'broker'))} checked")
    for note in notes:
        click.echo(note)


async def _all(parts: Mapping[str, Part]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for part, check in parts.items():
        try:
            async with asyncio.timeout(_PART_S):
                found += ((part, sentence) for sentence in await check())
        except OnelunError as error:
            found.append((part, error.sentence))
        except TimeoutError:
            found.append((part, f"gave no answer within {_PART_S:g} s: something of it hangs in the kernel"))
    return found


async def _broker(config: Config, mine: Role, name: str) -> list[str]:
    broker = config.broker_of(mine)
    link = Link(broker.url, name=f"{name} check", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    try:
        await link.open()
        session = await link.session(Deadline.after(config.limits.accept_s))
        channel = await session.channel()
        await channel.check_exchange(broker.exchange)
    except OnelunError as error:
        found = await findings(link.address, connected=False)
        # A certificate that says itself what is wrong with it says it better than a connection that failed.
        return [one.sentence for one in found] + ([] if any(one.explains for one in found) else [error.sentence])
    finally:
        await link.close()
    return [one.sentence for one in await findings(link.address, connected=True)]
