"""onelun's attributes of datastores, images and disks: which there are, where each may stand, and who wins.

A disk's own win over its image's, and those over the datastore's. OpenNebula gathers what an image-backed disk needs
(INHERIT_IMAGE_ATTR, INHERIT_DATASTORE_ATTR, see onelun.registration.wanted); for the other actions it is done here. Only
their form is judged here: what a pool can give, its NAS knows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple, TypeVar

from onelun.driver.document import OURS, Datastore, Image, VmDisk
from onelun.errors import Rejected
from onelun.model import Attributes, Provisioning, Wipe

POOLS = "ONELUN_POOLS"
VOLBLOCKSIZE = "ONELUN_VOLBLOCKSIZE"

_SIZE = re.compile(r"([0-9]{1,7})([KM]?)", re.IGNORECASE)
_Word = TypeVar("_Word", Provisioning, Wipe)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


class Where(StrEnum):
    """What an attribute may stand in."""

    DATASTORE = "datastores"
    IMAGE = "images"
    CLONED = "disks of an image"
    VOLATILE = "volatile disks"


class _Attribute(NamedTuple):
    """`read` makes of its text what it asks for; ValueError says what it should be. POOLS is read elsewhere."""

    places: frozenset[Where]
    read: Callable[[str], Attributes]


def _volblocksize(text: str) -> Attributes:
    match = _SIZE.fullmatch(text)
    return Attributes(volblocksize_bytes=int(match[1]) * _UNITS[match[2].upper()] if match else 0)


def _compression(text: str) -> Attributes:
    return Attributes(compression=text.lower())


def _provisioning(text: str) -> Attributes:
    return Attributes(provisioning=_word(Provisioning, text))


def _wipe(text: str) -> Attributes:
    return Attributes(wipe=_word(Wipe, text))


_ALL = frozenset(Where)
_KNOWN = {
    POOLS: _Attribute(frozenset((Where.DATASTORE, Where.IMAGE)), lambda text: Attributes()),
    # A clone has the blocks of what it was cloned from.
    VOLBLOCKSIZE: _Attribute(_ALL - {Where.CLONED}, _volblocksize),
    "ONELUN_COMPRESSION": _Attribute(_ALL, _compression),
    "ONELUN_PROVISIONING": _Attribute(_ALL, _provisioning),
    "ONELUN_WIPE": _Attribute(_ALL, _wipe),
}


def of_datastore(datastore: Datastore) -> Attributes:
    """What a datastore asks for. Raises Rejected, naming the attribute, for one that is unknown or has no such value."""
    return read(datastore.attributes, Where.DATASTORE, f"datastore {datastore.name}")


def of_image(image: Image, datastore: Datastore) -> Attributes:
    """What an image asks for, or else its datastore. Raises as above."""
    return read(image.attributes, Where.IMAGE, f"image {image.id}").over(of_datastore(datastore))


def of_disk(disk: VmDisk | None, where: Where) -> Attributes:
    """What a VM's disk asks for; nothing when oned was not asked or has no such disk. Raises as above."""
    return Attributes() if disk is None else read(disk.attributes, where, f"disk {disk.id}")


def read(attributes: Mapping[str, str], where: Where, of: str) -> Attributes:
    """What these attributes ask for; `of` is whose they are, for a sentence. Raises as above."""
    found = Attributes()
    for name, text in attributes.items():
        if not name.startswith(OURS) or not text:
            continue
        known = _KNOWN.get(name)
        if known is None:
            raise Rejected(
                f"{of} has the attribute {name[:60]}, which onelun does not know: did you mean {_nearest(name)}?"
            )
        if where not in known.places:
            places = " and ".join(place for place in Where if place in known.places)
            raise Rejected(f"{of} has {name}, which is for {places}: take it out")
        try:
            found = known.read(text).over(found)
        except ValueError as error:
            raise Rejected(f"{name} of {of} is {text[:40]!r}: {error}") from None
    return found


def needs_of(attributes: Attributes) -> tuple[str, ...]:
    """What an agent must know that is asked for these: one that does not know them would leave them out unseen."""
    return ("attributes",) if attributes != Attributes() else ()


def _word(words: type[_Word], text: str) -> _Word:
    try:
        return words(text.lower())
    except ValueError:
        raise ValueError(f"it should be {' or '.join(words)}") from None


def _nearest(name: str) -> str:
    """The known name that is most alike; there always is one."""
    return difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.0)[0]
