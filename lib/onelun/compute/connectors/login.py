"""What a target says of itself, asked over a session of its own before anything is built on it.

qemu-storage-daemon cannot tell a LUN's serial, and its errors for a closed portal are obscure; libiscsi's tools can.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple

from onelun import command
from onelun.compute.connectors.base import Export
from onelun.errors import CommandFailed, Conflict, NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Portal
from onelun.numbers import number_in

# tgt's first disk is LUN 1 (LUN 0 is its controller), LIO's is LUN 0.
_LUNS = (1, 0)
_PORTAL_S = 3.0
_TOOL_S = 5.0


class Identity(NamedTuple):
    """One disk: its LUN, its size in bytes, and its unit serial number (VPD page 0x80)."""

    lun: int
    size_bytes: int
    serial: str


async def probe(portal: Portal) -> None:
    """Raise Unreachable unless somebody listens at `portal`."""
    try:
        async with asyncio.timeout(_PORTAL_S):
            _, writer = await asyncio.open_connection(portal.address, portal.port)
        writer.close()
    except TimeoutError:
        raise Unreachable(f"the portal {portal} does not answer", portal=str(portal)) from None
    except OSError as error:
        raise Unreachable(f"cannot reach the portal {portal}: {error.strerror or error}", portal=str(portal)) from error


async def identify(export: Export) -> Identity:
    """The disk behind `export`.

    Raises Unreachable (no portal, no answer), NotFound (no such target for this initiator, no disk), Rejected (login
    refused), Conflict (it is not the volume, or not of the size, that the export tells).
    """
    await probe(export.portal)
    identity = await _disk(export)
    compare(export, identity)
    return identity


def compare(export: Export, identity: Identity) -> None:
    """Raise Conflict unless the disk is the volume, and of the size, that the export tells."""
    if export.uuid is not None and identity.serial.lower() != export.uuid.lower():
        raise Conflict(
            f"target {export.iqn} shows volume {identity.serial or 'without a serial'}, expected {export.uuid}",
            target=export.iqn,
            found=identity.serial,
        )
    if export.size_bytes is not None and identity.size_bytes != export.size_bytes:
        raise Conflict(
            f"target {export.iqn} has {identity.size_bytes} bytes, expected {export.size_bytes}",
            target=export.iqn,
            found=identity.size_bytes,
        )


async def _disk(export: Export) -> Identity:
    missing: OnelunError | None = None
    for lun in _LUNS if export.lun is None else (export.lun,):
        asked = await asyncio.gather(
            _ask(export, lun, "iscsi-readcapacity16", "-s"),
            _ask(export, lun, "iscsi-inq", "-e", "1", "-c", "128"),
            return_exceptions=True,
        )
        failed = next((answer for answer in asked if isinstance(answer, BaseException)), None)
        if isinstance(failed, NotFound) and failed.facts.get("lun") is not None:
            missing = missing or failed
            continue
        if failed is not None:
            raise failed
        size, serial = (str(answer) for answer in asked)
        match = re.search(r"Unit Serial Number:\[(.*?)\]", serial)
        return Identity(
            lun, number_in(size, f"the size that target {export.iqn} tells"), match[1].strip() if match else ""
        )
    raise missing or NotFound(f"target {export.iqn} has no disk", target=export.iqn)


async def _ask(export: Export, lun: int, *tool: str) -> str:
    url = f"iscsi://{export.portal}/{export.iqn}/{lun}"
    try:
        result = await command.run(
            *tool, "-i", export.initiator, url, timeout_s=_TOOL_S, env=_account(export), check=False
        )
    except CommandFailed as error:
        if "did not end" not in error.sentence:
            raise
        raise Unreachable(f"the portal {export.portal} takes connections but answers no login") from error
    if result.status != 0:
        raise _refusal(export, lun, " ".join((result.stderr + result.stdout).split()))
    return result.stdout


def _account(export: Export) -> Mapping[str, str]:
    """The account goes in the environment, which only root and the process itself can read, not on the argv."""
    if export.user is None:
        return {}
    return {"LIBISCSI_CHAP_USERNAME": export.user, "LIBISCSI_CHAP_PASSWORD": export.secret or ""}


def _refusal(export: Export, lun: int, said: str) -> OnelunError:
    """What libiscsi's words mean; the numbers are the status class and detail of RFC 7143, 11.13.5."""
    facts = {"target": export.iqn, "portal": str(export.portal)}
    if "(513)" in said:
        how = "the account or its secret is wrong" if export.user else "it asks for an account, and none was given"
        return Rejected(f"{export.portal} refuses the login to {export.iqn}: {how}", **facts)
    if "(514)" in said:
        return Rejected(f"{export.portal} refuses {export.iqn} to the initiator {export.initiator}", **facts)
    if "(515)" in said:
        # tgt says the same of a target that does not exist and of one bound to another initiator.
        return NotFound(f"{export.portal} has no target {export.iqn} for the initiator {export.initiator}", **facts)
    if "LOGICAL_UNIT_NOT_SUPPORTED" in said or "failed to send readcapacity" in said:
        return NotFound(f"target {export.iqn} has no disk as LUN {lun}", lun=lun, **facts)
    return Unreachable(f"the login to {export.iqn} at {export.portal} failed: {said[-300:] or 'no message'}", **facts)
