"""Running an action without the frontend: this process becomes the installed interpreter, which runs the same function.

It is a hundred times what the stub costs, so only a few do it at once, and only when nothing was sent to a frontend.
"""

import _socket
import errno
import posix
import time

from stub import say

# The checkout's, found from here, then the one that install.sh makes.
PYTHONS = ("/../../.venv/bin/python", "/opt/onelun/venv/bin/python")
SLOTS = 4
RETRY_S = 0.25


def become(action: str, arguments: "list[str]", deadline: float, why: str) -> int:
    """Exec the interpreter for `action`, with stdin as it is; return a status only when that cannot be.

    `why` says why the frontend does not do it. `deadline` is a moment of the monotonic clock.
    """
    here = __file__.rpartition("/")[0] or "."
    candidates = [here + PYTHONS[0], *PYTHONS[1:]]
    python = next((path for path in candidates if posix.access(path, posix.X_OK)), None)
    if python is None:
        say(f"onelun-frontend does not run the action ({why}) and no interpreter of onelun is installed")
        return 1
    if not _take_slot(here, deadline):
        say(f"onelun-frontend does not run the action ({why}) and {SLOTS} others run without it already")
        return 1
    argv = [python, "-I", "-m", "onelun.cli.main", "action", "--", action]
    posix.execve(python, argv + arguments, posix.environ)
    return 1


def _take_slot(directory: str, deadline: float) -> bool:
    """Wait for one of the slots of the scripts in `directory`; it is kept across exec, until the interpreter ends.

    A slot is an abstract address of a unix socket (unix(7)): one process has it, the kernel frees it, and unlike a lock it
    needs no file, which would stay behind, or, on NFS, would have to be open for writing.
    """
    found = posix.stat(directory)
    while time.monotonic() < deadline:
        for number in range(SLOTS):
            slot = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                slot.bind(b"\0onelun-direct-%d-%d-%d-%d" % (posix.getuid(), found.st_dev, found.st_ino, number))
            except OSError as error:
                slot.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                posix.set_inheritable(slot.detach(), True)  # noqa: FBT003 - it takes no keywords
                return True
        time.sleep(RETRY_S)
    return False
