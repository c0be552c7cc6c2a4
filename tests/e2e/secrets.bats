#!/usr/bin/env bats
# Where a broker's password and a target's secret may be seen while everything is at work: nowhere.

load sandbox.bash

setup_file() {
	# Without it nothing could be dumped here anyway.
	ulimit -c unlimited
	sandbox_up
	SEEN=$BATS_FILE_TMPDIR/arguments
	export SEEN
}
teardown_file() { sandbox_down; }

# watch_arguments: collect every process's arguments until the file `stop` is there.
watch_arguments() {
	while [ ! -e "$BATS_FILE_TMPDIR/stop" ]; do
		cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' '
		printf '\n'
	done >"$SEEN"
}

# seen_copying IMAGE: register it, and remove it again; whether qemu-img's arguments have been seen by now.
seen_copying() {
	ds 0 cp 3 64 PATH="$1"
	ds 0 rm 3 64 SOURCE=nas1/tank/one-3
	grep -q 'qemu-img convert' "$SEEN"
}

# secrets: one a line; the passwords of all broker users, the key of the NAS, and the secrets of its targets of now.
secrets() {
	local url
	for url in "$ONELUN_SANDBOX"/etc/broker/*.url; do sed -E 's,^[^:]*://[^:]*:([^@]*)@.*,\1,' "$url"; done
	cat "$ONELUN_SANDBOX/hosts/nas1/state/key"
	TGT_IPC_SOCKET=$ONELUN_SANDBOX/hosts/nas1/tgt/tgtd.sock tgtadm --lld iscsi --mode target --op show |
		sed -n 's/^Target [0-9]*: //p' | PYTHONPATH=$CHECKOUT/lib "$CHECKOUT/.venv/bin/python" -c '
import sys
from onelun.nas.identity import Identity
identity = Identity(sys.argv[1])
for line in sys.stdin:
    print(identity.secret_of(line.strip()))
' "$ONELUN_SANDBOX/hosts/nas1/state"
}

@test "no secret is in an argument of a process, a log, or what oned is told" {
	local dir=$DIRECTORY/9 image=$ONELUN_SANDBOX/image.raw large=$ONELUN_SANDBOX/large.raw watching
	head -c 8M /dev/urandom >"$image"
	head -c 64M /dev/urandom >"$large"
	chmod 644 "$image" "$large"
	watch_arguments &
	watching=$!

	ds 0 cp 1 8 PATH="$image"
	tm 0 clone frontend:nas1/tank/one-1 "host01:$dir/disk.0" 9 102
	ds 0 mkfs 2 64 FS=ext4
	# shellcheck disable=SC2154 # bats sets it
	printf '%s %s\n' "$output" "$stderr" >"$BATS_FILE_TMPDIR/told"
	secrets >"$BATS_FILE_TMPDIR/secrets"
	tm 0 mv "host01:$dir/disk.0" "host02:$dir/disk.0" 9 102
	secrets >>"$BATS_FILE_TMPDIR/secrets"
	# Who looks in turns may miss what lasts for a moment.
	eventually 120 seen_copying "$large"
	touch "$BATS_FILE_TMPDIR/stop"
	wait "$watching"

	# Each user's, the key, and two targets', of which none is empty.
	[ "$(sort -u "$BATS_FILE_TMPDIR/secrets" | grep -cE '^.{12,}$')" -ge 7 ]
	run -1 grep -oFf "$BATS_FILE_TMPDIR/secrets" "$SEEN" "$BATS_FILE_TMPDIR/told"
	# The broker's files come and go meanwhile, which is no error.
	run grep -rlsFf "$BATS_FILE_TMPDIR/secrets" --include='*.log' --include='*.out' "$ONELUN_SANDBOX"
	[ -z "$output" ]
	[ "$(find "$ONELUN_SANDBOX" -name '*.log' -size +0 | wc -l)" -ge 4 ]
}

@test "what holds a secret is read by its owner alone" {
	local found readable=0
	# By itself, or by a directory above it.
	while read -r found; do
		! setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$found" || {
			printf 'anybody may read %s\n' "$found" >&2
			readable=1
		}
	done < <(grep -rlFf "$BATS_FILE_TMPDIR/secrets" "$ONELUN_SANDBOX/etc" "$ONELUN_SANDBOX/hosts" "$ONELUN_SANDBOX/broker")
	[ "$readable" = 0 ]
	setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$ONELUN_SANDBOX/image.raw"
	grep -rqFf "$BATS_FILE_TMPDIR/secrets" "$ONELUN_SANDBOX/etc"
}

@test "no agent, and nothing that an agent started, can leave a core dump" {
	local name pid
	for name in nas1 node1 node2 frontend; do
		grep -qE '^Max core file size +0 +0 ' "/proc/$(pid_of "$name")/limits"
	done
	# The disk's data goes through programs that outlive the agent.
	for pid in $(on node2 pgrep -f "qemu-storage-daemon.*$ONELUN_SANDBOX"); do
		grep -qE '^Max core file size +0 +0 ' "/proc/$pid/limits"
	done
	[ "$pid" ]
}

@test "an action ends and nothing is left" {
	tm 0 delete "host02:$DIRECTORY/9/disk.0" 9 102
	tm 0 delete "host02:$DIRECTORY/9" 9 102
	ds 0 rm 1 8 SOURCE=nas1/tank/one-1
	ds 0 rm 2 64 SOURCE=nas1/tank/one-2
}
