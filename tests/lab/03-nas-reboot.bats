#!/usr/bin/env bats
# The NAS loses its power, and its agent dies, while VMs write: they wait, go on, and have lost nothing. Nobody does anything.

load lab.bash
load leftovers.bash
load writing.bash

# Of the attachments that come back; 100 are worth a run now and then.
MANY=${ONELUN_LAB_MANY:-24}
FOREIGN=iqn.2026-11.test.foreign:disk

setup_file() { lab_up --engine lvm --finish-s 600 --accept-s 60; }
teardown_file() { lab_down; }

# held VERB COUNT: map, unmap or delete so many volumes on both nodes.
held() { LIMIT=400 on front python "$CHECKOUT/tests/lab/held.py" "$@" node1 node2 </dev/null; }

# stamped HOST COUNT: so many of the volumes are there, each with what was written to it. One whose session the NAS
# found dead is being connected anew, and is away meanwhile.
stamped() {
	eventually 240 on "$1" sh -c "timeout 100 python3 /checkout/tests/lab/writer.py stamped $2 /dev/onelun/nas1/tank/held-*" </dev/null
}

# make_foreign: an operator's own volume, and target for node2, which a unit of the operator's makes at each boot.
make_foreign() {
	expects 0 nas1 sh -ec "
		lvcreate -q -V 64M -T onelun/thin -n foreign
		mkdir -p /etc/lab
		cat >/etc/lab/before <<-'END'
			#!/bin/sh
			python /checkout/tests/lab/raw_target.py /dev/onelun/foreign $FOREIGN $(address nas1) iqn.2026-11.io.onelun.host:node2 user1 secret123456
		END
		chmod 755 /etc/lab/before
		sync
		/etc/lab/before"
	local node
	node="iscsiadm -m node -T $FOREIGN -p $(address nas1)"
	expects 0 node2 sh -ec "
		$node -o new
		$node -o update -n node.session.auth.authmethod -v CHAP
		$node -o update -n node.session.auth.username -v user1
		$node -o update -n node.session.auth.password -v secret123456
		$node -o update -n node.startup -v manual
		timeout 30 $node --login
		udevadm settle
		ln -s /dev/disk/by-path/ip-$(address nas1):3260-iscsi-$FOREIGN-lun-0 /dev/foreign"
}

# foreign_target: all that LIO knows of it, but for what its sessions count.
foreign_target() {
	on nas1 bash -ec "
		cd /sys/kernel/config/target
		find iscsi/$FOREIGN -printf '%p %l\n' | sort
		grep -rs . iscsi/$FOREIGN/tpgt_1/{enable,attrib,param,auth} iscsi/$FOREIGN/tpgt_1/acls/*/{auth,attrib,param} \
			core/*/dev-onelun-foreign/{attrib,wwn/vpd_unit_serial,udev_path,enable}" </dev/null
}

remove_foreign() {
	expects 0 node2 sh -ec "
		rm /dev/foreign
		node='iscsiadm -m node -T $FOREIGN -p $(address nas1)'
		timeout 30 \$node --logout
		\$node -o delete"
	expects 0 nas1 sh -ec "
		rm /etc/lab/before
		python -c '
from rtslib_fb import FabricModule, RTSRoot, Target
Target(FabricModule(\"iscsi\"), \"$FOREIGN\", \"lookup\").delete()
for storage in RTSRoot().storage_objects:
    storage.name == \"dev-onelun-foreign\" and storage.delete()'
		lvremove -q -y onelun/foreign"
}

@test "a VM writes on through a power cut of the NAS, and has lost nothing that was flushed" {
	local disk=$DIRECTORY/1/disk.0
	ds 0 mkfs 1 256 PERSISTENT=1
	tm 0 ln frontend:nas1/tank/one-1 "host01:$disk" 1 102
	write_on node1 "$disk" vm 4

	reboot nas1

	goes_on vm
	stop_writer node1 vm
	all_there node1 "$disk" vm
	tm 0 mv "host01:$disk" "host02:$disk" 1 102
	all_there node2 "$disk" vm
	tm 0 mvds "host02:$disk" nas1/tank/one-1 1 102
	ds 0 rm 1 256 SOURCE=nas1/tank/one-1
	no_connections node1
	no_connections node2
}

@test "many attachments and an operator's own target come back after a power cut of the NAS" {
	make_foreign
	run held map "$MANY"
	echo "# $output" >&3
	[ "$status" = 0 ]
	for node in node1 node2; do
		expects 0 "$node" sh -c "python3 /checkout/tests/lab/writer.py stamp /dev/onelun/nas1/tank/held-*"
	done
	expects 0 node2 python3 /checkout/tests/lab/writer.py stamp /dev/foreign

	local began=$SECONDS
	reboot nas1
	echo "# nas1 is up after $((SECONDS - began)) s" >&3
	stamped node1 $(((MANY + 1) / 2))
	stamped node2 $((MANY / 2))
	echo "# all $MANY are back after $((SECONDS - began)) s" >&3
	expects 0 node2 timeout 110 python3 /checkout/tests/lab/writer.py stamped 1 /dev/foreign
}

@test "an agent that is killed leaves an operator's own target and all sessions as they are" {
	local before sessions
	write_on node2 /dev/foreign foreign
	before=$(foreign_target)
	[ -n "$before" ]
	sessions=$(on node1 sh -c 'ls /sys/class/iscsi_session; grep . /sys/class/iscsi_session/*/state' </dev/null)

	service kill onelun nas1
	eventually 90 ask nas1 list_zvols >/dev/null

	goes_on foreign
	stop_writer node2 foreign
	all_there node2 /dev/foreign foreign
	[ "$(foreign_target)" = "$before" ]
	[ "$(on node1 sh -c 'ls /sys/class/iscsi_session; grep . /sys/class/iscsi_session/*/state' </dev/null)" = "$sessions" ]
	stamped node1 $(((MANY + 1) / 2))

	run held unmap "$MANY"
	echo "# $output" >&3
	[ "$status" = 0 ]
	held delete "$MANY"
	[ "$(foreign_target)" = "$before" ]
	expects 0 nas1 lvs onelun/foreign
	remove_foreign
	nothing_left
}
