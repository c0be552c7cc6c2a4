"""Has the kernel stop one failed connection for recovery, as a program: `python stop.py HANDLE SESSION IFACE`.

The message is the one by which iscsid itself does it (open-iscsi, usr/netlink.c, kstop_conn), to the kernel's netlink
socket for iSCSI (linux/netlink.h); its layout is that of include/scsi/iscsi_if.h in the kernel. The kernel does the work
in the sender's own call, and waits uninterruptibly for others who send; so it is a process of its own. Its status is an
errno; EISCONN is a connection that has not failed, or not IFACE's. Needs root.

A connection that works must never be stopped: iscsid would not hear of it, and so not log in again. The kernel tells
whether it has failed (connection_state_names in drivers/scsi/scsi_transport_iscsi.c, since Linux 5.7): a connection that
iscsid is making anew is bound first, and a whole login lies between that and its use, so that one which has failed
at the last look is not in use yet when the message arrives.
"""

import errno
import socket
import struct
import sys

NETLINK_ISCSI = 8
ANSWER_S = 4.0
# struct nlmsghdr: length, type, flags, sequence number, sender (0: the kernel fills it in).
HEADER = struct.Struct("=IHHII")
# struct iscsi_uevent: type, iferror, transport_handle; u.stop_conn: sid, cid, conn_handle, flag; the rest is of the answer.
EVENT = struct.Struct("=IiQIIQI4x16x")
# UEVENT_BASE + 8 and KEVENT_BASE + 3.
STOP_CONN, IF_ERROR = 18, 103
STOP_CONN_RECOVER = 3
# A session of open-iscsi has this connection alone.
CONNECTION = 0


def main() -> None:
    """Send the message, and end with what the kernel says of it."""
    handle, session = map(int, sys.argv[1:3])
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ISCSI) as kernel:
            kernel.settimeout(ANSWER_S)
            kernel.bind((0, 0))
            if not has_failed("/sys", session, sys.argv[3]):
                sys.exit(errno.EISCONN)
            kernel.sendto(message(handle, session), (0, 0))
            sys.exit(outcome(kernel.recv(4096)))
    except TimeoutError:
        sys.exit(errno.ETIMEDOUT)
    except OSError as error:
        sys.exit(error.errno)


def has_failed(root: str, session: int, iface: str) -> bool:
    """Whether the session is that interface's, and its connection neither in use nor being made."""
    return (
        read(f"{root}/class/iscsi_session/session{session}/ifacename") == iface
        and read(f"{root}/class/iscsi_connection/connection{session}:{CONNECTION}/state") == "failed"
    )


def read(path: str) -> str:
    """The text of a file of sysfs."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def message(handle: int, session: int) -> bytes:
    """The request to stop the session's connection, from which a new login may then take it over."""
    event = EVENT.pack(STOP_CONN, 0, handle, session, CONNECTION, 0, STOP_CONN_RECOVER)
    return HEADER.pack(HEADER.size + len(event), STOP_CONN, 0, 0, 0) + event


def outcome(answer: bytes) -> int:
    """0, or the errno by which the kernel refuses."""
    if len(answer) < HEADER.size + 8:
        return errno.EPROTO
    kind, error = struct.unpack_from("=Ii", answer, HEADER.size)
    if kind == IF_ERROR:
        return abs(error) or errno.EIO
    return 0 if kind == STOP_CONN else errno.EPROTO


if __name__ == "__main__":
    main()
