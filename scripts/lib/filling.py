"""A NAS with thousands of disks, written as its agent would write them: asking it for each would take minutes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping

import msgspec
from scripts.lib.oned import SYSTEM_ID
from tests.support.sandbox.place import CLOUD, NAS, POOL, Place
from tests.support.sandbox.processes import recorded

from onelun.model import Kind, Owner, State, Volume
from onelun.nas.agent import CATALOGUE
from onelun.nas.backends.file.names import DATA_FILE
from onelun.nas.backends.file.sidecar import VOLUME_FILE, VolumeFacts
from onelun.nas.catalogue import Catalogue, Placement

_SIZE = 16 << 20
# Ids of VMs that nothing else uses.
_FIRST_VM = 1_000_000


def fill(place: Place, pools: Mapping[str, int]) -> None:
    """So many disks of VMs that are stopped into each pool of a sandbox, and into the catalogue. Its agent may run or not."""
    holder = recorded(place, f"{NAS}.holder")
    assert holder is not None
    catalogue = Catalogue(place.path("hosts", NAS, "state", CATALOGUE))
    first = _FIRST_VM
    for pool, count in pools.items():
        path = place.pool if pool == POOL else place.path("hosts", NAS, pool)
        # As the NAS sees it: the filesystem of a pool may be mounted there alone.
        seen = f"/proc/{holder.pid}/root{path}"
        catalogue.put(*(_disk(place, pool, seen, vm) for vm in range(first, first + count)))
        first += count
    catalogue.close()


def _disk(place: Place, pool: str, path: str, vm: int) -> Placement:
    """A disk of a VM in the pool whose directory is `path`."""
    name = f"one-vm-{vm}-0"
    owner = Owner(Kind.VOLATILE, cloud=CLOUD, vm_id=vm, disk_id=0)
    volume = Volume(pool, name, str(uuid.uuid4()), _SIZE, State.READY, owner, made_at=time.time())
    os.mkdir(f"{path}/{name}", 0o700)
    with open(f"{path}/{name}/{VOLUME_FILE}", "wb") as file:
        file.write(msgspec.json.encode(VolumeFacts(volume)))
    with open(f"{path}/{name}/{DATA_FILE}", "wb") as file:
        file.truncate(_SIZE)
    return Placement(CLOUD, vm, 0, f"{place.datastores}/{SYSTEM_ID}/{vm}/disk.0", pool, name, volume.uuid)
