#!/usr/bin/env bats
# onelun reconcile: each kind of difference is made, named with nothing changed, repaired, and then nothing differs. What oned
# ignores (postmigrate that failed, a delete that failed) is healed; what oned does not say plainly removes nothing.

# shellcheck disable=SC2030,SC2031,SC2034 # each test is a process of its own; oned.bash reads TWICE

load oned.bash

setup_file() {
	sandbox_up
	oned_up
	# No grace, because everything here is young; and a NAS that does nothing by itself, so that what differs goes on to.
	printf '\n[limits]\ngrace_s = 0\n' >>"$(config)"
	printf '\n[limits]\nprobe_s = 3600\n' >>"$ONELUN_SANDBOX/etc/nas1.toml"
	again nas1
	images 3 4 8
	is "${IMAGES[@]}" '0 vm-0.lcm-4 1 host01'
	DIR=$DIRECTORY/0 TWICE='' walk vm0-transfer.0.prolog
}
teardown_file() {
	oned_down
	sandbox_down
}

IMAGES=('image 3 SOURCE=nas1/tank/one-3 REGTIME=1700000000 STATE=2'
	'image 4 SOURCE=nas1/tank/one-4 REGTIME=1700000000 STATE=8'
	'image 8 SOURCE=nas1/tank/one-8 REGTIME=1700000000 STATE=2')
# It began long before its volumes were made, whatever the clock says.
VM='0 vm-0.lcm-4 3 host01 STIME=1'

setup() {
	DIR=$DIRECTORY/0 TWICE=''
	is "${IMAGES[@]}" "$VM"
}

# again NAME: kill it, and start it again.
again() {
	kill_role "$1"
	restart "$1"
}

# reconcile STATUS [OPTION]...: what it prints is in lines.
reconcile() {
	local expected=$1
	shift
	run --separate-stderr -"$expected" timeout 300 onelun reconcile "$@"
}

# everything: what the storage, the targets and the hosts have, in words that two moments can be compared by.
everything() {
	find "$ONELUN_SANDBOX"/hosts/nas1/{pool,spare} -name volume.json -printf '%P ' -exec sha256sum {} \;
	exported
	local node
	for node in node1 node2; do
		on $node find /dev/onelun "$DIRECTORY" \( -type l -printf '%p %l\n' -o -type f -printf '%p %s\n' \) 2>/dev/null | sort
	done
	onelun ask nas1 find_placements cloud="$(sed -n 's/^cloud = "\(.*\)"/\1/p' "$(config)")"
}

# differs COUNT TYPE WHAT [TYPE WHAT]...: so many lines say so, among them these; and saying so has changed nothing.
differs() {
	local count=$1 before
	shift
	before=$(everything)
	reconcile 3
	# shellcheck disable=SC2154 # bats sets it
	printf '%s\n' "${lines[@]}"
	[ "${#lines[@]}" = "$count" ]
	while (($#)); do
		grep -qE "^$1 +[^ ]*$2" <<<"$output"
		shift 2
	done
	[ "$(everything)" = "$before" ]
}

# heals [OPTION]...: what can be repaired is, and then nothing differs.
heals() {
	reconcile 0 --apply "$@"
	printf '%s\n' "${lines[@]}"
	reconcile 0
	[[ $output == 'nothing differs: 3 images, '* ]]
}

# stays PATTERN [OPTION]...: --apply changes nothing, and a line says why.
stays() {
	local pattern=$1 before
	shift
	before=$(everything)
	run --separate-stderr timeout 300 onelun reconcile --apply --images "$@"
	[ "$status" != 0 ]
	# shellcheck disable=SC2154 # bats sets it
	grep -qE "$pattern" <<<"$output$stderr"
	[ "$(everything)" = "$before" ]
}

ALL='0=one-3-0-0 1=one-4 2=one-vm-0-2 3=one-vm-0-3 4=one-8 5=one-3-0-5'
VOLUMES='one-3-0-0 one-3-0-5 one-4 one-8 one-vm-0-2 one-vm-0-3'

tgt() { TGT_IPC_SOCKET=$ONELUN_SANDBOX/hosts/nas1/tgt/tgtd.sock tgtadm --lld iscsi "$@"; }

@test "nothing differs while a VM runs, nor while it is off or nobody hears of it" {
	reconcile 0
	[ "$output" = 'nothing differs: 3 images, 1 VMs, 7 volumes on 1 NASes, 2 hosts compared' ]
	is "${IMAGES[@]}" '0 vm-0.lcm-4 0 host01 STATE=8'
	reconcile 0
	is "${IMAGES[@]}" '0 vm-0.lcm-4 16 host01'
	reconcile 0
}

@test "nothing is said of a VM in the middle of something, whatever it has" {
	is "${IMAGES[@]}" '0 vm-0.lcm-4 17 host02 5:-'
	reconcile 0
}

@test "a link that is missing, and one that leads elsewhere" {
	on node1 rm "$DIR/disk.1"
	on node1 ln -sfn /dev/onelun/nas1/tank/one-8 "$DIR/disk.0"

	differs 2 'missing link' disk.1 'wrong link' disk.0
	heals

	[ "$(disks node1)" = "$ALL" ]
}

@test "a target that is missing is exported again, and its disk can be read" {
	local tid
	tid=$(tgt --mode target --op show | sed -n 's/^Target \([0-9]*\): .*:tank\.one-4\.e[0-9]*$/\1/p')
	tgt --mode target --op delete --force --tid "$tid"

	reconcile 3
	grep -qE '^missing export +[^ ]*one-4\.e' <<<"$output"
	reconcile 0 --apply

	[ "$(exported)" = "$VOLUMES" ]
	on node1 timeout 60 dd if="$DIR/disk.1" of=/dev/null bs=4096 count=1 iflag=direct status=none
	eventually 120 onelun reconcile
}

@test "a device that does not work any more is connected anew" {
	local one
	one=$(echo "$ONELUN_SANDBOX"/hosts/node1/run/compute/targets/*/session.pid | cut -d' ' -f1)
	kill -9 "$(cat "$one")"
	eventually 60 gone "$(cat "$one")"

	differs 1 'missing device' ''
	heals

	local disk
	for disk in 0 1 2 3 4 5; do on node1 timeout 60 dd if="$DIR/disk.$disk" of=/dev/null bs=4096 count=1 iflag=direct status=none; done
}

@test "a disk that its VM's host does not have is named, and repaired by nobody else's word" {
	local cloud
	cloud=$(sed -n 's/^cloud = "\(.*\)"/\1/p' "$(config)")
	onelun ask nas1 unmap_zvol zvol=one-4 zpool=tank remotehost=node1 cloud="$cloud"

	differs 1 'missing attachment' one-4
	stays 'missing attachment'

	tm 0 ln frontend:nas1/tank/one-4 "host01:$DIR/disk.1" 0 102
	reconcile 0
}

@test "a target that nobody knows ends" {
	tgt --mode target --op new --tid 900 -T iqn.2026-11.io.onelun.nas1:tank.one-9.e9000001

	differs 1 'orphan export' one-9
	heals

	[ "$(exported)" = "$VOLUMES" ]
}

@test "what is not onelun's is not touched" {
	tgt --mode target --op new --tid 901 -T iqn.2001-05.com.example:other
	reconcile 0
	tgt --mode target --op show | grep -q com.example
	tgt --mode target --op delete --tid 901
}

@test "the attachments of a dead host are fenced when its VM is elsewhere, and its sessions are stale when it is back" {
	kill_role node1
	reconcile 3
	[ "${#lines[@]}" = 1 ]
	[[ $output == 'not asked '*node1* ]]
	# OpenNebula had the VM stopped, which it does without the host.
	is "${IMAGES[@]}" '0 vm-0.lcm-4 0 host01 STATE=4 STIME=1'

	differs 7 'attachment of a dead host' one-4 'not asked' node1
	reconcile 0 --apply

	[ "$(exported)" = '' ]
	restart node1
	differs 6 'stale session' one-4
	heals
	[ -z "$(on node1 find /dev/onelun -type l)" ]
	is "${IMAGES[@]}" '0 vm-0.lcm-4 9 host01'
	on node1 rm -rf "$DIR"
	walk vm0-transfer.0.prolog
	is "${IMAGES[@]}" "$VM"
	reconcile 0
}

# migration STATUS ACTION: of VM 0 from the first host to the second one.
migration() {
	sed 's#onelun/one-#nas1/tank/one-#g' "$RECORDINGS/show/vm-0.lcm-4.xml" | base64 -w0 >"$BATS_TEST_TMPDIR/vm"
	run_action "$1" "tm/onelun/$2" host01 host02 "$DIR" 0 103 <"$BATS_TEST_TMPDIR/vm"
}

@test "a postmigrate that failed, which OpenNebula ignores" {
	is "${IMAGES[@]}" '0 vm-0.lcm-4 4 host01'
	migration 0 premigrate
	[ "$(disks node1) $(disks node2)" = "$ALL $ALL" ]
	kill_role nas1
	migration 1 postmigrate
	restart nas1
	is "${IMAGES[@]}" '0 vm-0.lcm-4 3 host02 STIME=1'

	differs 6 'orphan attachment' one-3-0-0 'orphan attachment' one-4
	heals

	[ "$(exported)" = "$VOLUMES" ]
	[ "$(disks node2)" = "$ALL" ]
	[ -z "$(on node1 find /dev/onelun -type l)" ]
	on node1 rm -rf "$DIR"
	is "${IMAGES[@]}" '0 vm-0.lcm-4 43 host01'
	walk vm0-transfer.8.migrate
	is "${IMAGES[@]}" "$VM"
	reconcile 0
}

@test "what is in use on a host is not taken from it, and what the host says is told" {
	is "${IMAGES[@]}" '0 vm-0.lcm-4 3 host01 1:- STIME=1'
	# shellcheck disable=SC2016 # the shell over there
	on node1 sh -c 'exec 8<>"$1" && echo $$ >"$2" && exec sleep 600' - "$DIR/disk.1" "$BATS_TEST_TMPDIR/user" 3>&- &
	local user=$!
	eventually 60 test -s "$BATS_TEST_TMPDIR/user"
	differs 1 'orphan attachment' one-4
	stays 'failed: orphan attachment nas1/tank/one-4 on node1: .*(open|in use)'
	kill "$(cat "$BATS_TEST_TMPDIR/user")"
	wait "$user" || true

	is "${IMAGES[@]}" "$VM"
	reconcile 0
}

@test "a disk that its VM has no more, when detaching it failed" {
	is "${IMAGES[@]}" '0 vm-0.lcm-17 17 host01'
	images 9
	walk vm0-transfer.42.prolog_attach
	is "${IMAGES[@]}" 'image 9 SOURCE=nas1/tank/one-9 REGTIME=1700000000' "$VM"

	differs 2 'orphan attachment' one-9-0-7 'orphan volume' one-9-0-7
	# There are four images now.
	reconcile 0 --apply
	reconcile 0

	[ "$(exported)" = "$VOLUMES" ]
	[ ! -e "$(volume_file one-9-0-7)" ]
	[ -e "$(volume_file one-9)" ]
}

@test "an image that oned does not know goes to the trash only when it is asked for, and can be had back" {
	differs 1 'image unknown to oned' one-9
	reconcile 3 --apply
	[ -e "$(volume_file one-9)" ]
	heals --images
	[ ! -e "$(volume_file one-9)" ]

	# As docs/reconcile.md has it.
	is "${IMAGES[@]}" 'image 9 SOURCE=nas1/tank/one-9 REGTIME=1700000000' "$VM"
	differs 1 'volume missing' nas1/tank/one-9
	local uuid pool=$ONELUN_SANDBOX/hosts/nas1/pool
	uuid=$(grep -oE '[0-9a-f]{8}-[0-9a-f-]{27}' <<<"$output")
	mv -T "$pool/.trash-$uuid" "$pool/one-9"
	reconcile 0
	ds 0 rm 9 64 SOURCE=nas1/tank/one-9
}

@test "an image of oned's without a volume is named, and stays a difference" {
	is "${IMAGES[@]}" 'image 77 SOURCE=nas1/tank/one-77 REGTIME=1700000000' "$VM"
	differs 1 'volume missing' one-77
	stays 'volume missing +nas1/tank/one-77'
}

@test "a snapshot that oned does not have is named, and stays" {
	local cloud
	cloud=$(sed -n 's/^cloud = "\(.*\)"/\1/p' "$(config)")
	onelun ask nas1 snapshot_zvol zvol=one-4 zpool=tank cloud="$cloud" snapshot=snap-5
	differs 1 'orphan snapshot' one-4@snap-5
	stays 'orphan snapshot'
	onelun ask nas1 del_snapshot zvol=one-4 zpool=tank cloud="$cloud" snapshot=snap-5
	reconcile 0
}

@test "a oned with an empty list, an error, without an answer or of another cloud removes and detaches nothing" {
	local bytes
	on node1 dd if=/dev/urandom of="$DIR/disk.1" bs=1M count=4 oflag=direct conv=notrunc,nocreat status=none
	bytes=$(sha256sum <"$(volume_file one-4)")
	is
	stays 'withheld: no image.s SOURCE and REGTIME show'
	is '0 vm-0.lcm-4 0 host01 STATE=6 ETIME=2 STIME=1'
	stays 'withheld'
	is "${IMAGES[@]//REGTIME=17/REGTIME=16}" '0 vm-0.lcm-4 0 host01 STATE=6 ETIME=2 STIME=1'
	stays "another cloud's"
	is broken
	stays 'oned does not answer at '
	oned_down
	stays 'oned does not answer at '
	sed -i '/^api = /d; /^api_auth = /d; /^opennebula_version = /d' "$(config)"
	stays 'frontend.api is not set'
	oned_up
	is "${IMAGES[@]}" "$VM"
	reconcile 0
	[ "$(on node1 dd if="$DIR/disk.1" bs=1M iflag=direct status=none | sha256sum)" = "$bytes" ]
}

@test "a NAS that is away is named, and nothing is missed there" {
	kill_role nas1
	reconcile 3
	[[ $output == 'not asked  nas1 '*'no agent called nas1 is connected'* ]]
	restart nas1
	reconcile 0
}

@test "--json is one document" {
	on node1 rm "$DIR/disk.1"
	reconcile 3 --json
	[ "$(jq -r '.differences[] | [.type, .host, .repairable] | @tsv' <<<"$output")" = $'missing link\tnode1\ttrue' ]
	reconcile 0 --apply --json
	[ "$(jq -r '[(.differences | length), .tried[0].type, .tried[0].failed] | @tsv' <<<"$output")" = $'0\tmissing link\t' ]
}

@test "a delete that failed while its VM was deleted in recovery: the hosts let go, and the VM's own goes to the trash" {
	is "${IMAGES[@]}" '0 vm-0.lcm-4 23 host01'
	kill_role nas1
	tm 1 delete "host01:$DIR/disk.0" 0 102
	restart nas1
	is "${IMAGES[@]}" '0 vm-0.lcm-4 0 host01 STATE=6 STIME=1 ETIME=2'

	sed -i 's/^grace_s = 0/grace_s = 3600/' "$(config)"
	reconcile 3
	[ "$(grep -c -- '-- wait: its grace period ends in' <<<"$output")" = 4 ]
	reconcile 3 --apply
	printf '%s\n' "$output" "$stderr"
	[ "$(exported)" = '' ]
	[ -e "$(volume_file one-3-0-0)" ]
	sed -i 's/^grace_s = 3600/grace_s = 0/' "$(config)"

	reconcile 1 --apply --at-most 3
	[[ $stderr == *'4 volumes would go to the trash, and at most 3 may'* ]]
	differs 4 'orphan volume' one-3-0-0 'orphan volume' one-vm-0-3
	heals

	[ "$(cd "$ONELUN_SANDBOX/hosts/nas1/pool" && echo one-*)" = 'one-3 one-4 one-8' ]
	grep -l '"one-3-0-0"' "$ONELUN_SANDBOX"/hosts/nas1/pool/.trash-*/volume.json
	[ -z "$(on node1 find /dev/onelun -type l)" ]
	on node1 rm -rf "$DIR"
}
