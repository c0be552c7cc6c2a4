"""Who asks, as the broker vouches for it, and whether this one may ask that.

Who may ask a request, its Verb tells (schema.py); which of its words say whose it is, its fields' types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec

from onelun.errors import Forbidden
from onelun.naming import IQN_PREFIX, is_target_of
from onelun.rpc.message import BY_REQUEST, Kind, Verb, name_of
from onelun.rpc.schema import Request

Reader = Callable[[Any], Iterator[tuple[str, str]]]


class Caller(NamedTuple):
    """One who asks. `name` is an agent's; `unnamed` is a caller of the bare protocol, which sets no user_id."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return {"unnamed": "a caller without user_id", "frontend": "a frontend"}.get(
            self.kind, f"{self.kind}.{self.name}"
        )


def caller_of(user: str | None) -> Caller:
    """Who the broker's `user` is, by the names that `onelun broker setup` gives; no agent's means a frontend."""
    if not user:
        return Caller("unnamed")
    kind, dot, name = user.partition(".")
    if dot and kind in ("nas", "compute"):
        return Caller("nas" if kind == "nas" else "compute", name)
    return Caller("frontend")


def check(request: Request, user: str | None) -> None:
    """Raise Forbidden unless the broker's `user` may ask this.

    A NAS speaks of itself and its own targets alone. On a host, a caller without user_id is a frontend or a NAS that does not
    say which: it has the original protocol's requests and fields, for targets that are not onelun's.
    """
    verb, caller = BY_REQUEST[type(request)], caller_of(user)
    action = name_of(verb.request)
    if caller.kind not in verb.callers:
        raise Forbidden(f"{caller} may not ask {action}: {_asked_by(verb)} may")
    if caller.kind == "nas":
        for of, word in named_in(request):
            if not (is_target_of(caller.name, word.lower()) if of == "target" else word.lower() == caller.name):
                raise Forbidden(f"{caller} may not speak of {word[:120]!r} in {action}: it is none of its own")
    if caller.kind == "unnamed" and verb.bare is not None:
        _check_bare(request, verb.bare, action)


def _check_bare(request: Request, fields: frozenset[str], action: str) -> None:
    common = Request.__struct_fields__
    for field in msgspec.structs.fields(request):
        if field.name not in (*fields, *common) and getattr(request, field.name) != field.default:
            raise Forbidden(f"{action} with {field.name} is taken only from a caller that sets its user_id")
    for of, word in named_in(request):
        if of == "target" and word.lower().startswith(IQN_PREFIX):
            raise Forbidden(f"{action} for a target of onelun's is taken only from a caller that sets its user_id")


def named_in(request: Request) -> Iterator[tuple[Literal["nas", "target"], str]]:
    """Every word of the request that says whose it is, and what it names."""
    return _reader(type(request))(request)  # type: ignore[return-value]


@cache
def _reader(kind: type[Request]) -> Reader:
    return _read(msgspec.inspect.type_info(kind)) or (lambda _: iter(()))


def _read(kind: msgspec.inspect.Type) -> Reader | None:
    """How to find such words in a value of that type; None where there can be none."""
    match kind:
        case msgspec.inspect.Metadata(extra={"of": of}):
            return lambda value: iter([(of, value)])
        case msgspec.inspect.Metadata(type=inner):
            return _read(inner)
        case msgspec.inspect.StructType(fields=fields):
            readers = [(field.name, reader) for field in fields if (reader := _read(field.type))]
            if readers:
                return lambda value: (found for name, reader in readers for found in reader(getattr(value, name)))
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            if each := _read(item):
                return lambda values: (found for value in values for found in each(value))
        case msgspec.inspect.UnionType(types=kinds):
            inner_readers = [reader for one in kinds if (reader := _read(one))]
            if inner_readers and len(kinds) == 2 and kind.includes_none:
                [reader] = inner_readers
                return lambda value: iter(()) if value is None else reader(value)
            if inner_readers:
                raise TypeError(f"of {kind} it cannot be told which words are names of agents and targets")
    return None


def _asked_by(verb: Verb) -> str:
    return " and ".join(
        {"frontend": "a frontend", "nas": "a NAS"}.get(kind, kind) for kind in verb.callers if kind != "unnamed"
    )
