#!/usr/bin/env bats
# A host that had a disk, and has still something to write: whatever happens on the way, it does not get through once another
# host has the disk. The bytes are compared. docs/reliability.md names what keeps them.

load fencing.bash

setup_file() { fenced_up 1 2 3; }
teardown_file() { sandbox_down; }

@test "what an old host has still to write does not arrive: not by its session's recovery, nor after its agent's restart" {
	begin 1 host01
	scribble node1 1
	queue_on_node1 1 cut

	take_from_node1 1 force=true | jq -e .debt
	begin 1 host02
	scribble node2 1
	node1_comes_back heal

	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
	ends 1 host02
}

# write_by IQN USER SECRET: node1's initiator tries to write to it.
write_by() {
	on node1 timeout 20 qemu-io -t none --image-opts -c 'write -P 7 0 1M' \
		"driver=iscsi,transport=tcp,portal=$PORTAL,target=$1,lun=1,user=$2,password=$3,initiator-name=iqn.2026-11.io.onelun.host:node1"
}

@test "an old host's CHAP opens neither its old target nor the new one" {
	local old new
	PORTAL=$(sed -n 's/^address = "\(.*\)"/\1/p' "$ONELUN_SANDBOX/etc/nas1.toml"):$(sed -n 's/^port = //p' "$ONELUN_SANDBOX/etc/nas1.toml")
	begin 1 host01
	old=$(target_of 1)
	run -0 write_by "$old" "${old#*onelun.}" "$(secret_of "$old")"
	tm 0 mv "host01:$(disk 1)" "host02:$(disk 1)" 1 102
	new=$(target_of 1)
	scribble node2 1

	run ! write_by "$old" "${old#*onelun.}" "$(secret_of "$old")"
	run ! write_by "$new" "${old#*onelun.}" "$(secret_of "$old")"
	# Nor would the right secret do, of a host that is not the one.
	run ! write_by "$new" "${new#*onelun.}" "$(secret_of "$new")"

	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
	ends 1 host02
}

@test "a NAS that crashes between the fence and the new export lets the old host in no more, and gives the disk when it is asked again" {
	begin 2 host01
	scribble node1 2
	queue_on_node1 2 stop

	# Right after the target went: neither the volume nor the catalogue has been told yet.
	plan nas1 nas.backends.file.sidecar._write/rename before
	take_from_node1 2 force=true >"$BATS_TEST_TMPDIR/taking" 2>&1 3>&- &
	local asking=$!
	eventually 30 [ -e "$ONELUN_SANDBOX/faults/fired.json" ]
	[ -z "$(target_of 2)" ]
	kill -9 "$(pid_of tgtd)"
	restart tgtd
	restart nas1
	if wait "$asking"; then return 1; fi
	[ -z "$(target_of 2)" ]
	take_from_node1 2 force=true | jq -e .debt
	# The volume and the catalogue know the next one, and nobody is let in by it yet.
	plan nas1 nas.exporters.tgt.exporter.TgtExporter._complete/tgt-target-bind before
	begin 2 host02 3>&- &
	asking=$!
	eventually 30 [ -e "$ONELUN_SANDBOX/faults/fired.json" ]
	restart nas1
	wait "$asking" || true
	eventually 60 begin 2 host02
	scribble node2 2
	node1_comes_back go

	[ "$(sum node2 2)" = "$(cat "$BATS_FILE_TMPDIR/sum.2")" ]
	ends 2 host02
}

# migration STATUS ACTION: of VM 3, which runs, from the first host to the second one.
migration() {
	printf '<VM><ID>3</ID><STATE>3</STATE><LCM_STATE>4</LCM_STATE><TEMPLATE><DISK><DISK_ID>0</DISK_ID><CLONE>NO</CLONE><SOURCE>nas1/tank/one-3</SOURCE><TM_MAD>onelun</TM_MAD></DISK></TEMPLATE></VM>' |
		base64 -w0 >"$BATS_TEST_TMPDIR/vm"
	run_action "$1" "tm/onelun/$2" host01 host02 "$DIRECTORY/3" 3 103 <"$BATS_TEST_TMPDIR/vm"
}

@test "a migration whose postmigrate failed leaves its source nothing to write by, once the disk leaves the VM" {
	begin 3 host01
	scribble node1 3
	migration 0 premigrate
	kill -9 "$(pid_of nas1)"
	migration 1 postmigrate
	restart nas1
	scribble node2 3
	# The image is nobody else's while either host may have it.
	tm 1 ln frontend:nas1/tank/one-3 "host01:$(disk 9)" 9 102
	one_sentence 'disk 0 of VM 3'

	# The source, whose device is still there, is lost with a write under way.
	queue_on_node1 3 stop
	scribble node2 3
	take_from_node1 3 stays=node2 force=true | jq -e .debt
	scribble node2 3
	node1_comes_back go

	[ "$(sum node2 3)" = "$(cat "$BATS_FILE_TMPDIR/sum.3")" ]
	ends 3 host02
}
