"""What every exporter refuses."""

from __future__ import annotations

import re

from onelun.errors import NotFound, Rejected
from onelun.model import Target
from onelun.naming import checked_initiator, checked_uuid, is_target_of, target_account

# Target daemons split their parameters at commas and print one fact a line.
_PATH = re.compile(r"/[^,\n\0]{1,1000}")
# RFC 7143 wants CHAP secrets of at least 96 bits; the characters are those that need no quoting anywhere.
_SECRET = re.compile(r"[A-Za-z0-9._-]{12,64}")


def check_iqn(nas: str, iqn: str) -> None:
    """Raises Rejected for a target that is not this NAS's."""
    if not is_target_of(nas, iqn):
        raise Rejected(f"{iqn} is no target of the NAS {nas}")


def no_target(iqn: str) -> NotFound:
    """What to raise when there is no target of that name."""
    return NotFound(f"there is no target {iqn}", iqn=iqn)


def check_target(nas: str, target: Target) -> None:
    """Raises Rejected for a target that cannot be. The secret is never in the sentence."""
    check_iqn(nas, target.iqn)
    if checked_initiator(target.initiator) != target.initiator:
        raise Rejected(f"the initiator name {target.initiator} must be in lower case")
    if checked_uuid(target.uuid) != target.uuid:
        raise Rejected(f"{target.uuid} is not the canonical form of a UUID")
    if target.user != target_account(target.iqn):
        raise Rejected(f"the account of {target.iqn} is {target_account(target.iqn)}, not {target.user}")
    if not _SECRET.fullmatch(target.secret):
        raise Rejected(f"the secret of {target.iqn} is not made of 12 to 64 letters, digits, '.', '_' and '-'")
    if not _PATH.fullmatch(target.device):
        raise Rejected(f"{target.device!r} cannot be exported: its path must be absolute and without commas")
