# shellcheck shell=bash
# What the tests share that follow a disk through what loses data: a sandbox with faults, disks with known bytes, and a host that
# has still something to write.

# shellcheck source=tests/e2e/sandbox.bash
. "${BASH_SOURCE[0]%/*}/sandbox.bash"

CLOUD=$(sed -n 's/^CLOUD = "\(.*\)"/\1/p' "$CHECKOUT/tests/support/sandbox/place.py")

# fenced_up IMAGE...: a sandbox whose NAS meets what a test plans, with images of 16 MiB.
fenced_up() {
	# shellcheck disable=SC2119 # the images are not its options
	sandbox_up
	mkdir -m 777 "$ONELUN_SANDBOX/faults"
	sed -i "s/^faults = false/faults = true/" "$ONELUN_SANDBOX"/etc/*.toml
	kill -9 "$(pid_of nas1)"
	restart nas1
	local id
	for id; do
		document "$id" 16 PERSISTENT=1 | base64 -w0 >"$BATS_FILE_TMPDIR/document"
		"$CHECKOUT/datastore/onelun/mkfs" "$id" <"$BATS_FILE_TMPDIR/document"
	done
}

# disk VM: the path of its disk.
disk() { printf '%s\n' "$DIRECTORY/$1/disk.0"; }

# begin VM HOST NODE: the VM's disk is the persistent image of its number.
begin() { tm 0 ln "frontend:nas1/tank/one-$1" "$2:$(disk "$1")" "$1" 102; }

# scribble NODE VM: new bytes all over the disk; their sum is kept as that of the VM.
scribble() {
	on "$1" dd if=/dev/urandom of="$(disk "$2")" bs=1M count=16 oflag=direct conv=notrunc,nocreat status=none
	sum "$1" "$2" >"$BATS_FILE_TMPDIR/sum.$2"
}

# sum NODE VM: of the disk as the storage has it.
sum() { on "$1" dd if="$(disk "$2")" bs=1M iflag=direct status=none | sha256sum; }

# untouched VM [VOLUME]: the volume has what was scribbled last.
untouched() { [ "$(sha256sum <"$(volume_file "${2:-one-$1}")")" = "$(cat "$BATS_FILE_TMPDIR/sum.$1")" ]; }

# take_from_node1 VM [FIELD=VALUE]: the disk is to leave node1 for another host.
take_from_node1() {
	onelun ask nas1 unmap_zvol zvol="one-$1" zpool=tank remotehost=node1 keep_link=true cloud="$CLOUD" vm="$1" disk=0 \
		path="${DIRECTORY/\/\//\/}/$1/disk.0" "${@:2}"
}

# plan ROLE POINT SIDE [NTH]: it dies there.
plan() {
	printf '{"point": "%s", "action": "die", "side": "%s", "role": "%s", "nth": %s}' "$2" "$3" "$1" "${4:-1}" \
		>"$ONELUN_SANDBOX/faults/new"
	rm -f "$ONELUN_SANDBOX/faults/fired.json"
	mv "$ONELUN_SANDBOX/faults/new" "$ONELUN_SANDBOX/faults/plan.json"
}

tgt() { TGT_IPC_SOCKET=$ONELUN_SANDBOX/hosts/nas1/tgt/tgtd.sock tgtadm --lld iscsi "$@"; }

# target_of VM: the IQNs that its image is exported by.
target_of() { tgt --mode target --op show | sed -n "s/^Target [0-9]*: \(.*:tank\.one-$1\.e[0-9]*\)$/\1/p"; }

# secret_of IQN: as the NAS derives it.
secret_of() {
	PYTHONPATH=$CHECKOUT/lib "$CHECKOUT/.venv/bin/python" -c '
import sys
from onelun.nas.identity import Identity
print(Identity(sys.argv[1]).secret_of(sys.argv[2]))' "$ONELUN_SANDBOX/hosts/nas1/state" "$1"
}

# logins: how many connections the NAS's portal has been asked for.
# shellcheck disable=SC2016 # awk's own
logins() { on nas1 awk '/^Tcp: [0-9]/ { print $7 }' /proc/net/snmp; }
more_logins() { [ "$(logins)" -gt "$1" ]; }

# between_node1 cut|heal|stop|go: its cable, or all that carries its disks' data there.
between_node1() {
	case $1 in
	cut) ip link set "ol$SANDBOX-node1" nomaster ;;
	heal) ip link set "ol$SANDBOX-node1" master "onelun$SANDBOX" ;;
	stop | go)
		local signal=STOP file
		[ "$1" = stop ] || signal=CONT
		for file in "$ONELUN_SANDBOX"/hosts/node1/run/compute/targets/*/session.pid; do kill -$signal "$(<"$file")"; done
		;;
	esac
}

# queue_on_node1 VM cut|stop: the host's agent is gone, its initiator gets no further, and has the whole disk to write.
queue_on_node1() {
	local device
	device=$(on node1 readlink -f "$(disk "$1")")
	kill -9 "$(pid_of node1)"
	between_node1 "$2"
	on node1 timeout 300 dd if=/dev/zero of="$(disk "$1")" bs=1M count=16 oflag=direct conv=notrunc,nocreat \
		>"$BATS_TEST_TMPDIR/queued" 2>&1 3>&- &
	QUEUED=$!
	eventually 20 grep -q '[1-9]' "/sys/block/${device##*/}/inflight"
}

# node1_comes_back heal|go: its initiator first, which tries by itself to get rid of the write; then its agent, which ends that.
node1_comes_back() {
	local before
	before=$(logins)
	between_node1 "$1"
	eventually 90 more_logins "$before"
	restart node1
	eventually 120 grep -q 'Input/output error\|copied' "$BATS_TEST_TMPDIR/queued"
	if wait "$QUEUED"; then return 1; fi
	grep -q 'Input/output error' "$BATS_TEST_TMPDIR/queued"
	eventually 30 bash -c "[ -z \"\$($ONELUN_NODE1 find /dev/onelun -type l)\" ]"
}

# ends VM HOST
ends() {
	tm 0 mvds "$2:$(disk "$1")" "nas1/tank/one-$1" "$1" 102
	untouched "$1"
	[ -z "$(target_of "$1")" ]
}
