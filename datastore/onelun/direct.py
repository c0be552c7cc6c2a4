"""Running an action without the frontend: this process becomes the installed interpreter, which runs the same function.

It is a hundred times what the stub costs, so only a few do it at once, and only when nothing was sent to a frontend.
"""

import fcntl
import posix
import time

from stub import TrustError, say, shown

# The checkout's, found from here, then the one that install.sh makes.
PYTHONS = ("/../../.venv/bin/python", "/usr/lib/onelun/venv/bin/python")
SLOTS = 4
RETRY_S = 0.25


def become(action: str, arguments: "list[str]", socket: bytes, deadline: float, why: str) -> int:
    """Exec the interpreter for `action`, with stdin as it is; return a status only when that cannot be.

    `why` says why the frontend does not do it. `socket` is its path and `deadline` a moment of the monotonic clock.
    """
    here = __file__.rpartition("/")[0] or "."
    candidates = [here + PYTHONS[0], *PYTHONS[1:]]
    python = next((path for path in candidates if posix.access(path, posix.X_OK)), None)
    if python is None:
        say(f"onelun-frontend does not run the action ({why}) and no interpreter of onelun is installed")
        return 1
    if not _take_slot(_directory(socket), deadline):
        say(f"onelun-frontend does not run the action ({why}) and {SLOTS} others run without it already")
        return 1
    argv = [python, "-I", "-m", "onelun.cli.main", "action", "--", action]
    posix.execve(python, argv + arguments, posix.environ)
    return 1


def _take_slot(directory: bytes, deadline: float) -> bool:
    """Wait for one of the locks; it is kept across exec, until the interpreter ends."""
    while time.monotonic() < deadline:
        for number in range(SLOTS):
            path = directory + b"/direct.%d.lock" % number
            slot = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                posix.close(slot)
            else:
                fcntl.fcntl(slot, fcntl.F_SETFD, 0)
                return True
        time.sleep(RETRY_S)
    return False


def _directory(socket: bytes) -> bytes:
    """The socket's directory, or one of our own in /tmp where that is not ours."""
    directory = socket.rpartition(b"/")[0] or b"/"
    try:
        if _is_ours(directory):
            return directory
    except OSError:
        pass  # there is none, which is why nobody listens
    directory = b"/tmp/onelun-%d" % posix.getuid()
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        if not _is_ours(directory):
            raise TrustError(f"{shown(directory)} is not a directory of our own") from None
    return directory


def _is_ours(directory: bytes) -> bool:
    found = posix.lstat(directory)
    return found.st_uid == posix.getuid() and found.st_mode & 0o170077 == 0o040000
