"""An export by LIO without onelun, in a guest: raw_target.py DEVICE IQN ADDRESS INITIATOR USER PASSWORD."""

import sys

from rtslib_fb import TPG, BlockStorageObject, FabricModule, NetworkPortal, NodeACL, Target

device, iqn, address, initiator, user, password = sys.argv[1:]
storage = BlockStorageObject(device.replace("/", "-").strip("-"), device)
storage.set_attribute("emulate_tpu", 1)
tpg = TPG(Target(FabricModule("iscsi"), iqn), 1)
tpg.set_attribute("authentication", 1)
tpg.set_attribute("generate_node_acls", 0)
lun = tpg.lun(0, storage)
acl = NodeACL(tpg, initiator)
acl.chap_userid, acl.chap_password = user, password
acl.mapped_lun(0, lun, False)
tpg.enable = True
# Last: an initiator that comes to a portal before its target is open may not come again.
NetworkPortal(tpg, address, 3260)
