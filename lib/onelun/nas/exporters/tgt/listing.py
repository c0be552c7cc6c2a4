"""What tgtd prints about its targets, read line by line (tgt_target_show_all() and others in usr/target.c of tgt 1.0.85).

Names of targets, accounts and initiators are compared whole. An initiator chooses its alias freely, which the daemon prints as
it came: one with line breaks could pretend lines of other targets, so a list in which a target comes twice is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from onelun.errors import ProtocolError

_TARGET = re.compile(r"Target ([0-9]{1,18}): (\S+)")
_INITIATOR = re.compile(r" {12}Initiator: (\S+) alias: ")
_LUN = re.compile(r" {8}LUN: ([0-9]{1,18})")
_FACT = re.compile(r" {12}([A-Z][A-Za-z -]*): (.*)")
_SIZE = re.compile(r"([0-9]+) MB, ")


class Listed(NamedTuple):
    """One target: its state, who is logged in, the facts of LUN 1 as printed, accounts, and allowed initiators or addresses."""

    tid: int
    iqn: str
    state: str
    sessions: tuple[str, ...]
    lun: dict[str, str]
    accounts: tuple[str, ...]
    allowed: tuple[str, ...]


def parse_targets(text: str) -> dict[str, Listed]:
    """All targets, by IQN. Raises ProtocolError when one comes twice."""
    found: dict[str, Listed] = {}
    tids: set[int] = set()
    for tid, iqn, lines in _blocks(text):
        if iqn in found or tid in tids:
            raise ProtocolError(f"tgtd's list of targets has {iqn} or its number {tid} twice: an initiator forges it")
        found[iqn] = _listed(tid, iqn, lines)
        tids.add(tid)
    return found


def parse_tids(text: str) -> dict[str, int]:
    """The numbers of the targets, by IQN, from the list of drivers: in this one nothing is printed that an initiator chose."""
    return {match[2]: int(match[1]) for match in re.finditer(r"^ {8}Target ([0-9]{1,18}): (\S+)$", text, re.MULTILINE)}


def parse_connections(text: str) -> list[tuple[int, int]]:
    """Session and connection numbers of one target."""
    found = []
    session = 0
    for line in text.splitlines():
        if match := re.fullmatch(r"Session: ([0-9]{1,20})", line):
            session = int(match[1])
        elif match := re.fullmatch(r" {4}Connection: ([0-9]{1,18})", line):
            found.append((session, int(match[1])))
    return found


def parse_accounts(text: str) -> set[str]:
    """The names of all accounts."""
    return {line.strip() for line in text.splitlines() if line.startswith("    ")}


def printed_size(size_bytes: int) -> str:
    """How tgtd prints that many bytes (print_disksize() in usr/target.c, in unsigned 64-bit arithmetic)."""
    sectors = size_bytes // 512
    return f"{((sectors - (sectors // 625 - 974)) % (1 << 64)) // 1950} MB"


def _blocks(text: str) -> list[tuple[int, str, list[str]]]:
    blocks: list[tuple[int, str, list[str]]] = []
    for line in text.splitlines():
        if match := _TARGET.fullmatch(line):
            blocks.append((int(match[1]), match[2], []))
        elif blocks:
            blocks[-1][2].append(line)
    return blocks


def _listed(tid: int, iqn: str, lines: list[str]) -> Listed:
    state = ""
    section = ""
    number = ""
    sessions: list[str] = []
    lun: dict[str, str] = {}
    accounts: list[str] = []
    allowed: list[str] = []
    for line in lines:
        if line.startswith("    ") and line[4:5] not in ("", " "):
            section = line.strip()
        elif section == "System information:" and line.startswith("        State: "):
            state = line.removeprefix("        State: ")
        elif section == "I_T nexus information:" and (match := _INITIATOR.match(line)):
            sessions.append(match[1])
        elif section == "LUN information:":
            if match := _LUN.fullmatch(line):
                number = match[1]
            elif number == "1" and (match := _FACT.fullmatch(line)):
                lun[match[1]] = match[2]
        elif section == "Account information:":
            accounts.append(line.strip())
        elif section == "ACL information:":
            allowed.append(line.strip())
    return Listed(tid, iqn, state, tuple(sessions), lun, tuple(accounts), tuple(allowed))
