"""The only door to XML: what OpenNebula sends becomes elements here, and what they say numbers and texts.

No error quotes more of a document than an element's name and a number: documents hold secrets.
"""

from __future__ import annotations

import base64
import binascii
import re

from lxml import etree

from onelun.errors import Rejected

Element = etree._Element  # noqa: SLF001 - lxml gives the type no other name
"""An element of a document, for the page that says what documents are."""

# What may stand before a DOCTYPE. One in another encoding than ASCII's is found after parsing.
_DOCTYPE = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s+|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL | re.IGNORECASE)


def decoded(encoded: bytes) -> bytes:
    """What is in base64 on stdin. Raises Rejected for anything else."""
    if not encoded.strip():
        raise Rejected("the action's document is missing: nothing came on stdin")
    if encoded.lstrip().startswith(b"<"):
        raise Rejected("the action's document is XML as it is: encode it in base64, as OpenNebula does")
    try:
        # Ruby's encoder breaks lines, and a shell may add one.
        return base64.b64decode(b"".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("the action's document is not base64") from None


def parse(text: bytes, root: str) -> Element:
    """The root of a document, which is called `root`. Raises Rejected for what is no XML, has a DOCTYPE, or is another one."""
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


def child(element: Element, name: str) -> Element:
    """The element of that name in it. Raises Rejected, naming it, when there is none."""
    found = element.find(name)
    if found is None:
        raise Rejected(f"OpenNebula's document has no {_shown(element, name)}")
    return found


def text_of(element: Element, path: str) -> str:
    """The text at that path; empty when there is none."""
    return element.findtext(path) or ""


def needed(element: Element, name: str) -> str:
    """As `text_of`. Raises Rejected, naming it, when that says nothing."""
    text = text_of(element, name)
    if not text.strip():
        raise Rejected(f"OpenNebula's document has no {_shown(element, name)}, or an empty one")
    return text


def number(element: Element, name: str) -> int:
    """The number there. Raises Rejected, naming it, when it is missing or none."""
    needed(element, name)
    found = number_or_none(element, name)
    assert found is not None
    return found


def number_or_none(element: Element, name: str) -> int | None:
    """The number there; None when there is nothing. Raises Rejected, naming it, for what is no number."""
    text = text_of(element, name).strip()
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Rejected(f"{_shown(element, name)} of OpenNebula's document is {text[:40]!r}, which is no number")
    return int(text)


def _shown(element: Element, name: str) -> str:
    return name if element.getparent() is None else f"{element.tag!s}/{name}"
