"""The action export: an image as a file on the front-end, which a marketplace takes from there.

OpenNebula's marketplace drivers remove the file when they are told to dispose of it; not all of them do, so that what is
left is removed by a later export.
"""

from __future__ import annotations

import contextlib
import html
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from onelun import command
from onelun.driver.document import ActionData
from onelun.driver.reading import VolumeContent, volume_content
from onelun.driver.running import Run
from onelun.driver.staging import checksum
from onelun.errors import CommandFailed, Rejected
from onelun.naming import parse_source

MIB = 1 << 20
_PREFIX = "onelun-export-"
# An upload that has not ended by then has failed.
_KEPT_S = 2 * 86400.0


async def export(run: Run) -> str:
    """Print where the image's content is, as a qcow2 file, with its size in MB and its MD5: one line of XML."""
    image = ActionData(run.arguments.document or b"").image()
    if not image.source:
        raise Rejected("OpenNebula's document has no IMAGE/SOURCE, or an empty one: there is nothing to export")
    source = parse_source(image.source)
    _remove_old(run.config.staging)
    async with volume_content(run, source) as content:
        with _file(run.config.staging) as path:
            await _write(run, content, path)
            with path.open("rb") as file:
                md5 = await checksum(file.fileno(), "md5")
    run.note(f"exported {source} to {path}")
    facts = {
        "IMPORT_SOURCE": str(path),
        "MD5": md5,
        "SIZE": str(-(-content.size_bytes // MIB)),
        "FORMAT": "qcow2",
        "DISPOSE": "YES",
        "DISPOSE_CMD": f"rm -f {shlex.quote(str(path))}",
    }
    body = "".join(f"<{name}>{html.escape(value)}</{name}>" for name, value in facts.items())
    return f"<IMPORT_INFO>{body}</IMPORT_INFO>\n"


async def _write(run: Run, content: VolumeContent, path: Path) -> None:
    with content.opened() as (name, objects, descriptors):
        await command.run(
            *("setpriv", "--pdeathsig", "KILL", "qemu-img", "convert", "-O", "qcow2"),
            *objects,
            name,
            str(path),
            timeout_s=run.deadline.left_s(),
            called="qemu-img",
            pass_fds=descriptors,
        )


@contextlib.contextmanager
def _file(staging: str) -> Iterator[Path]:
    """A file of one's own, which stays when the body succeeds. Raises Rejected when it cannot be made."""
    try:
        descriptor, name = tempfile.mkstemp(".qcow2", _PREFIX, staging)
    except OSError as error:
        raise Rejected(f"no file can be made in {staging} (frontend.staging): {error.strerror}") from error
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    except CommandFailed as error:
        path.unlink(missing_ok=True)
        raise CommandFailed(f"the image cannot be written to {staging} (frontend.staging): {error.sentence}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _remove_old(staging: str) -> None:
    for path in Path(staging).glob(f"{_PREFIX}*.qcow2"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < time.time() - _KEPT_S:
                path.unlink()
