#!/usr/bin/env bats
# Many volumes attached and detached at once, on both nodes, over and over: nothing may be left on any host.

load lab.bash
load leftovers.bash

teardown() { lab_down; }

@test "50 volumes are attached and detached at once on two nodes, five times, and nothing is left" {
	lab_up
	LIMIT=400 run on front "$CHECKOUT/.venv/bin/python" "$CHECKOUT/tests/lab/many.py" 50 5 node1 node2
	echo "$output"
	[ "$status" = 0 ]
	nothing_left
}
