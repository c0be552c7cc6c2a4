"""What makes an agent itself, beside its catalogue: its UUID, and the key that the secrets of its targets derive from.

A catalogue may be lost or restored from yesterday; hosts go on with sessions whose secrets must stay the same then. So a
secret is not kept but derived, from the target's name, which is never used twice (decision 0006).
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import uuid as uuids
from collections.abc import Callable

from onelun.errors import Rejected
from onelun.naming import epoch_of
from onelun.nas.epochs import has_long_secret

# CHAP wants 12 bytes or more, and some initiators take no more than 16 (RFC 3720, 11.1.4).
_SECRET_LENGTH = 16
# 96 bits in those are what RFC 7143 (9.2.1) wants without IPsec. Neither character needs quoting anywhere.
_SECRET_SIGNS = b"._"
# LIO takes a secret that begins with NULL for none (iscsi_target_configfs.c), and 0x begins hexadecimal in what CHAP sends.
_NEVER_FIRST = "0N"


class Identity:
    """The agent that the directory `state` belongs to. Files that are missing are made, durably and 0600."""

    def __init__(self, state: str) -> None:
        """Read the identity, or make it at the first start. Raises Rejected for a file that was damaged."""
        try:
            self.agent = str(uuids.UUID(_kept(os.path.join(state, "agent"), lambda: str(uuids.uuid4()))))
            self._key = bytes.fromhex(_kept(os.path.join(state, "key"), lambda: secrets.token_hex(32)))
        except ValueError as error:
            raise Rejected(f"the identity in {state} is damaged (files agent and key): restore it") from error

    def secret_of(self, iqn: str) -> str:
        """The CHAP secret of the target of that name; always the same."""
        derived = hmac.new(self._key, iqn.encode(), "sha256")
        if not has_long_secret(epoch_of(iqn)):
            return derived.hexdigest()[:_SECRET_LENGTH]
        return base64.b64encode(derived.digest(), _SECRET_SIGNS).decode().lstrip(_NEVER_FIRST)[:_SECRET_LENGTH]


def known_agent(state: str) -> str:
    """The agent's UUID for who only looks: where there is none yet, one that no pool can belong to."""
    try:
        with open(os.path.join(state, "agent"), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return str(uuids.uuid4())


def _kept(path: str, make: Callable[[], str]) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        text = make()
        descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".new", path)
        _sync_directory(os.path.dirname(path))
        return text


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
