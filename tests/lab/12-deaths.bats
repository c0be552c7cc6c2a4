#!/usr/bin/env bats
# Agents die between two steps of the real engines, as scripts/chaos --lab has it, of which these are a few.

load lab.bash

@test "an agent that dies between two steps of LVM, LIO or open-iscsi costs no disk and leaves nothing" {
	mkdir "$BATS_TEST_TMPDIR/logs"
	run env CHAOS_LOGS="$BATS_TEST_TMPDIR/logs" PYTHONPATH="$CHECKOUT:$CHECKOUT/lib" \
		"$CHECKOUT/.venv/bin/python" -m scripts.lib.chaos --lab --only die --script tm.ln --trials 4 \
		--point Lvm._changed --point lio.exporter.LioExporter.export/ --point Iscsiadm._run --point iscsi.notes
	echo "$output"
	# shellcheck disable=SC2154 # bats sets it
	[ "$status" = 0 ]
	# A moment may not come again, but for all of them.
	grep -qE '^ +[0-9]+ s +[1-9][0-9]* trials at' <<<"$output"
}
