"""Which local files may be registered as images, and opening one so that it cannot be exchanged meanwhile.

SAFE_DIRS and RESTRICTED_DIRS mean what they mean in OpenNebula's datastore_mad/remotes/libfs.sh: a safe directory wins,
then a restricted one forbids, and the directories of OpenNebula and of its user are always restricted. Here so are those
that hold the system's own files. Prefixes are compared by whole components, not as text.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat

from onelun.driver.document import Datastore
from onelun.errors import NotFound, Rejected

_SYSTEM = ("/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/var/lib/one", "/var/lib/onelun")


def open_image(path: str, datastore: Datastore, also_restricted: tuple[str, ...] = ()) -> int:
    """A descriptor of the regular file at `path`, all links followed; the caller closes it.

    What was opened is judged by where it really is, as the kernel tells it of the descriptor, so that a link which
    changes in between changes nothing. Raises Rejected for a file that may not be registered, cannot be read or is none,
    NotFound when there is none.
    """
    if "://" in path:
        raise Rejected(
            f"{path.partition('://')[0][:20]}:// is no kind of PATH that is supported: use a path, http or https"
        )
    if not path.startswith("/") or "\0" in path:
        raise Rejected(f"PATH is {path[:200]!r}, which is no absolute path")
    restricted = (*_SYSTEM, *_home(), *also_restricted, *datastore.restricted_dirs)
    try:
        # A link that goes away while it is read is an error here as well.
        real = os.path.realpath(path)
        _check(real, path, datastore.safe_dirs, restricted)
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist on the front-end") from None
    except OSError as error:
        raise Rejected(f"{path} cannot be read by user {os.getuid()}: {error.strerror}") from error
    try:
        _check(os.readlink(f"/proc/self/fd/{descriptor}"), path, datastore.safe_dirs, restricted)
        _check_kind(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(real: str, path: str, safe: tuple[str, ...], restricted: tuple[str, ...]) -> None:
    if any(_is_in(real, directory) for directory in safe):
        return
    for directory in restricted:
        if _is_in(real, directory):
            where = path if real == path else f"{path} ({real})"
            raise Rejected(
                f"{where} is in {directory}, from which no image may be registered (RESTRICTED_DIRS, SAFE_DIRS)"
            )


def _check_kind(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise Rejected(f"{path} is a directory, not an image")
    if not stat.S_ISREG(found.st_mode):
        raise Rejected(f"{path} is no regular file")
    if found.st_size == 0:
        raise Rejected(f"{path} is empty")


def _is_in(path: str, directory: str) -> bool:
    root = os.path.realpath(directory)
    return root == "/" or path == root or path.startswith(f"{root}/")


def _home() -> tuple[str, ...]:
    with contextlib.suppress(KeyError):
        home = pwd.getpwuid(os.getuid()).pw_dir
        if home.strip("/"):
            return (home,)
    return ()
