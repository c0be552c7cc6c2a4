"""What OpenNebula must be told of onelun, release by release. Facts of the oned.conf that each release ships."""

from __future__ import annotations

from collections.abc import Mapping

from onelun.naming import DRIVER as DRIVER

Release = tuple[int, int]

# Before it there is neither TM_MAD_CONF with modes nor LIVE_DISK_SNAPSHOTS as they are read here; a list of drivers is all.
_MODES_SINCE = (5, 4)
_LIVE_MIGRATE_SINCE = (7, 2)
# System datastores whose directories stay OpenNebula's own while onelun has the disks. `local` is not among them: its
# premigrate asks only the first disk's driver.
_SYSTEMS = ("ssh", "shared")

# The qemu driver is kvm's without hardware; nested test clouds use it.
LIVE_SNAPSHOTS = (f"kvm-{DRIVER}", f"qemu-{DRIVER}")

# How a volume is kept, as far as a clone can have it otherwise than its image.
_KEPT = ("ONELUN_COMPRESSION", "ONELUN_PROVISIONING", "ONELUN_WIPE")
# What each VM's disk needs of its image's and its image datastore's attributes. OpenNebula takes the disk's own first, then
# the image's, then the datastore's (acquire_disk of src/image/ImagePool.cc). Without DISK_TYPE a CD-ROM is described as a file.
INHERITED = {"INHERIT_IMAGE_ATTR": _KEPT, "INHERIT_DATASTORE_ATTR": ("DISK_TYPE", *_KEPT)}


def has_modes(release: Release) -> bool:
    """Whether the release takes more than the lists of drivers."""
    return release >= _MODES_SINCE


def tm_mad_conf(release: Release) -> Mapping[str, str]:
    """The attributes of TM_MAD_CONF. OpenNebula copies them into a datastore when that is created."""
    conf = {
        "NAME": DRIVER,
        "LN_TARGET": "NONE",
        "CLONE_TARGET": "SELF",
        "SHARED": "YES",
        "DRIVER": "raw",
        "DISK_TYPE": "BLOCK",
        # Snapshots know no order: each may be removed, and reverting removes none.
        "ALLOW_ORPHANS": "YES",
        "DS_MIGRATE": "NO",
    }
    if release >= _LIVE_MIGRATE_SINCE:
        conf |= {"DS_LIVE_MIGRATE": "NO", "DS_MIGRATE_SNAP": "NO"}
    conf["TM_MAD_SYSTEM"] = ",".join(_SYSTEMS)
    for system in _SYSTEMS:
        suffix = system.upper()
        conf |= {f"LN_TARGET_{suffix}": "NONE", f"CLONE_TARGET_{suffix}": "SELF", f"DISK_TYPE_{suffix}": "BLOCK"}
    return conf


def ds_mad_conf() -> Mapping[str, str]:
    """The attributes of DS_MAD_CONF."""
    return {
        "NAME": DRIVER,
        "REQUIRED_ATTRS": "ONELUN_POOLS,DISK_TYPE",
        "PERSISTENT_ONLY": "NO",
        "MARKETPLACE_ACTIONS": "export",
    }


def same(name: str, found: str, wanted: str) -> bool:
    """Whether OpenNebula takes the two values of that attribute for the same: case and the order of a list do not matter."""
    if name in ("TM_MAD_SYSTEM", "REQUIRED_ATTRS"):
        return _words(found) == _words(wanted)
    return found.strip().upper() == wanted.upper()


def _words(text: str) -> set[str]:
    return {word.strip().upper() for word in text.split(",")}
