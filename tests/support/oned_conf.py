"""What the files of OpenNebula look like in each release: short ones, in the same syntax and with the same traps."""

from __future__ import annotations

_HEAD = """\
#*******************************************************************************
# Daemon configuration attributes
#   a = [ that is never closed, a "quote, TM_MAD = [ ARGUMENTS = "-d x" ]
#*******************************************************************************
LOG = [
  SYSTEM      = "FILE",
  DEBUG_LEVEL = 3
]

# PORT = 1234
PORT = 2633

VNC_PORTS = [
    START    = 5900,
    RESERVED = "32768:65536"
    # RESERVED = "5905:5910"
]
DEFAULT_COST =
CONTEXT_RESTRICTED_DIRS = "/etc"

TM_MAD = [
    EXECUTABLE = "one_tm",
    ARGUMENTS = "-t 15 -d {transfer}"
]

DATASTORE_MAD = [
    EXECUTABLE = "one_datastore",
    ARGUMENTS  = "-t 15 -d {datastore} -s {system}"
]

HM_MAD = [ EXECUTABLE = "one_hm", ARGUMENTS = "-p 2101 -l 2102 -b 127.0.0.1" ]

VM_HOOK = "a text with \\"quotes\\",
 over two lines # and no comment"

INHERIT_DATASTORE_ATTR  = "CEPH_HOST"
INHERIT_DATASTORE_ATTR  = "DISK_TYPE"
"""
_CEPH = """
TM_MAD_CONF = [
    NAME = "ceph", LN_TARGET = "NONE", CLONE_TARGET = "SELF", SHARED = "YES",
    DS_MIGRATE = "NO", DRIVER = "raw", ALLOW_ORPHANS="mixed",
    TM_MAD_SYSTEM = "ssh,shared", LN_TARGET_SSH = "SYSTEM", CLONE_TARGET_SSH = "SYSTEM"
]

DS_MAD_CONF = [
    NAME = "ceph",
    REQUIRED_ATTRS = "DISK_TYPE,BRIDGE_LIST",
    PERSISTENT_ONLY = "NO",
    MARKETPLACE_ACTIONS = "export"
]
"""

ONED_CONF: dict[tuple[int, int], str] = {
    (6, 10): _HEAD.format(transfer="dummy,lvm,shared,ssh", datastore="fs,lvm,ceph", system="shared,ssh,vcenter")
    + _CEPH,
    (7, 0): _HEAD.format(transfer="shared,ssh,local,netapp", datastore="fs,restic", system="dummy,shared,local")
    + _CEPH,
    (7, 2): _HEAD.format(transfer="shared,ssh,purefa", datastore="fs,purefa,virtiofs", system="shared,purefa") + _CEPH,
    (7, 4): _HEAD.format(transfer="shared,purefa", datastore="fs,virtiofs,interactive", system="shared,purefa") + _CEPH,
}
RELEASES = list(ONED_CONF)

# 3.4 has lists of drivers alone, and writes names in small letters.
ONED_CONF_3_4 = """\
TM_MAD = [
    executable = "one_tm",
    arguments  = "-t 15 -d dummy,shared,qcow2,ssh,vmware,iscsi" ]

DATASTORE_MAD = [
    executable = "one_datastore",
    arguments  = "-t 15 -d fs,vmware,iscsi"
]
"""

VMM_EXECRC = """\
# Space separated list of VMM-TM pairs that support live disk snapshots. VMM
# and TM must be separated by '-'
LIVE_DISK_SNAPSHOTS="kvm-qcow2 kvm-shared kvm-ceph kvm-ssh qemu-qcow2"

# Space separated list VNM_MAD-ACTION pairs that run locally
VNMAD_LOCAL_ACTIONS="elastic-post elastic-clean"
"""
