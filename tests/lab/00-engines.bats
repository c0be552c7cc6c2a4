#!/usr/bin/env bats
# The engines by themselves, without onelun: attach, write, detach. What fails here is not onelun's fault.

load lab.bash

IQN=iqn.2026-11.test.raw:volume

teardown() { lab_down; }

# export_by_lio DEVICE: to node1, with CHAP.
export_by_lio() {
	on nas1 python /checkout/tests/lab/raw_target.py "$1" "$IQN" "$(address nas1)" iqn.2026-11.io.onelun.host:node1 user1 secret123456
}

# log_in STATUS HOST: with a node record made by hand.
log_in() {
	local node
	node="iscsiadm -m node -T $IQN -p $(address nas1)"
	expects 0 "$2" sh -ec "
		$node -o new
		$node -o update -n node.session.auth.authmethod -v CHAP
		$node -o update -n node.session.auth.username -v user1
		$node -o update -n node.session.auth.password -v secret123456
		$node -o update -n node.startup -v manual"
	expects "$1" "$2" sh -c "timeout 30 $node --login && udevadm settle"
}

log_out() {
	expects 0 "$1" sh -ec "
		node='iscsiadm -m node -T $IQN -p $(address nas1)'
		timeout 30 \$node --logout
		\$node -o delete"
}

# attach_write_detach LUN: node1 does, from login to logout, and finds the same content after a second login.
attach_write_detach() {
	local disk
	disk="/dev/disk/by-path/ip-$(address nas1):3260-iscsi-$IQN-lun-$1"
	log_in 0 node1
	expects 0 node1 sh -ec "
		mkfs.ext4 -q $disk
		mount $disk /mnt
		dd if=/dev/urandom of=/mnt/file bs=1M count=32 conv=fsync status=none
		sha256sum </mnt/file >/root/sum
		umount /mnt"
	log_out node1
	log_in 0 node1
	expects 0 node1 sh -ec "mount $disk /mnt; sha256sum -c /root/sum </mnt/file; umount /mnt; fsck.ext4 -fn $disk"
	log_out node1
}

@test "lvm, lio, iscsi: a host attaches, writes and detaches; another host is refused" {
	lab_up --bare --engine lvm
	expects 0 nas1 lvcreate -q -V 1G -T onelun/thin -n volume
	export_by_lio /dev/onelun/volume

	attach_write_detach 0

	# 24: ISCSI_ERR_LOGIN_AUTH_FAILED
	log_in 24 node2
}

@test "lvm, tgt, iscsi: a host attaches, writes and detaches" {
	lab_up --bare --engine lvm --exporter tgt
	expects 0 nas1 sh -ec "
		lvcreate -q -V 1G -T onelun/thin -n volume
		T='tgtadm --lld iscsi'
		\$T --mode target --op new --tid 1 -T $IQN
		\$T --mode logicalunit --op new --tid 1 --lun 1 -b /dev/onelun/volume
		\$T --mode account --op new --user user1 --password secret123456
		\$T --mode account --op bind --tid 1 --user user1
		\$T --mode target --op bind --tid 1 --initiator-name iqn.2026-11.io.onelun.host:node1"

	attach_write_detach 1
}

@test "zfs, lio, iscsi: a host attaches, writes and detaches" {
	lab_up --bare --engine zfs
	expects 0 nas1 sh -ec "zfs create -s -V 1G tank/onelun/volume; udevadm settle"
	export_by_lio /dev/zvol/tank/onelun/volume

	attach_write_detach 0
}

@test "a guest's files and pool survive a power cut, and a cut cable heals" {
	lab_up --bare --engine lvm
	expects 0 nas1 sh -c "lvcreate -q -V 1G -T onelun/thin -n volume && echo kept >/root/kept && sync"

	reboot nas1

	expects 0 nas1 sh -c "cat /root/kept && test -b /dev/onelun/volume"
	eventually 60 on node1 ping -c 1 -W 5 "$(address nas1)" </dev/null
	cut nas1
	expects 1 node1 ping -c 1 -W 1 "$(address nas1)"
	heal nas1
	eventually 60 on node1 ping -c 1 -W 5 "$(address nas1)" </dev/null
}
