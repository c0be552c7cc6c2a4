#!/usr/bin/env bats
# Who may have a volume: one initiator a target, by its name and its secret, for as long as it is attached; and never another
# volume in its place.

load lab.bash
load leftovers.bash

setup_file() { lab_up --engine lvm; }
teardown_file() { lab_down; }

# What iscsiadm says (open-iscsi's include/iscsi_err.h): ISCSI_ERR_LOGIN_AUTH_FAILED; and where there is no such target
# ISCSI_ERR_LOGIN or, depending on the moment and on who listens there still, TRANS_TIMEOUT, PDU_TIMEOUT, FATAL_LOGIN.
REFUSED=24
NO_TARGET="5 8 11 19"
# To an initiator that a target is not for, tgt says that there is none.
NOT_FOR_IT=19

INITIATOR=iqn.2026-11.io.onelun.host

# log_in STATUSES HOST INITIATOR IQN [USER SECRET]: by iscsiadm, with a record of the test's own. iscsiadm says one of STATUSES.
log_in() {
	# shellcheck disable=SC2016 # the host's shell expands it
	expects 0 "$2" sh -c '
		portal=$1 wanted=$2 initiator=$3 iqn=$4 user=$5 secret=$6 status=0
		mkdir -p "/etc/iscsi/nodes/$iqn"
		cat >"/etc/iscsi/nodes/$iqn/$portal,3260" <<-RECORD
			# BEGIN RECORD 2.1.8
			node.name = $iqn
			node.tpgt = -1
			iface.iscsi_ifacename = raw
			iface.transport_name = tcp
			iface.initiatorname = $initiator
			node.conn[0].address = $portal
			node.conn[0].port = 3260
			node.startup = manual
			node.session.initial_login_retry_max = 1
			node.conn[0].timeo.login_timeout = 5
			${user:+node.session.auth.authmethod = CHAP}
			${user:+node.session.auth.username = $user}
			${secret:+node.session.auth.password = $secret}
			# END RECORD
		RECORD
		node="iscsiadm -m node -T $iqn -p $portal"
		timeout 30 $node --login || status=$?
		$node -o delete
		case " $wanted " in *" $status "*) exit 0 ;; esac
		echo "iscsiadm ended with status $status, expected $wanted"
		exit 1' sh "$(address nas1)" "$1" "${@:3}"
}

# account HOST VOLUME: IQN, user and secret of the volume's target, as HOST's own record has them.
account() {
	on "$1" sh -ec "
		cd /etc/iscsi/nodes/*:tank.$2.e*
		sed -n 's/^node.name = //p; s/.*auth.username = //p; s/.*auth.password = //p' *" </dev/null | xargs
}

# read_on HOST PATH: the SHA-256 of its first MiB, past all caches.
read_on() { on "$1" sh -c "dd if=$2 bs=1M count=1 iflag=direct status=none | sha256sum" </dev/null; }

# write_on HOST PATH: a MiB that nobody else has; and past all caches.
write_on() { on "$1" dd if=/dev/urandom of="$2" bs=1M count=1 oflag=direct conv=notrunc,nocreat status=none </dev/null; }

# use_tgt: from now on nas1 exports by tgtd.
use_tgt() {
	expects 0 nas1 sh -c "
		setsid /checkout/tests/support/lab/guest/keep tgtd tgtd -f --iscsi portal=$(address nas1):3260 </dev/null >/dev/null 2>&1 &
		sed -i 's/^exporter = .*/exporter = \"tgt\"/; s/^\[nas.lio\]/[nas.tgt]/' /etc/onelun/onelun.toml
		lab-service restart onelun"
	eventually 90 ask nas1 list_zvols
}

# only_its_host STATUS: the target of an image lets only node1 in, only by its secret, only until the image is detached.
# Others are told STATUS.
only_its_host() {
	local iqn user secret sum disk=$DIRECTORY/1/disk.0
	ds 0 mkfs 1 64 PERSISTENT=1
	tm 0 ln frontend:nas1/tank/one-1 "host01:$disk" 1 102
	write_on node1 "$disk"
	sum=$(read_on node1 "$disk")
	read -r iqn user secret < <(account node1 one-1)

	log_in "$1" node2 $INITIATOR:node2 "$iqn" "$user" "$secret"
	log_in $REFUSED node2 $INITIATOR:node1 "$iqn" "$user" "${secret%?}#"
	log_in $REFUSED node2 $INITIATOR:node1 "$iqn"
	[ "$(read_on node1 "$disk")" = "$sum" ]

	tm 0 mvds "host01:$disk" nas1/tank/one-1 1 102
	log_in "$NO_TARGET" node1 $INITIATOR:node1 "$iqn" "$user" "$secret"
	ds 0 rm 1 64 SOURCE=nas1/tank/one-1
}

# no_other_volume POINT: POINT IQN UUID lets node1's target of one volume lead to another one of the same size.
no_other_volume() {
	local iqn user secret uuid other sum disk=$DIRECTORY/2/disk.0
	ds 0 mkfs 2 64 PERSISTENT=1
	ds 0 mkfs 3 64 PERSISTENT=1
	tm 0 ln frontend:nas1/tank/one-2 "host01:$disk" 2 102
	tm 0 ln frontend:nas1/tank/one-3 "host02:$DIRECTORY/3/disk.0" 3 102
	write_on node1 "$disk"
	write_on node2 "$DIRECTORY/3/disk.0"
	sum=$(read_on node1 "$disk")
	other=$(read_on node2 "$DIRECTORY/3/disk.0")
	read -r iqn user secret < <(account node1 one-2)
	uuid=$(ask nas1 list_zvols name=one-2 | jq -r '.body[0].uuid')

	"$1" "$iqn" "$(ask nas1 list_zvols name=one-3 | jq -r '.body[0].uuid')"
	# The kernel itself notices nothing.
	[ "$(read_on node1 "$disk")" = "$other" ]

	tm 1 ln frontend:nas1/tank/one-2 "host01:$disk" 2 102
	one_sentence 'exists for .*, not for'
	run ask node1 set_zvol target="$iqn" nas=nas1 address="$(address nas1)" user="$user" secret="$secret" \
		zpool=tank zvol=one-2 uuid="$uuid" size_bytes=$((64 << 20)) link="$disk"
	[ "$status" = 1 ]
	grep -q "^Error: target $iqn shows volume .*, expected $uuid" <<<"$output"
	expects 1 node1 test -e "$disk"
	# The NAS's rounds go on trying.
	eventually 90 no_connections node1

	tm 0 mvds "host01:$disk" nas1/tank/one-2 2 102
	tm 0 ln frontend:nas1/tank/one-2 "host01:$disk" 2 102
	[ "$(read_on node1 "$disk")" = "$sum" ]
	[ "$(read_on node2 "$DIRECTORY/3/disk.0")" = "$other" ]

	tm 0 mvds "host01:$disk" nas1/tank/one-2 2 102
	tm 0 mvds "host02:$DIRECTORY/3/disk.0" nas1/tank/one-3 3 102
	ds 0 rm 2 64 SOURCE=nas1/tank/one-2
	ds 0 rm 3 64 SOURCE=nas1/tank/one-3
}

# point_lio IQN UUID: as somebody with a shell on the NAS might.
point_lio() {
	expects 0 nas1 sh -ec "
		acl=acls/$INITIATOR:node1
		cd /sys/kernel/config/target/iscsi/$1/tpgt_1
		find \$acl/lun_0 -maxdepth 1 -type l -exec rm {} +
		rmdir \$acl/lun_0
		find lun/lun_0 -maxdepth 1 -type l -exec rm {} +
		ln -s /sys/kernel/config/target/core/*/onelun_nas1_$2 lun/lun_0/other
		mkdir \$acl/lun_0
		ln -s \$PWD/lun/lun_0 \$acl/lun_0/lun_0"
}

# point_tgt IQN UUID
point_tgt() {
	expects 0 nas1 sh -ec "
		tid=\$(tgtadm --lld iscsi --mode target --op show | sed -n 's/^Target \([0-9]*\): $1\$/\1/p')
		lun=\"tgtadm --lld iscsi --mode logicalunit --tid \$tid --lun 1\"
		# udev of node1 looks at what was written to, and tgtd keeps a LUN that it has a command for.
		until \$lun --op delete; do sleep 0.2; done
		\$lun --op new -b /dev/onelun/onelun-$2
		\$lun --op update --params scsi_sn=$2"
}

@test "lio lets only the host of an attachment in, by its own secret, and nobody after that" {
	only_its_host $REFUSED
}

@test "lio: a target that leads to another volume is refused by NAS and host, and mended" {
	no_other_volume point_lio
}

@test "two hosts have a volume while it migrates, each with an account of its own" {
	local iqn user secret iqn2 user2 secret2 sessions
	ask nas1 map_zvol zvol=moving size_bytes=$((64 << 20)) remotehost=node1
	run ask nas1 map_zvol zvol=moving remotehost=node2
	[ "$status" = 1 ]
	[ "$output" = "Error: volume moving is mapped to node1: unmap it there first" ]

	ask nas1 map_zvol zvol=moving remotehost=node2 beside=node1
	write_on node1 /dev/onelun/nas1/tank/moving
	[ "$(read_on node2 /dev/onelun/nas1/tank/moving)" = "$(read_on node1 /dev/onelun/nas1/tank/moving)" ]
	read -r iqn user secret < <(account node1 moving)
	read -r iqn2 user2 secret2 < <(account node2 moving)
	[ "$iqn" != "$iqn2" ] && [ "$user" != "$user2" ] && [ "$secret" != "$secret2" ]
	log_in $REFUSED node2 $INITIATOR:node2 "$iqn" "$user2" "$secret2"
	log_in $REFUSED node2 $INITIATOR:node1 "$iqn" "$user2" "$secret2"
	log_in $REFUSED node1 $INITIATOR:node1 "$iqn2" "$user" "$secret"

	sessions=$(on node2 ls /sys/class/iscsi_session)
	ask nas1 unmap_zvol zvol=moving remotehost=node1
	no_connections node1
	log_in "$NO_TARGET" node1 $INITIATOR:node1 "$iqn" "$user" "$secret"
	write_on node2 /dev/onelun/nas1/tank/moving
	[ "$(on node2 ls /sys/class/iscsi_session)" = "$sessions" ]

	ask nas1 unmap_zvol zvol=moving remotehost=node2
	ask nas1 del_zvol zvol=moving
}

@test "an initiator without an agent logs in with what initialize_connection tells, until terminate_connection" {
	local connector disk data node sum
	connector="connector={\"initiator\": \"$INITIATOR:node2\", \"host\": \"node2\", \"ip\": \"$(address node2)\"}"
	ask nas1 create_zvol zvol=raw zpool=tank size_bytes=$((64 << 20)) 'owner={"kind": "plain"}'

	data=$(ask nas1 initialize_connection zvol=raw "$connector" | jq -e 'select(.driver_volume_type == "iscsi").data')
	[ "$(ask nas1 initialize_connection zvol=raw "$connector" | jq .data)" = "$data" ]
	jq -e '.target_discovered == false and .auth_method == "CHAP" and .access_mode == "rw" and .encrypted == false' <<<"$data"
	of() { jq -r ".$1" <<<"$data"; }
	node="iscsiadm -m node -T $(of target_iqn) -p $(of target_portal)"
	disk=/dev/disk/by-path/ip-$(of target_portal)-iscsi-$(of target_iqn)-lun-$(of target_lun)
	expects 0 node2 sh -ec "
		$node -o new
		$node -o update -n node.session.auth.authmethod -v $(of auth_method)
		$node -o update -n node.session.auth.username -v $(of auth_username)
		$node -o update -n node.session.auth.password -v $(of auth_password)
		timeout 30 $node --login
		udevadm settle
		grep -q $(of volume_id) /sys/block/\$(basename \$(readlink $disk))/device/vpd_pg80"
	write_on node2 "$disk"
	sum=$(read_on node2 "$disk")
	[ "$(read_on nas1 "/dev/onelun/onelun-$(of volume_id)")" = "$sum" ]

	ask nas1 terminate_connection zvol=raw "$connector"
	no_exports nas1
	eventually 90 on node2 sh -c '! grep -qs LOGGED_IN /sys/class/iscsi_session/*/state' </dev/null
	expects 0 node2 sh -ec "
		timeout 30 $node --logout || true
		$node -o update -n node.session.initial_login_retry_max -v 1
		$node -o update -n 'node.conn[0].timeo.login_timeout' -v 5"
	run on node2 sh -c "timeout 60 $node --login" </dev/null
	[[ " $NO_TARGET " == *" $status "* ]]
	expects 0 node2 sh -c "$node -o delete"
	ask nas1 terminate_connection zvol=raw "$connector"
	ask nas1 del_zvol zvol=raw
	nothing_left
}

@test "tgt lets only the host of an attachment in, by its own secret, and nobody after that" {
	use_tgt

	only_its_host $NOT_FOR_IT
}

@test "tgt: a target that leads to another volume is refused by NAS and host, and mended" {
	no_other_volume point_tgt
	nothing_left
}
