"""A LUN as QEMU's own initiator opens it, in an ordinary process: without the kernel's initiator, and without root.

Who offers it knows one initiator and one account, and takes it back when nobody renews its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

_CONNECT_S = 5.0


class Lun(NamedTuple):
    """One LUN: its target and portal, the account there, and the initiator that it is offered to."""

    iqn: str
    address: str
    port: int
    user: str
    secret: str
    lun: int
    initiator: str

    def node(self, secret: str) -> dict[str, str]:
        """How QEMU is told to open it; `secret` is the id of the object that holds the secret."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return {
            "driver": "iscsi",
            "transport": "tcp",
            "portal": f"{address}:{self.port}",
            "target": self.iqn,
            "lun": str(self.lun),
            "user": self.user,
            "password-secret": secret,
            "initiator-name": self.initiator,
        }

    def options(self, secret: str) -> str:
        """The same as options of a command line."""
        return ",".join(f"{name}={value}" for name, value in self.node(secret).items())

    def filename(self, secret: str) -> str:
        """The same as a file name, of a raw disk."""
        node = self.node(secret)
        return "json:" + json.dumps({"driver": "raw", "file": {**node, "lun": int(node["lun"])}})

    async def out_of_reach(self) -> str | None:
        """Why the portal's port cannot be reached from here; None when it can. What libiscsi says of that helps nobody."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(self.address, self.port)
        except (OSError, TimeoutError) as error:
            return str(error) or "no answer"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return None

    @contextlib.contextmanager
    def secret_file(self) -> Iterator[int]:
        """A file without a name that holds the secret: argv is for everybody to read."""
        descriptor = os.memfd_create("secret")
        try:
            os.write(descriptor, self.secret.encode())
            yield descriptor
        finally:
            os.close(descriptor)
