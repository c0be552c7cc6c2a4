"""Whether dm-multipath takes our disks for itself: each has one path, and what holds it keeps it from being detached.

What counts is the configuration that `multipath -t` prints, with its defaults (multipath.conf(5)), which differ between releases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from onelun import command
from onelun.compute.connectors.iscsi.sysfs import Sysfs
from onelun.errors import CommandFailed
from onelun.naming import IQN_PREFIX

# What takes a disk of which it knows one path; the others want two, or to be told. "no" is what older releases print for "off".
_GREEDY = ("greedy", "off", "no")
# How a disk of ours shows itself, by each kind of rule of a blacklist.
_OURS = {
    "devnode": ("sda", "sdaa"),
    "protocol": ("scsi:iscsi",),
    "vendor": ("LIO-ORG", "IET"),
    # LIO's begin so (target_core_spc.c, an IEEE company ID and 25 digits of the serial).
    "wwid": ("36001405" + 25 * "0",),
}
_SETTING = re.compile(r'(\w+)\s+"?(.*?)"?')
_PROC = "/proc"


async def troubles(sysfs: Sysfs, proc: str = _PROC) -> list[str]:
    """What multipath has of ours, and would take, each as a sentence that says what to do; changes nothing."""
    found = [
        f"multipath has taken {disk.node} of {session.iqn} for itself, so that it cannot be detached: multipath -f {name}, "
        f"then multipath -w {disk.node}"
        for session in sysfs.sessions()
        if session.iqn.startswith(IQN_PREFIX)
        for disk in sysfs.disks(session)
        for name in sysfs.multipaths(disk)
    ]
    if not _runs(proc):
        return found
    try:
        told = await command.run("multipath", "-t", timeout_s=10)
    except CommandFailed as error:
        return [*found, f"multipathd runs, and how it is set up is not known: {error.sentence}"]
    if takes_ours(told.stdout):
        found.append(
            "multipathd of this host takes VMs' disks for itself, and they cannot be detached then: put `find_multipaths strict` "
            'into the section defaults of /etc/multipath.conf or, where other disks need it as it is, `vendor "^(LIO-ORG|IET)$"` '
            "into a section device of the section blacklist; then multipathd reconfigure"
        )
    return found


def takes_ours(configuration: str) -> bool:
    """Whether multipathd, with what `multipath -t` printed, makes a map of a disk of ours, which has one path."""
    rules = list(_rules(configuration))
    finding = next((value for section, key, value in rules if (section, key) == ("defaults", "find_multipaths")), "")
    return finding in _GREEDY and not any(
        _matches(rules, "blacklist", kind) and not _matches(rules, "blacklist_exceptions", kind) for kind in _OURS
    )


def _matches(rules: list[tuple[str, str, str]], section: str, kind: str) -> bool:
    patterns = [value for *place, value in rules if place == [section, kind]]
    return any(any(_match(pattern, name) for pattern in patterns) for name in _OURS[kind])


def _match(pattern: str, name: str) -> bool:
    """As multipath does it: found anywhere, and the other way round behind a `!`."""
    try:
        return (re.search(pattern.removeprefix("!"), name) is not None) is not pattern.startswith("!")
    except re.error:
        return False


def _rules(configuration: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each setting; those of a device in a section are as the section's own."""
    sections: list[str] = []
    for line in map(str.strip, configuration.splitlines()):
        if line.endswith("{"):
            sections.append(line.removesuffix("{").strip())
        elif line == "}":
            del sections[-1:]
        elif sections and (setting := _SETTING.fullmatch(line)):
            yield sections[0], setting[1], setting[2]


def _runs(proc: str) -> bool:
    """Whether multipathd runs. Asked by its socket, it would be started."""
    for process in os.listdir(proc):
        if process.isdecimal():
            try:
                with open(f"{proc}/{process}/comm", encoding="utf-8", errors="replace") as file:
                    if file.read().strip() == "multipathd":
                        return True
            except OSError:
                # It has ended.
                continue
    return False
