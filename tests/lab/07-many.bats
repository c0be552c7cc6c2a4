#!/usr/bin/env bats
# Many volumes attached and detached at once, on both nodes, over and over: nothing may be left on any host.

load lab.bash
load leftovers.bash

# 50 and 5 are worth a run now and then; user-mode-linux starts processes slowly, and there are thousands in it.
MANY=${ONELUN_LAB_MANY:-20}
ROUNDS=${ONELUN_LAB_ROUNDS:-3}

teardown() { lab_down; }

# held VERB HOST...: map, unmap or delete all of them at once; what fails is repeated, as an operator would.
held() {
	local verb=$1
	shift
	LIMIT=300 on front python "$CHECKOUT/tests/lab/held.py" "$verb" "$MANY" "$@" </dev/null
}

@test "many volumes are attached and detached at once on two nodes, over and over, and nothing is left" {
	lab_up --finish-s 300 --accept-s 60
	local round hosts="node1 node2"
	for ((round = 1; round <= ROUNDS; round++)); do
		# shellcheck disable=SC2086 # two words
		held map $hosts
		expects 0 node1 sh -c "ls /dev/onelun/nas1/tank | wc -l"
		[ "$output" = $((MANY / 2)) ]
		# shellcheck disable=SC2086
		held unmap $hosts
		# The next time each volume goes to the other node.
		hosts="${hosts#* } ${hosts% *}"
	done
	held delete node1 node2
	nothing_left
}
