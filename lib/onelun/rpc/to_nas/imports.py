"""Requests to a NAS by which an image gets its content: begun, written over a target of its own, finished."""

from __future__ import annotations

from onelun.model import Owner
from onelun.rpc.schema import Reply, Request


class ImportZvol(Request, tag="import_zvol", frozen=True):
    """Begin an image: build a volume and export it to `initiator`, its builder, for as long as the lease is renewed."""

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner
    initiator: str


class ZvolImporting(Reply, tag="zvol_importing", frozen=True):
    """Where to write the content, and with which account. An unrenewed lease ends the import and its volume."""

    uuid: str
    iqn: str
    address: str
    port: int
    user: str
    secret: str
    lease_s: float
    lun: int = 1


class RenewImport(Request, tag="renew_import", frozen=True):
    """Keep an import's lease. Raises not_found when the import has ended."""

    zpool: str
    uuid: str


class ImportRenewed(Reply, tag="import_renewed", frozen=True):
    """The lease runs again from now."""

    lease_s: float


class FinishImport(Request, tag="finish_import", frozen=True):
    """The content is complete: take the export back, make it durable, publish it. Repeating it succeeds."""

    zpool: str
    uuid: str


class ImportFinished(Reply, tag="import_finished", frozen=True):
    """The volume is ready."""

    uuid: str
    size_bytes: int


class AbortImport(Request, tag="abort_import", frozen=True):
    """Drop an import and its volume. An unknown one is success; a finished one is not touched."""

    zpool: str
    uuid: str


class ImportAborted(Reply, tag="import_aborted", frozen=True):
    """Nothing of it is left."""
