#!/usr/bin/env bats
# The main job on real engines: the seed's example VM, called as 3.4 and as 7.5 call it, every action twice. The
# two differ on the frontend alone, so once is enough for 3.4.

load lab.bash
load leftovers.bash

teardown() { lab_down; }

twice() {
	"$@"
	"$@"
}

make_image() {
	qemu-img convert -f raw -O qcow2 /usr/lib/ipxe/ipxe.iso "$ONELUN_SAFE_DIR/image.qcow2"
	chmod 644 "$ONELUN_SAFE_DIR/image.qcow2"
}

# read_on HOST PATH BLOCKS: the SHA-256 of its first BLOCKS of 4 KiB, past all caches.
read_on() { on "$1" sh -c "dd if=$2 bs=4096 count=$3 iflag=direct status=none | sha256sum"; }

# live OS DATA VM [ID...]: a VM's life on node1 (host01) and node2 (host02); IDs are what follows the locations since 3.6.
live() {
	local os=nas1/tank/one-$1 data=nas1/tank/one-$2 dir=$DIRECTORY/$3 sum clone step
	shift 3
	local ids=("$@")

	twice tm 0 clone "frontend:$os" "host01:$dir/disk.0" "${ids[@]}"
	twice tm 0 ln "frontend:$data" "host01:$dir/disk.1" "${ids[@]}"
	expects 0 node1 sh -ec "
		dd if=/dev/urandom of=$dir/disk.1 bs=1M count=8 oflag=direct conv=notrunc,nocreat status=none
		dd if=/dev/urandom of=$dir/disk.0 bs=4096 count=1 seek=256 oflag=direct conv=notrunc,nocreat status=none"
	sum=$(read_on node1 "$dir/disk.1" 2048)
	clone=$(read_on node1 "$dir/disk.0" 257)

	for step in "host01 frontend" "frontend host01" "host01 host02"; do
		twice tm 0 mv "${step% *}:$dir/disk.0" "${step#* }:$dir/disk.0" "${ids[@]}"
		twice tm 0 mv "${step% *}:$dir/disk.1" "${step#* }:$dir/disk.1" "${ids[@]}"
		twice tm 0 mv "${step% *}:$dir" "${step#* }:$dir" "${ids[@]}"
	done
	[ "$(read_on node2 "$dir/disk.1" 2048)" = "$sum" ]
	[ "$(read_on node2 "$dir/disk.0" 257)" = "$clone" ]
	expects 1 node1 test -b "$dir/disk.1"

	twice tm 0 delete "host02:$dir/disk.0" "${ids[@]}"
	twice tm 0 mvds "host02:$dir/disk.1" "$data" "${ids[@]}"
	twice tm 0 delete "host02:$dir" "${ids[@]}"
	expects 1 node2 test -e "$dir"

	# The persistent image came home with what the VM wrote, and the cloned one did not change.
	tm 0 ln "frontend:$data" "host01:$dir/disk.1" "${ids[@]}"
	[ "$(read_on node1 "$dir/disk.1" 2048)" = "$sum" ]
	tm 0 mvds "host01:$dir/disk.1" "$data" "${ids[@]}"
	tm 0 clone "frontend:$os" "host02:$dir/disk.0" "${ids[@]}"
	[ "$(read_on node2 "$dir/disk.0" 257)" != "$clone" ]
	[ "$(on node2 sh -c "dd if=$dir/disk.0 bs=4096 count=64 iflag=direct status=none" | cmp -n 262144 - /usr/lib/ipxe/ipxe.iso && echo same)" = same ]
	tm 0 delete "host02:$dir/disk.0" "${ids[@]}"
	tm 0 delete "host02:$dir" "${ids[@]}"
	tm 0 delete "host01:$dir" "${ids[@]}"
}

# old_life, new_life: of an image that is cloned and a persistent one.
old_life() {
	twice ds34 0 cp 1 4 PATH="$ONELUN_SAFE_DIR/image.qcow2"
	[ "$output" = "nas1/tank/one-1 4" ]
	twice ds34 0 mkfs 2 64 PERSISTENT=1
	live 1 2 34
	twice ds34 0 rm 1 4 SOURCE=nas1/tank/one-1
	twice ds34 0 rm 2 4 SOURCE=nas1/tank/one-2
}

new_life() {
	twice ds 0 cp 3 4 PATH="$ONELUN_SAFE_DIR/image.qcow2"
	[ "$output" = "nas1/tank/one-3 raw" ]
	twice ds 0 mkfs 4 64 PERSISTENT=1
	live 3 4 75 75 102
	twice ds 0 rm 3 4 SOURCE=nas1/tank/one-3
	twice ds 0 rm 4 4 SOURCE=nas1/tank/one-4
}

# whole_life EXPORTER ENGINE LIFE...: and nothing left.
whole_life() {
	lab_up --exporter "$1" --engine "$2"
	make_image
	shift 2
	for life; do "$life"; done
	nothing_left
}

@test "a VM lives on lvm, lio, iscsi" {
	whole_life lio lvm old_life new_life
}

@test "a VM lives on zfs, lio, iscsi" {
	whole_life lio zfs new_life
}

@test "a VM lives on lvm, tgt, iscsi" {
	whole_life tgt lvm new_life
}
