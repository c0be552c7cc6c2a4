"""What OpenNebula may ask a new image or a volatile disk to be formatted with."""

from __future__ import annotations

from onelun.errors import Rejected
from onelun.model import Filesystem

# An image that disk-saveas makes says "save_as" where its format would be (src/image/Image.cc, all releases): what it gets is
# told by the disk. Up to 5.12 the format and the filesystem share one word.
_RAW = ("", "raw", "save_as")
# mkfs.fat's other names, which OpenNebula's users write.
_ALSO = {"fat": Filesystem.VFAT, "fat32": Filesystem.VFAT}


def parse_filesystem(text: str, what: str) -> Filesystem | None:
    """The filesystem of that name; None for none. Raises Rejected, naming those there are; `what` is where it stood."""
    word = text.strip().lower()
    if word in _RAW:
        return None
    if word in _ALSO:
        return _ALSO[word]
    try:
        return Filesystem(word)
    except ValueError:
        raise Rejected(f"{what} is {text[:40]!r}, which is none of raw, {', '.join(Filesystem)}") from None


def check_format(text: str, what: str) -> None:
    """Raise Rejected for an image or a disk that is to be anything else than raw."""
    if text.strip().lower() not in _RAW:
        raise Rejected(f"{what} is {text[:40]!r}, and a volume of onelun is always raw: set it to raw")
