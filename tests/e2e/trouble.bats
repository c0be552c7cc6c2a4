#!/usr/bin/env bats
# What is down, hangs or was killed: one clear sentence in time, and the repeat succeeds when it is back.

load sandbox.bash

setup_file() {
	sandbox_up --finish-s 60
	document 1 64 PERSISTENT=1 | base64 -w0 >"$BATS_FILE_TMPDIR/document"
	"$CHECKOUT/datastore/onelun/mkfs" 1 <"$BATS_FILE_TMPDIR/document"
}
teardown_file() { sandbox_down; }

# within SECONDS COMMAND...: it must not take longer.
within() {
	local limit=$1 started=$SECONDS
	shift
	"$@"
	[ $((SECONDS - started)) -le "$limit" ] || {
		printf '%s took %s s, more than %s\n' "$*" $((SECONDS - started)) "$limit" >&2
		return 1
	}
}

@test "a host that nobody serves is named in the refusal" {
	within 40 tm 1 ln frontend:nas1/tank/one-1 "host09:$DIRECTORY/9/disk.0" 9 102
	one_sentence 'host09'
}

@test "the NAS agent is down: nothing happened, and it works when it is back" {
	kill_role nas1
	within 40 ds 1 mkfs 2 64
	one_sentence 'nas1'

	restart nas1
	ds 0 mkfs 2 64
}

@test "the NAS agent hangs: the action ends in time, and the repeat succeeds" {
	kill -STOP "$(pid_of nas1)"
	within 100 ds 1 mkfs 3 64
	one_sentence 'nas1'
	kill -CONT "$(pid_of nas1)"

	# Its connection may be gone meanwhile, and it comes back by itself.
	eventually 120 ds 0 mkfs 3 64
	[ "$output" = nas1/tank/one-3 ]
}

@test "a compute agent is down: ln says so, and works when it is back" {
	local dir=$DIRECTORY/10
	kill_role node1
	within 100 tm 1 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 10 102
	one_sentence 'node1'

	restart node1
	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 10 102
	on node1 dd if="$dir/disk.0" of=/dev/null bs=4096 count=1 iflag=direct status=none
}

# write_until FILE DISK: write to the disk on node1 until FILE is there.
write_until() {
	until [ -e "$1" ]; do
		on node1 dd if=/dev/zero of="$2" bs=64k count=100 oflag=direct conv=notrunc,nocreat status=none || return
	done
}

@test "a restarted compute agent interrupts no I/O and still knows its devices" {
	local dir=$DIRECTORY/10
	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 10 102
	write_until "$BATS_TEST_TMPDIR/stop" "$dir/disk.0" &
	local writer=$!
	kill -9 "$(pid_of node1)"
	restart node1
	touch "$BATS_TEST_TMPDIR/stop"
	wait "$writer"

	tm 0 mvds "host01:$dir/disk.0" nas1/tank/one-1 10 102
	run -1 on node1 test -b "$dir/disk.0"
}

@test "the frontend is down: the stub runs the action itself, and the frontend serves again when it is back" {
	kill_role frontend
	ds 0 mkfs 4 64
	[ "$output" = nas1/tank/one-4 ]

	restart frontend
	ds 0 mkfs 4 64
	[ "$output" = nas1/tank/one-4 ]
}

@test "tgtd was killed: an attached disk works again when it is back" {
	local dir=$DIRECTORY/11
	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 11 102
	kill_role tgtd
	restart tgtd
	restart nas1

	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 11 102
	on node1 timeout 60 dd if="$dir/disk.0" of=/dev/null bs=4096 count=1 iflag=direct status=none
	tm 0 mvds "host01:$dir/disk.0" nas1/tank/one-1 11 102
}

@test "the process that carries a disk's data was killed: ln again makes it anew" {
	local dir=$DIRECTORY/12
	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 12 102
	local session
	session=$(cat "$ONELUN_SANDBOX"/hosts/node1/run/compute/targets/*/session.pid)
	kill -9 "$session"
	eventually 60 gone "$session"

	tm 0 ln frontend:nas1/tank/one-1 "host01:$dir/disk.0" 12 102
	on node1 dd if="$dir/disk.0" of=/dev/null bs=4096 count=1 iflag=direct status=none
	tm 0 mvds "host01:$dir/disk.0" nas1/tank/one-1 12 102
}

@test "the broker is down: one sentence in time" {
	kill_role broker
	within 100 ds 1 mkfs 5 64
	one_sentence 'broker|RabbitMQ'
}
