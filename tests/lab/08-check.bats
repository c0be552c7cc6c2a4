#!/usr/bin/env bats
# What a NAS or a host lacks: the action that meets it says so in one sentence, and `check` names it beforehand.

load lab.bash
load leftovers.bash

teardown() { lab_down; }

# configured SETTINGS: nas1's agent anew, with what the sed script SETTINGS makes of its configuration.
configured() {
	expects 0 nas1 sed -i "$1" /etc/onelun/onelun.toml
	service restart onelun nas1
	eventually 90 ask nas1 list_zvols
}

# well: every check finds nothing.
well() {
	expects 0 nas1 onelun nas check
	# shellcheck disable=SC2154 # bats sets it
	[[ $output == "nas1 can serve: "* ]]
	expects 0 node1 onelun compute check
	[[ $output == "node1 can serve: "* ]]
}

# named ROLE HOST PATTERN: the check of that host fails, and has one line, with PATTERN.
named() {
	expects 1 "$2" onelun "$1" check
	[ "$(wc -l <<<"$output")" = 1 ]
	if ! grep -qE "$3" <<<"$output"; then
		printf 'expected: %s\n%s\n' "$3" "$output" >&2
		return 1
	fi
}

@test "on lvm, lio, iscsi each thing that is missing is named by its action and by the check before" {
	lab_up --engine lvm
	local disk=$DIRECTORY/1/disk.0 portal
	expects 0 nas1 sh -ec '
		lvcreate -q -y --type thin-pool -L 256M --poolmetadatasize 4M -n small onelun
		lvchange -q --errorwhenfull y onelun/small'
	# shellcheck disable=SC2016 # it is sed that reads it
	configured '$a [nas.pools.small]\nbackend = "lvm"\nvg = "onelun"\nthin_pool = "small"'
	well

	# The thin pool is full.
	ds 0 mkfs 1 64 PERSISTENT=1 POOLS=nas1/small
	tm 0 ln frontend:nas1/small/one-1 "host01:$disk" 1 102
	expects 0 node1 dd if=/dev/urandom of="$disk" bs=1M count=1 oflag=direct conv=notrunc,nocreat
	expects 1 nas1 sh -c '
		lvcreate -q -V 512M -T onelun/small -n filler
		udevadm settle
		dd if=/dev/zero of=/dev/onelun/filler bs=1M oflag=direct conv=notrunc,nocreat'
	expects 1 node1 dd if=/dev/urandom of="$disk" bs=1M count=1 seek=1 oflag=direct conv=notrunc,nocreat
	ds 1 mkfs 2 64 POOLS=nas1/small
	one_sentence 'GiB are needed: nas1/small has 0.0 GiB free'
	named nas nas1 '^pool small: pool small is 100% full, .*lvextend --size'
	tm 0 mvds "host01:$disk" nas1/small/one-1 1 102
	tm 1 clone frontend:nas1/small/one-1 "host01:$DIRECTORY/2/disk.0" 2 102
	one_sentence 'pool small has 0.0 GiB free'
	ds 0 rm 1 64 SOURCE=nas1/small/one-1
	expects 0 nas1 sh -c 'udevadm settle; lvremove -qy onelun/filler'
	ds 0 mkfs 2 64 POOLS=nas1/small
	ds 0 rm 2 64 SOURCE=nas1/small/one-2

	# The target service cannot be loaded.
	ds 0 mkfs 3 64 PERSISTENT=1
	expects 0 nas1 sh -ec '
		echo install iscsi_target_mod /bin/false >/etc/modprobe.d/lab.conf
		rmdir /sys/kernel/config/target/iscsi
		until rmmod iscsi_target_mod; do sleep 0.2; done'
	tm 1 ln frontend:nas1/tank/one-3 "host01:$disk" 1 102
	one_sentence 'the target service of the kernel is not loaded: modprobe iscsi_target_mod'
	named nas nas1 '^exporter lio: the kernel does not load iscsi_target_mod '
	expects 0 nas1 rm /etc/modprobe.d/lab.conf

	# The portal is at an address that the NAS does not have.
	portal=$(address nas1)
	configured "s/\"$portal\"/\"${portal%.*}.99\"/; /nas.pools.small/,\$d"
	expects 0 nas1 sh -c 'udevadm settle; lvremove -qqy onelun/small'
	tm 1 ln frontend:nas1/tank/one-3 "host01:$disk" 1 102
	one_sentence "this machine does not have the portal's address ${portal%.*}.99"
	named nas nas1 "^exporter lio: this machine does not have the portal's address ${portal%.*}.99"
	configured "s/\"${portal%.*}.99\"/\"$portal\"/"

	# The volume group is missing.
	expects 0 nas1 vgrename onelun away
	ds 1 mkfs 4 64
	one_sentence 'pool tank is gone: there is no volume group onelun: see that its disks are there'
	ds 1 rm 3 64 SOURCE=nas1/tank/one-3
	one_sentence 'pool tank is gone'
	named nas nas1 '^pool tank: .*there is no volume group onelun: create it, or see that its disks are there'
	expects 0 nas1 vgrename away onelun

	# iscsid is dead.
	service stop iscsid node1
	tm 1 ln frontend:nas1/tank/one-3 "host01:$disk" 1 102
	one_sentence 'iscsid is not running: systemctl enable --now iscsid.socket'
	named compute node1 '^connector iscsi: iscsid is not running'
	service start iscsid node1
	# It listens only some time after it has begun.
	eventually 60 on node1 onelun compute check </dev/null

	tm 0 ln frontend:nas1/tank/one-3 "host01:$disk" 1 102
	well
	tm 0 mvds "host01:$disk" nas1/tank/one-3 1 102
	ds 0 rm 3 64 SOURCE=nas1/tank/one-3
	nothing_left
}

@test "on zfs a full pool and a missing dataset are named by the action and by the check before" {
	lab_up --engine zfs

	expects 0 nas1 sh -ec '
		zfs set quota=64M tank/onelun
		dd if=/dev/urandom of=/tank/onelun/filler bs=1M count=58 conv=fsync status=none
		zpool sync tank'
	ds 1 mkfs 1 4
	one_sentence 'GiB are needed: nas1/tank has 0.0 GiB free'
	named nas nas1 '^pool tank: pool tank is 9[0-9]% full, .*raise the quota of tank/onelun'
	expects 0 nas1 sh -ec 'rm /tank/onelun/filler; zfs set quota=none tank/onelun'
	ds 0 mkfs 1 4

	expects 0 nas1 zfs rename tank/onelun tank/away
	ds 1 mkfs 2 4
	one_sentence 'dataset tank/onelun of pool tank is not there'
	ds 1 rm 1 4 SOURCE=nas1/tank/one-1
	one_sentence 'dataset tank/onelun of pool tank is not there'
	named nas nas1 '^pool tank: there is no dataset tank/onelun'
	expects 0 nas1 zfs rename tank/away tank/onelun

	ds 0 rm 1 4 SOURCE=nas1/tank/one-1
	expects 0 nas1 onelun nas check
	nothing_left
}
