#!/usr/bin/env bats
# Kill -9 of any one process in the middle of an action, then `scripts/sandbox down`: nothing is left.

load sandbox.bash

setup() {
	sandbox_up
	document 1 64 PERSISTENT=1 | base64 -w0 >"$BATS_TEST_TMPDIR/document"
	"$CHECKOUT/datastore/onelun/mkfs" 1 <"$BATS_TEST_TMPDIR/document"
	"$CHECKOUT/tm/onelun/ln" frontend:nas1/tank/one-1 "host01:$DIRECTORY/1/disk.0" 1 102
	on node1 dd if=/dev/zero of="$DIRECTORY/1/disk.0" bs=1M count=64 oflag=direct conv=notrunc,nocreat status=none &
}

teardown() {
	"$CHECKOUT/scripts/sandbox" down --id "$SANDBOX"
}

# ends_clean PID...: kill these in the middle of an action; what is left is nothing.
ends_clean() {
	timeout 60 "$CHECKOUT/tm/onelun/clone" frontend:nas1/tank/one-1 "host02:$DIRECTORY/2/disk.0" 2 102 >/dev/null 2>&1 &
	kill -9 "$@"
	sleep 0.3
	sandbox_down
	wait
	[ ! -e "$ONELUN_SANDBOX" ]
}

@test "the NAS agent" { ends_clean "$(pid_of nas1)"; }
@test "a compute agent" { ends_clean "$(pid_of node1)"; }
@test "the frontend" { ends_clean "$(pid_of frontend)"; }
@test "the broker" { ends_clean "$(pid_of broker)"; }
@test "tgtd" { ends_clean "$(pid_of tgtd)"; }
@test "the process that holds a host's namespaces" { ends_clean "$(pid_of node1.holder)"; }
@test "the processes that carry the data" {
	local file pids=()
	for file in "$ONELUN_SANDBOX"/hosts/node1/run/compute/targets/*/*.pid; do pids+=("$(<"$file")"); done
	ends_clean "${pids[@]}"
}
