"""Every way in which an operation may fail, as one tree.

An error is one sentence for a person, a stable `code` for a program, and facts as attributes. It crosses the wire
as `to_wire()` and is raised again on the other side by `from_wire()`. The class says what the caller may conclude:

* `Rejected` and its kinds: asking again in the same way fails again; nothing was changed.
* `Busy`, `Interrupted`: asking again later may work; nothing is half done.
* `Unreachable`: nobody took the request, so nothing happened.
* `NoReply`, `Stalled`: the outcome is unknown; ask again, and say so.
"""

from __future__ import annotations

from typing import ClassVar

Fact = str | int | float | bool | None


class OnelunError(Exception):
    """The root. Raised itself only for a failure that nobody foresaw (code `internal`)."""

    code: ClassVar[str] = "internal"

    def __init__(self, sentence: str, /, **facts: Fact) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.facts = facts

    def to_wire(self) -> dict[str, Fact]:
        """The fields of an error reply: the facts, then `status`, `error` and `code`, which no fact can hide."""
        return {**self.facts, "status": "error", "error": self.sentence, "code": self.code}


class Rejected(OnelunError):
    """The request cannot be done as it stands; nothing was changed."""

    code = "rejected"


class NotFound(Rejected):
    """What the request names does not exist."""

    code = "not_found"


class Conflict(Rejected):
    """What the request names exists and is something else, or is in use."""

    code = "conflict"


class Forbidden(Rejected):
    """Whoever asks may not ask this; nothing was changed."""

    code = "forbidden"


class OutOfSpace(Rejected):
    """The pool cannot promise the bytes."""

    code = "out_of_space"


class InMaintenance(Rejected):
    """An operator has said that nothing new is to be placed in the pool; another pool may take it."""

    code = "maintenance"


class Busy(OnelunError):
    """Somebody else is at it; asking again later may work."""

    code = "busy"


class Cancelled(OnelunError):
    """Somebody asked for the end of the work, and it was undone."""

    code = "cancelled"


class Interrupted(OnelunError):
    """An agent restarted in the middle of the work and rolled it back; asking again is safe."""

    code = "interrupted"


class CommandFailed(OnelunError):
    """A tool ended with an error. Facts: `command`, `status`."""

    code = "command_failed"


class Unreachable(OnelunError):
    """Nobody took the request; nothing happened."""

    code = "unreachable"


class NoReply(OnelunError):
    """Somebody took the request, or may have; its outcome is unknown."""

    code = "no_reply"


class Stalled(NoReply):
    """The work makes no progress and could not be stopped in time."""

    code = "stalled"


class ProtocolError(OnelunError):
    """A message or a tool's output is not what it must be."""

    code = "protocol"


def _tree(root: type[OnelunError]) -> dict[str, type[OnelunError]]:
    # A room's own kind of an error stays in that room: on the wire it is what its code says.
    found = {root.code: root} if root.__module__ == __name__ else {}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def from_wire(reply: dict[str, object]) -> OnelunError:
    """The error that an error reply carries. A code of a newer release becomes a plain `OnelunError`."""
    kind = _tree(OnelunError).get(str(reply.get("code")), OnelunError)
    facts = {
        key: value
        for key, value in reply.items()
        if key not in ("self", "action", "status", "error", "code")
        and isinstance(value, str | int | float | bool | None)
    }
    return kind(str(reply.get("error") or "the other side gave no reason"), **facts)
