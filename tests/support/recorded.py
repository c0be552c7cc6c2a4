"""The recorded calls of a real oned 7.5.80, as any release would make them, with names of the test's own cloud.

The recordings come from a driver whose SOURCE was `onelun/one-3`; NAMES maps them. What is not mapped stays as it is, and
is a case of bad input.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import NamedTuple

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "opennebula-7.5"

# What the recordings say → what this cloud has. One table, for argv and documents alike.
NAMES = {
    "onelun/one-": "nas1/tank/one-",
    "<TEMPLATE><ALLOW_ORPHANS>": "<TEMPLATE><ONELUN_POOLS><![CDATA[nas1/tank nas2/tank]]></ONELUN_POOLS><ALLOW_ORPHANS>",
}
HOSTS = {"host01": "node1", "host02": "node2"}
FRONT_END = "vm"
RELEASES = ("3.4", "5.12", "6.0", "6.6", "6.10", "7.5")


class Recorded(NamedTuple):
    """How one release calls one action."""

    name: str
    argv: tuple[str, ...]
    stdin: bytes


def mapped(text: str) -> str:
    for recorded, ours in NAMES.items():
        text = text.replace(recorded, ours)
    return text


def document(name: str, **elements: str) -> str:
    """The document of a datastore action; `elements` replaces the content of IMAGE's elements of those names."""
    text = mapped((RECORDINGS / f"datastore.{name}.stdin.xml").read_text())
    for element, content in elements.items():
        assert f"<{element}>" in text, element
        text = _replaced(text, element, content)
    return text


def show(name: str, **elements: str) -> str:
    """A recorded document of `onevm show` and the like, with the elements replaced."""
    text = mapped((RECORDINGS / "show" / f"{name}.xml").read_text())
    for element, content in elements.items():
        text = _replaced(text, element, content)
    return text


def _replaced(text: str, element: str, content: str) -> str:
    replacement = f"<{element}>{content}</{element}>"
    return re.sub(f"<{element}>.*?</{element}>", lambda _: replacement, text, count=1)


def number(release: str) -> tuple[int, int]:
    major, _, minor = release.partition(".")
    return int(major), int(minor)


def datastore_call(release: str, name: str, text: str | None = None, **elements: str) -> Recorded:
    """How `release` calls a datastore action with the recorded document (or `text`)."""
    argv = json.loads((RECORDINGS / f"datastore.{name}.json").read_text())["argv"]
    text = document(name, **elements) if text is None else text
    if number(release) <= (5, 12):
        text = text.replace("<FORMAT><![CDATA[raw]]></FORMAT><FS>", "<FSTYPE>").replace(
            "<FORMAT><![CDATA[]]></FORMAT><FS>", "<FSTYPE>"
        )
        text = text.replace("</FS>", "</FSTYPE>")
    encoded = base64.b64encode(text.encode())
    if number(release) <= (6, 6):
        return Recorded(f"datastore/{name}", (encoded.decode(), argv[-1]), b"")
    return Recorded(f"datastore/{name}", tuple(argv), encoded)


def transfer_call(release: str, name: str, *argv: str) -> Recorded:
    """How `release` calls a transfer action: the recorded arguments (or `argv`), without ids up to 3.4."""
    recorded = argv or tuple(mapped(text) for text in json.loads((RECORDINGS / f"tm.{name}.json").read_text())["argv"])
    if number(release) <= (3, 4):
        recorded = recorded[:-2]
    return Recorded(f"tm/{name}", tuple(recorded), b"")


def migration_call(name: str, *chained: str, text: str | None = None) -> Recorded:
    """The recorded call of premigrate, postmigrate or failmigrate; `chained` by another driver, which adds its name."""
    argv = json.loads((RECORDINGS / f"tm.{name}.json").read_text())["argv"]
    text = mapped((RECORDINGS / f"tm.{name}.stdin.xml").read_text()) if text is None else text
    return Recorded(f"tm/{name}", (*argv, *chained), base64.b64encode(text.encode()))


def backup_call(name: str, *argv: str, **elements: str) -> Recorded:
    """The recorded call of prebackup and the like, whose document is not encoded; elements of it are replaced."""
    recorded = json.loads((RECORDINGS / f"tm.{name}.json").read_text())["argv"]
    text = mapped((RECORDINGS / f"tm.{name}.stdin.xml").read_text())
    for element, content in elements.items():
        if f"<{element}>" not in text:
            text = text.replace("<BACKUP_CONFIG>", f"<BACKUP_CONFIG><{element}></{element}>", 1)
        text = _replaced(text, element, content)
    return Recorded(f"tm/{name}", tuple(argv) or tuple(recorded), text.encode())


def system_monitor_call(release: str, pools: str = "") -> Recorded:
    """How `release` monitors a system datastore that has those ONELUN_POOLS."""
    text = (RECORDINGS / "tm.monitor.stdin.xml").read_text()
    text = text.replace("<TEMPLATE>", f"<TEMPLATE><ONELUN_POOLS>{pools}</ONELUN_POOLS>", 1)
    encoded = base64.b64encode(text.encode())
    if number(release) <= (6, 6):
        return Recorded("tm/monitor", (encoded.decode(), "103"), b"")
    return Recorded("tm/monitor", ("103",), encoded)


def error(release: str, sentence: str) -> str:
    """What is on stderr when an action fails with that sentence and has logged nothing."""
    if number(release) <= (6, 0):
        return f"ERROR MESSAGE --8<------\n{sentence}\nERROR MESSAGE ------>8--\n"
    return f"{sentence}\n"
