"""Backstores of LIO: what stands behind its targets, shared by all targets of one volume. Runs in worker.py's process.

A backstore is named after its NAS and its volume's UUID. Ours have HBAs numbered from FIRST_INDEX, so that an HBA that is
still, or already, empty is known to be ours too. Reservations are off: one would outlive the session that made it, and lock
the next host out (emulate_pr). So is copying between units (emulate_3pc), which was a way around access lists (CVE-2020-28374).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TypeAlias

from rtslib_fb import BlockStorageObject, FileIOStorageObject
from rtslib_fb.root import RTSRoot
from rtslib_fb.utils import RTSLibError

from onelun.errors import CommandFailed, Conflict
from onelun.model import Target
from onelun.nas.exporters.lio import configfs
from onelun.nas.exporters.lio.configfs import Backstore

FIRST_INDEX = 500_000

StorageObject: TypeAlias = BlockStorageObject | FileIOStorageObject
_ATTRIBUTES = {"emulate_pr": "0", "emulate_3pc": "0"}
# The kernel refuses them where the device cannot discard (emulate_tpu_store() in target_core_configfs.c).
_DISCARD = {"emulate_tpu": "1", "emulate_tpws": "1"}


def ensure(nas: str, target: Target) -> StorageObject:
    """The volume's backstore, made unless it is there and whole. Raises Conflict when it is another device's and in use."""
    name = name_of(nas, target)
    present = configfs.backstores()
    for found in (one for one in present if one.name == name):
        if _is_whole(found, target):
            _prepare(found, target)
            fit(found, target)
            kind = BlockStorageObject if found.plugin == "iblock" else FileIOStorageObject
            return kind(name, index=found.number)
        if not _drop(found):
            raise Conflict(f"a target exists for {found.device} as the volume {target.uuid}, not for {target.device}")
    # rtslib means to take over an empty HBA, and does not know one.
    _drop_empty()
    used = {one.number for one in present}
    made = _new(name, next(number for number in range(FIRST_INDEX, 2**31) if number not in used), target)
    _prepare(configfs.backstore_at(str(made.path)), target)
    return made


def fit(backstore: Backstore, target: Target) -> None:
    """Let a backstore be as long as its device.

    iblock asks the device each time (iblock_get_blocks()). fileio keeps what it was told (fd_get_blocks()), and may be told
    anew at any time (fd_set_configfs_dev_params()). Neither tells the initiators: they must look again.
    """
    if length(backstore) not in (None, target.size_bytes):
        with doing(f"grow {target.device}"):
            configfs.write(f"{backstore.path}/control", f"fd_dev_size={target.size_bytes}")


def length(backstore: Backstore) -> int | None:
    """The bytes that a fileio backstore was told; None for iblock."""
    _, found, rest = configfs.read(f"{backstore.path}/info").partition(" Size: ")
    return int(rest.split()[0]) if found and backstore.plugin == "fileio" else None


def sweep(nas: str) -> None:
    """Remove the NAS's backstores that no LUN uses, and empty HBAs of ours."""
    for found in configfs.backstores():
        if found.number >= FIRST_INDEX and found.name.startswith(_prefix(nas)):
            _drop(found)
    _drop_empty()


def name_of(nas: str, target: Target) -> str:
    """The name of the backstore of the target's volume."""
    return f"{_prefix(nas)}{target.uuid}"


@contextlib.contextmanager
def doing(step: str) -> Iterator[None]:
    """Raises CommandFailed, saying at which step, when the kernel or rtslib refuses. rtslib lets OSErrors through."""
    try:
        yield
    except (RTSLibError, OSError) as error:
        raise CommandFailed(f"LIO does not {step}: {reason(error)}", command="LIO") from error


def reason(error: BaseException) -> str:
    """What the system said, without rtslib's words around it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause.strerror or str(cause) if isinstance(cause, OSError) else str(error)


def _new(name: str, index: int, target: Target) -> StorageObject:
    # rtslib would move LIO's directory of its own files, which is the machine's and not ours to choose.
    RTSRoot._preferred_dbroot = configfs.read(f"{configfs.CONFIGFS}/target/dbroot")  # noqa: SLF001 there is no other way
    with doing(f"open {target.device}"):
        if stat.S_ISBLK(os.stat(target.device).st_mode):
            # iblock tells of a write cache when the device has one, and passes flushes down (iblock_get_write_cache(),
            # iblock_execute_sync_cache() in target_core_iblock.c).
            return BlockStorageObject(name, target.device, target.uuid, index=index)
        # Buffered, with a write cache told: fileio answers a flush, and a write with FUA, after vfs_fsync_range()
        # (fd_execute_sync_cache(), fd_execute_rw() in target_core_file.c).
        return FileIOStorageObject(name, target.device, target.size_bytes, target.uuid, write_back=True, index=index)


def _prepare(backstore: Backstore | None, target: Target) -> None:
    assert backstore is not None
    attributes = f"{backstore.path}/attrib"
    with doing(f"prepare {target.device}"):
        configfs.set_all(attributes, _ATTRIBUTES)
        if backstore.plugin == "iblock":
            # iblock drops a write's FUA bit when the device has a cache and knows no FUA (iblock_execute_rw()), yet offers
            # the bit to initiators, whose journals would rely on it. Without the offer they flush.
            device = os.stat(target.device).st_rdev
            fua = configfs.read(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/fua")
            configfs.set_all(attributes, {"emulate_fua_write": "1" if fua == "1" else "0"})
    for attribute, value in _DISCARD.items():
        with contextlib.suppress(OSError):
            configfs.set_all(attributes, {attribute: value})


def _is_whole(backstore: Backstore, target: Target) -> bool:
    serial = configfs.read(f"{backstore.path}/wwn/vpd_unit_serial").rpartition(": ")[2]
    enabled = configfs.read(f"{backstore.path}/enable")
    return (backstore.device, serial, enabled) == (target.device, target.uuid, "1")


def _drop(backstore: Backstore) -> bool:
    """Remove a backstore, unless a LUN uses it; whether it is gone.

    By rmdir alone, which the kernel does or refuses in one step; rtslib would first remove the LUNs of every target.
    """
    try:
        configfs.remove(backstore.path)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    with contextlib.suppress(OSError):
        configfs.remove(os.path.dirname(backstore.path))
    return True


def _drop_empty() -> None:
    """Remove HBAs of ours without a backstore. The kernel refuses for one that holds a backstore."""
    used = {f"{one.plugin}_{one.number}" for one in configfs.backstores()}
    for hba in set(configfs.names(configfs.CORE)) - used:
        number = hba.rpartition("_")[2]
        if number.isdigit() and int(number) >= FIRST_INDEX:
            with contextlib.suppress(OSError):
                configfs.remove(f"{configfs.CORE}/{hba}")


def _prefix(nas: str) -> str:
    # One NAS's name may begin another's, but none has a "_".
    return f"onelun_{nas}_"
