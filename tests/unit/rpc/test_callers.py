"""Which words of a request say whose it is, and who is who by the names of the broker's users."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from onelun.errors import Forbidden
from onelun.rpc import message as m
from onelun.rpc.callers import Caller, caller_of, check, named_in
from onelun.rpc.schema import NasName, Request, TargetName


class Inner(msgspec.Struct, frozen=True):
    target: TargetName


class Nested(Request, tag="nested", frozen=True):
    nas: NasName
    perhaps: TargetName | None = None
    many: tuple[TargetName, ...] = ()
    inner: tuple[Inner, ...] = ()
    other: str = ""


class Doubtful(Request, tag="doubtful", frozen=True):
    target: TargetName | int


@pytest.mark.parametrize(
    ("user", "caller"),
    [
        (None, Caller("unnamed")),
        ("", Caller("unnamed")),
        ("frontend", Caller("frontend")),
        ("front.east", Caller("frontend")),
        ("nas.nas1", Caller("nas", "nas1")),
        ("nas.nas1.east", Caller("nas", "nas1.east")),
        ("compute.node1", Caller("compute", "node1")),
    ],
)
def test_a_user_is_who_the_set_up_named_so(user: str | None, caller: Caller):
    assert caller_of(user) == caller


def test_every_word_that_is_marked_is_found_wherever_it_stands():
    request = Nested(nas="n", perhaps="p", many=("a", "b"), inner=(Inner(target="c"),), other="x")

    assert list(named_in(request)) == [
        ("nas", "n"),
        ("target", "p"),
        ("target", "a"),
        ("target", "b"),
        ("target", "c"),
    ]
    assert list(named_in(Nested(nas="n"))) == [("nas", "n")]


def test_a_mark_that_could_not_be_followed_is_an_error_and_not_passed_over():
    with pytest.raises(TypeError):
        list(named_in(Doubtful(target="x")))


@pytest.mark.parametrize(
    "verb",
    [verb for verb in m.VERBS if verb.role == "compute" and "nas" in verb.callers],
    ids=lambda v: m.name_of(v.request),
)
def test_no_name_of_a_nas_or_a_target_is_unmarked_in_what_a_nas_asks(verb: m.Verb):
    unmarked = [
        field.name
        for struct in structs(msgspec.inspect.type_info(verb.request))
        for field in struct.fields
        if field.name in ("nas", "target", "iqn", "fenced") and "Metadata" not in repr(field.type)
    ]

    assert unmarked == []


def structs(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.StructType]:
    """The type and every one in it that has fields."""
    if isinstance(kind, msgspec.inspect.StructType):
        yield kind
        for field in kind.fields:
            yield from structs(field.type)
    for inner in (*getattr(kind, "types", ()), getattr(kind, "item_type", None)):
        if inner is not None:
            yield from structs(inner)


@pytest.mark.parametrize("verb", [verb for verb in m.VERBS if verb.role == "nas"], ids=lambda v: m.name_of(v.request))
@pytest.mark.parametrize("user", ["nas.nas1", "compute.node1"])
def test_an_agent_commands_no_nas_even_where_the_broker_let_it(verb: m.Verb, user: str):
    # Who asks is looked at before any field is.
    request = verb.request(**{field.name: "x" for field in msgspec.structs.fields(verb.request) if field.required})

    with pytest.raises(Forbidden, match=rf"{user.replace('.', '[.]')} may not ask"):
        check(request, user)
