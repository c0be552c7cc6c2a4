#!/usr/bin/env bats
# A pool in maintenance: nothing new is placed there, what is there goes on, and a restart of the agent forgets nothing.

load sandbox.bash

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

# nas COMMAND...: `onelun nas COMMAND` on the NAS.
nas() { on nas1 env ONELUN_CONFIG="$ONELUN_SANDBOX/etc/nas1.toml" onelun nas "$@"; }

BOTH="POOLS=nas1/tank nas1/spare"

@test "maintenance begins and is told, and bad words change nothing" {
	ds 0 mkfs 1 64
	tm 0 clone frontend:nas1/tank/one-1 "host01:$DIRECTORY/7/disk.0" 7 102

	run -0 nas maintenance
	[ "$output" = "no pool is in maintenance" ]
	run -1 nas maintenance on lake
	[ "$output" = "Error: there is no pool lake here; there are: tank, spare" ]
	run -0 nas maintenance on tank --reason "new disks"
	run -0 nas maintenance on tank --reason "new disks"
	[ "$output" = "pool tank is in maintenance (new disks): nothing new is placed there" ]
	run -1 nas check
	grep -F 'maintenance: pool tank is in maintenance (new disks): nothing new is placed there; end it with' <<<"$output"
}

@test "new images and clones go to another pool, and where there is none one sentence says so" {
	ds 0 mkfs 2 64 "$BOTH"
	[ "$output" = nas1/spare/one-2 ]
	ds 0 clone 3 64 PATH=nas1/tank/one-1 "$BOTH"
	[ "$output" = "nas1/spare/one-3 raw" ]

	ds 1 mkfs 4 64
	one_sentence 'cannot make image 4: on nas1, pool tank is in maintenance \(new disks\): nothing new is placed there$'
	ds 1 clone 4 64 PATH=nas1/tank/one-1
	one_sentence 'cannot clone into image 4: pool tank is in maintenance'
	tm 1 mkimage 8 raw "host01:$DIRECTORY/7/disk.2" 7 103
	one_sentence 'pool tank is in maintenance'
	tm 1 clone frontend:nas1/tank/one-1 "host01:$DIRECTORY/8/disk.0" 8 102
	one_sentence 'pool tank is in maintenance'
	[ ! -e "$(volume_file one-4)" ]
	[ ! -e "$(volume_file one-1-8-0)" ]
}

@test "the datastore has no room to give, and the agent remembers when it starts again" {
	restart nas1

	ds 0 monitor 102 64
	grep -qx FREE_MB=0 <<<"$output"
	ds 0 monitor 102 64 "$BOTH"
	run ! grep -qx FREE_MB=0 <<<"$output"
}

@test "what is there is moved, grown, kept, reverted and removed" {
	local dir=$DIRECTORY/7
	tm 0 mv "host01:$dir/disk.0" "host02:$dir/disk.0" 7 102
	tm 0 resize "host02:$dir/disk.0" 96 7 102
	tm 0 snap_create "host02:$dir/disk.0" 0 7 102
	tm 0 snap_revert "host02:$dir/disk.0" 0 7 102
	on node2 test -b "$dir/disk.0"
	tm 0 delete "host02:$dir/disk.0" 7 102
	ds 0 rm 1 64 SOURCE=nas1/tank/one-1
}

@test "when it has ended the pool takes what comes" {
	run -0 nas maintenance off
	[ "$output" = "no pool is in maintenance" ]
	ds 0 mkfs 4 64
	[ "$output" = nas1/tank/one-4 ]
}

@test "a front-end may set it too" {
	run -0 onelun ask nas1 set_maintenance on=true 'zpools=["spare"]'
	run -0 nas maintenance
	[ "$output" = "pool spare is in maintenance: nothing new is placed there" ]
	run -0 onelun ask nas1 set_maintenance on=false
}
