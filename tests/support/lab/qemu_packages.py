"""Debian packages of QEMU guests: which exact versions there are, and how to unpack many without installing any."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.support.lab.place import LabError
from tests.support.lab.root import PackageIndex
from tests.support.sandbox.processes import run

_IMAGE = "linux-image-"
# `Inst zfs-dkms (2.1.11-1+deb12u1 Debian:12/oldstable [all])`: apt-get --simulate.
_PLANNED = re.compile(r"Inst (\S+) (?:\[\S+\] )?\((\S+) ")
# dpkg-deb -x would replace /lib, which is a link, by a directory.
_UNPACK = 'for archive; do dpkg-deb --fsys-tarfile "$archive" | tar -xp --keep-directory-symlink -C "$0" || exit; done'


@dataclass(frozen=True)
class PackageVersions:
    """Exact versions of packages, among them one kernel image."""

    versions: Mapping[str, str]

    @property
    def release(self) -> str:
        """The kernel's release as `uname -r` says it, such as 6.1.0-56-cloud-amd64."""
        found = [name for name in self.versions if re.match(rf"{_IMAGE}\d", name)]
        if len(found) != 1:
            raise LabError(f"one kernel image was expected among the packages, not {', '.join(found) or 'none'}")
        return found[0].removeprefix(_IMAGE)

    @property
    def kernel(self) -> str:
        """The exact version of its package."""
        return self.versions[_IMAGE + self.release]

    def of(self, package: str) -> str:
        """The version of a package."""
        if package not in self.versions:
            raise LabError(f"the package sources of this machine have no {package}")
        return self.versions[package]


def parse_versions(lines: Iterable[str]) -> PackageVersions:
    """From what `apt-get --simulate install` plans."""
    matches = (_PLANNED.match(line) for line in lines)
    return PackageVersions({match[1]: match[2] for match in matches if match})


def extract(index: PackageIndex, packages: Sequence[str], root: str) -> None:
    """Unpack `packages` and all they depend on below `root`, a fresh directory; nothing of them is run."""
    archives = os.path.join(root, "archives")
    os.makedirs(os.path.join(archives, "partial"))
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(os.path.join(root, "usr", name))
        os.symlink(f"usr/{name}", os.path.join(root, name))
    for name in ("proc", "dev", "tmp"):
        os.mkdir(os.path.join(root, name))
    options = ("-o", f"Dir::Cache::archives={archives}", "--no-install-recommends", "--download-only")
    index.apt("install", *options, *packages, timeout_s=900)
    found = [entry.path for entry in os.scandir(archives) if entry.name.endswith(".deb")]
    run("sh", "-c", _UNPACK, root, *found, timeout_s=300)
    for path in found:
        os.unlink(path)
