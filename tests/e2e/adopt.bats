#!/usr/bin/env bats
# A file that lies in the pool already becomes an image, as `oneimage create --source` has it, and goes again.

load sandbox.bash

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

setup() {
	POOL=$ONELUN_SANDBOX/hosts/nas1/pool
	DIR=$DIRECTORY/60
}

sum_of() { sha256sum <"$1"; }

sum_on() { on "$1" dd if="$2" bs=1M iflag=direct status=none | sha256sum; }

@test "an image whose volume was not adopted is neither attached nor cloned nor removed, and a sentence says what to do" {
	on nas1 dd if=/dev/urandom of="$POOL/Legacy.img" bs=1M count=8 status=none
	on nas1 dd if=/dev/urandom of="$POOL/legacy" bs=1M count=4 status=none
	sum_of "$POOL/Legacy.img" >"$BATS_FILE_TMPDIR/sum"

	ds 1 rm 12 4 SOURCE=nas1/tank/legacy
	one_sentence "cannot remove image 12: legacy in pool tank is no volume of onelun's: adopt it"
	tm 1 ln frontend:nas1/tank/legacy "host01:$DIR/disk.0" 60 102
	one_sentence "legacy in pool tank is no volume of onelun's: adopt it"
	tm 1 clone frontend:nas1/tank/legacy "host01:$DIR/disk.0" 60 102
	one_sentence "legacy in pool tank is no volume of onelun's: adopt it"
	[ -f "$POOL/legacy" ]
}

@test "what is open, ours, or of a bad name is refused and stays" {
	local open=$ONELUN_SANDBOX/open
	on nas1 sh -c "exec 3<'$POOL/Legacy.img'; echo >'$open'; while [ -e '$open' ]; do sleep 0.1; done" 3>&- &
	local holder=$!
	eventually 120 test -e "$open"
	run -1 onelun frontend adopt nas1/tank/Legacy.img --as old
	[ "$output" = "Error: Legacy.img is open: a process, a target or a mount has it" ]
	rm "$open"
	wait "$holder"

	ds 0 mkfs 1 4
	run -1 onelun frontend adopt nas1/tank/one-1
	[[ $output = *"one-1 is a name that a new image or disk may get"* ]]
	run -1 onelun frontend adopt nas1/tank/one-1 --as mine
	[ "$output" = "Error: one-1 in the place of pool tank is a volume of onelun's already" ]
	run -1 onelun frontend adopt nas1/tank/Legacy.img
	[[ $output = *"'Legacy.img' is no volume name"* ]]
	run -1 onelun frontend adopt nas1/tank/../../etc/passwd
	[[ $output = *"should be NAS/POOL/NAME"* ]]
	run -1 onelun frontend adopt nas1/tank/nothing
	[[ $output = *"there is no nothing to adopt in the place of pool tank"* ]]
	[ "$(sum_of "$POOL/Legacy.img")" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
}

@test "a file is adopted as it is, under a name of its own, and again the same" {
	local inode
	inode=$(stat -c %i "$POOL/Legacy.img")

	run -0 onelun frontend adopt nas1/tank/Legacy.img --as old
	[ "$output" = "nas1/tank/old 8" ]
	run -0 onelun frontend adopt nas1/tank/Legacy.img --as old
	[ "$output" = "nas1/tank/old 8" ]

	[ "$(stat -c %i "$(volume_file old)")" = "$inode" ]
	[ ! -e "$POOL/Legacy.img" ]
}

@test "a VM has it and its clones, over a restart of the agent" {
	tm 0 ln frontend:nas1/tank/old "host01:$DIR/disk.0" 60 102
	[ "$(sum_on node1 "$DIR/disk.0")" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
	run -1 onelun frontend release nas1/tank/old
	[[ $output = *"old is mapped to node1: unmap it first"* ]]
	restart nas1
	tm 0 mvds "host01:$DIR/disk.0" nas1/tank/old 60 102
	tm 0 clone frontend:nas1/tank/old "host02:$DIRECTORY/61/disk.0" 61 102
	[ "$(sum_on node2 "$DIRECTORY/61/disk.0")" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
	tm 0 delete "host02:$DIRECTORY/61/disk.0" 61 102
}

@test "it is released with its data and adopted again, for one image" {
	run -0 onelun frontend release nas1/tank/old
	[ "$output" = old.raw ]
	run -0 onelun frontend release nas1/tank/old
	[ "$output" = "there is no volume old in pool tank" ]
	[ "$(sum_of "$POOL/old.raw")" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]

	run -0 onelun frontend adopt nas1/tank/old.raw --as old --image 12
	[ "$output" = "nas1/tank/old 8" ]
}

@test "only its image removes it" {
	ds 1 rm 13 8 SOURCE=nas1/tank/old
	one_sentence 'old is image 12, not image 13'
	ds 0 rm 12 8 SOURCE=nas1/tank/old
	ds 0 rm 12 8 SOURCE=nas1/tank/old
	[ ! -e "$(volume_file old)" ]
	ds 0 rm 1 4 SOURCE=nas1/tank/one-1
}
