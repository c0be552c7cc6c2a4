#!/usr/bin/env bats
# A VM that is saved: its memory, a file on the host, is on a volume while the VM is nowhere. Every action twice.

load sandbox.bash

VOLUME=one-vm-70-checkpoint

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

setup() { DIR=$DIRECTORY/70; }

twice() {
	"$@"
	"$@"
}

# save NODE: what `virsh save` leaves in the VM's directory.
save() {
	on "$1" mkdir -p "$DIR"
	on "$1" dd if=/dev/urandom of="$DIR/checkpoint" bs=1M count=40 status=none
	on "$1" sh -c "echo '<domain/>' >'$DIR/deployment.0'; chmod 666 '$DIR/checkpoint'"
	on "$1" chown -R --reference="$ONELUN_DATASTORES" "$DIR/.."
	on "$1" sha256sum "$DIR/checkpoint" >"$BATS_FILE_TMPDIR/sum"
}

# saved NODE: it is there, whole, as it was, and nothing else is.
saved() {
	on "$1" sha256sum -c --quiet "$BATS_FILE_TMPDIR/sum"
	[ "$(on "$1" stat -c %a "$DIR/checkpoint")" = 666 ]
	[ "$(on "$1" ls "$DIR")" = $'checkpoint\ndeployment.0' ]
}

# clean: no volume, and nothing connected.
clean() {
	local node
	[ ! -e "$(volume_file $VOLUME)" ]
	for node in node1 node2; do [ -z "$(on $node find /dev/onelun -type l)" ]; done
}

# restored NODE: kvm/restore has read the file and removed it.
restored() { on "$1" rm "$DIR/checkpoint"; }

@test "a VM is stopped and resumed on another host, with its memory" {
	save node1

	twice tm 0 mv "host01:$DIR" "frontend:$DIR" 70 103
	on node1 test ! -e "$DIR"
	[ "$(head -c 41943040 "$(volume_file $VOLUME)" | sha256sum | cut -d' ' -f1)" = "$(cut -d' ' -f1 "$BATS_FILE_TMPDIR/sum")" ]
	[ -z "$(on node1 find /dev/onelun -type l)" ]

	twice tm 0 mv "frontend:$DIR" "host02:$DIR" 70 103
	saved node2
	clean
	restored node2
}

@test "a VM is moved cold from host to host, with its memory" {
	save node2

	twice tm 0 mv "host02:$DIR" "host01:$DIR" 70 103

	saved node1
	on node2 test ! -e "$DIR"
	clean
	restored node1
}

@test "the agent of the host is killed while it stores: the action or its repeat ends well" {
	save node1
	mv_in_background "host01:$DIR" "frontend:$DIR"
	eventually 120 test -e "$(volume_file $VOLUME)"
	kill -9 "$(pid_of node1)"
	restart node1
	wait "$BACKGROUND" || tm 0 mv "host01:$DIR" "frontend:$DIR" 70 103

	tm 0 mv "frontend:$DIR" "host01:$DIR" 70 103
	saved node1
	clean
}

@test "the script is killed while the other host fetches: nothing is lost, and the repeat ends well" {
	mv_in_background "host01:$DIR" "host02:$DIR"
	# It is there for a moment.
	# shellcheck disable=SC2016 # the shell over there
	on node2 timeout 120 sh -c 'until [ -e "$0" ]; do sleep 0.01; done' "$DIR/checkpoint.volume"
	kill -9 "$BACKGROUND"
	wait "$BACKGROUND" || true

	eventually 120 tm 0 mv "host01:$DIR" "host02:$DIR" 70 103
	saved node2
	clean
}

@test "a VM that is deleted while it is stopped takes its checkpoint along" {
	twice tm 0 mv "host02:$DIR" "frontend:$DIR" 70 103
	test -e "$(volume_file $VOLUME)"

	twice tm 0 delete "frontend:$DIR" 70 103

	clean
}

@test "without room the VM stays as it is on its host, and oned hears why" {
	save node1
	on node1 truncate -s 8192G "$DIR/checkpoint"

	tm 1 mv "host01:$DIR" "frontend:$DIR" 70 103
	one_sentence "cannot move the VM's directory on host01:.*8192.0 GiB are needed"

	on node1 test -e "$DIR/checkpoint"
	twice tm 0 delete "host01:$DIR" 70 103
	clean
}

# mv_in_background SOURCE TARGET: its pid is in BACKGROUND.
mv_in_background() {
	"$CHECKOUT/tm/onelun/mv" "$1" "$2" 70 103 </dev/null >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	BACKGROUND=$!
}
