"""Requests to a NAS for an initiator without a compute agent, as the drivers of OpenStack have it."""

from __future__ import annotations

from typing import Any

from onelun.rpc.schema import Reply, Request


class InitializeConnection(Request, tag="initialize_connection", frozen=True):
    """Offer a volume to the initiator that `connector` describes: `initiator`, and if known `host` and `ip`.

    It is an attachment like any other, of the host `connector:<initiator>`; no compute agent is asked, and the caller logs
    in by itself. Repeating it gives the same answer.
    """

    zvol: str
    connector: dict[str, Any]
    zpool: str | None = None
    uuid: str | None = None
    readonly: bool = False


class ConnectionInitialized(Reply, tag="connection_initialized", frozen=True):
    """How to log in: `driver_volume_type` is iscsi, and `data` tells the rest.

    It has target_discovered (false), target_iqn, target_portal (address:port), target_lun, volume_id, auth_method (CHAP),
    auth_username, auth_password, access_mode (rw or ro), encrypted (false) and qos_specs (null).
    """

    driver_volume_type: str
    data: dict[str, Any]


class TerminateConnection(Request, tag="terminate_connection", frozen=True):
    """Revoke what initialize_connection gave: every session of that initiator ends, and it cannot log in again.

    The caller has flushed and logged out before. Not offered to it: success.
    """

    zvol: str
    connector: dict[str, Any]
    zpool: str | None = None
    uuid: str | None = None


class ConnectionTerminated(Reply, tag="connection_terminated", frozen=True):
    """The initiator has the volume no more."""
