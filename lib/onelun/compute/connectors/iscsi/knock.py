"""The first exchange of an iSCSI login, to hear in the target's own words whether it lets an initiator in.

iscsid tells of a target that does not exist, a portal where nobody listens and one that does not answer alike, after
seconds: a timeout. One login request (RFC 7143, 11.12 and 11.13) tells them apart in a millisecond.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct

from onelun.compute.connectors.base import Export
from onelun.errors import NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Portal

_CONNECT_S = 3.0
_ANSWER_S = 4.0
_HEADER = 48
# Opcode 0x03 with the immediate bit; stage 0, security negotiation, without the wish to leave it: no session begins.
_REQUEST, _RESPONSE = 0x43, 0x23
# The status class and detail of a login response.
_OK_CLASSES = (0, 1)
_AUTHENTICATION, _FORBIDDEN, _NOT_FOUND, _REMOVED = (2, 1), (2, 2), (2, 3), (2, 4)
# LIO says this of a target that does not exist, as of one that is not enabled (drivers/target/iscsi).
_UNAVAILABLE = (3, 1)


async def numeric(portal: Portal) -> Portal:
    """The portal by its address in its one canonical text, so that it can be compared. Raises Unreachable."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                portal.address, portal.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "the name service does not answer"
        raise Unreachable(f"cannot find the portal {portal}: {reason}", portal=str(portal)) from error
    return Portal(str(found[0][4][0]), portal.port)


async def knock(export: Export, portal: Portal) -> None:
    """Return when `portal` would go on with a login of the export's initiator to its target.

    Raises Unreachable (no route, nobody listens, no answer), NotFound (no such target), Rejected (not for this
    initiator). The secret is not tried.
    """
    reader, writer = await _connect(portal)
    try:
        async with asyncio.timeout(_ANSWER_S):
            writer.write(_request(export))
            await writer.drain()
            header = await reader.readexactly(_HEADER)
    except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
        how = f"says nothing for {_ANSWER_S:g} s" if isinstance(error, TimeoutError) else "ends them"
        raise Unreachable(
            f"the portal {portal} takes connections but answers no login: it {how}",
            portal=str(portal),
            target=export.iqn,
        ) from None
    finally:
        writer.close()
    if header[0] != _RESPONSE:
        raise Unreachable(f"the portal {portal} answers, but not as an iSCSI target does", portal=str(portal))
    if header[36] not in _OK_CLASSES:
        raise _refusal(export, portal, (header[36], header[37]))


async def _connect(portal: Portal) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(_CONNECT_S):
            return await asyncio.open_connection(portal.address, portal.port)
    except TimeoutError:
        raise Unreachable(f"the portal {portal} does not answer", portal=str(portal)) from None
    except OSError as error:
        raise Unreachable(f"cannot reach the portal {portal}: {error.strerror or error}", portal=str(portal)) from error


def _request(export: Export) -> bytes:
    methods = "CHAP,None" if export.user is not None else "None"
    keys = {
        "InitiatorName": export.initiator,
        "TargetName": export.iqn,
        "SessionType": "Normal",
        "AuthMethod": methods,
    }
    data = b"".join(f"{key}={value}\0".encode() for key, value in keys.items())
    # A random session id (type 10b) is never that of a session which iscsid has.
    isid = b"\x80" + secrets.token_bytes(3) + b"\0\0"
    header = struct.pack(">BBBBI6sHIHHII16x", _REQUEST, 0, 0, 0, len(data), isid, 0, 1, 0, 0, 1, 0)
    return header + data + b"\0" * (-len(data) % 4)


def _refusal(export: Export, portal: Portal, status: tuple[int, int]) -> OnelunError:
    facts = {"target": export.iqn, "portal": str(portal)}
    if status in (_NOT_FOUND, _REMOVED, _UNAVAILABLE):
        return NotFound(f"{portal} has no target {export.iqn} for the initiator {export.initiator}", **facts)
    if status == _FORBIDDEN:
        return Rejected(f"{portal} refuses {export.iqn} to the initiator {export.initiator}", **facts)
    if status == _AUTHENTICATION:
        how = "the account or its secret is wrong" if export.user else "it asks for an account, and none was given"
        return Rejected(
            f"{portal} refuses the login of the initiator {export.initiator} to {export.iqn}: {how}", **facts
        )
    return Unreachable(f"{portal} cannot serve {export.iqn} now (login status {status[0]:02x}{status[1]:02x})", **facts)
