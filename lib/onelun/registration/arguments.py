"""The lists of drivers in the ARGUMENTS of TM_MAD and DATASTORE_MAD, as one_tm.rb and one_datastore.rb read them."""

from __future__ import annotations

import re

import msgspec

from onelun.errors import Rejected
from onelun.registration.syntax import Entry, Value
from onelun.registration.wanted import DRIVER

_WORD = re.compile(r"\S+")


class DriverList(msgspec.Struct, frozen=True):
    """One list: of which setting, behind which option, as person and program name it."""

    setting: str
    executable: str
    option: str
    long: str


TRANSFER = DriverList("TM_MAD", "one_tm", "-d", "--tm-types")
DATASTORE = DriverList("DATASTORE_MAD", "one_datastore", "-d", "--ds-types")
SYSTEM = DriverList("DATASTORE_MAD", "one_datastore", "-s", "--system-ds-types")


def find(entries: list[Entry], wanted: DriverList, path: str) -> Value | None:
    """Where the list stands; None when the option is not given. Of several the last counts, as for OpenNebula.

    Raises Rejected when the setting is missing, or there twice, or its list is not one that can be added to.
    """
    found = [entry for entry in entries if entry.name == wanted.setting]
    if len(found) != 1:
        lines = ", ".join(str(entry.line) for entry in found)
        many = (
            f"has {wanted.setting} more than once (lines {lines}): leave one" if found else f"has no {wanted.setting}"
        )
        raise Rejected(f"{path} {many}")
    arguments = (found[0].fields or {}).get("ARGUMENTS")
    if arguments is None:
        raise Rejected(f"{path}: {wanted.setting} in line {found[0].line} has no ARGUMENTS")
    if '"' in arguments.text:
        raise Rejected(
            f"{path}: ARGUMENTS of {wanted.setting} (line {found[0].line}) have quotes in them: add {DRIVER} by hand"
        )
    listed = next(reversed(_all(arguments, wanted)), None)
    if listed is not None and (not names(listed) or listed.text.endswith(",")):
        raise Rejected(
            f"{path}: the list behind {wanted.option} of {wanted.setting} (line {found[0].line}) is {listed.text!r}:"
            " write the names of drivers with commas and without blanks"
        )
    return listed


def names(listed: Value) -> list[str]:
    """The names in the list."""
    return [name for name in (word.strip() for word in listed.text.split(",")) if name]


def has_driver(listed: Value | None) -> bool:
    """Whether onelun is in the list."""
    return listed is not None and DRIVER in names(listed)


def added(text: str, listed: Value) -> str:
    """The file's text with onelun at the end of that list."""
    return f"{text[: listed.end]},{DRIVER}{text[listed.end :]}"


def taken_out(text: str, listed: Value) -> str:
    """The file's text with that list without onelun. Raises Rejected when nothing would be left of it."""
    raw = text[listed.start : listed.end]
    rest = re.sub(rf"(?:,{DRIVER}(?=,|$))|(?:^{DRIVER},)", "", raw)
    if rest == DRIVER:
        raise Rejected(f"{DRIVER} is the only driver of a list: take the whole list out by hand, or name another there")
    return text[: listed.start] + rest + text[listed.end :]


def count(entry: Entry, wanted: DriverList) -> int:
    """How often the option is given; only the last counts."""
    arguments = (entry.fields or {}).get("ARGUMENTS")
    return len(_all(arguments, wanted)) if arguments else 0


def _all(arguments: Value, wanted: DriverList) -> list[Value]:
    words = [(match[0], match.start() + arguments.start) for match in _WORD.finditer(arguments.text)]
    found: list[Value] = []
    for index, (word, start) in enumerate(words):
        if word in (wanted.option, wanted.long):
            following = words[index + 1] if index + 1 < len(words) else ("-", start)
            found.append(_value(*following) if not following[0].startswith("-") else Value("", start, start))
        elif word.startswith(given := f"{wanted.long}=") or (
            word.startswith(given := wanted.option) and word[1] != "-"
        ):
            found.append(_value(word[len(given) :], start + len(given)))
    return found


def _value(word: str, start: int) -> Value:
    return Value(word, start, start + len(word))
