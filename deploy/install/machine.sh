# shellcheck shell=bash
# What each role has on a machine: scripts, unit, settings, state. Sourced by install.sh.

CONF=/etc/onelun
UNITS=/etc/systemd/system
STATE=/var/lib/onelun

# Roles whose units this call changed.
CHANGED=()

# packages_of ROLE: what it needs of the distribution whatever is configured. Engines are a choice; `onelun ROLE check` names theirs.
packages_of() {
	case $1 in
	frontend) echo qemu-utils qemu-block-extra bzip2 xz-utils zstd xorriso ;;
	compute) echo open-iscsi qemu-utils qemu-block-extra ;;
	esac
}

where_opennebula_is() {
	local location=${ONE_LOCATION:-}
	if [ -n "$location" ]; then
		ONE_ETC=$location/etc ONE_VAR=$location/var
	else
		ONE_ETC=/etc/one ONE_VAR=/var/lib/one
	fi
	REMOTES=$ONE_VAR/remotes
	if [ -z "$VERSION" ] && [ -r "$BASE$REMOTES/VERSION" ]; then VERSION=$(head -n 1 "$BASE$REMOTES/VERSION"); fi
}

wants() { case " ${ROLES[*]} " in *" $1 "*) ;; *) return 1 ;; esac }

# check_machine: what must be so before anything is changed.
check_machine() {
	[ -n "$BASE" ] || [ "$(id -u)" = 0 ] || fail "run this as root, or give --root DIR to look at what it would do"
	if [ -n "$CLOUD" ] && ! [[ $CLOUD =~ ^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$ ]]; then
		fail "--cloud is '$CLOUD', which is no UUID: copy frontend.cloud of the first front-end's $CONF/onelun.toml"
	fi
	if wants nas && ! wants frontend && ! wants compute; then return; fi
	[ -n "$BASE" ] || id "$OWNER" >/dev/null 2>&1 ||
		fail "there is no user $OWNER here: install OpenNebula (on a host: opennebula-node-kvm) first, or name its user with --user"
	if ! wants frontend; then return; fi
	[ -d "$BASE$REMOTES/tm" ] ||
		fail "there is no $REMOTES/tm: is this OpenNebula's front-end? (ONE_LOCATION is '${ONE_LOCATION:-}')"
	[ -n "$VERSION" ] || fail "$REMOTES/VERSION does not tell OpenNebula's release: give it with --opennebula-version"
}

# own PATH...: it becomes OpenNebula's user's, when we may give files away.
own() { if [ "$(id -u)" = 0 ]; then chown -R "$OWNER:$GROUP" "$@"; fi; }

install_role() {
	local unit=onelun-$1.service rendered
	rendered=$(mktemp)
	sed -e "s/^User=oneadmin$/User=$OWNER/" -e "s/^Group=oneadmin$/Group=$GROUP/" "$ROOT/deploy/systemd/$unit" >"$rendered"
	PUT=''
	put 644 "$rendered" "$BASE$UNITS/$unit"
	if [ -n "$PUT" ]; then CHANGED+=("$1"); fi
	rm -f "$rendered"
	if [ "$1" = frontend ]; then put_scripts "$BASE$REMOTES"; fi
	settle "$1"
}

# settle ROLE: what depends on this machine, once the role's files are there: owners, the first settings.
settle() {
	local rendered
	mkdir -p "$BASE$PREFIX/roles"
	[ -e "$BASE$PREFIX/roles/$1" ] || : >"$BASE$PREFIX/roles/$1"
	if [ "$1" = frontend ]; then own "$BASE$REMOTES/datastore/onelun" "$BASE$REMOTES/tm/onelun"; fi
	rendered=$(mktemp)
	render_settings "$1" >"$rendered"
	put 644 "$rendered" "$BASE$PREFIX/settings/$1.toml"
	rm -f "$rendered"
	install_settings "$1"
}

# names_of_machine: what oned may call it: the canonical name, as oned looks it up (src/nebula/Nebula.cc), and the plain one. A check
# says later when oned.conf has another (HOSTNAME).
names_of_machine() {
	{
		"$(base_python)" -I -c 'import socket; print(socket.getaddrinfo(socket.gethostname(), None, flags=socket.AI_CANONNAME)[0][3])' 2>/dev/null || true
		uname -n
	} | awk 'NF && !seen[$0]++ { printf "%s\"%s\"", between, $0; between = ", " }'
}

# name_of_machine: its short name, as the name of an agent.
name_of_machine() { uname -n | sed 's/\..*//; s/[^A-Za-z0-9-]/-/g' | tr '[:upper:]' '[:lower:]'; }

render_settings() {
	local names cloud
	names=$(names_of_machine)
	cloud=${CLOUD:-$(known_cloud)}
	sed -e "s#@CLOUD@#${cloud:-$(cat /proc/sys/kernel/random/uuid)}#" -e "s#@VERSION@#$VERSION#" -e "s#@NAMES@#$names#" \
		-e "s#@NAME@#$(name_of_machine)#" -e "s#@OWNER@#$OWNER#" -e "s#@DATASTORES@#$ONE_VAR/datastores#" -e "s#@REMOTES@#$ONE_VAR/remotes#" "$ROOT/deploy/settings/$1.toml"
}

# known_cloud: the UUID that this machine has already.
known_cloud() {
	{ cat "$BASE$CONF/onelun.toml" "$BASE$PREFIX/settings/frontend.toml" 2>/dev/null || true; } | sed -n 's/^cloud *= *"\([^"]*\)".*/\1/p' | sed 1q
}

# install_settings ROLE: the sample becomes the configuration where there is none; one that has no section of the role is given it
# at its end, as a whole file by a rename. What is there already stays as it is, byte for byte.
install_settings() {
	local file=$BASE$CONF/onelun.toml status=0
	if [ ! -e "$file" ]; then
		mkdir -p "$BASE$CONF"
		(umask 077 && cp "$BASE$PREFIX/settings/$1.toml" "$file")
	else
		has_section "$1" "$file" || status=$?
		if [ "$status" = 2 ]; then
			say "$CONF/onelun.toml is no TOML: mend it, and add a section [$1] as $PREFIX/settings/$1.toml shows it"
		elif [ "$status" != 0 ]; then
			add_section "$1" "$file"
		fi
	fi
	if [ "$1" = frontend ]; then
		# It holds the broker's password, and the frontend and the scripts read it as OpenNebula's user.
		if [ "$(id -u)" = 0 ]; then chgrp "$GROUP" "$BASE$CONF" "$file"; fi
		chmod 640 "$file"
		chmod 750 "$BASE$CONF"
	fi
}

# has_section ROLE FILE: 0 when it has, 1 when not, 2 when the file cannot be read as TOML.
has_section() {
	"$(base_python)" -I - "$@" <<-'END'
		import sys, tomllib

		role, path = sys.argv[1:]
		try:
		    with open(path, "rb") as file:
		        sys.exit(role not in tomllib.load(file))
		except (OSError, ValueError):
		    sys.exit(2)
	END
}

# add_section ROLE FILE: as the sample has it, and with the URL of its own user: [broker] is of the role that was there before.
add_section() {
	local file url sample=$BASE$PREFIX/settings/$1.toml
	file=$(readlink -f "$2")
	url=$(sed -n 's/^url = //p' "$sample")
	(umask 077 && cp -p "$file" "$file.new")
	{
		# A last line without an end gets one.
		if [ -n "$(tail -c 1 "$file")" ]; then echo; fi
		echo
		sed -e '1,/^$/d' "$sample" |
			sed -e "s|^\\[$1\\]\$|&\\n# This role's user of the broker: [broker] above is another role's.\\nbroker_url = $url|"
	} >>"$file.new"
	mv -fT "$file.new" "$file"
	say "$CONF/onelun.toml: a section [$1] was added at its end"
}

uninstall_role() {
	local unit=onelun-$1.service
	if [ -z "$BASE" ] && [ -d /run/systemd/system ]; then systemctl disable --now "$unit" >/dev/null 2>&1 || true; fi
	rm -f "$BASE$UNITS/$unit" "$BASE$PREFIX/settings/$1.toml" "$BASE$PREFIX/roles/$1"
	if [ "$1" = frontend ]; then rm -rf "$BASE$REMOTES/datastore/onelun" "$BASE$REMOTES/tm/onelun"; fi
	forget_run "$1"
	if [ -z "${PURGE:-}" ]; then
		say "$1: removed; $CONF and $STATE are kept (--purge removes them too)"
		return
	fi
	rm -rf "$BASE${STATE:?}/$1"
	if [ "$1" = frontend ]; then forget_copies; fi
	rmdir "$BASE$STATE" 2>/dev/null || true
	if ! compgen -G "$BASE$PREFIX/roles/*" >/dev/null; then rm -rf "$BASE$CONF"; fi
	say "$1: removed, with its configuration and state"
}

# forget_run ROLE: what a boot would clear; nobody's disk hangs on it (check_unused).
forget_run() {
	case $1 in
	frontend)
		# A compute agent may have its own there.
		rm -f "$BASE/run/onelun/frontend.sock" "$BASE/run/onelun/frontend.sock.lock"
		rmdir "$BASE/run/onelun" 2>/dev/null || true
		;;
	nas) rm -rf "$BASE/run/onelun-nas" ;;
	compute)
		rm -rf "$BASE/run/onelun-compute"
		if [ ! -e "$BASE$PREFIX/roles/frontend" ]; then rm -rf "$BASE/run/onelun"; fi
		if [ -z "$BASE" ]; then find /dev/onelun -depth -type d -empty -delete 2>/dev/null || true; fi
		# iscsiadm makes it for its first record, and again when it needs it.
		rmdir "$BASE/etc/iscsi/nodes" 2>/dev/null || true
		;;
	esac
}

# forget_copies: what `onelun register` kept of OpenNebula's files, which are again as they were.
forget_copies() { rm -f "$BASE$ONE_ETC"/oned.conf.before-onelun-* "$BASE$ONE_ETC"/vmm_exec/vmm_execrc.before-onelun-*; }

# check_unused ROLE: nobody's disks hang on what is about to go.
check_unused() {
	if [ "$1" = frontend ] && grep -qsE '^[^#]*[",= ]onelun[", ]' "$BASE$ONE_ETC/oned.conf"; then
		fail "OpenNebula still has onelun in $ONE_ETC/oned.conf: run \`onelun register --remove --apply\` and restart OpenNebula first"
	fi
	if [ "$1" = compute ] && [ -z "$BASE" ] && [ -n "$(find /dev/onelun -type l -print -quit 2>/dev/null)" ]; then
		fail "disks are connected here (find /dev/onelun): move the VMs to another host, or shut them down, first"
	fi
}

reload_units() { if [ -z "$BASE" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi; }

# restart_running: what runs of an earlier release is given this one, whichever role it is: all have the same program.
restart_running() {
	local role
	if [ -n "$BASE" ] || [ ! -d /run/systemd/system ]; then return; fi
	for role in "$PREFIX"/roles/*; do
		role=${role##*/}
		# --now does it anyway.
		if [ -n "$NOW" ] && wants "$role"; then continue; fi
		case " ${PROGRAM_CHANGED:+$role} ${CHANGED[*]} " in *" $role "*) ;; *) continue ;; esac
		systemctl try-restart "onelun-$role.service" || fail "onelun-$role does not start again: \`journalctl -u onelun-$role\` says why"
	done
}

start_roles() {
	local role
	[ -z "$BASE" ] || fail "--now starts services of this machine, and --root is another place"
	for role in "${ROLES[@]}"; do
		systemctl enable "onelun-$role.service"
		systemctl restart "onelun-$role.service" ||
			fail "onelun-$role does not start: \`install.sh --$role --check\` and \`journalctl -u onelun-$role\` say why"
	done
}

check_role() {
	[ -e "$BASE$PREFIX/roles/$1" ] || {
		say "$1: not installed here: install.sh --$1"
		return 1
	}
	[ -z "$BASE" ] || return 0
	"$COMMAND" "$1" check
}

# what_next: the steps that are left for a person.
what_next() {
	local role package missing=()
	for role in "${ROLES[@]}"; do
		for package in $(packages_of "$role"); do
			if command -v dpkg-query >/dev/null && ! is_installed "$package"; then missing+=("$package"); fi
		done
	done
	say "onelun is installed for: ${ROLES[*]}. Next:"
	if ((${#missing[@]})); then say "  apt-get install --no-install-recommends ${missing[*]}"; fi
	say "  edit $CONF/onelun.toml (docs/install.md has a whole cloud as an example)"
	for role in "${ROLES[@]}"; do say "  onelun $role check   # names what stands in the way"; done
	if [ -z "${NOW:-}" ]; then
		for role in "${ROLES[@]}"; do say "  systemctl enable --now onelun-$role"; done
	fi
	if wants frontend; then
		say "  onelun register   # shows the lines for oned.conf and vmm_execrc; --apply writes them, with a copy of each"
		say "  on every other front-end: the same, with the same frontend.cloud: install.sh --frontend --cloud $(known_cloud)"
	fi
}
