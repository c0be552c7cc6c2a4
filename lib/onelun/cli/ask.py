"""`onelun ask`: one request to an agent, for a person or a script."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click
import msgspec

from onelun.cli.serving import loaded
from onelun.config import Config
from onelun.deadline import Deadline
from onelun.errors import OnelunError, Rejected
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import BY_NAME, BY_REQUEST, Reply, Request


@click.command("ask")
@click.argument("node")
@click.argument("request")
@click.argument("fields", nargs=-1)
@click.option("--within", "within_s", type=float, help="Seconds until the answer; the configuration's limit otherwise.")
def ask(node: str, request: str, fields: tuple[str, ...], within_s: float | None) -> None:
    """Ask the agent NODE for REQUEST with FIELDS (name=value), and print its reply as JSON; docs/protocol.md lists them.

    For example: onelun ask nas1 list_zvols zpool=tank
    """
    config = loaded()
    try:
        reply = asyncio.run(_ask(config, node, _request(request, fields), within_s))
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(reply)).decode() + "\n")


async def _ask(config: Config, node: str, request: Request, within_s: float | None) -> Reply:
    # As the front-end, where this machine is one: agents ask little or nothing.
    broker, limits = config.broker_of(config.frontend) if config.frontend else config.broker, config.limits
    link = Link(broker.url, name="ask", exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    client = Client(link, limits)
    longest_s = limits.copy_s if BY_REQUEST[type(request)].copies else limits.finish_s
    try:
        await link.open()
        return await client.ask(node, request, deadline=Deadline.after(within_s or longest_s))
    finally:
        await client.close()
        await link.close()


def _request(name: str, fields: tuple[str, ...]) -> Request:
    """The request that the words make. Raises Rejected for an unknown one, or one that lacks a field."""
    if name not in BY_NAME:
        raise Rejected(f"there is no request {name[:60]!r}; there are: {', '.join(BY_NAME)}")
    kind = BY_NAME[name].request
    document: dict[str, Any] = {"action": name}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals or key not in kind.__struct_fields__:
            known = ", ".join(kind.__struct_fields__)
            raise Rejected(f"{field[:60]!r} is no field of {name}: use NAME=VALUE with {known}")
        document[key] = _value(value)
    try:
        return msgspec.convert(document, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Rejected(f"{name}: {error}") from error


def _value(text: str) -> object:
    """Objects and lists are JSON; all else is text, which becomes a number where the field wants one."""
    if not text.startswith(("{", "[")):
        return text
    try:
        document: object = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Rejected(f"{text[:60]!r} is no JSON: {error}") from error
    return document
