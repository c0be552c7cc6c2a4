#!/usr/bin/env bats
# The protocol of the seed, spoken by a caller that knows nothing else.

load sandbox.bash

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

@test "a client of the seed maps, lists, unmaps and deletes a zvol" {
	timeout 300 "$CHECKOUT/.venv/bin/python" "$CHECKOUT/tests/e2e/seed_client.py"
	[ ! -e "$ONELUN_SANDBOX/hosts/nas1/pool/seed-1" ]
}
