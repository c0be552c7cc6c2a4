"""OpenNebula's own side of backups: where their files lie on a host, and its datastores that keep them.

Those are drivers of OpenNebula's, which the front-end's user runs: `ls` tells where each disk of a backup is, and
`downloader.sh` fetches one, put together from its increments.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

from onelun import command
from onelun.driver.running import Run
from onelun.driver.staging import fill_from
from onelun.errors import CommandFailed, NotFound, ProtocolError, Rejected

_SETTING = re.compile(r"\s*(?:export\s+)?BACKUP_BASE_PATH\s*=\s*([\"']?)([^\"'\n]+?)\1\s*")
_DRIVER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_DISK = re.compile(r"[0-9]{1,6}")
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[\x21-\x7e]{1,3900}")
# What restic's and rsync's drivers make; with +rbd it is an archive of Ceph's.
_SCHEMES = ("restic://", "rsync://", "restic+rbd://", "rsync+rbd://")
_LS_S = 300.0
# What OpenNebula's scripts need to reach its hosts, its API and its own files.
_ENVIRONMENT = (
    "HOME",
    "USER",
    "LOGNAME",
    "SSH_AUTH_SOCK",
    "ONE_LOCATION",
    "ONE_AUTH",
    "ONE_XMLRPC",
    "RUBYLIB",
    "GEM_PATH",
)


def is_in_backup(path: str) -> bool:
    """Whether PATH of an image is a disk in one of OpenNebula's backup datastores (`oneimage restore` makes such images)."""
    return path.startswith(_SCHEMES)


def check_datastore(path: str, datastore_id: int | None) -> None:
    """Raise Rejected unless `path` is in the backups of that datastore, which IMAGE/TEMPLATE/FROM_BACKUP_DS names.

    OpenNebula's restore writes both (its lib/backup_image.rb), and oned lets the backups' own driver say that there is such a
    disk then. What a user asks for without it would be fetched with the rights of the front-end's user, asked by nobody.
    """
    if datastore_id is None:
        raise Rejected(
            f"{path.partition('://')[0]}:// is taken only of an image that OpenNebula restores (FROM_BACKUP_DS): use"
            " `oneimage restore`"
        )
    if path.partition("://")[2].partition("/")[0] != str(datastore_id):
        raise Rejected(f"PATH {path[:80]!r} is not in the backups of datastore {datastore_id} (FROM_BACKUP_DS)")


def base_path(remotes: str) -> str | None:
    """BACKUP_BASE_PATH of OpenNebula's datastore.conf: where all backups' files lie on hosts, if not in VMs' directories."""
    try:
        text = Path(remotes, "etc/datastore/datastore.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # OpenNebula's drivers go on without it, too.
        return None
    found = None
    for line in text.splitlines():
        match = _SETTING.fullmatch(line)
        found = match[2] if match else found
    return found


async def disks_of(run: Run, ds_mad: str, increment: int, documents: str) -> dict[int, str]:
    """Where each disk of a backup is, by the disk's id; `increment` -1 is the last one.

    `documents` are those of the datastore, the VM and the image. Raises Rejected for a datastore without a driver,
    CommandFailed, ProtocolError.
    """
    if not _DRIVER.fullmatch(ds_mad):
        raise Rejected(f"the backup's datastore has the driver {ds_mad[:40]!r}, which is no name of one")
    script = f"{run.config.remotes}/datastore/{ds_mad}/ls"
    if not os.path.exists(script):
        raise Rejected(f"there is no {script}: the driver {ds_mad} cannot list backups (frontend.remotes)")
    text = f"<DS_DRIVER_ACTION_DATA>{documents}</DS_DRIVER_ACTION_DATA>"
    result = await command.run(
        script,
        *("-i", str(increment)),
        timeout_s=min(_LS_S, run.deadline.left_s()),
        called=f"{ds_mad}/ls",
        stdin=text.encode(),
        env=_environment(),
    )
    try:
        told = json.loads(result.stdout)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{ds_mad}/ls printed no list of disks") from error
    if not isinstance(told, dict):
        raise ProtocolError(f"{ds_mad}/ls printed no list of disks")
    return {int(disk): _url(ds_mad, url) for disk, url in told.items() if _DISK.fullmatch(disk)}


async def fetch(run: Run, url: str, descriptor: int) -> None:
    """Write the disk at that URL into the open file.

    Raises Rejected for what is no such URL, NotFound without OpenNebula's downloader, CommandFailed.
    """
    if not _is_url(url):
        raise Rejected(f"{url[:80]!r} is no URL of a disk in a backup")
    script = f"{run.config.remotes}/datastore/downloader.sh"
    if not os.path.exists(script):
        raise NotFound(f"there is no {script} to fetch backups with (frontend.remotes)")
    pipe = await command.pipe(
        "setpriv",
        "--pdeathsig",
        "KILL",
        script,
        "--nodecomp",
        url,
        "-",
        env=_environment(),
        stdin=asyncio.subprocess.DEVNULL,
    )
    await fill_from(pipe, descriptor, run.config.max_image_gib, f"the backup cannot be read from {url[:200]}")
    if os.fstat(descriptor).st_size == 0:
        raise CommandFailed(f"the backup at {url[:200]} is empty")


def _url(ds_mad: str, url: object) -> str:
    if not isinstance(url, str) or not _is_url(url):
        raise ProtocolError(f"{ds_mad}/ls names a disk at {str(url)[:80]!r}, which is no URL")
    return url


def _is_url(text: str) -> bool:
    # It becomes a word of a shell in OpenNebula's downloader.
    return _URL.fullmatch(text) is not None and not any(sign in text for sign in "'\"`$;&|<>\\(){}*?!")


def _environment() -> dict[str, str]:
    return {name: value for name in _ENVIRONMENT if (value := os.environ.get(name))}
