"""Where initiators log in, looked at before anybody does."""

from __future__ import annotations

import errno
import socket

from onelun.model import Portal

_ANSWER_S = 2.0


def portal_lacks(portal: Portal) -> list[str]:
    """Why no initiator could log in at `portal`: nothing when this machine has the address and something listens there."""
    if lacks := address_lacks(portal):
        return lacks
    with _socket(portal) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect((portal.address, portal.port))
        except OSError as error:
            reason = error.strerror or "no answer"
            return [f"nothing takes logins at the portal {portal} ({reason}): let the target daemon listen there"]
    return []


def address_lacks(portal: Portal) -> list[str]:
    """Why nothing could listen at the portal's address: nothing when this machine has it."""
    if portal.address in ("0.0.0.0", "::"):
        return [f"{portal.address} is no address that hosts can log in at: configure the one that they reach"]
    with _socket(portal) as probe:
        try:
            probe.bind((portal.address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return [
                    f"this machine does not have the portal's address {portal.address}: add it, or correct the portal"
                ]
            return [f"the portal's address {portal.address} cannot be used: {error.strerror or error}"]
    return []


def port_taken(portal: Portal) -> list[str]:
    """Says so when somebody listens at the portal already; whoever it is."""
    with _socket(portal) as probe:
        # A connection that ended a minute ago does not stand in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((portal.address, portal.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return [f"another program listens at {portal}: stop it (tgtd?), or configure another port"]
    return []


def _socket(portal: Portal) -> socket.socket:
    family = socket.AF_INET6 if ":" in portal.address else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM)
