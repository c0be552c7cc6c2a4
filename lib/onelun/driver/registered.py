"""What oned lists of images and VMs, as far as it says what should exist."""

from __future__ import annotations

import msgspec

from onelun.driver.elements import Element, number, number_or_none, parse, text_of


class Registered(msgspec.Struct, frozen=True):
    """An image as oned knows it: its state by number (Image.h), its SOURCE, and the ids of its snapshots."""

    id: int
    state: int
    source: str
    regtime: int | None = None
    snapshots: tuple[int, ...] = ()


def parse_image(text: str) -> Registered:
    """The image of a document such as one.image.info returns. Raises Rejected for any other."""
    return _image(parse(text.encode(), "IMAGE"))


def parse_images(text: str) -> list[Registered]:
    """The images that one.imagepool.info returns. Raises Rejected for another document."""
    return [_image(element) for element in parse(text.encode(), "IMAGE_POOL").findall("IMAGE")]


def parse_vm_ids(text: str) -> list[int]:
    """The ids of the VMs that one.vmpool.info returns. Raises Rejected for another document."""
    return [number(element, "ID") for element in parse(text.encode(), "VM_POOL").findall("VM")]


def _image(element: Element) -> Registered:
    kept = (number_or_none(snapshot, "ID") for snapshot in element.findall("SNAPSHOTS/SNAPSHOT"))
    return Registered(
        id=number(element, "ID"),
        state=number(element, "STATE"),
        source=text_of(element, "SOURCE").strip(),
        regtime=number_or_none(element, "REGTIME"),
        snapshots=tuple(snapshot for snapshot in kept if snapshot is not None),
    )
