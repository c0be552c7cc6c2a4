"""What a NAS asks a host to attach, with every word of it checked."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from onelun.compute.connectors.base import Export
from onelun.errors import Conflict, Rejected
from onelun.model import Portal
from onelun.naming import checked_initiator, checked_name, checked_uuid
from onelun.rpc.message import Held, SetZvol, checked_size

# What a CHAP account may be called: it comes into command lines and configuration of several programs.
_USER = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_SECRET = re.compile(r"[!-~]{1,255}")


class Wanted(NamedTuple):
    """One target, the lasting name of its device (relative), and the links to that. `bare`: only the seed's fields came."""

    export: Export
    nas: str
    name: str
    bare: bool = False
    links: tuple[str, ...] = ()


def checked_target(text: str) -> str:
    """`text` as the name of an iSCSI target, in lower case; else Rejected."""
    try:
        return checked_initiator(text)
    except Rejected:
        raise Rejected(f"{text[:80]!r} is no name of an iSCSI target") from None


def checked_nas(text: str) -> str:
    """`text` as the name of a NAS, which for a caller of the bare protocol is a host's name or address."""
    return checked_name(text.lower(), "name of a NAS")


def wanted(request: SetZvol, initiator: str) -> Wanted:
    """What `set_zvol` asks of a host whose iSCSI name is `initiator`.

    With the seed's fields alone, the target is at port 3260 of the host `nas`, and its device is called `<nas>/<target>`.
    Raises Rejected for a word that cannot be, and Conflict when the NAS takes us for another initiator.
    """
    if "identity" in request.needs and (request.uuid is None or request.size_bytes is None):
        raise Rejected("set_zvol needs the identity to be verified, and does not tell uuid and size_bytes")
    if (request.user is None) != (request.secret is None):
        raise Rejected("set_zvol tells only one of user and secret")
    target, nas = checked_target(request.target), checked_nas(request.nas)
    export = Export(
        iqn=target,
        portal=Portal(_address(request.address or nas), _port(request.port)),
        initiator=_ours(request.initiator, initiator),
        user=_matched(_USER, request.user, "account"),
        secret=_matched(_SECRET, request.secret, "secret"),
        uuid=None if request.uuid is None else checked_uuid(request.uuid),
        size_bytes=None if request.size_bytes is None else checked_size(request.size_bytes),
        readonly=request.readonly,
        lun=_lun(request.lun),
    )
    links = () if request.link is None else (request.link,)
    if request.zpool is None or request.zvol is None:
        return Wanted(export, nas, f"{nas}/{target}", bare=True, links=links)
    pool, volume = checked_name(request.zpool, "name of a pool"), checked_name(request.zvol, "volume name")
    return Wanted(export, nas, f"{nas}/{pool}/{volume}", links=links)


def wanted_of(held: Held, nas: str, initiator: str) -> Wanted:
    """The same of one attachment that a NAS lists."""
    return wanted(
        SetZvol(
            target=held.target,
            nas=nas,
            address=held.address,
            port=held.port,
            initiator=held.initiator,
            user=held.user,
            secret=held.secret,
            zpool=held.zpool,
            zvol=held.zvol,
            uuid=held.uuid,
            size_bytes=held.size_bytes,
            readonly=held.readonly,
            lun=held.lun,
        ),
        initiator,
    )._replace(links=held.links)


def _ours(told: str | None, initiator: str) -> str:
    if told is not None and checked_initiator(told) != initiator:
        raise Conflict(
            f"the target is for the initiator {told}, and this host is {initiator}: the NAS must ask it anew",
            initiator=initiator,
        )
    return initiator


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return checked_name(text.lower(), "address of a NAS")


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise Rejected(f"{number} is no port: it must be 1 to 65535")
    return number


def _lun(number: int | None) -> int | None:
    # 255 is the highest number of the flat addressing that every initiator knows (SAM-5, 4.7).
    if number is not None and not 0 <= number <= 255:
        raise Rejected(f"{number} is no LUN: it must be 0 to 255")
    return number


def _matched(pattern: re.Pattern[str], text: str | None, what: str) -> str | None:
    # A secret is never shown, also not a wrong one.
    if text is not None and not pattern.fullmatch(text):
        raise Rejected(f"set_zvol tells no usable {what}")
    return text
