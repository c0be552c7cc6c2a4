"""The sizes of VMs' disks and snapshots, told to OpenNebula's monitoring daemon.

It takes them as a message of its own, which `send_to_monitor` of OpenNebula's scripts_common.sh sends by UDP: one VM an
element, MONITOR being the base64 of DISK_SIZE and SNAPSHOT_SIZE in MB (src/datastore_mad/remotes/ceph/monitor and
src/monitor/src/monitor/MonitorDriverProtocol.cc). Telling is worth no failure: what is lost comes with the next round.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Iterable, Iterator

from onelun import command
from onelun.driver.pools import Pool
from onelun.driver.rows import DiskRow, rows_of
from onelun.driver.running import Run
from onelun.errors import Cancelled, CommandFailed, OnelunError
from onelun.naming import snapshot_id
from onelun.rpc.message import DiskList, ListDisks

log = logging.getLogger(__name__)

MIB = 1 << 20
_ASK_S = 30.0
# send_to_monitor ends a second after it has sent.
_SEND_S = 10.0
_AT_ONCE = 8
_ALL_S = 30.0
# bash writes a longer message in two pieces, of which nc may make two datagrams: 4096 bytes less the words before it. The
# payload is deflated, in base64; this holds even where deflating gains nothing.
_MOST_BYTES = 3000
# -f, because the function leaves its payload to the shell's expansion, and "[" begins a pattern.
_SCRIPT = 'set -f; . "$1" && payload=$(cat) && send_to_monitor MONITOR_VM 0 -1 "$payload"'


async def tell(run: Run, datastore_id: int, pools: Iterable[Pool]) -> None:
    """Tell the sizes of the disks of the VMs in that system datastore, whose volatile disks are in `pools`.

    A VM's other disks may be on any NAS. What cannot be told is noted, never raised.
    """
    location = os.environ.get("ONE_LOCATION", "").rstrip("/")
    functions = f"{location}/lib/sh/scripts_common.sh" if location else "/usr/lib/one/sh/scripts_common.sh"
    if not os.path.exists(functions):
        log.warning("%s id=%s tells no sizes of VM disks: there is no %s", run.call.name, run.call.id, functions)
        return
    names = list(dict.fromkeys((*run.config.nas, *(nas for nas, _ in pools))))
    disks = [disk for disk in await _disks(run, names) if _is_in(disk, datastore_id)]
    at_once = asyncio.Semaphore(_AT_ONCE)
    try:
        async with asyncio.timeout(_ALL_S):
            sent = await asyncio.gather(
                *(_send(run, location, functions, text, at_once) for text in _messages(_elements(disks)))
            )
    except TimeoutError:
        run.note(f"the sizes of some VM disks are not told: it took longer than {_ALL_S:g} s")
    else:
        run.progress(f"told the sizes of {len(disks)} VM disks in {sum(sent)} of {len(sent)} messages")


async def _disks(run: Run, names: list[str]) -> list[DiskRow]:
    """What each NAS tells; one that cannot be asked, and a pool that failed, are noted."""
    found: list[DiskRow] = []
    asked = [_listed(run, nas) for nas in names]
    for nas, answer in zip(names, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(answer, tuple):
            disks, failed = answer
            found += disks
            for pool, sentence in failed.items():
                run.note(f"the sizes of VM disks in {nas}/{pool} are not told: {sentence}")
        elif isinstance(answer, OnelunError) and not isinstance(answer, Cancelled):
            run.note(f"the sizes of VM disks on {nas} are not told: {answer.sentence}")
        else:
            raise answer
    return found


async def _listed(run: Run, nas: str) -> tuple[list[DiskRow], dict[str, str]]:
    """The disks that a NAS tells, and which pools failed. Raises what asking raises, and ProtocolError."""
    answer = await run.ask(nas, ListDisks(cloud=run.config.cloud), DiskList, within_s=_ASK_S)
    return rows_of(nas, answer.body, DiskRow), answer.failed


def _is_in(disk: DiskRow, datastore_id: int) -> bool:
    """Whether the VM's directory, DATASTORES/DATASTORE/VM, is in that datastore."""
    return disk.path.split("/")[-3:-1] == [str(datastore_id), str(disk.vm)]


def _elements(disks: Iterable[DiskRow]) -> Iterator[str]:
    """One VM element for each VM. monitord replaces all DISK_SIZE of a VM by those of one element."""
    of_vm: dict[int, list[str]] = {}
    for disk in sorted(disks, key=lambda disk: (disk.vm, disk.disk)):
        told = of_vm.setdefault(disk.vm, [])
        told.append(f"DISK_SIZE=[ID={disk.disk},SIZE={_mb(disk.used_bytes)}]")
        kept = ((snapshot_id(name), used) for name, used in disk.snapshots.items())
        told += [
            f"SNAPSHOT_SIZE=[ID={snapshot},DISK_ID={disk.disk},SIZE={_mb(used)}]"
            for snapshot, used in kept
            if snapshot is not None
        ]
    for vm, told in of_vm.items():
        yield f'VM=[ID={vm}, MONITOR="{base64.b64encode(" ".join(told).encode()).decode()}"]'


def _messages(elements: Iterable[str]) -> Iterator[str]:
    """The elements, as many in a message as it may carry; one that is longer goes alone."""
    message: list[str] = []
    for element in elements:
        if message and sum(len(each) + 1 for each in message) + len(element) > _MOST_BYTES:
            yield "\n".join(message)
            message = []
        message.append(element)
    if message:
        yield "\n".join(message)


async def _send(run: Run, location: str, functions: str, text: str, at_once: asyncio.Semaphore) -> bool:
    """Send a message; whether it went. Whether it arrived nobody knows."""
    async with at_once:
        try:
            await command.run(
                *("bash", "-c", _SCRIPT, "send_to_monitor", functions),
                timeout_s=_SEND_S,
                called="send_to_monitor",
                stdin=text.encode(),
                env={"ONE_LOCATION": location} if location else None,
            )
        except CommandFailed as error:
            run.note(f"the sizes of some VM disks are not told: {error.sentence}")
            return False
    return True


def _mb(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
