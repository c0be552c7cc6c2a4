#!/usr/bin/env bats
# Live migration with the disks' contents read on both hosts, and the context CD, every action twice.

load sandbox.bash

setup_file() {
	sandbox_up
	local id
	for id in 1 2; do
		document "$id" 16 PERSISTENT=1 | base64 -w0 >"$BATS_FILE_TMPDIR/document"
		"$CHECKOUT/datastore/onelun/mkfs" "$id" <"$BATS_FILE_TMPDIR/document"
	done
}
teardown_file() { sandbox_down; }

setup() { DIR=$DIRECTORY/60; }

twice() {
	"$@"
	"$@"
}

# vm: the VM's document: a clone, a persistent image, a volatile disk, and one of another driver.
vm() {
	local disk
	printf '<VM><ID>60</ID><STATE>3</STATE><LCM_STATE>4</LCM_STATE><TEMPLATE>'
	for disk in \
		'0</DISK_ID><CLONE>YES</CLONE><SOURCE>nas1/tank/one-2</SOURCE><TM_MAD>onelun' \
		'1</DISK_ID><CLONE>NO</CLONE><SOURCE>nas1/tank/one-1</SOURCE><TM_MAD>onelun' \
		'2</DISK_ID><TYPE>fs</TYPE><TM_MAD>onelun' \
		'3</DISK_ID><CLONE>NO</CLONE><SOURCE>/var/lib/one/datastores/1/abc</SOURCE><TM_MAD>ssh'; do
		printf '<DISK><DISK_ID>%s</TM_MAD></DISK>' "$disk"
	done
	printf '</TEMPLATE></VM>'
}

# migration STATUS ACTION SOURCE TARGET [DRIVER]: with the VM's document on stdin.
migration() {
	vm | base64 >"$BATS_TEST_TMPDIR/vm"
	local expected=$1 action=$2
	shift 2
	run_action "$expected" "tm/onelun/$action" "$1" "$2" "$DIR" 60 103 "${@:3}" <"$BATS_TEST_TMPDIR/vm"
}

# sum NODE DISK: the disk's content as the storage has it.
sum() { on "$1" dd if="$DIR/disk.$2" bs=1M iflag=direct status=none | sha256sum; }

# scribble NODE DISK
scribble() { on "$1" dd if=/dev/urandom of="$DIR/disk.$2" bs=1M count=4 oflag=direct conv=notrunc,nocreat status=none; }

# bare NODE: it can open none of the VM's disks, and is connected to none.
bare() {
	local disk
	for disk in 0 1 2; do
		run ! on "$1" dd if="$DIR/disk.$disk" bs=1 count=1 status=none
	done
	[ -z "$(on "$1" find /dev/onelun -type l)" ]
}

@test "a VM begins on the first host, with its context CD" {
	twice tm 0 clone frontend:nas1/tank/one-2 "host01:$DIR/disk.0" 60 102
	twice tm 0 ln frontend:nas1/tank/one-1 "host01:$DIR/disk.1" 60 102
	twice tm 0 mkimage 16 raw "host01:$DIR/disk.2" 60 103
	printf "TESTVAR='a b'\n" >"$ONELUN_SANDBOX/context.sh"
	printf 'echo init\n' >"$ONELUN_SANDBOX/3f1a"

	twice tm 0 context "$ONELUN_SANDBOX/context.sh" "$ONELUN_SANDBOX/3f1a:'init.sh'" "host01:$DIR/disk.6" 60 103

	on node1 test ! -L "$DIR/disk.6"
	[ "$(on node1 blkid -p -o value -s LABEL "$DIR/disk.6")" = CONTEXT ]
	on node1 cat "$DIR/disk.6" >"$BATS_TEST_TMPDIR/cd.iso"
	xorriso -osirrox on -indev "$BATS_TEST_TMPDIR/cd.iso" -extract / "$BATS_TEST_TMPDIR/cd"
	cmp "$ONELUN_SANDBOX/context.sh" "$BATS_TEST_TMPDIR/cd/context.sh"
	cmp "$ONELUN_SANDBOX/3f1a" "$BATS_TEST_TMPDIR/cd/init.sh"
}

@test "both hosts have the disks while it moves, with one content, and then the second alone" {
	local disk
	for disk in 0 1 2; do scribble node1 $disk; done

	twice migration 0 premigrate host01 host02
	for disk in 0 1 2; do
		[ "$(sum node1 $disk)" = "$(sum node2 $disk)" ]
		scribble node1 $disk
		[ "$(sum node1 $disk)" = "$(sum node2 $disk)" ]
		sum node1 $disk >"$BATS_FILE_TMPDIR/sum.$disk"
	done
	cmp <(on node1 cat "$DIR/disk.6") <(on node2 cat "$DIR/disk.6")

	twice migration 0 postmigrate host01 host02
	bare node1
	on node1 test ! -e "$DIR"
	for disk in 0 1 2; do [ "$(sum node2 $disk)" = "$(cat "$BATS_FILE_TMPDIR/sum.$disk")" ]; done
}

@test "a migration that failed leaves the disks where the VM is, and nothing on the other host" {
	migration 0 premigrate host02 host01
	scribble node2 0

	twice migration 0 failmigrate host02 host01

	bare node1
	on node1 test ! -e "$DIR"
	scribble node2 0
	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
}

@test "a premigrate that fails half-way leaves the host without any disk" {
	# Something else is where the last disk's link would be.
	on node1 mkdir -p "$DIR/disk.2"
	on node1 chown -R --reference="$DIR/.." "$DIR"

	migration 1 premigrate host02 host01 ssh
	one_sentence "cannot prepare a live migration from host02: .*disk.2"

	bare node1
	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
	on node1 rm -r "$DIR"
}

@test "a host without an agent is told in one sentence, and the VM goes on" {
	local agent
	agent=$(pid_of node1)
	kill "$agent"
	eventually 60 gone "$agent"

	migration 1 premigrate host02 host01
	one_sentence "cannot prepare a live migration from host02: .*node1"

	scribble node2 1
	sum node2 1 >"$BATS_FILE_TMPDIR/sum.1"
	restart node1
	bare node1
}

@test "called by another driver it leaves directories alone, and a migration that this one never ends is in nobody's way" {
	migration 0 premigrate host02 host01 ssh
	[ "$(sum node1 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
	on node1 test ! -e "$DIR/disk.6"

	# The VM stayed, and nobody said so: now it is moved while it is off.
	local disk
	for disk in 0 1 2; do twice tm 0 mv "host02:$DIR/disk.$disk" "frontend:$DIR/disk.$disk" 60 102; done
	bare node1
	bare node2
	for disk in 0 1 2; do twice tm 0 mv "frontend:$DIR/disk.$disk" "host02:$DIR/disk.$disk" 60 102; done
	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
}

@test "a VM that moved under another driver ends on its new host, and everything is given back" {
	local disk
	migration 0 premigrate host02 host01 ssh
	twice migration 0 postmigrate host02 host01 ssh
	on node2 test -e "$DIR/disk.6"
	bare node2
	[ "$(sum node1 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]

	twice tm 0 delete "host01:$DIR/disk.0" 60 102
	twice tm 0 mvds "host01:$DIR/disk.1" nas1/tank/one-1 60 102
	twice tm 0 delete "host01:$DIR/disk.2" 60 103
	for disk in host01 host02; do tm 0 delete "$disk:$DIR" 60 103; done

	[ "$(sha256sum <"$(volume_file one-1)")" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
	bare node1
	[ ! -e "$(volume_file one-2-60-0)" ]
	[ ! -e "$(volume_file one-vm-60-2)" ]
	for disk in 1 2; do ds 0 rm $disk 16 SOURCE=nas1/tank/one-$disk; done
}

@test "a system datastore has what its pools have" {
	printf '<DS_DRIVER_ACTION_DATA><DATASTORE><ID>103</ID><NAME>sys</NAME><TEMPLATE><ONELUN_POOLS>nas1/tank</ONELUN_POOLS></TEMPLATE></DATASTORE></DS_DRIVER_ACTION_DATA>' | base64 -w0 >"$BATS_TEST_TMPDIR/ds"

	run_action 0 tm/onelun/monitor 103 <"$BATS_TEST_TMPDIR/ds"

	[[ ${output//$'\n'/ } =~ ^USED_MB=[0-9]+\ TOTAL_MB=[1-9][0-9]*\ FREE_MB=[1-9][0-9]*$ ]]
}
