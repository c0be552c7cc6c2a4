"""The cloud of a trial in the lab: the hosts are guests with kernels of their own, and what they have is asked of them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from tests.recorded.backupstore import Backupstore
from tests.recorded.cloud import Cloud, Scribble, drawn
from tests.recorded.faulted import Faulted
from tests.support.lab import record
from tests.support.lab.calls import call, check
from tests.support.lab.front import start_frontend
from tests.support.lab.place import GUESTS, NAS, NODES, Lab
from tests.support.lab.shell import front
from tests.support.lab.startup import FAULTS
from tests.support.observed import MIB, State, Unreadable, Volume, entries_of
from tests.support.oned import Oned
from tests.support.sandbox.broker import Presence
from tests.support.sandbox.place import POOL
from tests.support.sandbox.processes import recorded, wait_until
from tests.support.sandbox.startup import listens

from onelun.faults.plan import FIRED, PASSED, PLAN, Plan

GROUP = "onelun"
FRONT_END = "frontend"
_LOOK_S = 180
_SEEN = ("/usr/bin/python3", "-I", "-S", "/checkout/tests/support/lab/guest/seen.py")
_ANSWER_S = 180


class LabFaulted(Faulted):
    """The roles of a lab: a guest starts its agent again by itself when that died."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(front(lab))
        self._lab = lab
        self._plan = Plan("", "die")

    def arm(self, plan: Plan) -> None:
        """See the base."""
        self._plan = plan
        if plan.role in GUESTS:
            script = 'cd "$0" && rm -f "$2" && cat >new && mv new "$1"'
            check(self._lab, plan.role, "sh", "-c", script, FAULTS, PLAN, FIRED, stdin=msgspec.json.encode(plan))
        else:
            super().arm(plan)

    def disarm(self) -> None:
        """See the base."""
        super().disarm()
        if self._plan.role in GUESTS:
            check(self._lab, self._plan.role, "rm", "-f", f"{FAULTS}/{PLAN}", f"{FAULTS}/{FIRED}")

    def fell(self) -> bool:
        """See the base."""
        return self._plan.role not in GUESTS and super().met()

    def met(self) -> bool:
        """See the base."""
        if self._plan.role in GUESTS:
            return call(self._lab, self._plan.role, ["test", "-e", f"{FAULTS}/{FIRED}"]).status == 0
        return super().met()

    def revive(self, role: str) -> None:
        """See the base. An agent that died is being started again already; one that hangs is not."""
        if role in GUESTS:
            if self._plan.action == "hang":
                check(self._lab, role, "lab-service", "kill", "onelun")
            with Presence(record.read(self._lab)["url"]) as presence:
                wait_until(lambda: presence.has(role), f"the agent of {role} should answer", _ANSWER_S)
            return
        place = front(self._lab)
        if process := recorded(place, role):
            process.kill()
            wait_until(lambda: not process.alive(), f"the {role} should end", _ANSWER_S)
        if os.path.lexists(place.frontend_socket):
            os.unlink(place.frontend_socket)
        start_frontend(self._lab)
        wait_until(lambda: listens(place.frontend_socket), f"the {role} should answer", _ANSWER_S)

    def note(self) -> None:
        """See the base."""
        super().note()
        for host in GUESTS:
            check(self._lab, host, "sh", "-c", 'umask 0; : >"$0"', f"{FAULTS}/{PASSED}")

    def noted(self) -> list[str]:
        """See the base; what each role noted, one role after the other."""
        lines = super().noted()
        for host in GUESTS:
            lines += check(self._lab, host, "sh", "-c", 'cat "$0"; rm "$0"', f"{FAULTS}/{PASSED}").splitlines()
        return lines

    def stray(self, found: State) -> str:
        """Of guests, `leftovers` tells."""
        return ""

    def log(self, role: str) -> str:
        """See the base."""
        if role in GUESTS:
            return check(self._lab, role, "tail", "-n", "200", "/var/log/onelun.log")
        return super().log(role)


class LabCloud(Cloud):
    """One lab, and its oned. For a process within the lab's namespaces."""

    def __init__(self, lab: Lab, oned: Oned, backups: Backupstore) -> None:
        super().__init__(front(lab), oned, backups)
        self.lab = lab
        self.faulted = LabFaulted(lab)

    def _scribble(self, scribble: Scribble) -> None:
        """As a VM does that has the volume; else on the NAS."""
        link = f"/dev/onelun/{NAS}/{POOL}/{scribble.volume}"
        host = next((node for node in NODES if call(self.lab, node, ["test", "-e", link]).status == 0), NAS)
        where = ("put", link) if host != NAS else ("write", GROUP, scribble.volume)
        check(self.lab, host, *_SEEN, *where, str(MIB), stdin=drawn(scribble))

    def state(self) -> State:
        """What is there now: past all caches, and whether hosts read the same. Unreadable while that cannot be told."""
        with ThreadPoolExecutor(len(GUESTS)) as pool:
            seen = dict(zip(GUESTS, pool.map(self._seen, GUESTS), strict=True))
        nas = seen[NAS]
        left = [*map(str, nas["left"]), *os.listdir(self.place.path("frontend", "staging"))]
        owner = self.place.frontend_uid
        entries = {(FRONT_END, name): value for name, value in entries_of(Path(self.place.datastores), owner)}
        devices = set()
        volumes = {name: Volume(**volume) for name, volume in nas["volumes"].items()}
        for node in NODES:
            left += [f"{node}: {what}" for what in seen[node]["left"]]
            for path, value, uid in seen[node]["entries"]:
                entries[node, path] = value if uid == owner else f"{value} of user {uid}"
            for name, (size, content) in seen[node]["disks"].items():
                devices.add((name, node))
                volume = volumes.get(name)
                if volume and (volume.size_bytes, volume.content) != (size, content):
                    left.append(f"missing: {name} is other on {node}: {size} bytes, {content}")
        exports = frozenset((name, host) for name, host in nas["exports"])
        return State(volumes, exports, frozenset(devices), entries, tuple(sorted(left)))

    def _seen(self, host: str) -> dict[str, Any]:
        words = ("nas", GROUP) if host == NAS else ("host", self.place.datastores)
        done = call(self.lab, host, [*_SEEN, *words], limit_s=_LOOK_S)
        if done.status:
            raise Unreadable(f"{host} cannot be looked at: {done.stderr.decode(errors='replace').splitlines()[-1:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found
