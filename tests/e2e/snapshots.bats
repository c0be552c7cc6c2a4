#!/usr/bin/env bats
# Snapshots and save-as with the contents compared, every action twice: oned's calls in oned's order.

load sandbox.bash

# A pool that shares blocks, as the pools do that people use.
setup_file() {
	sandbox_up --pool-on xfs
	local id
	for id in 1 2; do
		document "$id" 64 PERSISTENT=1 | base64 -w0 >"$BATS_FILE_TMPDIR/document"
		"$CHECKOUT/datastore/onelun/mkfs" "$id" <"$BATS_FILE_TMPDIR/document"
	done
}
teardown_file() { sandbox_down; }

setup() {
	DIR=$DIRECTORY/50
	DISK=host01:$DIR/disk
	IDS=(50 102)
}

# twice COMMAND...: oned may repeat everything.
twice() {
	"$@"
	"$@"
}

# scribble DISK: other content, as a VM writes it.
scribble() { on node1 dd if=/dev/urandom of="$DIR/disk.$1" bs=1M count=8 oflag=direct conv=notrunc,nocreat status=none; }

# sum DISK: its content as the host's own cache tells it, which must never be an old one.
sum() { on node1 dd if="$DIR/disk.$1" bs=1M status=none | sha256sum; }

# stored SOURCE [FILE]: the content in the pool, of the volume or of a file beside its data.
stored() { on nas1 sha256sum "$(volume_file "$1")" | sed 's/ .*/  -/'; }

keep() { printf '%s\n' "$2" >"$BATS_FILE_TMPDIR/$1"; }
kept() { cat "$BATS_FILE_TMPDIR/$1"; }

# held DISK COMMAND...: run it while something on the host has the disk open.
held() {
	local failed=0 holder
	rm -f "$BATS_TEST_TMPDIR/holder"
	# shellcheck disable=SC2016 # the holder's own shell tells its number
	on node1 sh -c 'exec 3<>"$1" && echo $$ >"$2" && exec sleep 600' sh "$DIR/disk.$1" "$BATS_TEST_TMPDIR/holder" &
	holder=$!
	shift
	eventually 120 test -s "$BATS_TEST_TMPDIR/holder"
	"$@" || failed=$?
	kill "$(cat "$BATS_TEST_TMPDIR/holder")"
	wait "$holder" || true
	return "$failed"
}

@test "snapshots of a running VM's disk, and of one that is off" {
	tm 0 clone frontend:nas1/tank/one-2 "$DISK.0" "${IDS[@]}"
	tm 0 ln frontend:nas1/tank/one-1 "$DISK.1" "${IDS[@]}"
	scribble 1
	keep zero "$(sum 1)"
	held 1 twice tm 0 snap_create_live "$DISK.1" 0 "${IDS[@]}"
	scribble 1
	keep one "$(sum 1)"
	twice tm 0 snap_create "$DISK.1" 1 "${IDS[@]}"
	scribble 1
	[ "$(sum 1)" != "$(kept one)" ]
}

@test "reverting gives what was then, through the host's cache too, and younger snapshots stay" {
	local before
	twice tm 0 snap_revert "$DISK.1" 0 "${IDS[@]}"
	[ "$(sum 1)" = "$(kept zero)" ]

	twice tm 0 snap_revert "$DISK.1" 1 "${IDS[@]}"
	[ "$(sum 1)" = "$(kept one)" ]

	scribble 1
	before=$(sum 1)
	[ "$before" != "$(kept one)" ]
	[ "$(stored one-1)" = "$before" ]
}

@test "a disk that a VM has open is not reverted, and stays usable" {
	local before
	before=$(sum 1)
	held 1 tm 1 snap_revert "$DISK.1" 0 "${IDS[@]}"

	one_sentence 'open|in use'
	[ "$(sum 1)" = "$before" ]
	scribble 1
}

@test "a disk that moved to another host is not reverted for the first one" {
	tm 1 snap_revert "host02:$DIR/disk.1" 0 "${IDS[@]}"
	one_sentence 'one-1 is mapped to node1'
}

@test "the NAS agent is killed while it reverts: the action or its repeat ends well" {
	"$CHECKOUT/tm/onelun/snap_revert" "$DISK.1" 0 "${IDS[@]}" >"$BATS_TEST_TMPDIR/out" 2>&1 </dev/null &
	local action=$!
	sleep 0.4
	kill -9 "$(pid_of nas1)"
	restart nas1
	wait "$action" || cat "$BATS_TEST_TMPDIR/out"

	tm 0 snap_revert "$DISK.1" 0 "${IDS[@]}"
	[ "$(sum 1)" = "$(kept zero)" ]
}

@test "a disk is saved as an image: as it is while it is in use, and as it was" {
	scribble 1
	ds 0 mkfs 10 64
	held 1 twice tm 0 cpds "$DISK.1" nas1/tank/one-10 -1 "${IDS[@]}"
	[ "$(stored one-10)" = "$(sum 1)" ]

	ds 0 mkfs 11 64
	twice tm 0 cpds "$DISK.1" nas1/tank/one-11 1 "${IDS[@]}"
	[ "$(stored one-11)" = "$(kept one)" ]

	ds 0 mkfs 12 64
	scribble 0
	twice tm 0 cpds "$DISK.0" nas1/tank/one-12 -1 "${IDS[@]}"
	[ "$(stored one-12)" = "$(sum 0)" ]
}

@test "the NAS agent is killed while it saves a disk: the action or its repeat ends well, and leaves nothing" {
	scribble 1
	ds 0 mkfs 14 64
	"$CHECKOUT/tm/onelun/cpds" "$DISK.1" nas1/tank/one-14 -1 "${IDS[@]}" >"$BATS_TEST_TMPDIR/out" 2>&1 </dev/null &
	local action=$!
	sleep 0.2
	kill -9 "$(pid_of nas1)"
	restart nas1
	wait "$action" || cat "$BATS_TEST_TMPDIR/out"

	tm 0 cpds "$DISK.1" nas1/tank/one-14 -1 "${IDS[@]}"
	[ "$(stored one-14)" = "$(sum 1)" ]
	[ -z "$(on nas1 find "$ONELUN_SANDBOX/hosts/nas1/pool" -name '.new-*' -o -name 'snapshot-copying*')" ]
}

@test "a stopped VM's disk is saved from the front-end" {
	local before
	before=$(sum 0)
	tm 0 mv "$DISK.0" "frontend:$DIR/disk.0" "${IDS[@]}"
	ds 0 mkfs 13 64

	twice tm 0 cpds "frontend:$DIR/disk.0" nas1/tank/one-13 -1 "${IDS[@]}"
	[ "$(stored one-13)" = "$before" ]

	tm 0 mv "frontend:$DIR/disk.0" "$DISK.0" "${IDS[@]}"
}

@test "an image that has been used is not saved over" {
	tm 0 ln frontend:nas1/tank/one-13 "$DISK.3" "${IDS[@]}"
	tm 1 cpds "$DISK.0" nas1/tank/one-13 -1 "${IDS[@]}"
	one_sentence 'one-13 is mapped to node1'

	tm 0 mvds "$DISK.3" nas1/tank/one-13 "${IDS[@]}"
	tm 1 cpds "$DISK.0" nas1/tank/one-13 -1 "${IDS[@]}"
	one_sentence 'one-13 has been on a host already'
}

@test "a snapshot is deleted while the VM runs; what is not there is done, or a clear error" {
	held 1 twice tm 0 snap_delete "$DISK.1" 1 "${IDS[@]}"
	tm 1 snap_revert "$DISK.1" 1 "${IDS[@]}"
	one_sentence 'one-1 in pool tank has no snapshot snap-1'
	tm 1 snap_revert "$DISK.1" x "${IDS[@]}"
	one_sentence "no id of oned's"
}

@test "an image in use is not reverted; when it is free it is reverted, and flattened" {
	scribble 1
	tm 0 snap_create "$DISK.1" 2 "${IDS[@]}"
	keep two "$(sum 1)"
	scribble 1
	ds 1 snap_revert 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=2
	one_sentence 'one-1 is mapped to node1'

	tm 0 mvds "$DISK.1" nas1/tank/one-1 "${IDS[@]}"
	twice ds 0 snap_revert 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=2
	[ "$(stored one-1)" = "$(kept two)" ]

	twice ds 0 snap_delete 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=2
	ds 1 snap_revert 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=2
	one_sentence 'has no snapshot snap-2'
	ds 1 snap_flatten 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=0 REGTIME=5
	one_sentence 'one-1 is image 1, registered at 1700000000, not'

	twice ds 0 snap_flatten 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=0
	[ "$(stored one-1)" = "$(kept zero)" ]
	ds 1 snap_revert 1 64 SOURCE=nas1/tank/one-1 SNAPSHOT=0
}

@test "a disk and images with snapshots are removed, and what was saved from them stays" {
	local before id
	before=$(stored one-12)
	twice tm 0 snap_create "$DISK.0" 0 "${IDS[@]}"
	twice tm 0 snap_create "$DISK.0" 1 "${IDS[@]}"
	twice tm 0 delete "$DISK.0" "${IDS[@]}"
	tm 0 delete "host01:$DIR" "${IDS[@]}"
	twice tm 0 snap_delete "$DISK.0" 0 "${IDS[@]}"
	run -1 on nas1 test -e "$(dirname "$(volume_file one-2-50-0)")"
	[ "$(stored one-12)" = "$before" ]

	tm 0 ln frontend:nas1/tank/one-1 "$DISK.1" "${IDS[@]}"
	tm 0 snap_create "$DISK.1" 0 "${IDS[@]}"
	tm 0 mvds "$DISK.1" nas1/tank/one-1 "${IDS[@]}"
	for id in 1 2 10 11 12 13 14; do twice ds 0 rm "$id" 64 SOURCE=nas1/tank/one-$id; done
	[ -z "$(on nas1 sh -c "ls '$ONELUN_SANDBOX/hosts/nas1/pool'")" ]
}
