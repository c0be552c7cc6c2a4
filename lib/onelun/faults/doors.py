"""The doors through which external steps go, and how a call of each looks in the source.

One table serves both ends: `points` finds the calls in the source by it, and so knows every step by name without being told;
`installing` puts a fault in front of and behind the same calls while the agent runs.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

# Rooms that no agent, and not the frontend, works in: a person's commands, what runs in processes of its own, and this one.
ELSEWHERE: tuple[str, ...] = (
    "cli",
    "registration",
    "faults",
    "rpc.setup",
    "rpc.authority",
    "rpc.certificates",
    "rpc.private_file",
    "nas.backends.memory",
    "nas.exporters.memory",
    "compute.connectors.memory",
    "caller",
    "compute.connectors.iscsi.inquiry",
    "compute.connectors.iscsi.writing",
    "compute.flush",
    "compute.pour",
    "driver.fetch",
    "nas.backends.lvm.durable",
    "nas.backends.lvm.seqno",
    "nas.exporters.lio.worker",
    "nas.exporters.lio.configfs",
    "nas.exporters.lio.targets",
    "nas.exporters.lio.backstores",
)

# Calls of these change a file, a directory or a device, or make a change durable.
OS: tuple[str, ...] = (
    "rename",
    "replace",
    "link",
    "symlink",
    "unlink",
    "rmdir",
    "mkdir",
    "makedirs",
    "fsync",
    "fdatasync",
    "ftruncate",
    "pwrite",
    "copy_file_range",
    "fchmod",
    "chown",
)
# Of nas.backends.file.copying, and called by their names alone.
BY_NAME = ("rename_new", "exchange", "allocate")
CATALOGUE = ("put", "drop", "change", "set_meta")
COMMAND = ("run", "pipe", "spawn")
JOURNAL = ("accept", "finish", "withdraw")
# Who is called, by what method, and the kind of that.
_CALLS: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("os",), OS, "file"),
    (("shutil",), ("rmtree",), "file"),
    (("fcntl",), ("ioctl",), "ioctl"),
    (("command",), COMMAND, "command"),
    (("asyncio",), ("open_connection",), "connect"),
    (("_catalogue", "catalogue"), CATALOGUE, "catalogue"),
    (("_journal",), JOURNAL, "journal"),
    (("_tgtd",), ("request",), "tgt"),
    (("_changes", "_fences"), ("ask",), "lio"),
    (("_calls", "calls"), ("make",), "call"),
    (("_post",), ("send",), "reply"),
)


@dataclass(frozen=True)
class Step:
    """What a call is: the `kind` tells its door, `word` is the last part of the point's name."""

    kind: str
    word: str


def step_of(call: ast.Call) -> Step | None:
    """The external step that this call is; None when it is none."""
    function = call.func
    if isinstance(function, ast.Name):
        return Step("file", function.id) if function.id in BY_NAME else None
    if not isinstance(function, ast.Attribute):
        return None
    receiver, name = _last(function.value), function.attr
    for receivers, names, kind in _CALLS:
        if receiver in receivers and name in names:
            return Step(kind, _word(kind, call, name))
    # Those of pathlib.Path; what is ours of these names takes no keywords.
    if name in ("unlink", "mkdir") and (receiver == "Path" or receiver.endswith("path") or call.keywords):
        return Step("file", name)
    return None


def _word(kind: str, call: ast.Call, name: str) -> str:
    match kind:
        case "command":
            return _program(call) or name
        case "tgt":
            return "tgt-" + "-".join(_last(word).lower() for word in call.args[:2])
        case "journal":
            return f"journal-{name}"
        case "connect" | "lio" | "call" | "reply":
            return kind
    return name


def _last(node: ast.expr) -> str:
    """The last word of an expression such as `self._catalogue` or `Path(…)`; "" when it has none."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=function):
            return _last(function)
        case ast.BinOp():
            return "Path"
    return ""


def _program(call: ast.Call) -> str | None:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
