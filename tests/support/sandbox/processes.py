"""The processes of a sandbox: started with a mark, and found again by it, whoever was killed in between."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.sandbox.place import MARK, Place, SandboxError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MARKED = re.compile(r"onelun-sandbox-(\d+):(\S+)")


@dataclass(frozen=True)
class Process:
    """A running process; `started` (clock ticks since boot) tells it from a later one of the same pid."""

    pid: int
    started: int
    name: str

    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        found = _look(self.pid)
        return found is not None and found.started == self.started

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """Signal it, unless it is gone."""
        if self.alive():
            try:
                os.kill(self.pid, sign)
            except ProcessLookupError:
                return


def _look(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), name)


def look(pid: int) -> Process:
    """The running process `pid`; SandboxError when there is none."""
    found = _look(pid)
    if found is None:
        raise SandboxError(f"process {pid} is gone")
    return found


def _environment_mark(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            match = re.search(rb"(?:^|\0)" + MARK.encode() + rb"=([^\0]+)", file.read())
    except OSError:
        return None
    return match[1].decode() if match else None


def _namespace_mark(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/mountinfo") as file:
            match = _MARKED.search(file.read())
    except OSError:
        return None
    return match[0] if match else None


def marked() -> dict[Process, Place]:
    """Every process of every sandbox on this machine.

    A process is a sandbox's when its environment says so, or when it lives in a mount namespace that the sandbox made:
    there a mount's source is the mark, whatever the process did to its environment.
    """
    namespaces: dict[str, str | None] = {}
    found: dict[Process, Place] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        pid = int(entry)
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
        except OSError:
            continue
        if namespace not in namespaces:
            namespaces[namespace] = _namespace_mark(pid)
        match = _MARKED.fullmatch(namespaces[namespace] or _environment_mark(pid) or "")
        process = _look(pid) if match else None
        if match and process:
            found[process] = Place(int(match[1]), match[2])
    return found


def members(place: Place) -> list[Process]:
    """The processes of one sandbox."""
    return [process for process, its in marked().items() if its == place]


def stubs(place: Place) -> list[Process]:
    """The actions under way that somebody called by hand against this sandbox; the shell that called them is not its."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                is_stub = re.search(rb"/(?:datastore|tm)/onelun/[a-z]+\0", file.read()) is not None
            with open(f"/proc/{entry}/environ", "rb") as file:
                is_ours = f"\0ONELUN_SOCKET={place.dir}/".encode() in b"\0" + file.read()
        except OSError:
            continue
        process = _look(int(entry)) if is_stub and is_ours and entry.isdigit() else None
        if process:
            found.append(process)
    return found


def start(
    place: Place,
    name: str,
    argv: Sequence[str],
    *,
    inside: int | None = None,
    uid: int | None = None,
    env: dict[str, str] | None = None,
    stdin: socket.socket | None = None,
) -> Process:
    """Start `argv` for good, with its output in a log, in the namespaces of process `inside` and as user `uid`.

    Its pid is kept in the sandbox's directory as `pids/NAME`.
    """
    command = list(argv)
    if uid is not None:
        command = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--", *command]
    if inside is not None:
        command = [*enter(inside), *command]
    with open(place.log(name), "ab") as log:
        # It outlives us on purpose: `down` finds it by its mark.
        child = subprocess.Popen(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", MARK: place.mark, **(env or {})},
        )
    return keep_pid(place, name, child.pid)


def enter(inside: int) -> tuple[str, ...]:
    """What to put before a command that is to run on the host whose namespaces process `inside` has."""
    return ("nsenter", "-t", str(inside), "-n", "-m", "--")


def keep_pid(place: Place, name: str, pid: int) -> Process:
    """Note in the sandbox's directory that `pid` is its `name`."""
    process = look(pid)
    with open(place.path("pids", name), "w") as file:
        file.write(f"{process.pid} {process.started}\n")
    return process


def recorded(place: Place, name: str) -> Process | None:
    """The process that was started as `name`, when it still runs."""
    try:
        with open(place.path("pids", name)) as file:
            pid, started = (int(word) for word in file.read().split())
    except (OSError, ValueError):
        return None
    found = _look(pid)
    return found if found and found.started == started else None


def wait_until(true: Callable[[], bool], what: str, limit_s: float, *, needs: Process | None = None) -> None:
    """Wait for `true()`; SandboxError after `limit_s`, or as soon as the process it `needs` has ended."""
    end = time.monotonic() + limit_s
    while not true():
        if needs is not None and not needs.alive():
            raise SandboxError(f"{what}: it ended instead")
        if time.monotonic() > end:
            raise SandboxError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.02)


def run(*argv: str, timeout_s: float = 60, check: bool = True, stdin: str | None = None) -> str:
    """Run a tool and return its stdout. SandboxError, with its words, when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin)
    except subprocess.TimeoutExpired:
        raise SandboxError(f"{' '.join(argv[:3])} did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise SandboxError(f"cannot run {argv[0]}: {error.strerror}") from error
    if check and done.returncode:
        raise SandboxError(f"{' '.join(argv)} failed: {' '.join(done.stderr.split()) or 'no message'}")
    return done.stdout
