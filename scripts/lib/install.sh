# shellcheck shell=bash
# What a script needs before it can start: Debian packages and .venv. Sourced; the caller has set -euo pipefail and ROOT.
#
# Everything may be repeated and costs about 20 ms when there is nothing to do.

PACKAGES_FILE=$ROOT/scripts/lib/packages
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='# made by onelun while it installs packages; removed afterwards'
# Locked while we install, since it is there on every machine and is never left behind.
INSTALL_LOCK=/usr/bin/dpkg
# Services that come enabled with these packages; the sandbox runs its own.
PACKAGE_SERVICES="tgt:tgt.service rabbitmq-server:rabbitmq-server.service erlang-base:epmd.socket erlang-base:epmd.service"

say() { printf '%s\n' "$*" >&2; }

fail() {
	say "$*"
	exit 1
}

# packages_for GROUP...: the packages of these groups.
packages_for() {
	local package group _
	while read -r package group _; do
		case " $* " in *" $group "*) printf '%s\n' "$package" ;; esac
	done < <(grep -v '^#' "$PACKAGES_FILE")
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# missing_packages GROUP...: those of them that are not installed.
missing_packages() {
	local wanted have
	mapfile -t wanted < <(packages_for "$@")
	have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p' || true)
	printf '%s\n' "${wanted[@]}" | grep -vxF "${have:--}" || true
}

# forbid_services, allow_services: packages that are installed in between start no service. What was there comes back,
# also when an earlier run was killed half-way.
forbid_services() {
	if [ -e "$POLICY" ] && ! grep -qF "$POLICY_MARK" "$POLICY"; then
		mv "$POLICY" "$POLICY.onelun-kept"
	fi
	printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
	chmod 755 "$POLICY"
}

allow_services() {
	if [ -e "$POLICY" ] && grep -qF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
	if [ -e "$POLICY.onelun-kept" ]; then mv "$POLICY.onelun-kept" "$POLICY"; fi
}

# disable_services PACKAGE_BEFORE...: no service of a package that we installed starts at the next boot.
disable_services() {
	local entry disable=(deb-systemd-helper disable)
	if command -v systemctl >/dev/null; then disable=(systemctl disable); fi
	if [ -d /run/systemd/system ]; then disable+=(--now); fi
	for entry in $PACKAGE_SERVICES; do
		case " $* " in *" ${entry%%:*} "*) continue ;; esac
		is_installed "${entry%%:*}" || continue
		"${disable[@]}" "${entry#*:}" >/dev/null 2>&1 || true
	done
}

# apt_progress: apt's status lines as one line that changes, or as a line each quarter where there is no terminal.
apt_progress() {
	local percent text shown=-1
	while IFS=: read -r _ _ percent text; do
		percent=${percent%%.*}
		if [ -t 2 ]; then
			printf '\r\033[K  %3s%%  %.60s' "$percent" "$text" >&2
		elif ((percent / 25 != shown)); then
			shown=$((percent / 25))
			say "  $percent% $text"
		fi
	done
	if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

# run_apt LOG ARGS...: apt-get without questions; the reason on failure.
run_apt() {
	local log=$1 status=0
	shift
	{ DEBIAN_FRONTEND=noninteractive apt-get -q -y -o APT::Status-Fd=3 -o DPkg::Lock::Timeout=300 "$@" \
		3>&1 >"$log" 2>&1 </dev/null || printf '%s\n' "$?" >"$log.status"; } | apt_progress
	if [ -e "$log.status" ]; then
		status=$(cat "$log.status")
		tail -n 5 "$log" >&2
		fail "apt-get $1 failed with status $status"
	fi
}

# install_packages GROUP...
install_packages() {
	local missing before=() entry
	mapfile -t missing < <(missing_packages "$@")
	((${#missing[@]})) || return 0
	command -v apt-get >/dev/null || fail "these are needed and there is no apt-get to install them: ${missing[*]}"
	[ "$(id -u)" = 0 ] || fail "run this as root once, or: apt-get install --no-install-recommends ${missing[*]}"
	(
		flock 9
		mapfile -t missing < <(missing_packages "$@")
		((${#missing[@]})) || exit 0
		log=$(mktemp -d)
		trap 'allow_services; rm -rf "$log"' EXIT
		trap 'exit 130' INT TERM HUP
		for entry in $PACKAGE_SERVICES; do
			if is_installed "${entry%%:*}"; then before+=("${entry%%:*}"); fi
		done
		say "installing ${missing[*]}"
		run_apt "$log/update" update
		forbid_services
		run_apt "$log/install" install --no-install-recommends "${missing[@]}"
		disable_services "${before[@]}"
	) 9<"$INSTALL_LOCK"
}

# base_python: an interpreter of the system that every user may run. A shim or one below /root would do for root alone,
# and the frontend is not root.
base_python() {
	local python
	for python in /usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13; do
		if [ -x "$python" ] && "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			printf '%s\n' "$python"
			return
		fi
	done
	fail "onelun needs Python 3.11 or newer as /usr/bin/python3 (Debian 12 has it)"
}

# make_venv run|dev: .venv with the checkout and what it needs, made again only when setup.cfg changed. `dev` has all of `run`.
make_venv() {
	local kind=$1 stamp=$ROOT/.venv/.made-from made_from log python
	made_from="$(cksum <"$ROOT/setup.cfg") $ROOT"
	if [ -x "$ROOT/.venv/bin/python" ] && grep -qxF -e "$made_from dev" -e "$made_from $kind" "$stamp" 2>/dev/null; then
		return
	fi
	# A .venv that somebody developed with stays one.
	if [ -e "$ROOT/.venv/bin/pytest" ]; then kind=dev; fi
	mkdir -p "$ROOT/.cache"
	(
		flock 9
		if grep -qxF "$made_from $kind" "$stamp" 2>/dev/null; then exit 0; fi
		log=$ROOT/.cache/venv.log
		python=$(base_python)
		if ! grep -qx 'home = /usr/bin' "$ROOT/.venv/pyvenv.cfg" 2>/dev/null || ! "$ROOT/.venv/bin/python" -c 'import pip' 2>/dev/null; then
			say "making .venv"
			"$python" -m venv --clear "$ROOT/.venv" >"$log" 2>&1 || fail "cannot make .venv: $(tail -n 3 "$log")"
		fi
		say "installing Python packages into .venv"
		"$ROOT/.venv/bin/python" -m pip install --disable-pip-version-check -q -e "$ROOT$([ "$kind" = run ] || printf '[%s]' "$kind")" >"$log" 2>&1 ||
			fail "pip could not install onelun into .venv ($log): $(grep -E '^ *ERROR' "$log" | tail -n 3)"
		printf '%s\n' "$made_from $kind" >"$stamp"
	) 9>"$ROOT/.cache/venv.lock"
}

# prepare GROUP...: what `run`, or `run test`, needs.
prepare() {
	install_packages "$@"
	case " $* " in *" test "*) make_venv dev ;; *) make_venv run ;; esac
}
