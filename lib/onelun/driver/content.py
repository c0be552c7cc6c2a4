"""The content of an image to be: a file, a URL or a disk in a backup, its checksums compared, unpacked where it is compressed.

A local file that is not compressed is read where it is. What is downloaded or unpacked is staged first (in
`frontend.staging`, holes kept): its size must be known before the volume is made, its format before it is read, and its
checksum before anybody may use it.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
from collections.abc import AsyncIterator, Iterator

from onelun.driver.backupstore import check_datastore, fetch, is_in_backup
from onelun.driver.document import Datastore, Image
from onelun.driver.formats import HEAD_BYTES, Format, check_intact, compression_of, filename, inspect
from onelun.driver.permitted import open_image
from onelun.driver.running import Run
from onelun.driver.staging import checksum, download, staged, unpack
from onelun.errors import Rejected

_URL = re.compile(r"https?://[\x21-\x7e]{1,2000}")
# Its tables alone are read: seconds for a terabyte.
_CHECK_S = 900.0
_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64}


class Content:
    """An open file that holds a disk of `size_bytes` in `format`."""

    def __init__(self, descriptor: int, format_: Format, size_bytes: int) -> None:
        self.descriptor = descriptor
        self.format = format_
        self.size_bytes = size_bytes
        self._before = _stamp(descriptor)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
        """See importing.Given."""
        yield filename(self.descriptor, self.format), (), (self.descriptor,)

    def check_unchanged(self) -> None:
        """Raise Rejected when somebody wrote to the file since it was inspected: what was read is not what was judged."""
        if _stamp(self.descriptor) != self._before:
            raise Rejected("the image's file was changed while it was read: nothing was registered")


@contextlib.asynccontextmanager
async def open_content(run: Run, image: Image, datastore: Datastore) -> AsyncIterator[Content]:
    """The content of `image`, while the body runs; nothing staged is left afterwards.

    Raises Rejected for what may not or cannot be registered, NotFound, CommandFailed for a URL that cannot be read.
    """
    limit = run.config.max_image_gib
    with contextlib.ExitStack() as stack:
        if is_url(image.path):
            descriptor = stack.enter_context(staged(run.config.staging))
            run.progress(f"downloading image {image.id}")
            await download(image.path, descriptor, limit)
        elif is_in_backup(image.path):
            check_datastore(image.path, image.from_backup)
            descriptor = stack.enter_context(staged(run.config.staging))
            run.progress(f"fetching image {image.id} from a backup")
            await fetch(run, image.path, descriptor)
        else:
            descriptor = open_image(image.path, datastore, (run.config.datastores,))
            stack.callback(os.close, descriptor)
        given = _stamp(descriptor)
        await _check_sums(descriptor, image.sums)
        tool = None if datastore.no_decompress else compression_of(os.pread(descriptor, HEAD_BYTES, 0))
        if tool is not None:
            plain = stack.enter_context(staged(run.config.staging))
            run.progress(f"unpacking image {image.id} by {tool}")
            await unpack(tool, descriptor, plain, limit)
            if compression_of(os.pread(plain, HEAD_BYTES, 0)):
                raise Rejected("the image is compressed twice: unpack it first")
            if _stamp(descriptor) != given:
                raise Rejected("the image's file was changed while it was read: nothing was registered")
            descriptor = plain
        inspected = await inspect(descriptor, limit)
        await check_intact(descriptor, inspected.format, _CHECK_S)
        content = Content(descriptor, inspected.format, inspected.size_bytes)
        if tool is None and _stamp(descriptor) != given:
            raise Rejected("the image's file was changed while it was read: nothing was registered")
        yield content


def is_url(path: str) -> bool:
    """Whether PATH is on the web. Raises Rejected for a URL with characters that no URL has."""
    if not path.startswith(("http://", "https://")):
        return False
    if not _URL.fullmatch(path):
        raise Rejected("PATH is no URL: it has blanks or other characters that must be encoded")
    return True


async def _check_sums(descriptor: int, sums: dict[str, str]) -> None:
    """Compare the file as it was given with every checksum of IMAGE/TEMPLATE."""
    for algorithm, wanted in sums.items():
        if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[algorithm]}}}", wanted):
            raise Rejected(f"{algorithm.upper()} of the image's template is no {algorithm.upper()} checksum")
        found = await checksum(descriptor, algorithm)
        if not hmac.compare_digest(found, wanted):
            raise Rejected(f"the {algorithm.upper()} checksum of the file is {found}, not {wanted}")


def _stamp(descriptor: int) -> tuple[int, int, int]:
    # ctime cannot be set back by whoever owns the file.
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
