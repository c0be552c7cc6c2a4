# shellcheck shell=bash
# What must not be left on any host when every disk has been removed.

# nothing_left: no target, backstore, session, node record, device, name, link, volume or snapshot but those in the trash.
nothing_left() {
	no_exports nas1
	no_connections node1
	no_connections node2
	no_volumes
}

# no_exports HOST: neither in LIO nor in tgtd.
no_exports() {
	expects 0 "$1" sh -c '
		cd /sys/kernel/config/target && [ -d iscsi ] || exit 0
		find iscsi -mindepth 1 -maxdepth 1 -name "iqn*"
		find core -mindepth 2 -maxdepth 2 -type d -path "core/[a-z]*_[0-9]*/*"'
	# shellcheck disable=SC2154 # bats sets it
	empty "$output" "targets on $1"
	expects 0 "$1" sh -c 'pgrep -x tgtd >/dev/null && tgtadm --lld iscsi --mode target --op show; exit 0'
	empty "$output" "targets of tgtd on $1"
}

# no_connections HOST
no_connections() {
	expects 0 "$1" sh -c '
		ls -d /sys/class/iscsi_session/session* 2>/dev/null
		find /etc/iscsi/nodes /var/lib/iscsi/nodes -name "iqn*" 2>/dev/null
		find /dev/onelun -type l 2>/dev/null
		ls /sys/class/scsi_disk 2>/dev/null
		exit 0'
	empty "$output" "sessions, records or devices on $1"
}

# no_volumes: nothing that OpenNebula could see, and of what it cannot see only images in the trash.
no_volumes() {
	run ask nas1 list_zvols
	# shellcheck disable=SC2154 # bats sets output and status
	empty "$(jq -r '.body[].zvol' <<<"$output" 2>&1)" "volumes that can be seen ($status)"
	# shellcheck disable=SC2016 # it is expanded there
	expects 0 nas1 sh -c '
		if vgs onelun >/dev/null 2>&1; then
			lvs --noheadings -o lv_name,tags onelun | grep -vE "^ *thin |onelun.state=trash|state.trash"
		fi
		if zfs list tank/onelun >/dev/null 2>&1; then
			# Where a volume that was reverted has its older content goes with it, out of the trash too.
			trash=$(zfs list -H -o name -r tank/onelun | sed -n "s|^tank/onelun/[.]trash-|past-|p")
			zfs list -H -o name -t all -r tank/onelun | grep -vE "^tank/onelun$|/[.]trash-" | grep -vF "${trash:-past-none}"
		fi
		exit 0'
	empty "$output" "volumes or snapshots on nas1"
}

# empty TEXT WHAT
empty() {
	[ -z "$1" ] || {
		printf 'left behind: %s:\n%s\n' "$2" "$1" >&2
		return 1
	}
}
