"""OpenNebula's documents. Below this page nobody sees an element, or None where a value must be.

The documents of datastore actions hold secrets (a datastore's attributes come decrypted): they are never logged, and no
error quotes them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from onelun.driver.elements import Element, child, decoded, needed, number, number_or_none, parse, text_of

# What the names of onelun's own attributes begin with.
OURS = "ONELUN_"


class Image(msgspec.Struct, frozen=True):
    """An image as a datastore action gets it. `path` is what it is made from: a file, a URL, another image's SOURCE.

    `old` tells the shape of 5.12 and before (FSTYPE in place of FORMAT and FS). `sums` maps md5, sha1, sha256 to hexadecimal.
    `target_snapshot` is the snapshot that an action on one means; `saves` is the image whose copy in a VM will be saved here.
    `attributes` are those of its template that are onelun's, by name; `from_backup` is the datastore of the backup that it is in.
    """

    id: int
    regtime: int | None
    source: str
    path: str
    format: str
    fs: str
    size_mb: int | None
    old: bool
    sums: dict[str, str]
    target_snapshot: int | None = None
    saves: int | None = None
    from_backup: int | None = None
    attributes: dict[str, str] = {}


class Datastore(msgspec.Struct, frozen=True):
    """A datastore. `pools` is its ONELUN_POOLS, `attributes` are all that are onelun's, the others are OpenNebula's own."""

    id: int
    name: str
    pools: str
    safe_dirs: tuple[str, ...]
    restricted_dirs: tuple[str, ...]
    no_decompress: bool
    attributes: dict[str, str] = {}


class VmDisk(msgspec.Struct, frozen=True):
    """One disk of a VM. `clone` is None for what has no image (a volatile disk), `fs` what such a one is formatted with.

    `tm_mad` is the driver that moves it, `attributes` are those that are onelun's, as oned gathered them.
    """

    id: int
    source: str
    clone: bool | None
    readonly: bool
    size_mb: int | None
    original_size_mb: int | None
    fs: str = ""
    tm_mad: str = ""
    shareable: bool = False
    attributes: dict[str, str] = {}


class Vm(msgspec.Struct, frozen=True):
    """A VM: its states by number (VirtualMachine.h), its last host, its disks by id.

    `deploy_id` is what its hypervisor calls it, empty before it ran. `snapshots` says of each snapshot, by the ids of disk
    and snapshot, when oned had it made (seconds since the epoch); `stime` and `etime` when the VM began and ended, 0 if not.
    """

    id: int
    state: int
    lcm_state: int
    hostname: str | None
    deploy_id: str
    disks: dict[int, VmDisk]
    snapshots: dict[tuple[int, int], int]
    stime: int = 0
    etime: int = 0


class Listed(msgspec.Struct, frozen=True):
    """A datastore as oned lists it: its drivers, and every single attribute of its template by name."""

    id: int
    name: str
    ds_mad: str
    tm_mad: str
    is_image: bool
    attributes: dict[str, str]


class ActionData:
    """The document of a datastore action."""

    def __init__(self, encoded: bytes) -> None:
        """Raises Rejected for what is not base64, not XML, has a DOCTYPE, or is another document."""
        self._root = parse(decoded(encoded), "DS_DRIVER_ACTION_DATA")

    def image(self) -> Image:
        """The image. Raises Rejected, naming the element, when one that every action needs is missing or no number."""
        element = child(self._root, "IMAGE")
        sums = {
            name.lower(): text_of(element, f"TEMPLATE/{name}").strip().lower() for name in ("MD5", "SHA1", "SHA256")
        }
        old = element.find("FORMAT") is None and element.find("FSTYPE") is not None
        return Image(
            id=number(element, "ID"),
            regtime=number_or_none(element, "REGTIME"),
            source=text_of(element, "SOURCE").strip(),
            path=text_of(element, "PATH").strip(),
            format="" if old else text_of(element, "FORMAT").strip(),
            fs=text_of(element, "FSTYPE" if old else "FS").strip(),
            size_mb=number_or_none(element, "SIZE"),
            old=old,
            sums={name: value for name, value in sums.items() if value},
            target_snapshot=number_or_none(element, "TARGET_SNAPSHOT"),
            saves=number_or_none(element, "TEMPLATE/SAVED_IMAGE_ID"),
            from_backup=number_or_none(element, "TEMPLATE/FROM_BACKUP_DS"),
            attributes=_attributes(element, "TEMPLATE/*"),
        )

    def monitors_disks(self) -> bool:
        """Whether this monitoring of a system datastore is to tell the sizes of its VMs' disks."""
        return text_of(self._root, "MONITOR_VM_DISKS").strip() == "1"

    def path(self) -> str:
        """IMAGE/PATH alone: all that `stat` gets of an image."""
        return needed(child(self._root, "IMAGE"), "PATH").strip()

    def datastore(self) -> Datastore:
        """The datastore."""
        return _datastore(child(self._root, "DATASTORE"))


def parse_datastore(text: str) -> Datastore:
    """The datastore of a document such as one.datastore.info returns. Raises Rejected for any other."""
    return _datastore(parse(text.encode(), "DATASTORE"))


def parse_vm_document(encoded: bytes) -> Vm:
    """The VM of an action's document, in base64. Raises Rejected for any other."""
    return vm_of(parse(decoded(encoded), "VM"))


def parse_vm(text: str) -> Vm:
    """The VM of a document such as one.vm.info returns. Raises Rejected for any other."""
    return vm_of(parse(text.encode(), "VM"))


def parse_hosts(text: str) -> list[str]:
    """The names of the hosts that one.hostpool.info returns. Raises Rejected for another document."""
    return [needed(host, "NAME").strip() for host in parse(text.encode(), "HOST_POOL").findall("HOST")]


def parse_datastores(text: str) -> list[Listed]:
    """The datastores that one.datastorepool.info returns. Raises Rejected for another document."""
    return [
        Listed(
            id=number(element, "ID"),
            name=text_of(element, "NAME").strip(),
            ds_mad=text_of(element, "DS_MAD").strip(),
            tm_mad=text_of(element, "TM_MAD").strip(),
            # Datastore.h: 0 is an image datastore, 1 a system one.
            is_image=text_of(element, "TYPE").strip() == "0",
            attributes={str(child.tag): (child.text or "").strip() for child in element.iterfind("TEMPLATE/*")},
        )
        for element in parse(text.encode(), "DATASTORE_POOL").findall("DATASTORE")
    ]


def vm_of(root: Element) -> Vm:
    """The VM of a document's root. Raises Rejected when it has no id or no state."""
    disks = [_disk(element) for element in root.findall("TEMPLATE/DISK")]
    hostnames = [name for name in (text_of(h, "HOSTNAME") for h in root.findall("HISTORY_RECORDS/HISTORY")) if name]
    return Vm(
        id=number(root, "ID"),
        state=number(root, "STATE"),
        lcm_state=number(root, "LCM_STATE"),
        hostname=hostnames[-1] if hostnames else None,
        deploy_id=text_of(root, "DEPLOY_ID").strip(),
        disks={disk.id: disk for disk in disks},
        snapshots=dict(_snapshots(root)),
        stime=number_or_none(root, "STIME") or 0,
        etime=number_or_none(root, "ETIME") or 0,
    )


def _datastore(element: Element) -> Datastore:
    return Datastore(
        id=number(element, "ID"),
        name=text_of(element, "NAME").strip(),
        pools=text_of(element, "TEMPLATE/ONELUN_POOLS"),
        safe_dirs=tuple(text_of(element, "TEMPLATE/SAFE_DIRS").split()),
        restricted_dirs=tuple(text_of(element, "TEMPLATE/RESTRICTED_DIRS").split()),
        no_decompress=text_of(element, "TEMPLATE/NO_DECOMPRESS").strip().upper() == "YES",
        attributes=_attributes(element, "TEMPLATE/*"),
    )


def _snapshots(root: Element) -> Iterator[tuple[tuple[int, int], int]]:
    for of_disk in root.findall("SNAPSHOTS"):
        disk_id = number_or_none(of_disk, "DISK_ID")
        for element in of_disk.findall("SNAPSHOT"):
            snapshot_id, date = number_or_none(element, "ID"), number_or_none(element, "DATE")
            if disk_id is not None and snapshot_id is not None and date is not None:
                yield (disk_id, snapshot_id), date


def _disk(element: Element) -> VmDisk:
    clone = text_of(element, "CLONE").strip().upper()
    readonly = (
        text_of(element, "READONLY").strip().upper() == "YES" or text_of(element, "TYPE").strip().upper() == "CDROM"
    )
    return VmDisk(
        id=number(element, "DISK_ID"),
        source=text_of(element, "SOURCE").strip(),
        clone={"YES": True, "NO": False}.get(clone),
        readonly=readonly,
        size_mb=number_or_none(element, "SIZE"),
        original_size_mb=number_or_none(element, "ORIGINAL_SIZE"),
        fs=text_of(element, "FS").strip(),
        tm_mad=text_of(element, "TM_MAD").strip(),
        shareable=text_of(element, "SHAREABLE").strip().upper() == "YES",
        attributes=_attributes(element, "*"),
    )


def _attributes(element: Element, path: str) -> dict[str, str]:
    """What is onelun's among these elements; what says nothing is as good as not there."""
    found = {str(child.tag): (child.text or "").strip() for child in element.iterfind(path)}
    return {name: text for name, text in found.items() if name.startswith(OURS) and text}
