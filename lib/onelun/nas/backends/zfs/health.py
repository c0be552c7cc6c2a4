"""Whether a pool can be used, in sentences that say what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVarTuple, Unpack

from onelun.errors import CommandFailed, Conflict, NotFound, OnelunError, Rejected
from onelun.nas.backends import rules
from onelun.nas.backends.zfs.command import Missing, Zfs
from onelun.nas.backends.zfs.properties import AGENT, CLOUD, Facts
from onelun.nas.backends.zfs.tree import Gone, Seen, Tree

_UDEV = "/run/udev/control"
_NO_UDEV = "no udev runs here, so that no zvol appears below /dev/zvol: start udev"
_WORKING = ("ONLINE", "DEGRADED")


class Health:
    """Looks at one pool."""

    def __init__(self, zfs: Zfs, tree: Tree) -> None:
        self._zfs = zfs
        self._tree = tree

    async def usable(self) -> Seen:
        """The pool, when volumes can be made in it. Raises NotFound, Rejected, CommandFailed: one sentence each."""
        health, readonly = await self._zpool()
        if readonly == "on":
            raise Rejected(
                f"zpool {self._zfs.zpool} of pool {self._zfs.pool} is imported read-only: {self._reimport()}"
            )
        if health not in _WORKING:
            raise CommandFailed(
                f"zpool {self._zfs.zpool} of pool {self._zfs.pool} is {health}:"
                f" see zpool status {self._zfs.zpool}, bring its disks back, then run: zpool clear {self._zfs.zpool}",
                command="zpool",
            )
        seen = await self._look()
        self._check_settings(seen.pool)
        return seen

    async def check(self, agent: str, cloud: str | None) -> list[str]:
        """Everything that stands in the way, or soon will."""
        found = [] if os.path.exists(_UDEV) else [_NO_UDEV]
        try:
            seen = await self.usable()
        except OnelunError as error:
            return [*found, error.sentence]
        owner, serves = seen.pool.user(AGENT), seen.pool.user(CLOUD)
        found += _refusal(rules.check_owner, self._zfs.pool, owner, agent)
        found += _refusal(rules.check_cloud, self._zfs.pool, serves, cloud)
        health, _ = await self._zpool()
        if health == "DEGRADED":
            found.append(f"zpool {self._zfs.zpool} is degraded: see zpool status {self._zfs.zpool}, replace the disk")
        remedy = f"add disks with zpool add {self._zfs.zpool}, or raise the quota of {self._zfs.dataset}"
        return [*found, *rules.near_full(self._zfs.pool, seen.capacity(), remedy)]

    async def _zpool(self) -> tuple[str, str]:
        try:
            health, readonly = await self._zfs.zpool_facts("health", "readonly")
        except Missing:
            raise NotFound(
                f"there is no zpool {self._zfs.zpool} for pool {self._zfs.pool}: import it with"
                f" zpool import {self._zfs.zpool}"
            ) from None
        return health, readonly

    async def _look(self) -> Seen:
        try:
            return await self._tree.look()
        except Gone:
            raise NotFound(
                f"there is no dataset {self._zfs.dataset} for pool {self._zfs.pool}: make it with"
                f" zfs create -p {self._zfs.dataset}"
            ) from None

    def _check_settings(self, pool: Facts) -> None:
        if (kind := pool.native("type")) != "filesystem":
            raise Rejected(f"{pool.path} is a {kind}: volumes need a filesystem dataset above them")
        if pool.native("readonly") == "on":
            raise Rejected(f"volumes below {pool.path} cannot be written: run zfs set readonly=off {pool.path}")
        if pool.native("volmode") == "none":
            raise Rejected(f"volumes below {pool.path} get no device: run zfs set volmode=dev {pool.path}")
        if pool.native("keystatus") == "unavailable":
            raise Rejected(f"{pool.path} is encrypted and its key is not loaded: run zfs load-key -r {pool.path}")

    def _reimport(self) -> str:
        return f"run zpool export {self._zfs.zpool}, then zpool import {self._zfs.zpool}"


_Facts = TypeVarTuple("_Facts")


def _refusal(check: Callable[[Unpack[_Facts]], None], *facts: *_Facts) -> list[str]:
    try:
        check(*facts)
    except Conflict as error:
        return [error.sentence]
    return []
