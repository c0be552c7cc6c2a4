"""The requests that both kinds of agent answer, their replies, and how each is treated."""

from __future__ import annotations

from typing import Any, Literal

from onelun.rpc.schema import BY_ANYBODY, Reply, Request, Verb


class Hello(Request, tag="hello", frozen=True):
    """Ask who the agent is."""


class HelloIs(Reply, tag="hello_is", frozen=True):
    """`instance` changes with every start of the agent; `initiator` is a compute node's iSCSI name."""

    node: str
    role: str
    instance: str
    version: str
    initiator: str | None = None


class Status(Request, tag="status", frozen=True):
    """What became of the request `id`? A running one answers to this caller from now on; an unknown one can never start later."""

    id: str


class StatusIs(Reply, tag="status_is", frozen=True):
    """`reply` is the final reply of a request that is `done`."""

    state: Literal["running", "done", "unknown"]
    reply: dict[str, Any] | None = None


class Cancel(Request, tag="cancel", frozen=True):
    """End the work of request `id`; its own final reply tells the outcome. Unknown, or done already: success."""

    id: str


class Cancelling(Reply, tag="cancelling", frozen=True):
    """The work has been told to end."""


VERBS: tuple[Verb, ...] = (
    Verb(Hello, HelloIs, "both", BY_ANYBODY, journaled=False),
    Verb(Status, StatusIs, "both", BY_ANYBODY, journaled=False),
    Verb(Cancel, Cancelling, "both", BY_ANYBODY, journaled=False),
)
