# shellcheck shell=bash
# What the lab's tests share: a lab of their own, commands on its hosts, their power and their cables.

# shellcheck source=tests/support/actions.bash
. "${BASH_SOURCE[0]%/*}/../support/actions.bash"

# lab VERB ARGUMENT...: scripts/lab, without its look for packages; `scripts/lab test` has done that.
lab() {
	PYTHONPATH=$CHECKOUT:$CHECKOUT/lib "$CHECKOUT/.venv/bin/python" -m tests.support.lab "$@"
}

# lab_up [OPTION]...: a lab of this file's or test's own; its number is in LAB.
lab_up() {
	LAB=$(lab up --any --owner "$PPID" "$@" 2>"$BATS_FILE_TMPDIR/up") || {
		cat "$BATS_FILE_TMPDIR/up" >&2
		return 1
	}
	export LAB
	lab_env
}

# lab_env: what the tests of a file need that its setup_file has brought up.
lab_env() {
	local settings
	settings=$(lab env --id "$LAB") || return
	eval "$settings"
	DIRECTORY=${ONELUN_DATASTORES%/*}//${ONELUN_DATASTORES##*/}/103
	ONELUN_SAFE_DIR=$ONELUN_LAB_DIR
	export DIRECTORY ONELUN_SAFE_DIR
}

# lab_down: and nothing may be left.
lab_down() {
	[ -z "${LAB:-}" ] || { lab down --id "$LAB" && lab leaks --id "$LAB"; }
}

# on HOST COMMAND...: run it on a guest, or on `front`. It may take 120 s, or LIMIT.
on() {
	local host=$1
	shift
	lab exec --id "$LAB" --limit "${LIMIT:-120}" "$host" "$@"
}

# expects STATUS HOST COMMAND...: run it there. Sets output (with stderr) and status.
expects() {
	local expected=$1
	shift
	run on "$@" </dev/null
	# shellcheck disable=SC2154 # bats sets it
	if [ "$status" != "$expected" ]; then
		printf 'on %s\nstatus %s, expected %s\n%s\n' "$*" "$status" "$expected" "$output" >&2
		return 1
	fi
}

# power_cut HOST; power_on HOST; reboot HOST [--clean]; cut HOST; heal HOST
power_cut() { lab kill --id "$LAB" "$1"; }
power_on() { lab reboot --id "$LAB" "$1"; }
reboot() { lab reboot --id "$LAB" "$@"; }
cut() { lab cut --id "$LAB" "$1"; }
heal() { lab heal --id "$LAB" "$1"; }

# service VERB NAME HOST: stop, start, restart or kill onelun, iscsid or tgtd there.
service() { on "$3" lab-service "$1" "$2" </dev/null; }

# ask NODE REQUEST [NAME=VALUE]...: an agent, as the frontend's user may. Prints its reply.
ask() { on front onelun ask "$@" </dev/null; }

# address HOST: its address among the hosts.
address() {
	case $1 in
	front) echo "198.18.$LAB.1" ;;
	one) echo "198.18.$LAB.2" ;;
	nas1) echo "198.18.$LAB.11" ;;
	node1) echo "198.18.$LAB.21" ;;
	node2) echo "198.18.$LAB.22" ;;
	esac
}
