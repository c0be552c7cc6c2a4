"""Where initiators log in, looked at before anybody does."""

from __future__ import annotations

import errno
import socket

from onelun.model import Portal

_ANSWER_S = 2.0


def portal_lacks(portal: Portal) -> list[str]:
    """Why no initiator could log in at `portal`: nothing when this machine has the address and something listens there."""
    if portal.address in ("0.0.0.0", "::"):
        return [f"{portal.address} is no address that hosts can log in at: configure the one that they reach"]
    family = socket.AF_INET6 if ":" in portal.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        try:
            connection.bind((portal.address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return [
                    f"this machine does not have the portal's address {portal.address}: add it, or correct the portal"
                ]
            return [f"the portal's address {portal.address} cannot be used: {error.strerror or error}"]
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect((portal.address, portal.port))
        except OSError as error:
            reason = error.strerror or "no answer"
            return [f"nothing takes logins at the portal {portal} ({reason}): let the target daemon listen there"]
    return []
