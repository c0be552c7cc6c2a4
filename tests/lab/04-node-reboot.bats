#!/usr/bin/env bats
# A host reboots, loses its power, or is cut off while it writes; agents are killed amid their work. What was flushed is there,
# only the host that has a volume writes to it, and nothing is left.

load lab.bash
load leftovers.bash
load writing.bash

CLOUD=$(sed -n 's/^CLOUD = "\(.*\)"/\1/p' "$CHECKOUT/tests/support/sandbox/place.py")

setup_file() { lab_up --engine lvm; }
teardown_file() { lab_down; }

# What a failed test may have stopped.
teardown() {
	service start onelun nas1
	eventually 120 ask nas1 list_zvols >/dev/null
}

# held VERB COUNT: map, unmap or delete so many volumes on both nodes.
held() { LIMIT=400 on front python "$CHECKOUT/tests/lab/held.py" "$@" node1 node2 </dev/null; }

# after HOST SCRIPT: what a unit that is ordered after HOST's agent would do.
after() {
	on "$1" sh -c 'mkdir -p /etc/lab; cat >/etc/lab/after; chmod 755 /etc/lab/after; sync' <<<"#!/bin/sh
$2"
}

# debts: the IQNs of what hosts owe to nas1.
debts() {
	on nas1 python -c '
import sqlite3
for row in sqlite3.connect("file:/var/lib/onelun/nas/catalogue.sqlite?mode=ro", uri=True).execute("select iqn from debt"):
    print(*row)' </dev/null
}

# no_debts
no_debts() {
	local left
	left=$(debts) && empty "$left" debts
}

# leave_node1 VM [FIELD=VALUE]: the disk of VM is to leave node1 for another host.
leave_node1() {
	ask nas1 unmap_zvol zvol="one-$1" remotehost=node1 keep_link=true cloud="$CLOUD" vm="$1" disk=0 \
		path="$ONELUN_DATASTORES/103/$1/disk.0" "${@:2}"
}

# take_over VM: oned gives up node1 for lost, and starts the VM on node2.
take_over() {
	leave_node1 "$1" force=true | jq -e .debt
	tm 0 ln "frontend:nas1/tank/one-$1" "host02:$DIRECTORY/$1/disk.0" "$1" 102
}

# sum_of PLACE HOST: the SHA-256 of a volume's first 16 MiB, past all caches.
sum_of() { on "$1" sh -c "dd if=$2 bs=1M count=16 iflag=direct status=none | sha256sum" </dev/null; }

@test "onelun-compute's unit is ordered before libvirt's, and is ready when it says so" {
	local unit=$CHECKOUT/deploy/systemd/onelun-compute.service
	grep -qE '^Before=.*\blibvirtd\.service\b.*\blibvirt-guests\.service\b' "$unit"
	grep -qx 'Type=notify' "$unit"
	grep -qE '^After=.*\biscsid\.service\b' "$unit"
	if command -v systemd-analyze; then
		sed 's#^ExecStart=/usr/bin/onelun#ExecStart=/bin/true#' "$unit" >"$BATS_TEST_TMPDIR/onelun-compute.service"
		run systemd-analyze verify --man=no "$BATS_TEST_TMPDIR/onelun-compute.service"
		[ "$status $output" = "0 " ]
	fi
}

@test "a rebooted host logs in to nothing by itself, and is ready when its disks are back at their paths" {
	local dir=$DIRECTORY/1 how
	ds 0 mkfs 1 16 PERSISTENT=1
	ds 0 mkfs 2 16
	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 1 102
	tm 0 clone frontend:nas1/tank/one-2 "host01:$dir/disk.1" 1 102
	writer node1 stamp "$dir/disk.0" "$dir/disk.1"
	after node1 "python3 /checkout/tests/lab/writer.py stamped 2 $dir/disk.0 $dir/disk.1 && touch /root/in-time"
	service stop onelun nas1

	for how in '' --clean; do
		reboot node1 ${how:+"$how"}
		eventually 120 ask node1 list_dev >/dev/null
		[ "$(ask node1 list_dev | jq -c .body)" = '[]' ]
		expects 0 node1 sh -c 'ls -d /sys/class/iscsi_session/* /dev/onelun/* 2>/dev/null; cat /var/log/after.log 2>/dev/null; exit 0'
		empty "$output" "sessions, devices, or words of what was started too early"
		expects 1 node1 test -e /root/in-time

		service start onelun nas1
		eventually 120 on node1 grep -q 'serving ready' /var/log/onelun.log </dev/null
		eventually 90 on node1 test -e /root/in-time </dev/null
		expects 0 node1 sh -c 'cat /var/log/after.log; rm /root/in-time; : >/var/log/onelun.log'
		empty "$output" "words of what was started too early"
		service stop onelun nas1
	done

	service start onelun nas1
	expects 0 node1 rm /etc/lab/after
	eventually 120 tm 0 mvds "host01:$dir/disk.0" nas1/tank/one-1 1 102
	tm 0 delete "host01:$dir/disk.1" 1 102
	ds 0 rm 1 16 SOURCE=nas1/tank/one-1
	ds 0 rm 2 16 SOURCE=nas1/tank/one-2
	nothing_left
}

@test "node2 takes over the disk of a host without power, with all that was flushed, and the host comes back clean" {
	local disk=$DIRECTORY/3/disk.0
	ds 0 mkfs 3 256 PERSISTENT=1
	tm 0 ln frontend:nas1/tank/one-3 "host01:$disk" 3 102
	write_on node1 "$disk" vm 4

	power_cut node1
	kill "$WRITER"
	# It may only be silent, for all that the NAS knows.
	run leave_node1 3
	[ "$status" = 1 ]
	grep -q '^Error: node1 did not confirm that it let go of' <<<"$output"
	tm 1 ln frontend:nas1/tank/one-3 "host02:$disk" 3 102
	one_sentence 'mapped to node1'
	take_over 3

	all_there node2 "$disk" vm
	write_on node2 "$disk" vm-again 4
	[ "$(debts | wc -l)" = 1 ]
	power_on node1
	eventually 180 no_debts
	no_connections node1
	goes_on vm-again
	stop_writer node2 vm-again
	all_there node2 "$disk" vm-again

	tm 0 mvds "host02:$disk" nas1/tank/one-3 3 102
	ds 0 rm 3 256 SOURCE=nas1/tank/one-3
	nothing_left
}

@test "what a host that is cut off has still to write never reaches the volume" {
	local disk=$DIRECTORY/4/disk.0 lv sum
	ds 0 mkfs 4 16 PERSISTENT=1
	lv=/dev/onelun/onelun-$(ask nas1 list_zvols name=one-4 | jq -r '.body[0].uuid')
	tm 0 ln frontend:nas1/tank/one-4 "host01:$disk" 4 102
	write_on node1 "$disk" vm 8
	goes_on vm

	# Some of it waits in the host's page cache, some at the device.
	expects 0 node1 dd if=/dev/urandom of="$disk" bs=1M count=4 seek=8 conv=notrunc,nocreat status=none
	cut node1
	eventually 60 on node1 sh -c "grep -h '[1-9]' /sys/block/sd*/inflight" </dev/null
	take_over 4
	all_there node2 "$disk" vm
	expects 0 node2 dd if=/dev/urandom of="$disk" bs=1M count=16 oflag=direct conv=notrunc,nocreat status=none
	sum=$(sum_of node2 "$disk")
	expects 0 node1 pgrep -f writer.py

	heal node1
	eventually 180 no_debts
	no_connections node1
	expects 1 node1 test -L "$disk"
	run wait "$WRITER"
	grep -q '^writer: Input/output error' "$BATS_TEST_TMPDIR/vm.err"
	expects 0 node1 grep -q 'detach target=.*one-4.* force=True' /var/log/onelun.log
	expects 0 node1 sync
	[ "$(sum_of node2 "$disk")" = "$sum" ]
	[ "$(sum_of nas1 "$lv")" = "$sum" ]

	tm 0 mvds "host02:$disk" nas1/tank/one-4 4 102
	ds 0 rm 4 16 SOURCE=nas1/tank/one-4
	nothing_left
}

# multipath_on_node1 VM: the VM's disk by way of dm-multipath, which queues when its only path is lost. Sets PATH_OF_IT.
multipath_on_node1() {
	PATH_OF_IT=$(on node1 sh -ec "
		modprobe dm-multipath
		modprobe dm-round-robin
		disk=\$(readlink -f $DIRECTORY/$1/disk.0)
		echo 0 \$(blockdev --getsz \$disk) multipath 1 queue_if_no_path 0 1 1 round-robin 0 1 1 \$disk 1000 | dmsetup create queued
		dmsetup mknodes queued
		cat /sys/block/\${disk##*/}/dev" </dev/null)
}

# path_of_it fail|reinstate: as multipathd says it.
path_of_it() { expects 0 node1 dmsetup message queued 0 "$1_path $PATH_OF_IT"; }

@test "what dm-multipath has queued on a host that is cut off never reaches the volume" {
	local disk=$DIRECTORY/6/disk.0 lv sum
	ds 0 mkfs 6 16 PERSISTENT=1
	lv=/dev/onelun/onelun-$(ask nas1 list_zvols name=one-6 | jq -r '.body[0].uuid')
	tm 0 ln frontend:nas1/tank/one-6 "host01:$disk" 6 102
	multipath_on_node1 6
	expects 0 node1 dd if=/dev/urandom of=/dev/mapper/queued bs=1M count=16 oflag=direct conv=nocreat status=none

	service stop onelun node1
	cut node1
	path_of_it fail
	expects 0 node1 sh -c 'dd if=/dev/urandom of=/dev/mapper/queued bs=1M count=16 oflag=direct conv=nocreat >/run/queued 2>&1 & sleep 1'
	take_over 6
	expects 0 node2 dd if=/dev/urandom of="$disk" bs=1M count=16 oflag=direct conv=notrunc,nocreat status=none
	sum=$(sum_of node2 "$disk")
	expects 0 node1 pgrep -x dd

	# First dm-multipath tries by itself, then the agent comes and takes its path away, and it tries once more.
	heal node1
	path_of_it reinstate
	expects 0 node1 sleep 5
	service start onelun node1
	eventually 90 no_debts
	no_connections node1
	on node1 dmsetup message queued 0 "reinstate_path $PATH_OF_IT" </dev/null || true
	expects 0 node1 pgrep -x dd
	expects 0 node1 dmsetup message queued 0 fail_if_no_path
	eventually 60 on node1 grep -q 'Input/output error' /run/queued </dev/null
	expects 0 node1 sh -c 'until dmsetup remove queued; do sleep 1; done'

	[ "$(sum_of node2 "$disk")" = "$sum" ]
	[ "$(sum_of nas1 "$lv")" = "$sum" ]
	tm 0 mvds "host02:$disk" nas1/tank/one-6 6 102
	ds 0 rm 6 16 SOURCE=nas1/tank/one-6
	nothing_left
}

# with_kills HOST PAUSE VERB COUNT: held, while the agent of HOST is killed after PAUSE seconds, and once more.
with_kills() {
	local status=0
	held "$3" "$4" >"$BATS_TEST_TMPDIR/held" 3>&- &
	local asking=$!
	for _ in 1 2; do
		sleep "$2"
		service kill onelun "$1"
	done
	wait "$asking" || status=$?
	sed "s/^/# killed on $1: /" "$BATS_TEST_TMPDIR/held" >&3
	[ "$status" = 0 ]
}

# are_mapped COUNT: every host has its half of them, NAS and hosts agree, and all of them can be written.
are_mapped() {
	local node half=$(($1 / 2)) mapped
	ask nas1 list_zvols >"$BATS_TEST_TMPDIR/list"
	for node in node1 node2; do
		mapped=$(jq -r ".body[] | select(.remotehost == \"$node\") | .attachments[] | select(.state == \"attached\") | .iscsi_target" "$BATS_TEST_TMPDIR/list" | sort)
		[ "$(wc -l <<<"$mapped")" = "$half" ]
		[ "$(on "$node" sh -c 'cat /sys/class/iscsi_session/*/targetname' </dev/null | sort)" = "$mapped" ]
		expects 0 "$node" sh -c "
			writer='timeout 60 python3 /checkout/tests/lab/writer.py'
			\$writer stamp /dev/onelun/nas1/tank/held-* && \$writer stamped $half /dev/onelun/nas1/tank/held-*"
	done
	[ "$(on nas1 sh -c 'ls -d /sys/kernel/config/target/iscsi/iqn* | wc -l' </dev/null)" = "$1" ]
}

@test "agents that are killed amid 20 requests, over and over, leave nothing half-made" {
	local pair
	for pair in "nas1 node1" "node1 nas1"; do
		with_kills "${pair% *}" 3 map 20
		are_mapped 20
		with_kills "${pair#* }" 2 unmap 20
		no_connections node1
		no_connections node2
		no_exports nas1
	done
	held delete 20
	nothing_left
}
