#!/usr/bin/env bats
# Backups on real engines: what was written, zeroed, discarded and grown comes back from the files of increments.

load lab.bash
load leftovers.bash

setup() { mkdir -p "$BATS_TEST_TMPDIR/chain"; }
teardown() { lab_down; }

twice() {
	"$@"
	"$@"
}

# vm_after LAST: of VM 9, whose disk 1 is image 9; its backup's last increment is LAST.
vm_after() {
	printf '<VM><ID>9</ID><STATE>3</STATE><LCM_STATE>69</LCM_STATE><DEPLOY_ID>one-9</DEPLOY_ID><TEMPLATE><DISK><DISK_ID>1</DISK_ID><CLONE>NO</CLONE><SOURCE>nas1/tank/one-9</SOURCE></DISK></TEMPLATE><BACKUPS><BACKUP_CONFIG><MODE>INCREMENT</MODE><LAST_INCREMENT_ID>%s</LAST_INCREMENT_ID></BACKUP_CONFIG></BACKUPS></VM>' \
		"$1" >"$BATS_TEST_TMPDIR/vm"
}

# backup STATUS ACTION LAST
backup() {
	vm_after "$3"
	run_action "$1" "tm/onelun/$2" "host01:$DIRECTORY/9" 1 one-9 - 9 103 <"$BATS_TEST_TMPDIR/vm"
}

# changed COMMAND: what the VM does to its disk, $d; then everything is on the NAS.
changed() { expects 0 node1 sh -ec "d=$DISK; $1; sync \$d; blockdev --flushbufs \$d"; }

# taken INCREMENT: its file joins the chain, which has what the disk has.
taken() {
	local chain=$BATS_TEST_TMPDIR/chain
	on node1 base64 "$DIRECTORY/9/backup/disk.1.$1" </dev/null | base64 -d >"$chain/disk.1.$1"
	(($1 == 0)) || qemu-img rebase -u -F qcow2 -b "$chain/disk.1.$(($1 - 1))" "$chain/disk.1.$1"
	qemu-img convert -O raw "$chain/disk.1.$1" "$chain/raw"
	expects 0 node1 sh -c "dd if=$DISK bs=1M iflag=direct status=none | sha256sum"
	[ "$output" = "$(sha256sum <"$chain/raw")" ]
}

# backups_of_a_life OPTION...
backups_of_a_life() {
	lab_up "$@"
	DISK=$DIRECTORY/9/disk.1
	twice ds 0 mkfs 9 64 PERSISTENT=1
	tm 0 ln frontend:nas1/tank/one-9 "host01:$DISK" 9 102

	# shellcheck disable=SC2016 # $d is for the host
	changed 'dd if=/dev/urandom of=$d bs=1M count=8 oflag=direct status=none'
	twice backup 0 prebackup_live -1
	taken 0
	twice backup 0 postbackup_live -1

	# shellcheck disable=SC2016 # as above
	changed 'dd if=/dev/urandom of=$d bs=64k seek=20 count=3 oflag=direct status=none
		dd if=/dev/zero of=$d bs=64k seek=40 count=8 oflag=direct status=none
		blkdiscard -o 4194304 -l 2097152 $d'
	twice backup 0 prebackup_live 0
	taken 1
	backup 0 postbackup_live 0

	tm 0 resize "host01:$DISK" 96 9 102
	# shellcheck disable=SC2016 # as above
	changed 'dd if=/dev/urandom of=$d bs=1M seek=94 count=1 oflag=direct status=none
		dd if=/dev/urandom of=$d bs=4k seek=1100 count=1 oflag=direct status=none'
	backup 0 prebackup_live 1
	taken 2

	# The host's agent goes in the middle of it.
	# shellcheck disable=SC2016 # as above
	changed 'dd if=/dev/urandom of=$d bs=1M seek=10 count=30 oflag=direct status=none'
	vm_after 2
	"$CHECKOUT/tm/onelun/prebackup_live" "host01:$DIRECTORY/9" 1 one-9 - 9 103 \
		<"$BATS_TEST_TMPDIR/vm" >"$BATS_TEST_TMPDIR/out" 2>&1 &
	local action=$!
	sleep 2
	service kill onelun node1
	service start onelun node1
	wait "$action" || cat "$BATS_TEST_TMPDIR/out"
	eventually 150 backup 0 prebackup_live 2
	taken 3
	backup 0 postbackup_live 2
	expects 1 node1 test -e "$DIRECTORY/9/backup"

	tm 0 mvds "host01:$DISK" nas1/tank/one-9 9 102
	ds 0 rm 9 96 SOURCE=nas1/tank/one-9
	nothing_left
}

@test "on lvm, lio, iscsi increments have what changed, zeros and discarded ranges too" {
	backups_of_a_life --engine lvm
}

@test "on zfs, lio, iscsi increments have what changed, zeros and discarded ranges too" {
	backups_of_a_life --engine zfs
}
