"""Inputs that are almost right: what was recorded, with parts of it dropped, doubled, swapped, cut off or replaced.

A mutation is a few steps, each of which says where in the recording it strikes and with what; hypothesis draws the steps and
makes them fewer when one is found that hurts.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from hypothesis import strategies as st

# What has hurt programs that read: nothing, control characters, what ends a line or a word for some, numbers that are none or too
# large for whoever keeps them, digits that are not ASCII's, halves of surrogate pairs, paths that lead up, and words of formats.
HOSTILE = (
    *("", "\0", "\n", "\t", "\r\n", "\x1b[2J", "\x85", "\u2028", " ", "  ", "\x7f"),
    *("-", "-1", "0", "-0", "00", "+1", "1_0", "0x10", "1.5", "1e3", "1e400", "nan", "inf", "-inf"),
    *("9" * 18, "9" * 19, str(1 << 63), str(1 << 64), "9" * 40, "9" * 5000),
    *("\u0663", "\u00b2", "\u2460", "\u0660\u0661", "\uff11", "\u0131"),
    *("\ud800", "\udc80", "\udfff", "\U0001f600", "e\u0301", "\u202e", "\ufeff", "\ufffd"),
    *(
        "..",
        "../..",
        "/",
        "//",
        "/etc/passwd",
        "~",
        ".",
        "-o",
        "--help",
        ":",
        "::",
        "[",
        "[::1]",
        "@",
        "#",
        "%",
        "%s",
        "{}",
        "{0}",
    ),
    *(
        "'",
        '"',
        "\\",
        "$(true)",
        "`",
        ";",
        "|",
        "&",
        "&amp;",
        "&x;",
        "<",
        ">",
        "]]>",
        "<!DOCTYPE a>",
        "<!--",
        "<?x?>",
        "<A>",
    ),
    *("null", "true", "None", "[]", "{}", "[" * 3000, "{" * 3000, "A" * 70000, "a" * 64, "\xff\xfe"),
)
HOSTILE_VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        -0.0,
        1e308,
        1 << 31,
        1 << 53,
        (1 << 63) - 1,
        1 << 63,
        1 << 64,
        -(1 << 63) - 1,
        10**30,
    ),
    *([], {}, [[]], [None], {"": None}, [{}], {"a": {"b": []}}, [1, "a"], ["\0"]),
    *(text for text in HOSTILE if not any("\ud800" <= character <= "\udfff" for character in text)),
)
_PIECES = re.compile(r"<[^<>]*>|[^\W_]+|\s|[^\w\s]|_")
_LONGEST = 100_000
_WHERE = st.integers(0, (1 << 16) - 1)


class Step(NamedTuple):
    """What is done, where, with which other place, and what is put there."""

    kind: str
    at: int
    other: int
    put: int


def steps(*kinds: str, most: int = 3) -> st.SearchStrategy[list[Step]]:
    """Up to `most` steps of these kinds, and at least one."""
    return st.lists(st.builds(Step, st.sampled_from(kinds), _WHERE, _WHERE, _WHERE), min_size=1, max_size=most)


def texts(recorded: Sequence[str]) -> st.SearchStrategy[str]:
    """One of the texts, with some of its words, signs and elements changed; now and then any text."""
    some = st.builds(
        lambda text, done: _changed_text(text, tuple(done)),
        st.sampled_from(recorded),
        steps("drop", "double", "swap", "replace", "insert", "cut", "lines", "repeat"),
    )
    return st.one_of(some, some, some, some, some, some, some, st.text(max_size=200))


def lines_of(recorded: Sequence[str]) -> st.SearchStrategy[str]:
    """One of the texts with columns of its lines changed: a column is what blanks or tabs stand between."""
    return st.builds(
        lambda text, done: _changed_columns(text, tuple(done)),
        st.sampled_from(recorded),
        steps("drop", "replace", "double", "line-drop", "line-double", most=2),
    )


def blobs(recorded: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the contents with bytes changed, or cut off; now and then any bytes."""
    some = st.builds(
        lambda content, done: _changed_bytes(content, tuple(done)),
        st.sampled_from(recorded),
        steps("drop", "double", "swap", "replace", "insert", "cut", "flip", "zero"),
    )
    return st.one_of(some, some, some, some, some, st.binary(max_size=400))


def documents(recorded: Sequence[str]) -> st.SearchStrategy[str]:
    """One of the XML documents, still XML mostly: elements dropped, doubled, swapped, renamed, and their texts replaced."""
    return st.builds(
        lambda text, done: _changed_document(text, tuple(done)),
        st.sampled_from(recorded),
        steps("drop", "double", "swap", "text", "text", "text", "rename", "empty", "nest"),
    )


def values(recorded: Sequence[Any]) -> st.SearchStrategy[Any]:
    """One of the JSON values with parts of it dropped, doubled, renamed, or replaced by others, of other types too."""
    return st.builds(
        lambda value, done: changed_value(value, done),
        st.sampled_from(recorded),
        steps("drop", "replace", "replace", "replace", "rename", "add", "swap", "double"),
    )


def as_bytes(text: str) -> bytes:
    """The text as bytes, with what no encoding has: halves of surrogate pairs become bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def as_argument(text: str) -> str:
    """The text as an argument of a program: it ends at a NUL, and bytes that are no UTF-8 come as Python has them."""
    return as_bytes(text.partition("\0")[0]).decode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=256)
def _pieces(text: str) -> tuple[str, ...]:
    return tuple(_PIECES.findall(text))


def _changed_text(text: str, done: tuple[Step, ...]) -> str:
    pieces = list(_pieces(text))
    for step in done:
        put = HOSTILE[step.put % len(HOSTILE)]
        if not pieces:
            pieces = [put]
            continue
        at, other = step.at % len(pieces), step.other % len(pieces)
        match step.kind:
            case "drop":
                del pieces[at : at + 1 + step.other % 8]
            case "double":
                pieces[at:at] = pieces[at : at + 1 + step.other % 40]
            case "swap":
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case "replace":
                pieces[at] = put
            case "insert":
                pieces.insert(at, put)
            case "cut":
                del pieces[at:]
            case "repeat":
                pieces[at] = (pieces[at] * (2 + step.other % 3000))[:_LONGEST]
            case _:
                rows = "".join(pieces).split("\n")
                row, to = step.at % len(rows), step.other % len(rows)
                rows[row], rows[to] = rows[to], rows[row]
                pieces = list(_pieces("\n".join(rows)))
    return "".join(pieces)


def _changed_columns(text: str, done: tuple[Step, ...]) -> str:
    rows = [re.split(r"([\t ]+)", row) for row in text.split("\n")]
    for step in done:
        row = rows[step.at % len(rows)]
        at = step.other % len(row)
        match step.kind:
            case "drop":
                del row[at : at + 2]
                row[:] = row or [""]
            case "replace":
                row[at] = HOSTILE[step.put % len(HOSTILE)]
            case "double":
                row[at:at] = row[at : at + 2]
            case "line-drop" if len(rows) > 1:
                rows.remove(row)
            case "line-double":
                rows.append(list(row))
    return "\n".join("".join(row) for row in rows)


def _changed_bytes(content: bytes, done: tuple[Step, ...]) -> bytes:
    changed = bytearray(content)
    for step in done:
        size = len(changed) or 1
        # Heads matter more than what follows them.
        at = step.at % (min(size, 512) if step.put % 2 else size)
        length = 1 + step.other % 16
        match step.kind:
            case "drop":
                del changed[at : at + length]
            case "double":
                changed[at:at] = changed[at : at + length]
            case "swap":
                to = step.other % size
                changed[at : at + 8], changed[to : to + 8] = changed[to : to + 8], changed[at : at + 8]
            case "replace":
                put = as_bytes(HOSTILE[step.put % len(HOSTILE)])
                changed[at : at + len(put)] = put
            case "insert":
                changed[at:at] = as_bytes(HOSTILE[step.put % len(HOSTILE)])
            case "cut":
                del changed[at:]
            case "flip" if changed:
                changed[at] ^= 1 << step.other % 8
            case "zero":
                changed[at : at + length] = bytes(length) if step.put % 2 else b"\xff" * length
    return bytes(changed)


def _changed_document(text: str, done: tuple[Step, ...]) -> str:
    root = ElementTree.fromstring(text)
    for step in done:
        below = [(parent, child) for parent in root.iter() for child in parent]
        if not below:
            break
        parent, child = below[step.at % len(below)]
        put = HOSTILE[step.put % len(HOSTILE)]
        match step.kind:
            case "drop":
                parent.remove(child)
            case "double":
                parent.append(copy.deepcopy(child))
            case "swap":
                other = below[step.other % len(below)][1]
                child.text, other.text = other.text, child.text
            case "text":
                leaves = [each for each in root.iter() if not len(each)]
                leaves[step.at % len(leaves)].text = put
            case "rename":
                child.tag = below[step.other % len(below)][1].tag
            case "empty":
                child.clear()
            case "nest":
                child.insert(0, ElementTree.Element(child.tag))
    return ElementTree.tostring(root, encoding="unicode")


def changed_value(value: Any, done: Sequence[Step]) -> Any:
    """The JSON value after these steps; the one that is given stays as it is."""
    top = {"": copy.deepcopy(value)}
    for step in done:
        places = list(_places(top))
        holder, key = places[step.at % len(places)]
        put = HOSTILE_VALUES[step.put % len(HOSTILE_VALUES)]
        if step.kind == "replace" or holder is top:
            holder[key] = copy.deepcopy(put)
        elif step.kind == "drop":
            del holder[key]
        elif step.kind == "swap":
            there, other = places[step.other % len(places)]
            if there is not top:
                holder[key], there[other] = copy.deepcopy(there[other]), copy.deepcopy(holder[key])
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key] if step.kind == "double" else put))
        elif step.kind == "rename":
            holder[str(put)[:300]] = holder.pop(key)
        else:
            holder[("add", "sentence", "self", "status", "code", "error", "action", "needs", "v")[step.other % 9]] = (
                copy.deepcopy(put)
            )
    return top[""]


def as_json(value: Any) -> bytes:
    """The value as JSON; what has NaN in it is none, and says so by its form."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    keys = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(keys):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
