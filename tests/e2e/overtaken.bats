#!/usr/bin/env bats
# What comes late, twice, or from yesterday: a catalogue, a NAS, a copy, a delete. The bytes are compared. docs/reliability.md names
# what keeps them.

load fencing.bash

setup_file() { fenced_up 1 2; }
teardown_file() { sandbox_down; }

catalogue() { printf '%s\n' "$ONELUN_SANDBOX/hosts/nas1/state/catalogue.sqlite"; }

# backed_up: the catalogue of now, as a backup of a running NAS has it.
backed_up() {
	"$CHECKOUT/.venv/bin/python" -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))' \
		"$(catalogue)" "$BATS_TEST_TMPDIR/yesterday"
}

@test "a catalogue of yesterday gives the disk to nobody who had it then, and takes it from nobody who has it now" {
	local now
	begin 1 host01
	scribble node1 1
	backed_up
	tm 0 mv "host01:$(disk 1)" "host02:$(disk 1)" 1 102
	scribble node2 1
	now=$(target_of 1)

	kill -9 "$(pid_of nas1)"
	rm -f "$(catalogue)"-*
	cp "$BATS_TEST_TMPDIR/yesterday" "$(catalogue)"
	restart nas1

	[ "$(target_of 1)" = "$now" ]
	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum.1")" ]
	tm 1 ln frontend:nas1/tank/one-1 "host01:$(disk 8)" 8 102
	one_sentence 'mapped to node2'
	# The volume itself says who has it; the host, which of its disks it is.
	eventually 60 grep -q 'learned disk=0 vm=1 zvol=one-1 host=node2' "$ONELUN_SANDBOX/log/nas1.log"
	scribble node2 1
	ends 1 host02
	[ -z "$(on node1 find /dev/onelun -type l)" ]
}

# another NAME [SED]: an agent of that name beside nas1 with its pool, which has a state of its own.
another() {
	local config=$BATS_TEST_TMPDIR/$1.toml
	sed "s#^name = .*#name = \"$1\"#; s#^state = .*#state = \"$BATS_TEST_TMPDIR/$1\"#; ${2:-}" "$ONELUN_SANDBOX/etc/nas1.toml" >"$config"
	chmod 600 "$config"
	ONELUN_CONFIG=$config on nas1 timeout 60 onelun nas
}

@test "a second NAS with the same pool, a second agent of the name, and one of the same state end with a sentence, and nothing is changed" {
	local before pools=$BATS_TEST_TMPDIR/pools connector='connector={"initiator": "iqn.1993-08.org.debian:01:ann"}'
	begin 2 host01
	scribble node1 2
	# A target that nobody is logged in to just now.
	onelun ask nas1 create_zvol zvol=raw zpool=tank size_bytes=$((16 << 20)) 'owner={"kind": "plain"}'
	onelun ask nas1 initialize_connection zvol=raw zpool=tank "$connector"
	before=$(tgt --mode target --op show && cat "$ONELUN_SANDBOX/hosts/nas1/pool/one-2/volume.json")
	grep -q ':tank\.raw\.' <<<"$before"

	run another nas2
	[ "$status" = 1 ]
	# shellcheck disable=SC2154 # bats sets it
	grep -q '^Error: pool tank.* belongs to the agent .*take-pool' <<<"$output"
	mkdir -p "$pools/pool" "$pools/spare"
	run another nas1 "s#^path = .*/#path = \"$pools/#"
	[ "$status" = 1 ]
	grep -q '^Error: another agent holds .*: one NAS agent called nas1 a target daemon' <<<"$output"
	ONELUN_CONFIG=$ONELUN_SANDBOX/etc/nas1.toml run on nas1 timeout 60 onelun nas
	[ "$status" = 1 ]
	grep -q '^Error: another agent holds' <<<"$output"

	[ "$(tgt --mode target --op show && cat "$ONELUN_SANDBOX/hosts/nas1/pool/one-2/volume.json")" = "$before" ]
	[ -z "$(find "$pools" -mindepth 2)" ]
	onelun ask nas1 terminate_connection zvol=raw zpool=tank "$connector"
	onelun ask nas1 del_zvol zvol=raw zpool=tank
	[ "$(sum node1 2)" = "$(cat "$BATS_FILE_TMPDIR/sum.2")" ]
	scribble node1 2
	ends 2 host01
}

@test "a copy that died with its NAS at 40 % and is asked for again under a new id is whole" {
	local asking
	ds 0 mkfs 40 64
	head -c 64M /dev/urandom | dd of="$(volume_file one-40)" conv=notrunc status=none
	# Of eight pieces.
	plan nas1 nas.backends.file.copying._copy_piece/copy_file_range before 4
	"$CHECKOUT/tm/onelun/clone" frontend:nas1/tank/one-40 "host01:$(disk 9)" 9 102 >"$BATS_TEST_TMPDIR/first" 2>&1 </dev/null 3>&- &
	asking=$!
	eventually 30 [ -e "$ONELUN_SANDBOX/faults/fired.json" ]
	kill -9 "$asking"
	compgen -G "$ONELUN_SANDBOX/hosts/nas1/pool/.new-*"
	[ ! -e "$(volume_file one-40-9-0)" ]
	restart nas1

	tm 0 clone frontend:nas1/tank/one-40 "host01:$(disk 9)" 9 102

	[ "$(sum node1 9)" = "$(sha256sum <"$(volume_file one-40)")" ]
	eventually 30 sh -c "! ls -d $ONELUN_SANDBOX/hosts/nas1/pool/.new-*"
	tm 0 delete "host01:$(disk 9)" 9 102
	ds 0 rm 40 64 SOURCE=nas1/tank/one-40
}

# made_anew VM: the disk of an earlier life of the same ids begins again with what its image has, and is written to.
made_anew() {
	tm 0 clone frontend:nas1/tank/one-2 "host01:$(disk "$1")" "$1" 102
	[ "$(sum node1 "$1")" = "$(sha256sum <"$(volume_file one-2)")" ]
	scribble node1 "$1"
}

@test "a delete that waited, for its NAS or for the host, leaves a later disk of the same ids alone" {
	local deleting
	made_anew 7
	# The NAS hangs, and who asked is gone, so that nobody takes the delete back.
	kill -STOP "$(pid_of nas1)"
	onelun ask nas1 remove_disk zvol=one-2-7-0 zpool=tank cloud="$CLOUD" vm=7 disk=0 path="${DIRECTORY/\/\//\/}/7/disk.0" \
		remotehost=node1 >"$BATS_TEST_TMPDIR/asked" 2>&1 3>&- &
	deleting=$!
	sleep 2
	kill -9 $deleting
	kill -CONT "$(pid_of nas1)"
	eventually 60 made_anew 7

	# The host hangs: the NAS has begun the delete, and dies.
	kill -STOP "$(pid_of node1)"
	: >"$ONELUN_SANDBOX/log/nas1.log"
	"$CHECKOUT/tm/onelun/delete" "host01:$(disk 7)" 7 102 >"$BATS_TEST_TMPDIR/asked" 2>&1 </dev/null 3>&- &
	deleting=$!
	eventually 30 grep -q 'remove_disk state=accepted' "$ONELUN_SANDBOX/log/nas1.log"
	kill -9 "$(pid_of nas1)" "$(pid_of frontend)" $deleting
	restart nas1
	restart frontend
	kill -CONT "$(pid_of node1)"
	eventually 60 made_anew 7

	onelun ask node1 list_dev >"$BATS_TEST_TMPDIR/devices"
	[ "$(sum node1 7)" = "$(cat "$BATS_FILE_TMPDIR/sum.7")" ]
	untouched 7 one-2-7-0
	tm 0 delete "host01:$(disk 7)" 7 102
	[ ! -e "$(volume_file one-2-7-0)" ]
	untouched 2
}
