"""What stands in the way of a thin pool, or soon will: the same questions for `open` and for `check`."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from onelun import command
from onelun.errors import Conflict, NotFound, OnelunError, Rejected
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.devices import PoolStatus
from onelun.nas.backends.lvm.listing import COLUMNS, Listing
from onelun.nas.backends.lvm.thinpool import (
    METADATA_HIGH_WATER,
    Geometry,
    ThinPool,
    broken,
    capacity_of,
    fraction,
    geometry_of,
)
from onelun.numbers import number_in

_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOOLS = {
    "lvs": "lvm2",
    "dmsetup": "dmsetup",
    "thin_check": "thin-provisioning-tools",
    "thin_delta": "thin-provisioning-tools",
    "udevadm": "udev",
}
_GROUP = "vg_extent_size,vg_permissions,vg_missing_pv_count,vg_mda_size,vg_mda_free"
# One report answers it all: each command of LVM reads the metadata anew. An LV of many segments has as many rows.
_ALL = f"{COLUMNS},segtype,chunk_size,zero,discards,{_GROUP}"
# A warning comes before the refusal.
_SOON = 0.9


class Findings(NamedTuple):
    """What `open` would raise, in the order in which it finds it; what else should be seen to; what the pool is and holds.

    Without refusals there are a geometry and a listing. `status` is None while the thin pool is not active.
    """

    refusals: list[OnelunError]
    warnings: list[str]
    geometry: Geometry | None = None
    listing: Listing | None = None
    status: PoolStatus | None = None


async def look(pool: ThinPool, agent: str, cloud: str | None) -> Findings:
    """Look at the pool as it is; changes nothing. Raises CommandFailed, ProtocolError when LVM cannot tell."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool, path=_PLACES) is None]
    if lacking:
        named = ", ".join(f"{tool} (package {_TOOLS[tool]})" for tool in lacking)
        return Findings([Rejected(f"pool {pool.pool} needs {named}: install it")], [])
    rows = await pool.lvm.report("lvs", _ALL, "--select", f"vg_name={pool.vg}")
    if not rows and not await pool.lvm.report("vgs", "vg_name", "--select", f"vg_name={pool.vg}"):
        return Findings([_no_pool(pool, f"no volume group {pool.vg}: create it, or see that its disks are there")], [])
    row = next((row for row in rows if row["lv_name"] == pool.thin_pool), None)
    if row is None or row["segtype"] != "thin-pool":
        how = f"lvcreate --type thin-pool --size SIZE --name {pool.thin_pool} {pool.vg}"
        return Findings([_no_pool(pool, f"no thin pool {pool.path}: create it, such as with: {how}")], [])
    geometry = geometry_of(row)
    listing = await pool.listed(rows)
    found = Findings(
        [*_of_group(pool, row), *_of_pool(pool, row)], [], geometry, listing, await pool.devices.pool_status()
    )
    _whose(pool, listing, agent, cloud, found)
    _warn_of_areas(pool, row, found)
    if row["discards"] == "ignore":
        found.warnings.append(
            f"pool {pool.pool} gets no space back from what VMs delete: deactivate its volumes and itself, then"
            f" lvchange --discards passdown {pool.path}"
        )
    await _kernel(pool, geometry, found)
    return found


def _no_pool(pool: ThinPool, lacking: str) -> NotFound:
    return NotFound(f"there is no pool {pool.pool}: there is {lacking}", pool=pool.pool)


def _of_group(pool: ThinPool, group: dict[str, str]) -> list[OnelunError]:
    found: list[OnelunError] = []
    if group["vg_missing_pv_count"] != "0":
        found.append(Rejected(f"pool {pool.pool} cannot be changed: disks of the volume group {pool.vg} are missing"))
    if group["vg_permissions"] != "writeable":
        found.append(Rejected(f"pool {pool.pool} cannot be written: vgchange --permission rw {pool.vg}"))
    return found


def _of_pool(pool: ThinPool, row: dict[str, str]) -> list[OnelunError]:
    if row["zero"] == "zero":
        return []
    return [
        Rejected(
            f"pool {pool.pool} does not zero its blocks, so that one VM could read what another wrote:"
            f" lvchange --zero y {pool.path}"
        )
    ]


def _whose(pool: ThinPool, listing: Listing, agent: str, cloud: str | None, found: Findings) -> None:
    try:
        rules.check_owner(pool.pool, listing.pool.owner, agent)
        rules.check_cloud(pool.pool, listing.pool.cloud, cloud)
    except Conflict as refusal:
        found.refusals.append(refusal)


def _warn_of_areas(pool: ThinPool, group: dict[str, str], found: Findings) -> None:
    # LVM writes each new copy of the metadata beside the old one: half of the area is what fits (vgs counts free so).
    size, free = (number_in(group[column], f"{column} of LVM") for column in ("vg_mda_size", "vg_mda_free"))
    half = size // 2
    used = fraction(half - free, half)
    if used > METADATA_HIGH_WATER:
        found.warnings.append(
            f"LVM's own metadata area of the volume group {pool.vg} is {used:.0%} full: add a disk with a larger one"
            f" (vgextend --metadatasize 64m), then pvchange --metadataignore y on the others"
        )


async def _kernel(pool: ThinPool, geometry: Geometry, found: Findings) -> None:
    told = found.status
    if told is None:
        if not os.path.exists("/sys/module/dm_thin_pool") and not await _loadable("dm-thin-pool"):
            found.refusals.append(Rejected(f"pool {pool.pool} needs the kernel's module dm-thin-pool: install it"))
        return
    if told.wrong is not None:
        found.refusals.append(Rejected(f"pool {pool.pool} cannot be written: {broken(pool.path, told)}"))
        return
    metadata = fraction(told.metadata_used, told.metadata)
    if metadata > METADATA_HIGH_WATER * _SOON:
        found.warnings.append(
            f"the metadata of pool {pool.pool} is {metadata:.0%} full, and above {METADATA_HIGH_WATER:.0%} nothing new is made:"
            f" lvextend --poolmetadatasize +SIZE {pool.path}"
        )
    capacity = capacity_of(told, geometry)
    if metadata <= METADATA_HIGH_WATER:
        found.warnings.extend(rules.near_full(pool.pool, capacity, f"lvextend --size +SIZE {pool.path}"))


async def _loadable(module: str) -> bool:
    return (await command.run("modprobe", "--dry-run", "--quiet", module, timeout_s=10, check=False)).status == 0
