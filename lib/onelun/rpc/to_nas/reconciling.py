"""Requests to a NAS by which the front-end compares it with oned and with the hosts, and has differences repaired."""

from __future__ import annotations

import msgspec

from onelun.model import Owner
from onelun.rpc.schema import Reply, Request


class StockVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A volume of a cloud, also one that is in the trash or whose removal was cut off.

    `made_at` is in seconds since the epoch, 0 where nobody knows. `snapshots` are their names, null where the pool did not tell.
    """

    zvol: str
    zpool: str
    uuid: str
    state: str
    owner: Owner
    made_at: float = 0.0
    snapshots: tuple[str, ...] | None = None


class StockAttachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attachment as the NAS has it written down. `cloud` is its volume's; `agentless`: no compute agent is behind it."""

    zvol: str
    zpool: str
    uuid: str
    remotehost: str
    iscsi_target: str
    state: str
    cloud: str | None = None
    agentless: bool = False


class StockPlacement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which volume stands behind a VM's disk; `host` is null while no host has it."""

    vm: int
    disk: int
    path: str
    zvol: str
    zpool: str
    uuid: str
    host: str | None = None


class StockTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A target that the NAS really has; `sessions` are the initiators that are logged in, `leased`: a copy goes over it."""

    iscsi_target: str
    sessions: tuple[str, ...] = ()
    leased: bool = False


class TakeStock(Request, tag="take_stock", frozen=True):
    """Tell all that this NAS has of a cloud, and every target and attachment of its own, whosever they are.

    What changes while it looks is left out: it is somebody's work of this moment.
    """

    cloud: str


class StockIs(Reply, tag="stock_is", frozen=True):
    """`failed` says of each pool that could not tell why. `cautious`: the agent's catalogue was lost, and it removes nothing."""

    volumes: tuple[StockVolume, ...]
    attachments: tuple[StockAttachment, ...]
    placements: tuple[StockPlacement, ...]
    targets: tuple[StockTarget, ...]
    failed: dict[str, str]
    cautious: bool = False


class Settle(Request, tag="settle", frozen=True):
    """Do now what the agent does at its start and in its rounds, for targets and for `remotehosts`.

    What is in force and has no target is exported, targets that nobody knows and nobody is logged in to end, and each host is
    told what it is to have: it drops the rest, unless that is in use. Repeating it changes nothing more.
    """

    remotehosts: tuple[str, ...] = ()


class Settled(Reply, tag="settled", frozen=True):
    """`exported` counts targets made again, `ended` are IQNs, `failed` maps hosts and IQNs to sentences."""

    exported: int
    ended: tuple[str, ...]
    failed: dict[str, str]


class TrashZvol(Request, tag="trash_zvol", frozen=True):
    """Put a volume that nobody has into its pool's trash, whatever its kind. Absent, or another UUID: success.

    Refused (conflict) unless the volume says that it is `owner`'s, was made `older_s` seconds ago or more, and no host, target
    or lease has it; and by an agent whose catalogue was lost, until it is restarted.
    """

    zvol: str
    zpool: str
    uuid: str
    owner: Owner
    older_s: float


class ZvolTrashed(Reply, tag="zvol_trashed", frozen=True):
    """`trashed` tells whether there was one. It is destroyed after the NAS's `limits.trash_s`."""

    trashed: bool
