"""The first exchange of a login, with a target that gives one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.knock import knock, numeric
from onelun.errors import NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Portal

HEADER = 48


class Door:
    """A portal that answers each login with `answer`, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(HEADER)
        length = int.from_bytes(header[5:8], "big")
        self.asked = header + await reader.readexactly(length + -length % 4)
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def door(answer: bytes) -> AsyncIterator[tuple[Door, Portal]]:
    made = Door(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        yield made, Portal("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


def response(kind: int, detail: int, opcode: int = 0x23) -> bytes:
    return bytes([opcode]) + bytes(35) + bytes([kind, detail]) + bytes(10)


def export(portal: Portal, user: str | None = "one-1-e1") -> Export:
    return Export("iqn.2026-11.io.onelun.nas1:tank.one-1.e1", portal, "iqn.2026-11.io.onelun.host:node1", user=user)


async def test_a_portal_that_goes_on_lets_in_and_was_asked_as_the_rfc_says() -> None:
    async with door(response(0, 0)) as (made, portal):
        await knock(export(portal), portal)

    header, data = made.asked[:HEADER], made.asked[HEADER:]
    assert (header[0], header[1], header[8]) == (0x43, 0, 0x80)
    assert len(made.asked) % 4 == 0
    keys = dict(pair.split("=", 1) for pair in data.rstrip(b"\0").decode().split("\0"))
    assert keys == {
        "InitiatorName": "iqn.2026-11.io.onelun.host:node1",
        "TargetName": "iqn.2026-11.io.onelun.nas1:tank.one-1.e1",
        "SessionType": "Normal",
        "AuthMethod": "CHAP,None",
    }


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ((2, 3), NotFound, "has no target"),
        ((2, 4), NotFound, "has no target"),
        ((3, 1), NotFound, "has no target"),
        ((2, 2), Rejected, "to the initiator iqn.2026-11.io.onelun.host:node1"),
        ((2, 1), Rejected, "secret is wrong"),
        ((3, 2), Unreachable, "0302"),
    ],
)
async def test_each_refusal_is_told_apart(status: tuple[int, int], kind: type[OnelunError], words: str) -> None:
    async with door(response(*status)) as (_, portal):
        with pytest.raises(kind, match=words) as caught:
            await knock(export(portal), portal)

    assert type(caught.value) is kind


async def test_a_target_that_wants_an_account_says_so_to_whom_has_none() -> None:
    async with door(response(2, 1)) as (made, portal):
        with pytest.raises(Rejected, match="none was given"):
            await knock(export(portal, user=None), portal)

    assert b"AuthMethod=None\0" in made.asked


async def test_a_redirection_is_left_to_the_initiator() -> None:
    async with door(response(1, 1)) as (_, portal):
        await knock(export(portal), portal)


@pytest.mark.parametrize("answer", [b"", b"220 mail.example ESMTP\r\n", response(0, 0, opcode=0x3F)])
async def test_what_is_no_target_is_unreachable(answer: bytes) -> None:
    async with door(answer) as (_, portal):
        with pytest.raises(Unreachable, match="answers"):
            await knock(export(portal), portal)


async def test_a_portal_that_says_nothing_is_given_up_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    portal = Portal("127.0.0.1", server.sockets[0].getsockname()[1])
    begun = time.monotonic()

    with pytest.raises(Unreachable, match="answers no login"):
        await knock(export(portal), portal)

    assert time.monotonic() - begun < 60
    server.close()


async def test_a_portal_has_one_text_for_one_address() -> None:
    assert await numeric(Portal("127.0.0.1", 3260)) == Portal("127.0.0.1", 3260)
    assert await numeric(Portal("0:0:0:0:0:0:0:1", 3260)) == Portal("::1", 3260)
    assert await numeric(Portal("FD00::00AB", 3260)) == Portal("fd00::ab", 3260)


async def test_a_portal_without_an_address_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="cannot find the portal"):
        await numeric(Portal("no-such-host.invalid", 3260))
