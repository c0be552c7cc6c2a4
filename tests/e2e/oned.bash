# shellcheck shell=bash
# What the e2e tests with a oned behind them share: the process, what it is told, and the lines of recorded transfer scripts.

# shellcheck source=tests/e2e/sandbox.bash
. "${BASH_SOURCE[0]%/*}/sandbox.bash"

RECORDINGS=$CHECKOUT/tests/fixtures/opennebula-7.5

# oned_up: a oned that has what is in $ONELUN_SANDBOX/vms, which the frontend's configuration names from now on.
oned_up() {
	printf '' >"$ONELUN_SANDBOX/vms"
	PYTHONPATH=$CHECKOUT:$CHECKOUT/lib "$CHECKOUT/.venv/bin/python" -m tests.support.oned_process "$ONELUN_SANDBOX/vms" \
		>"$BATS_FILE_TMPDIR/oned" 2>"$BATS_FILE_TMPDIR/oned.log" 3>&- &
	echo $! >"$BATS_FILE_TMPDIR/oned.pid"
	BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR eventually 120 grep -q . "$BATS_FILE_TMPDIR/oned"
	local url session auth=$ONELUN_SANDBOX/frontend/one_auth
	read -r url session <"$BATS_FILE_TMPDIR/oned"
	echo "$session" >"$auth"
	chown --reference="$ONELUN_SANDBOX/frontend" "$auth"
	chmod 600 "$auth"
	sed -i "s#^\[frontend\]#&\napi = \"$url\"\napi_auth = \"$auth\"\nopennebula_version = \"7.5\"#" "$(config)"
	restart frontend
}

# oned_down: it ends, and nobody listens any more.
oned_down() {
	kill "$(cat "$BATS_FILE_TMPDIR/oned.pid")"
	BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR eventually 60 gone "$(cat "$BATS_FILE_TMPDIR/oned.pid")"
}

# images ID...: made by mkfs, of 64 MiB.
images() {
	local image
	for image; do
		document "$image" 64 PERSISTENT=1 | base64 -w0 >"$BATS_FILE_TMPDIR/document"
		"$CHECKOUT/datastore/onelun/mkfs" "$image" <"$BATS_FILE_TMPDIR/document"
	done
}

# config: the frontend's.
config() { grep -l '^\[frontend\]' "$ONELUN_SANDBOX"/etc/*; }

# is LINE...: the VMs that oned has from now on, as tests/support/oned_process.py reads them.
is() { printf '%s\n' "$@" >"$ONELUN_SANDBOX/vms"; }

# script ACTION: the script that one_tm.rb runs for it; where there is none of the whole name, it drops what is behind the dot.
script() {
	local name=${1,,}
	[ -e "$CHECKOUT/tm/onelun/$name" ] || name=${name%.*}
	printf 'tm/onelun/%s\n' "$name"
}

# lines: the lines of a transfer script on stdin, with this sandbox's names; with TWICE each of them two times.
lines() {
	local action driver rest script arguments
	while read -r action driver rest; do
		[ "$driver" = onelun ]
		script=$(script "$action")
		read -ra arguments < <(sed "s#/var/lib/one//datastores#${DIRECTORY%/*}#g; s#onelun/one-#nas1/tank/one-#g; s#\<vm:#frontend:#g" <<<"$rest")
		run_action 0 "$script" "${arguments[@]}" </dev/null
		[ -z "$TWICE" ] || run_action 0 "$script" "${arguments[@]}" </dev/null
	done
}

# walk FILE [SED]: the recorded transfer script, changed by an expression of sed.
walk() { lines < <(sed "${2:-}" "$RECORDINGS/transfer/$1"); }

# recorded ACTION [SED]: the recorded call of one action, as such a line.
recorded() {
	lines < <(python3 -c 'import json, sys; call = json.load(open(sys.argv[1])); print(call["action"][3:].upper(), "onelun", *call["argv"])' \
		"$RECORDINGS/tm.$1.json" | sed "${2:-}")
}

# exported: the volumes that are, in one line.
exported() {
	TGT_IPC_SOCKET=$ONELUN_SANDBOX/hosts/nas1/tgt/tgtd.sock tgtadm --lld iscsi --mode target --op show |
		sed -n 's/^Target [0-9]*: .*:tank\.\(.*\)\.e[0-9]*$/\1/p' | sort | xargs
}

# disks NODE: the disks in the directory that lead to a device of that host, with their volumes, in one line.
disks() {
	# shellcheck disable=SC2016 # the shell over there
	on "$1" sh -c 'cd "$0" 2>/dev/null || exit 0; for d in disk.*; do [ ! -b "$d" ] || echo "${d#disk.}=$(basename "$(readlink "$d")")"; done' \
		"$DIR" | xargs
}
