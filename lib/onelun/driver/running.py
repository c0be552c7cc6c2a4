"""One run of an action: what it is given, whom it may ask, and what it leaves to say."""

from __future__ import annotations

import io
import logging
from typing import NamedTuple

import msgspec

from onelun.config import Frontend, Limits
from onelun.deadline import Deadline
from onelun.driver.api import Api
from onelun.driver.asking import Asker, Asking
from onelun.driver.frame import Arguments, Form, Version, parse_version
from onelun.driver.location import Hosts
from onelun.driver.scripts import Script
from onelun.model import Kind, Owner

log = logging.getLogger(__name__)

# oned gives `stat` up after 90 s, and waits for it inside an API call of a user.
_STAT_S = 55.0
# What may last as long as a copy. A snapshot is made in no time, but not on every storage; mv may have a VM's memory to move.
COPIES = frozenset(
    {
        "datastore/cp",
        "datastore/clone",
        "datastore/export",
        "datastore/snap_revert",
        "datastore/snap_flatten",
        "tm/clone",
        "tm/mv",
        "tm/mvds",
        "tm/cpds",
        "tm/snap_create",
        "tm/snap_create_live",
        "tm/snap_revert",
        "tm/prebackup",
        "tm/prebackup_live",
        "tm/restore",
    }
)


class Call(NamedTuple):
    """What oned calls: the action's name ("tm/clone"), its arguments, its stdin if it has one.

    `id` is the stub's, a UUID; `attempt` counts how often the stub had to ask again because the frontend went away.
    """

    id: str
    name: str
    argv: tuple[str, ...]
    stdin: bytes | None = None
    attempt: int = 0


class Outcome(NamedTuple):
    """What oned gets."""

    stdout: bytes
    stderr: bytes
    status: int


class Context(msgspec.Struct, frozen=True):
    """What all actions share. `api` is None where oned's API is not configured."""

    config: Frontend
    limits: Limits
    asker: Asker
    api: Api | None = None

    @property
    def version(self) -> Version | None:
        """OpenNebula's release, as configured. Raises Rejected when it is none."""
        return parse_version(self.config.opennebula_version)

    @property
    def hosts(self) -> Hosts:
        """The map of hosts."""
        return Hosts(self.config.hosts, self.config.names)

    def duration_s(self, name: str) -> float:
        """How long the action of that name may take."""
        if name == "datastore/stat":
            return min(_STAT_S, self.limits.finish_s)
        return self.limits.copy_s if name in COPIES else self.limits.finish_s


class Run:
    """One run of one action."""

    def __init__(self, call: Call, context: Context, form: Form, arguments: Arguments) -> None:
        self.call = call
        self.context = context
        self.arguments = arguments
        self.deadline = Deadline.after(context.duration_s(call.name))
        self._stderr = io.StringIO()
        self._script = Script(call.name, form, vm_id=arguments.vm_id, call_id=call.id, stderr=self._stderr)
        self.asking = Asking(
            context.asker,
            call.id,
            self.deadline,
            accept_s=context.limits.accept_s,
            attempt=call.attempt,
            on_progress=self.progress,
        )
        self.ask = self.asking.ask

    @property
    def config(self) -> Frontend:
        """The front-end's configuration."""
        return self.context.config

    @property
    def api(self) -> Api | None:
        """The API of oned, for actions of releases that pass ids; up to 3.4 arguments and placements tell all."""
        return self.context.api if self.arguments.modern else None

    def note(self, text: str) -> None:
        """Say what was decided: in the frontend's log, and in the VM's where the release takes it."""
        self._script.log(text)

    def progress(self, text: str) -> None:
        """Say how far a long step is, in the frontend's log alone."""
        log.info("%s id=%s progress %s", self.call.name, self.call.id, text)

    def lines(self) -> str:
        """The lines for the VM's log so far."""
        return self._stderr.getvalue()

    def image_owner(self, image_id: int, regtime: int | None) -> Owner:
        """How an image of this cloud says whose it is."""
        return Owner(kind=Kind.IMAGE, cloud=self.config.cloud, image_id=image_id, regtime=regtime)
