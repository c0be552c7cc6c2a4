"""Registering onelun in oned.conf, and taking it out again: every byte that is not onelun's stays as it is.

Drivers are added to the lists that are there; everything else goes into one block between two marks, which is onelun's own
and is replaced as a whole when what belongs there changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from onelun.errors import Rejected
from onelun.registration import arguments
from onelun.registration.arguments import DriverList
from onelun.registration.syntax import Entry, Value, parse
from onelun.registration.wanted import DRIVER, INHERITED, Release, ds_mad_conf, has_modes, same, tm_mad_conf

BEGIN = "# onelun: begin (`onelun register --remove` takes it out again)"
END = "# onelun: end"
# With the line break that was put before it, so that a file without one at its end gets its own bytes back.
_BLOCK = re.compile(rf"\n{re.escape(BEGIN)}\n.*?\n{re.escape(END)}\n", re.DOTALL)


def registered(text: str, release: Release, path: str = "oned.conf") -> str:
    """The text with all that the release needs; the same text when it has all.

    What an operator wrote of onelun outside the block is left: `findings` says what is wrong with it. Raises Rejected for a
    text that OpenNebula could not read itself, or whose lists cannot be added to.
    """
    before = _without_block(text, path)
    entries = parse(before, path)
    for wanted in _lists(release):
        listed = arguments.find(entries, wanted, path)
        if listed is None:
            if wanted is arguments.SYSTEM:
                raise Rejected(
                    f"{path}: DATASTORE_MAD has no -s: add `-s shared,ssh,{DRIVER}` to its ARGUMENTS by hand"
                )
            continue  # without -d every driver that is there may be used
        if not arguments.has_driver(listed):
            text = arguments.added(text, _list(text, wanted, path))
    text = _with_block(text, _block(entries, release))
    _check(before, text, path)
    return text


def unregistered(text: str, path: str = "oned.conf") -> str:
    """The text without onelun in it; the same text when it has none. Raises Rejected as `registered` does.

    Settings of onelun that an operator wrote outside the block are the operator's to remove.
    """
    before = _without_block(text, path)
    text = before
    for wanted in (arguments.TRANSFER, arguments.DATASTORE, arguments.SYSTEM):
        listed = _list(text, wanted, path)
        if arguments.has_driver(listed):
            text = arguments.taken_out(text, listed)
    _check(before, text, path)
    return text


def findings(text: str, release: Release, path: str = "oned.conf") -> list[str]:
    """One sentence for each thing that is missing or wrong, with what to do. Raises Rejected as `registered` does."""
    _without_block(text, path)
    entries = parse(text, path)
    found: list[str] = []
    for wanted in _lists(release):
        listed = arguments.find(entries, wanted, path)
        if not arguments.has_driver(listed) and not (listed is None and wanted is not arguments.SYSTEM):
            found.append(f"{wanted.setting} does not list {DRIVER} behind {wanted.option}: `onelun register --apply`")
        found += _twice(entries, wanted)
    if has_modes(release):
        found += _conf_findings(entries, "TM_MAD_CONF", tm_mad_conf(release))
        found += _conf_findings(entries, "DS_MAD_CONF", ds_mad_conf())
        found += [
            f"{setting} does not name {name}, which disks need: `onelun register --apply`"
            for setting, name in _not_inherited(entries)
        ]
    return found


def _lists(release: Release) -> tuple[DriverList, ...]:
    all_lists = (arguments.TRANSFER, arguments.DATASTORE, arguments.SYSTEM)
    return all_lists if has_modes(release) else all_lists[:2]


def _list(text: str, wanted: DriverList, path: str) -> Value:
    listed = arguments.find(parse(text, path), wanted, path)
    return listed or Value("", 0, 0)


def _block(entries: list[Entry], release: Release) -> str:
    """What the operator's own lines do not have yet, without marks; empty when they have all."""
    if not has_modes(release):
        return ""
    lines = []
    if _conf(entries, "TM_MAD_CONF") is None:
        lines.append(_vector("TM_MAD_CONF", tm_mad_conf(release)))
    if _conf(entries, "DS_MAD_CONF") is None:
        lines.append(_vector("DS_MAD_CONF", ds_mad_conf()))
    lines += [f'{setting} = "{name}"' for setting, name in _not_inherited(entries)]
    return "\n".join(lines)


def _vector(name: str, fields: Mapping[str, str]) -> str:
    body = ",\n".join(f'    {key} = "{value}"' for key, value in fields.items())
    return f"{name} = [\n{body}\n]"


def _with_block(text: str, block: str) -> str:
    marked = f"\n{BEGIN}\n{block}\n{END}\n" if block else ""
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: marked, text, count=1)
    return text + marked


def _without_block(text: str, path: str) -> str:
    rest = _BLOCK.sub("", text, count=1)
    for mark in (BEGIN, END):
        if f"\n{mark}\n" in f"\n{rest}\n":
            raise Rejected(
                f"{path}: the marks of onelun's block do not belong together: take out what is left of it by hand"
            )
    return rest


def _check(before: str, after: str, path: str) -> None:
    """A guard: whatever was not onelun's must read as before."""
    old = [_facts(entry) for entry in parse(before, path)]
    new = [_facts(entry) for entry in parse(_without_block(after, path), path)]
    if len(old) != len(new) or any(
        a != b for a, b in zip(old, new, strict=True) if a[0] not in ("TM_MAD", "DATASTORE_MAD")
    ):
        raise Rejected(f"{path} was not changed: the change would have touched what is not onelun's")


def _facts(entry: Entry) -> tuple[str, str, dict[str, str]]:
    return entry.name, entry.value.text if entry.value else "", {k: v.text for k, v in (entry.fields or {}).items()}


def _conf(entries: list[Entry], name: str) -> Entry | None:
    return next((entry for entry in entries if entry.name == name and entry.field("NAME") == DRIVER), None)


def _not_inherited(entries: list[Entry]) -> list[tuple[str, str]]:
    """The settings, each with an attribute that disks need and that it does not name."""
    named = {(entry.name, entry.value.text.strip().upper()) for entry in entries if entry.value}
    wanted = [(setting, name) for setting, names in INHERITED.items() for name in names]
    return [pair for pair in wanted if pair not in named]


def _conf_findings(entries: list[Entry], name: str, wanted: Mapping[str, str]) -> list[str]:
    conf = _conf(entries, name)
    if conf is None:
        return [f"there is no {name} of {DRIVER}: `onelun register --apply`"]
    found = []
    if sum(entry.name == name and entry.field("NAME") == DRIVER for entry in entries) > 1:
        found.append(f"{name} of {DRIVER} is there more than once: leave one")
    where = f"{name} of {DRIVER} (line {conf.line})"
    for key, value in wanted.items():
        has = (conf.fields or {}).get(key)
        if has is None:
            found.append(f'{where} lacks {key} = "{value}": add it')
        elif not same(key, has.text, value):
            found.append(f'{where} has {key} = "{has.text}": make it "{value}"')
    return found


def _twice(entries: list[Entry], wanted: DriverList) -> list[str]:
    entry = next(entry for entry in entries if entry.name == wanted.setting)
    if arguments.count(entry, wanted) < 2:
        return []
    return [f"{wanted.setting} (line {entry.line}) has {wanted.option} twice, and only the last counts: leave one"]
