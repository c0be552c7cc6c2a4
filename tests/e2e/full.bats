#!/usr/bin/env bats
# A pool that becomes full half-way: a clear sentence, nothing left, and the repeat succeeds when there is room.

load sandbox.bash

setup_file() { sandbox_up --pool-on xfs; }
teardown_file() { sandbox_down; }

# fill: leave 32 MiB in the pool as soon as an image is being written there.
fill() {
	# shellcheck disable=SC2016 # the pool's own shell looks and counts
	on nas1 timeout 120 sh -c 'cd "$1" && until ls -d .new-*/data 2>/dev/null; do sleep 0.01; done && fallocate -l $(($(df -B1 --output=avail . | tail -n 1) - 33554432)) filler' sh "$POOL"
}

@test "an image that does not fit after all leaves nothing, and arrives when there is room" {
	POOL=$ONELUN_SANDBOX/hosts/nas1/pool
	local image=$ONELUN_SANDBOX/large.raw
	head -c 512M /dev/urandom >"$image"
	chmod 644 "$image"

	fill &
	ds 1 cp 1 512 PATH="$image"
	wait $!

	one_sentence 'pool tank of nas1 became full'
	[ "$(on nas1 ls "$POOL")" = filler ]
	[ -z "$(on nas1 sh -c "ls -d '$POOL'/.new-* '$POOL'/.trash-* 2>/dev/null")" ]

	on nas1 rm "$POOL/filler"
	ds 0 cp 1 512 PATH="$image"
	on nas1 cmp -n 536870912 "$POOL/one-1/data" "$image"
}

@test "a full pool promises nothing more, and removing works all the same" {
	POOL=$ONELUN_SANDBOX/hosts/nas1/pool
	# shellcheck disable=SC2016 # the pool's own shell counts
	on nas1 sh -c 'cd "$1" && fallocate -l $(($(df -B1 --output=avail . | tail -n 1) - 33554432)) filler' sh "$POOL"

	ds 1 mkfs 2 64
	one_sentence 'GiB free'
	tm 1 clone frontend:nas1/tank/one-1 "host01:$DIRECTORY/7/disk.0" 7 102
	one_sentence 'GiB free'
	ds 0 rm 1 512 SOURCE=nas1/tank/one-1

	on nas1 rm "$POOL/filler"
	ds 0 mkfs 2 64
}
