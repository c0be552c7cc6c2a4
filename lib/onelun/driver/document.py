"""OpenNebula's documents: the only door to XML. Below it nobody sees an element or None where a value must be.

The documents of datastore actions hold secrets (a datastore's attributes come decrypted): they are never logged, and no
error quotes them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

import msgspec
from lxml import etree

from onelun.errors import Rejected

# What the names of onelun's own attributes begin with.
OURS = "ONELUN_"
# What may stand before a DOCTYPE. One in another encoding than ASCII's is found after parsing.
_DOCTYPE = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s+|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL | re.IGNORECASE)


class Image(msgspec.Struct, frozen=True):
    """An image as a datastore action gets it. `path` is what it is made from: a file, a URL, another image's SOURCE.

    `old` tells the shape of 5.12 and before (FSTYPE in place of FORMAT and FS). `sums` maps md5, sha1, sha256 to hexadecimal.
    `target_snapshot` is the snapshot that an action on one means; `saves` is the image whose copy in a VM will be saved here.
    `attributes` are those of its template that are onelun's, by name.
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
    and snapshot, when oned had it made (seconds since the epoch).
    """

    id: int
    state: int
    lcm_state: int
    hostname: str | None
    deploy_id: str
    disks: dict[int, VmDisk]
    snapshots: dict[tuple[int, int], int]


class BackupConfig(msgspec.Struct, frozen=True):
    """How a VM is to be backed up. `last_increment` is the last one that its backup datastore has, -1 when there is none.

    `freeze` is NONE, AGENT or SUSPEND; `bridge` the host that the backup datastore takes the files from, where that is not
    the VM's; `failed` is what the end of a backup is told after 7.4: that it failed.
    """

    incremental: bool
    last_increment: int
    freeze: str
    bridge: str | None
    interactive: bool
    failed: bool

    @property
    def increment(self) -> int:
        """The number of the one that is to be made; the files of a full backup have 0."""
        return self.last_increment + 1 if self.incremental else 0

    @property
    def base(self) -> int | None:
        """The increment that it builds on; None for a full one."""
        return self.last_increment if self.incremental and self.last_increment >= 0 else None


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
        self._root = _parse(_decoded(encoded), "DS_DRIVER_ACTION_DATA")

    def image(self) -> Image:
        """The image. Raises Rejected, naming the element, when one that every action needs is missing or no number."""
        element = _child(self._root, "IMAGE")
        sums = {name.lower(): _text(element, f"TEMPLATE/{name}").strip().lower() for name in ("MD5", "SHA1", "SHA256")}
        old = element.find("FORMAT") is None and element.find("FSTYPE") is not None
        return Image(
            id=_number(element, "ID"),
            regtime=_number_or_none(element, "REGTIME"),
            source=_text(element, "SOURCE").strip(),
            path=_text(element, "PATH").strip(),
            format="" if old else _text(element, "FORMAT").strip(),
            fs=_text(element, "FSTYPE" if old else "FS").strip(),
            size_mb=_number_or_none(element, "SIZE"),
            old=old,
            sums={name: value for name, value in sums.items() if value},
            target_snapshot=_number_or_none(element, "TARGET_SNAPSHOT"),
            saves=_number_or_none(element, "TEMPLATE/SAVED_IMAGE_ID"),
            attributes=_attributes(element, "TEMPLATE/*"),
        )

    def monitors_disks(self) -> bool:
        """Whether this monitoring of a system datastore is to tell the sizes of its VMs' disks."""
        return _text(self._root, "MONITOR_VM_DISKS").strip() == "1"

    def path(self) -> str:
        """IMAGE/PATH alone: all that `stat` gets of an image."""
        return _needed(_child(self._root, "IMAGE"), "PATH").strip()

    def datastore(self) -> Datastore:
        """The datastore."""
        return _datastore(_child(self._root, "DATASTORE"))


def parse_datastore(text: str) -> Datastore:
    """The datastore of a document such as one.datastore.info returns. Raises Rejected for any other."""
    return _datastore(_parse(text.encode(), "DATASTORE"))


def parse_vm_document(encoded: bytes) -> Vm:
    """The VM of an action's document, in base64. Raises Rejected for any other."""
    return _vm(_parse(_decoded(encoded), "VM"))


def parse_backup_document(text: bytes) -> tuple[Vm, BackupConfig]:
    """The VM of a backup's document, which is not encoded, and how it is to be backed up. Raises Rejected for any other."""
    root = _parse(text, "VM")
    config = root.find("BACKUPS/BACKUP_CONFIG")
    if config is None:
        raise Rejected("OpenNebula's document has no BACKUPS/BACKUP_CONFIG: nothing says how to back the VM up")
    last = _number_or_none(config, "LAST_INCREMENT_ID")
    return _vm(root), BackupConfig(
        incremental=_text(config, "MODE").strip().upper() == "INCREMENT",
        last_increment=-1 if last is None else last,
        freeze=_text(config, "FS_FREEZE").strip().upper() or "NONE",
        bridge=_text(config, "LAST_BRIDGE").strip() or None,
        interactive=_text(config, "INTERACTIVE").strip().upper() == "YES",
        failed=_text(root, "BACKUP_RESULT").strip().upper() == "FAILURE",
    )


def parse_image_datastore(text: str) -> int:
    """The id of the datastore of the image that one.image.info returns. Raises Rejected for another document."""
    return _number(_parse(text.encode(), "IMAGE"), "DATASTORE_ID")


def parse_ds_mad(text: str) -> str:
    """The driver of the datastore that one.datastore.info returns. Raises Rejected for another document."""
    return _needed(_parse(text.encode(), "DATASTORE"), "DS_MAD").strip()


def parse_vm(text: str) -> Vm:
    """The VM of a document such as one.vm.info returns. Raises Rejected for any other."""
    return _vm(_parse(text.encode(), "VM"))


def parse_hosts(text: str) -> list[str]:
    """The names of the hosts that one.hostpool.info returns. Raises Rejected for another document."""
    return [_needed(host, "NAME").strip() for host in _parse(text.encode(), "HOST_POOL").findall("HOST")]


def parse_datastores(text: str) -> list[Listed]:
    """The datastores that one.datastorepool.info returns. Raises Rejected for another document."""
    return [
        Listed(
            id=_number(element, "ID"),
            name=_text(element, "NAME").strip(),
            ds_mad=_text(element, "DS_MAD").strip(),
            tm_mad=_text(element, "TM_MAD").strip(),
            # Datastore.h: 0 is an image datastore, 1 a system one.
            is_image=_text(element, "TYPE").strip() == "0",
            attributes={str(child.tag): (child.text or "").strip() for child in element.iterfind("TEMPLATE/*")},
        )
        for element in _parse(text.encode(), "DATASTORE_POOL").findall("DATASTORE")
    ]


def _vm(root: etree._Element) -> Vm:
    disks = [_disk(element) for element in root.findall("TEMPLATE/DISK")]
    hostnames = [name for name in (_text(h, "HOSTNAME") for h in root.findall("HISTORY_RECORDS/HISTORY")) if name]
    return Vm(
        id=_number(root, "ID"),
        state=_number(root, "STATE"),
        lcm_state=_number(root, "LCM_STATE"),
        hostname=hostnames[-1] if hostnames else None,
        deploy_id=_text(root, "DEPLOY_ID").strip(),
        disks={disk.id: disk for disk in disks},
        snapshots=dict(_snapshots(root)),
    )


def _datastore(element: etree._Element) -> Datastore:
    return Datastore(
        id=_number(element, "ID"),
        name=_text(element, "NAME").strip(),
        pools=_text(element, "TEMPLATE/ONELUN_POOLS"),
        safe_dirs=tuple(_text(element, "TEMPLATE/SAFE_DIRS").split()),
        restricted_dirs=tuple(_text(element, "TEMPLATE/RESTRICTED_DIRS").split()),
        no_decompress=_text(element, "TEMPLATE/NO_DECOMPRESS").strip().upper() == "YES",
        attributes=_attributes(element, "TEMPLATE/*"),
    )


def _snapshots(root: etree._Element) -> Iterator[tuple[tuple[int, int], int]]:
    for of_disk in root.findall("SNAPSHOTS"):
        disk_id = _number_or_none(of_disk, "DISK_ID")
        for element in of_disk.findall("SNAPSHOT"):
            snapshot_id, date = _number_or_none(element, "ID"), _number_or_none(element, "DATE")
            if disk_id is not None and snapshot_id is not None and date is not None:
                yield (disk_id, snapshot_id), date


def _disk(element: etree._Element) -> VmDisk:
    clone = _text(element, "CLONE").strip().upper()
    readonly = _text(element, "READONLY").strip().upper() == "YES" or _text(element, "TYPE").strip().upper() == "CDROM"
    return VmDisk(
        id=_number(element, "DISK_ID"),
        source=_text(element, "SOURCE").strip(),
        clone={"YES": True, "NO": False}.get(clone),
        readonly=readonly,
        size_mb=_number_or_none(element, "SIZE"),
        original_size_mb=_number_or_none(element, "ORIGINAL_SIZE"),
        fs=_text(element, "FS").strip(),
        tm_mad=_text(element, "TM_MAD").strip(),
        shareable=_text(element, "SHAREABLE").strip().upper() == "YES",
        attributes=_attributes(element, "*"),
    )


def _attributes(element: etree._Element, path: str) -> dict[str, str]:
    """What is onelun's among these elements; what says nothing is as good as not there."""
    found = {str(child.tag): (child.text or "").strip() for child in element.iterfind(path)}
    return {name: text for name, text in found.items() if name.startswith(OURS) and text}


def _decoded(encoded: bytes) -> bytes:
    if not encoded.strip():
        raise Rejected("the action's document is missing: nothing came on stdin")
    if encoded.lstrip().startswith(b"<"):
        raise Rejected("the action's document is XML as it is: encode it in base64, as OpenNebula does")
    try:
        # Ruby's encoder breaks lines, and a shell may add one.
        return base64.b64decode(b"".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("the action's document is not base64") from None


def _parse(text: bytes, root: str) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
    )
    if _DOCTYPE.match(text):
        # Before anything is parsed: entities may be made to grow without end.
        raise Rejected("OpenNebula's document has a DOCTYPE, which it never has: it is not read")
    try:
        element = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        where = f" (line {error.lineno})" if isinstance(error, etree.XMLSyntaxError) else ""
        raise Rejected(f"OpenNebula's document is not XML{where}") from None
    tree = element.getroottree()
    if tree.docinfo.doctype or tree.docinfo.internalDTD is not None:
        raise Rejected("OpenNebula's document has a DOCTYPE, which it never has: it is not read")
    if element.tag != root:
        raise Rejected(f"OpenNebula's document is {str(element.tag)[:40]!r}, not {root}")
    return element


def _child(element: etree._Element, name: str) -> etree._Element:
    child = element.find(name)
    if child is None:
        raise Rejected(f"OpenNebula's document has no {_shown(element, name)}")
    return child


def _text(element: etree._Element, path: str) -> str:
    return element.findtext(path) or ""


def _needed(element: etree._Element, name: str) -> str:
    text = _text(element, name)
    if not text.strip():
        raise Rejected(f"OpenNebula's document has no {_shown(element, name)}, or an empty one")
    return text


def _number(element: etree._Element, name: str) -> int:
    _needed(element, name)
    number = _number_or_none(element, name)
    assert number is not None
    return number


def _number_or_none(element: etree._Element, name: str) -> int | None:
    text = _text(element, name).strip()
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Rejected(f"{_shown(element, name)} of OpenNebula's document is {text[:40]!r}, which is no number")
    return int(text)


def _shown(element: etree._Element, name: str) -> str:
    return name if element.getparent() is None else f"{element.tag!s}/{name}"
