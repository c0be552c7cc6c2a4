"""Image files: of every format and compression that is registered, and hostile and broken ones that are not."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import subprocess
from pathlib import Path

MIB = 1 << 20


def converted(disk: Path, format_: str) -> Path:
    if format_ == "raw":
        return disk
    path = disk.with_suffix(f".{format_}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format_, str(disk), str(path)], check=True, timeout=60)
    return path


def pack(disk: Path, tool: str) -> Path:
    path = disk.with_suffix({"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}[tool])
    with path.open("wb") as file:
        subprocess.run([tool, "-c", str(disk)], stdout=file, check=True, timeout=60)
    return path


def backed(disk: Path) -> Path:
    path = disk.with_name("backed.qcow2")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", str(path), "64M"], check=True
    )
    return path


def elsewhere(disk: Path) -> Path:
    path = disk.with_name("elsewhere.qcow2")
    data = disk.with_name("data.raw")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", str(path), "64M"],
        check=True,
    )
    return path


def encrypted(disk: Path) -> Path:
    """qemu-img takes seconds to make an encrypted image, and fails on a busy machine; the header's method tells it all."""
    path = converted(disk, "qcow2")
    content = bytearray(path.read_bytes())
    content[32:36] = struct.pack(">I", 2)
    path.write_bytes(content)
    return path


def bomb(disk: Path) -> Path:
    path = disk.with_name("bomb.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", str(path), "60T"], check=True)
    return path


def zip_bomb(disk: Path) -> Path:
    path = disk.with_name("bomb.gz")
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(1030):
            file.write(bytes(MIB))
    return path


def flat_vmdk(disk: Path) -> Path:
    path = disk.with_name("flat.vmdk")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", str(path), "4M"], check=True
    )
    return path


def capacity_free_vmdk(disk: Path) -> Path:
    """A sparse vmdk whose header has no capacity: QEMU then reads the list of files that its descriptor holds."""
    path = converted(disk, "vmdk")
    content = bytearray(path.read_bytes())
    content[12:20] = bytes(8)
    path.write_bytes(content)
    return path


def child_vmdk(disk: Path) -> Path:
    path = converted(disk, "vmdk")
    content = path.read_bytes().replace(b"parentCID=ffffffff", b"parentCID=12345678", 1)
    assert b"12345678" in content
    path.write_bytes(content)
    return path


def corrupt(disk: Path) -> Path:
    path = converted(disk, "qcow2")
    content = bytearray(path.read_bytes())
    content[40:48] = struct.pack(">Q", 1 << 60)
    path.write_bytes(content)
    return path


def short(disk: Path) -> Path:
    path = converted(disk, "qcow2")
    os.truncate(path, path.stat().st_size - MIB)
    return path


def cut_off(disk: Path) -> Path:
    path = pack(disk, "xz")
    os.truncate(path, path.stat().st_size // 2)
    return path


def packed_twice(disk: Path) -> Path:
    path = disk.with_name("twice.gz")
    path.write_bytes(gzip.compress(bz2.compress(b"x" * 100)))
    return path


def empty(disk: Path) -> Path:
    path = disk.with_name("empty")
    path.touch()
    return path


def directory(disk: Path) -> Path:
    path = disk.with_name("directory")
    path.mkdir()
    return path


def pipe(disk: Path) -> Path:
    path = disk.with_name("pipe")
    os.mkfifo(path)
    return path


def missing(disk: Path) -> Path:
    return disk.with_name("missing")
