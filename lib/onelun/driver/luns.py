"""LUNs of a NAS that the front-end itself reads and writes, by qemu-img's own initiator and as an ordinary user.

Each is there for this front-end alone, for as long as its lease is renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from onelun.driver.running import Run
from onelun.errors import NoReply, Unreachable
from onelun.rpc.message import ImportRenewed, RenewImport, ZvolImporting, ZvolReadable

_CONNECT_S = 5.0


class Lun(NamedTuple):
    """One LUN of the NAS `nas`, in its pool `pool`, as the reply that offered it tells it."""

    nas: str
    pool: str
    offered: ZvolImporting | ZvolReadable
    initiator: str

    def node(self, secret: str) -> dict[str, str]:
        """How QEMU is told to open it; `secret` is the id of the object that holds the secret."""
        offered = self.offered
        address = f"[{offered.address}]" if ":" in offered.address else offered.address
        return {
            "driver": "iscsi",
            "transport": "tcp",
            "portal": f"{address}:{offered.port}",
            "target": offered.iqn,
            "lun": str(offered.lun),
            "user": offered.user,
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

    async def check_portal(self) -> None:
        """Try the port first: what libiscsi says of a closed one helps nobody. Raises Unreachable."""
        address, port = self.offered.address, self.offered.port
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            raise Unreachable(
                f"the front-end cannot reach the iSCSI portal {address}:{port} of {self.nas}: {reason}"
            ) from error
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    @contextlib.contextmanager
    def secret_file(self) -> Iterator[int]:
        """A file without a name that holds the secret: argv is for everybody to read."""
        descriptor = os.memfd_create("secret")
        try:
            os.write(descriptor, self.offered.secret.encode())
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.asynccontextmanager
    async def kept(self, run: Run) -> AsyncIterator[None]:
        """Renew the lease while the body runs; end the body with an error when it is lost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._renew(run))
                yield
                renewing.cancel()
        except ExceptionGroup as group:
            # The group holds the body's error, or that of the renewing which ended the body.
            raise group.exceptions[0] from None

    async def _renew(self, run: Run) -> None:
        failed_s = 0.0
        lease_s = self.offered.lease_s
        pause_s = lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            request = RenewImport(zpool=self.pool, uuid=self.offered.uuid)
            try:
                await run.ask(self.nas, request, ImportRenewed, within_s=pause_s)
                failed_s = 0.0
            except (Unreachable, NoReply):
                # A broker or an agent that restarts is back before the lease is over.
                failed_s += pause_s
                if failed_s >= lease_s:
                    raise
