# shellcheck shell=bash
# What the e2e tests share: a sandbox.

# shellcheck source=tests/support/actions.bash
. "${BASH_SOURCE[0]%/*}/../support/actions.bash"

# sandbox_up [OPTION]...: a sandbox of this file's own; its number is in SANDBOX.
sandbox_up() {
	SANDBOX=$("$CHECKOUT/scripts/sandbox" up --any --owner "$PPID" "$@" 2>"$BATS_FILE_TMPDIR/up") || {
		cat "$BATS_FILE_TMPDIR/up" >&2
		return 1
	}
	export SANDBOX
	sandbox_env
}

sandbox_env() {
	local settings
	settings=$("$CHECKOUT/scripts/sandbox" env --id "$SANDBOX") || return
	eval "$settings"
	ONELUN_SAFE_DIR=$ONELUN_SANDBOX
	DIRECTORY=${ONELUN_DATASTORES%/*}//${ONELUN_DATASTORES##*/}/103
	export DIRECTORY ONELUN_SAFE_DIR
}

# sandbox_down: and nothing may be left.
sandbox_down() {
	"$CHECKOUT/scripts/sandbox" down --id "$SANDBOX" && "$CHECKOUT/scripts/sandbox" leaks --id "$SANDBOX"
}

# pid_of NAME: of a process of the sandbox: broker, tgtd, nas1, node1, node2, frontend.
pid_of() {
	local pid
	read -r pid _ <"$ONELUN_SANDBOX/pids/$1"
	printf '%s\n' "$pid"
}

# restart NAME: start again what was killed, and wait until it answers.
restart() { "$CHECKOUT/scripts/sandbox" restart --id "$SANDBOX" "$1"; }

# kill_role NAME: kill it as it is, and wait until it is gone, also for the broker.
kill_role() { "$CHECKOUT/scripts/sandbox" kill --id "$SANDBOX" "$1"; }

# gone PID: whether that process has ended; who has not been waited for is still there as a zombie.
gone() { ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }

# on HOST COMMAND...: run it where the VM of that host (node1, node2, nas1) would.
on() {
	local enter=ONELUN_${1^^}
	shift
	# shellcheck disable=SC2086 # nsenter with its options
	${!enter} "$@"
}

# volume_file SOURCE: its data in the pool.
volume_file() {
	local pool=pool
	[[ $1 != */spare/* ]] || pool=spare
	printf '%s\n' "$ONELUN_SANDBOX/hosts/nas1/$pool/${1##*/}/data"
}
