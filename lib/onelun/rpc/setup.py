"""The broker's side of the corridor: the exchange, a user for each role, and what each may do (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from onelun import command
from onelun.deadline import Deadline
from onelun.errors import CommandFailed, OnelunError, ProtocolError, Rejected
from onelun.naming import checked_name

EXCHANGE = "rocks.vm-manage"
NONE = "^$"
# sysexits.h, EX_UNAVAILABLE: what rabbitmqctl ends with when the node does not run.
_UNAVAILABLE = 69
_AGENTS = ("nas.", "compute.")
REPLY_QUEUES = r"(amq\.gen-|rpc-).*"


class Grant(NamedTuple):
    """A broker user and what it may do. The five patterns are RabbitMQ's, matched from anchor to anchor."""

    user: str
    configure: str
    write: str
    read: str
    topic_write: str
    topic_read: str


def grants(frontends: Sequence[str], nas: Sequence[str], compute: Sequence[str]) -> list[Grant]:
    """Who may do what: a frontend asks NAS and compute nodes, a NAS asks compute nodes, a compute node asks nobody.

    Raises Rejected for a name that is none, is given twice, or would grant more than a node's own queue.
    """
    for name in (*nas, *compute):
        checked_name(name, "name of an agent")
        # The first are the prefixes of other people's queues, the last is the exchange.
        if name.startswith(("amq.", "rpc-")) or name == EXCHANGE:
            raise Rejected(f"an agent cannot be called {name!r}: the broker uses such names itself")
    for name in frontends:
        checked_name(name, "name of a frontend")
        if name.startswith(("nas.", "compute.")):
            raise Rejected(f"a frontend cannot be called {name!r}: agents' users begin like that")
    if twice := {name for name in (*nas, *compute) if [*nas, *compute].count(name) > 1}:
        raise Rejected(f"agents need names of their own: {', '.join(sorted(twice))} is given twice")
    exchange = _quoted(EXCHANGE)
    asked_by_nas = f"^({'|'.join(map(_quoted, compute))})$" if compute else NONE
    made = [
        # A frontend may name any node: one that does not exist must come back as unroutable, not as a refusal.
        Grant(name, f"^{REPLY_QUEUES}", f"^{exchange}$", f"^{REPLY_QUEUES}", ".*", NONE)
        for name in frontends
    ]
    for name in nas:
        own = _quoted(name)
        made.append(
            Grant(
                user=f"nas.{name}",
                configure=f"^({own}|rpc-.*)$",
                write=rf"^({own}|{exchange}|amq\.default)$",
                read=f"^({own}|{exchange}|rpc-.*)$",
                topic_write=asked_by_nas,
                topic_read=f"^{own}$",
            )
        )
    for name in compute:
        own = _quoted(name)
        made.append(
            Grant(f"compute.{name}", f"^{own}$", rf"^({own}|amq\.default)$", f"^({own}|{exchange})$", NONE, f"^{own}$")
        )
    return made


def definitions(granted: Sequence[Grant], passwords: Mapping[str, str], vhost: str) -> dict[str, Any]:
    """The grants as RabbitMQ's `import_definitions` takes them, with the passwords hashed.

    A user without a password gets no hash, with which RabbitMQ lets nobody in by a password (its docs, "Passwordless Users").
    """
    return {
        "vhosts": [{"name": vhost}],
        "users": [
            {
                "name": grant.user,
                "password_hash": hashed(passwords[grant.user]) if grant.user in passwords else "",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for grant in granted
        ],
        "exchanges": [
            {
                "name": EXCHANGE,
                "vhost": vhost,
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "arguments": {},
            }
        ],
        "permissions": [
            {"user": g.user, "vhost": vhost, "configure": g.configure, "write": g.write, "read": g.read}
            for g in granted
        ],
        "topic_permissions": [
            {"user": g.user, "vhost": vhost, "exchange": EXCHANGE, "write": g.topic_write, "read": g.topic_read}
            for g in granted
        ],
    }


def hashed(password: str, salt: bytes | None = None) -> str:
    """RabbitMQ's hash of a password: base64 of 4 bytes of salt and SHA-256 of salt and password (its docs, "Passwords")."""
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class Users(NamedTuple):
    """Who is at the broker after a setup: agents of an earlier one that this one did not name, and whether `guest` is."""

    unnamed: list[str]
    guest: bool


class Broker:
    """A RabbitMQ node as its `rabbitmqctl` sees it."""

    def __init__(self, rabbitmqctl: str, vhost: str) -> None:
        self._rabbitmqctl = rabbitmqctl
        self._vhost = vhost

    async def check(self) -> None:
        """Change nothing. Raises as `set_up` would when the node does not run, or its exchange is another."""
        if other := _other_exchange(await self._export(), definitions([], {}, self._vhost)):
            raise Rejected(other)

    async def set_up(self, granted: Sequence[Grant], passwords: Mapping[str, str]) -> Users:
        """Make exchange, users and permissions so, and return who is there then. Repeating it succeeds.

        A user without a password logs in by a certificate. Raises CommandFailed when the node cannot be told.
        """
        wanted = definitions(granted, passwords, self._vhost)
        await self._tell("import_definitions", stdin=json.dumps(wanted).encode())
        # The import goes on after the command has ended.
        deadline = Deadline.after(30)
        while missing := _missing(found := await self._export(), wanted):
            if deadline.over():
                raise OnelunError(f"the broker has not taken over its {missing} within 30 s: see its log")
            await asyncio.sleep(0.2)
        here = {one["user"] for one in found["permissions"] if one["vhost"] == self._vhost}
        agents = sorted(user for user in here if user.startswith(_AGENTS))
        unnamed = [user for user in agents if user not in {grant.user for grant in granted}]
        return Users(unnamed, guest=any(user["name"] == "guest" for user in found["users"]))

    async def _export(self) -> dict[str, Any]:
        said = await self._tell("-q", "export_definitions", "-", "--format", "json")
        try:
            found: dict[str, Any] = json.loads(said)
        except ValueError as error:
            raise ProtocolError(f"{self._rabbitmqctl} did not export JSON: {said[:100]!r}") from error
        return found

    async def _tell(self, *words: str, stdin: bytes | None = None) -> str:
        try:
            return (await command.run(self._rabbitmqctl, *words, stdin=stdin, timeout_s=60)).stdout
        except CommandFailed as error:
            if error.facts.get("status") != _UNAVAILABLE:
                raise
            # Its own words are a page about networks and cookies.
            raise CommandFailed(
                f"{self._rabbitmqctl} finds no RabbitMQ that runs on this machine: start it"
                " (systemctl start rabbitmq-server), then repeat",
                **error.facts,
            ) from error


def _other_exchange(found: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    ours = wanted["exchanges"][0]
    for exchange in found.get("exchanges", []):
        same_name = (exchange["name"], exchange["vhost"]) == (ours["name"], ours["vhost"])
        if same_name and (exchange["type"], exchange["durable"]) != (ours["type"], ours["durable"]):
            return (
                f"the exchange {ours['name']} exists as a {exchange['type']} exchange, which cannot keep nodes apart:"
                f" stop whoever uses it and delete it, then repeat"
            )
    return None


def _missing(found: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first kind of definition of which the broker lacks one."""
    for kind in ("exchanges", "users", "permissions", "topic_permissions"):
        there = found.get(kind, [])
        for one in wanted[kind]:
            lasting = {key: value for key, value in one.items() if key != "tags"}
            if not any(lasting.items() <= other.items() for other in there):
                return kind.replace("_", " ")
    return None


def _quoted(name: str) -> str:
    """A name as a pattern; the dot is the only character of a name that means something in one."""
    return name.replace(".", r"\.")
