#!/usr/bin/env bats
# Backups and restoring with the contents compared: what a host writes is put together as OpenNebula's datastores do it.

load sandbox.bash

# A pool that shares blocks, which is what tells changes.
setup_file() {
	sandbox_up --pool-on xfs
	local id
	for id in 1 2; do
		document "$id" 32 PERSISTENT=1 | base64 -w0 >"$BATS_FILE_TMPDIR/document"
		"$CHECKOUT/datastore/onelun/mkfs" "$id" <"$BATS_FILE_TMPDIR/document"
	done
}
teardown_file() { sandbox_down; }

setup() {
	DIR=$DIRECTORY/70
	IDS=(70 103)
	CHAIN=$BATS_FILE_TMPDIR/chain
	mkdir -p "$CHAIN"
}

twice() {
	"$@"
	"$@"
}

# vm LAST [MODE]: the VM's document, its backup's last increment being LAST.
vm() {
	local disk
	printf '<VM><ID>70</ID><STATE>8</STATE><LCM_STATE>70</LCM_STATE><DEPLOY_ID>one-70</DEPLOY_ID><TEMPLATE>'
	for disk in '0</DISK_ID><CLONE>YES</CLONE><SOURCE>nas1/tank/one-2' '1</DISK_ID><CLONE>NO</CLONE><SOURCE>nas1/tank/one-1'; do
		printf '<DISK><DISK_ID>%s</SOURCE><TM_MAD>onelun</TM_MAD></DISK>' "$disk"
	done
	printf '</TEMPLATE><BACKUPS><BACKUP_CONFIG><MODE>%s</MODE><LAST_INCREMENT_ID>%s</LAST_INCREMENT_ID></BACKUP_CONFIG>' \
		"${2-INCREMENT}" "$1"
	printf '</BACKUPS></VM>'
}

# backup STATUS ACTION LAST [MODE]
backup() {
	vm "${@:3}" >"$BATS_TEST_TMPDIR/vm"
	run_action "$1" "tm/onelun/$2" "host01:$DIR" 0:1 one-70 - "${IDS[@]}" <"$BATS_TEST_TMPDIR/vm"
}

# files: what the backup's directory has.
# shellcheck disable=SC2016 # the host's own shell looks
files() { on node1 sh -c 'cd "$1" 2>/dev/null && ls -A | sort | tr "\n" " "' sh "$DIR/backup"; }

# sum DISK: what the VM has, past every cache.
sum() { on node1 dd if="$DIR/disk.$1" bs=1M iflag=direct status=none | sha256sum; }

# write DISK SEEK COUNT [SOURCE]: in units of 64 KiB.
write() {
	on node1 dd if="${4-/dev/urandom}" of="$DIR/disk.$1" bs=64k seek="$2" count="$3" oflag=direct conv=notrunc,nocreat status=none
}

# take INCREMENT: keep the files of the backup beside those before it, as a datastore does, and the sums of the moment.
take() {
	local disk
	for disk in 0 1; do
		on node1 cat "$DIR/backup/disk.$disk.$1" >"$CHAIN/disk.$disk.$1"
		sum "$disk" >"$CHAIN/sum.$disk.$1"
		(($1 == 0)) || qemu-img rebase -u -F qcow2 -b "$CHAIN/disk.$disk.$(($1 - 1))" "$CHAIN/disk.$disk.$1"
	done
}

# holds DISK INCREMENT: the chain up to there has what the disk had.
holds() {
	qemu-img convert -O raw "$CHAIN/disk.$1.$2" "$BATS_TEST_TMPDIR/raw"
	[ "$(sha256sum <"$BATS_TEST_TMPDIR/raw")" = "$(cat "$CHAIN/sum.$1.$2")" ]
}

@test "a full backup of a VM that is off: each disk in a file, owned as the datastore's are" {
	tm 0 clone frontend:nas1/tank/one-2 "host01:$DIR/disk.0" 70 102
	tm 0 ln frontend:nas1/tank/one-1 "host01:$DIR/disk.1" 70 102
	write 0 0 100
	write 1 8 8
	twice backup 0 prebackup -1 FULL

	[ "$(files)" = "disk.0.0 disk.1.0 vm.xml " ]
	[ "$(on node1 stat -c %u "$DIR/backup/disk.0.0")" = "$(on node1 stat -c %u "$DIR")" ]
	[ "$(on node1 base64 -d "$DIR/backup/vm.xml")" = "$(vm -1 FULL)" ]
	take 0
	holds 0 0
	holds 1 0
}

@test "postbackup leaves nothing of it" {
	twice backup 0 postbackup -1 FULL

	[ -z "$(files)" ]
	run ! on node1 test -e "$DIR/backup"
}

@test "increments of a running VM: written, zeroed, grown, and put together again" {
	twice backup 0 prebackup_live -1
	take 0
	backup 0 postbackup_live -1

	write 0 10 2
	write 0 40 20 /dev/zero
	twice backup 0 prebackup_live 0
	[ "$(files)" = "disk.0.1 disk.1.1 vm.xml " ]
	take 1
	backup 0 postbackup_live 0

	tm 0 resize "host01:$DIR/disk.0" 48 "${IDS[@]}"
	write 0 600 3
	write 0 10 1 /dev/zero
	write 1 9 1
	backup 0 prebackup_live 1
	take 2
	twice backup 0 postbackup_live 1

	local disk increment
	for disk in 0 1; do
		for increment in 0 1 2; do holds "$disk" "$increment"; done
	done
}

@test "an increment holds what changed and not the disk" {
	[ "$(stat -c %s "$CHAIN/disk.0.1")" -lt 2000000 ]
	[ "$(stat -c %s "$CHAIN/disk.1.1")" -lt 1000000 ]
	[ "$(stat -c %s "$CHAIN/disk.0.0")" -gt 6000000 ]
}

@test "the chain is flattened as a datastore does it" {
	cp "$CHAIN"/disk.0.* "$BATS_TEST_TMPDIR"
	qemu-img rebase -u -F qcow2 -b "$BATS_TEST_TMPDIR/disk.0.0" "$BATS_TEST_TMPDIR/disk.0.1"
	qemu-img rebase -u -F qcow2 -b "$BATS_TEST_TMPDIR/disk.0.1" "$BATS_TEST_TMPDIR/disk.0.2"
	qemu-img commit -q -f qcow2 -b "$BATS_TEST_TMPDIR/disk.0.0" "$BATS_TEST_TMPDIR/disk.0.2"
	qemu-img convert -O raw "$BATS_TEST_TMPDIR/disk.0.0" "$BATS_TEST_TMPDIR/raw"
	[ "$(sha256sum <"$BATS_TEST_TMPDIR/raw")" = "$(cat "$CHAIN/sum.0.2")" ]
}

@test "a base that is gone says that the backup is to be reset" {
	backup 1 prebackup_live 7
	one_sentence 'has no snapshot backup-70-7.*onevm backup --reset'
	[ -z "$(files)" ]
}

@test "the frontend is killed while the files are written: the repeat has the right content" {
	write 0 100 100
	vm 2 >"$BATS_TEST_TMPDIR/vm"
	"$CHECKOUT/tm/onelun/prebackup_live" "host01:$DIR" 0:1 one-70 - "${IDS[@]}" <"$BATS_TEST_TMPDIR/vm" >"$BATS_TEST_TMPDIR/out" 2>&1 &
	local action=$!
	sleep 1
	kill -9 "$(pid_of frontend)"
	restart frontend
	wait "$action" || cat "$BATS_TEST_TMPDIR/out"

	backup 0 prebackup_live 2
	take 3
	holds 0 3
}

@test "the host's agent is killed while the files are written: the action or its repeat ends well" {
	write 0 200 100
	vm 3 >"$BATS_TEST_TMPDIR/vm"
	"$CHECKOUT/tm/onelun/prebackup_live" "host01:$DIR" 0:1 one-70 - "${IDS[@]}" <"$BATS_TEST_TMPDIR/vm" >"$BATS_TEST_TMPDIR/out" 2>&1 &
	local action=$!
	sleep 1.5
	kill -9 "$(pid_of node1)"
	restart node1
	wait "$action" || cat "$BATS_TEST_TMPDIR/out"

	backup 0 prebackup_live 3
	[ "$(files)" = "disk.0.4 disk.1.4 vm.xml " ]
	take 4
	holds 0 4
	backup 0 postbackup_live 3
	[ -z "$(files)" ]
}

@test "a host without room says so before anything is written" {
	write 0 0 400
	on node1 mount -t tmpfs -o size=4m backup "${DIR//\/\//\/}"
	backup 1 prebackup_live 4
	on node1 umount "${DIR//\/\//\/}"

	one_sentence 'needs up to .* MiB, and its filesystem has .* left'
	[ "$(sum 0)" != "$(cat "$CHAIN/sum.0.4")" ]
}

@test "a disk is put back, twice, and its host has it at once" {
	mkdir -p "$BATS_TEST_TMPDIR/remotes/datastore/rsync"
	local remotes=$BATS_TEST_TMPDIR/remotes/datastore
	qemu-img convert -O qcow2 "$CHAIN/disk.0.2" "$BATS_TEST_TMPDIR/disk.0.2"
	printf '#!/bin/sh\ncat >/dev/null\necho %s\n' "'{\"0\": \"rsync://1//0:a$BATS_TEST_TMPDIR/disk.0.2\"}'" >"$remotes/rsync/ls"
	# shellcheck disable=SC2016 # the script's own words
	printf '#!/bin/sh\nexec cat "${2#rsync://1//0:a}"\n' >"$remotes/downloader.sh"
	chmod +x "$remotes/rsync/ls" "$remotes/downloader.sh"
	oned

	twice restore 0
	[ "$(sum 0)" = "$(cat "$CHAIN/sum.0.2")" ]
	write 0 0 1

	# shellcheck disable=SC2016 # the holder's own shell tells its number
	on node1 sh -c 'exec 3<>"$1" && echo $$ >"$2" && exec sleep 600' sh "$DIR/disk.0" "$BATS_TEST_TMPDIR/holder" &
	local holder=$! before
	eventually 120 test -s "$BATS_TEST_TMPDIR/holder"
	before=$(sum 0)
	restore 1
	# Above it is its debug log.
	# shellcheck disable=SC2154 # bats sets it
	grep -q 'one-2-70-0 is in use on node1 .*: power its VM off first$' <<<"${stderr##*$'\n'}"
	kill "$(cat "$BATS_TEST_TMPDIR/holder")"
	wait "$holder" || true
	[ "$(sum 0)" = "$before" ]
	write 0 0 1
	kill "$(cat "$BATS_TEST_TMPDIR/oned.pid")"
}

# restore STATUS: of disk 0, in a process of its own, which asks the oned of this test.
restore() {
	ONELUN_DIRECT=1 ONELUN_CONFIG=$BATS_TEST_TMPDIR/onelun.toml \
		run_action "$1" tm/onelun/restore "host01:$DIR" 70 27 -1 0 </dev/null
}

# oned: a small one, which knows the VM, the image of the backup and its datastore.
oned() {
	vm -1 >"$BATS_TEST_TMPDIR/vm.70"
	printf '<IMAGE><ID>27</ID><DATASTORE_ID>1</DATASTORE_ID></IMAGE>' >"$BATS_TEST_TMPDIR/image.27"
	printf '<DATASTORE><ID>1</ID><DS_MAD>rsync</DS_MAD></DATASTORE>' >"$BATS_TEST_TMPDIR/datastore.1"
	PYTHONPATH=$CHECKOUT:$CHECKOUT/lib "$CHECKOUT/.venv/bin/python" -m tests.support.oned "$BATS_TEST_TMPDIR" \
		>"$BATS_TEST_TMPDIR/oned.url" 3>&- &
	printf '%s\n' $! >"$BATS_TEST_TMPDIR/oned.pid"
	eventually 120 test -s "$BATS_TEST_TMPDIR/oned.url"
	sed -e "/^staging/d; /^\[frontend\]/a staging = \"/var/tmp\"\nremotes = \"$BATS_TEST_TMPDIR/remotes\"\napi = \"$(cat "$BATS_TEST_TMPDIR/oned.url")\"\napi_auth = \"$BATS_TEST_TMPDIR/one_auth\"" \
		"$ONELUN_SANDBOX/etc/frontend.toml" >"$BATS_TEST_TMPDIR/onelun.toml"
	chmod 600 "$BATS_TEST_TMPDIR/onelun.toml"
}

@test "disks end with their backups' snapshots" {
	tm 0 delete "host01:$DIR/disk.0" 70 102
	tm 0 mvds "host01:$DIR/disk.1" nas1/tank/one-1 70 102

	run ! find "$ONELUN_SANDBOX/hosts/nas1/pool/one-1" -name '*backup-70*'
}
