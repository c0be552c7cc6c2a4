"""Commands in a throw-away root: without network, and gone with whoever waits for them, their mounts too."""

from __future__ import annotations

from tests.support.lab.place import LabError
from tests.support.sandbox.place import SandboxError
from tests.support.sandbox.processes import run

_APART = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child")
_IN_ROOT = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" /bin/sh -c "$@"'


def run_in(root: str, script: str, *arguments: str, what: str, limit_s: float) -> None:
    """Run the shell script in the root, which keeps a log in /tmp/log. LabError with the log's end, beginning with `what`."""
    try:
        run(*_APART, "sh", "-c", _IN_ROOT, root, script, "in-root", *arguments, timeout_s=limit_s)
    except SandboxError as error:
        with open(f"{root}/tmp/log", errors="replace") as file:
            end = " | ".join(file.read().splitlines()[-6:])
        raise LabError(f"{what}: {end}") from error
