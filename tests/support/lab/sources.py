"""Where packages come from: what this machine's own apt is configured to use, and nothing else."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator

from tests.support.lab.place import LabError
from tests.support.sandbox.processes import run

# zfs-dkms and what belongs to it. It is added in the guest's list alone.
_MORE = "contrib"


def codename() -> str:
    """The release of this machine's Debian, which is the guests' too."""
    with open("/etc/os-release") as file:
        match = re.search(r'^VERSION_CODENAME="?(\w+)', file.read(), re.MULTILINE)
    if not match:
        raise LabError(
            "the lab's guests are Debian, built from this machine's package sources: it must be Debian itself"
        )
    return match[1]


def sources() -> str:
    """The distribution's own package sources of this machine, in one-line style, with contrib."""
    wanted = {codename() + end for end in ("", "-updates", "-security", "/updates")}
    found = []
    for options, address, suite, components in (*_lists(), *_deb822()):
        if suite in wanted and "main" in components:
            parts = " ".join(dict.fromkeys(["main", _MORE]))
            found.append(f"deb {f'[{options}] ' if options else ''}{address} {suite} {parts}")
    if not found:
        raise LabError(f"apt on this machine has no source with the main part of {codename()}")
    return "".join(f"{line}\n" for line in dict.fromkeys(found))


def _lists() -> Iterator[tuple[str, str, str, list[str]]]:
    for path in ("/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*.list"))):
        for line in _lines(path):
            match = re.match(r"deb\s+(?:\[\s*(.*?)\s*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
            if match:
                yield match[1] or "", match[2], match[3], match[4].split()


def _deb822() -> Iterator[tuple[str, str, str, list[str]]]:
    for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")):
        text = "\n".join(line for line in _lines(path) if not line.startswith("#"))
        for stanza in re.split(r"\n\s*\n", text):
            fields = {key.lower(): value for key, value in re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE)}
            if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
                continue
            signed = fields.get("signed-by", "").strip()
            # A key that is written into the file itself has no place in a one-line source; apt's own keyrings are tried.
            options = f"signed-by={signed.replace(' ', ',')}" if signed.startswith("/") else ""
            for address in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield options, address, suite, fields.get("components", "").split()


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def settings() -> str:
    """How apt on this machine fetches (proxies, certificates, whether dates are checked), as an apt.conf."""
    dump = run("apt-config", "dump", "Acquire", "--format", '%F "%v";%n')
    return "".join(f"{line}\n" for line in dump.splitlines() if '""' not in line) + 'APT::Install-Recommends "false";\n'
