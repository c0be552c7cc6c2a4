#!/usr/bin/env bats
# The example VM of the seed, called as each release calls it, every action twice: what oned repeats must succeed.

load sandbox.bash

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

# twice STATUS...: run the same wrapper command two times.
twice() {
	"$@"
	"$@"
}

image_file() {
	printf '%s\n' "$ONELUN_SANDBOX/image.qcow2"
}

make_image() {
	[ -e "$(image_file)" ] || qemu-img convert -f raw -O qcow2 /usr/lib/ipxe/ipxe.iso "$(image_file)"
	chmod 644 "$(image_file)"
}

@test "an image is registered as SOURCE SIZE in 3.4 and as SOURCE FORMAT in 7.5, and again the same" {
	make_image
	twice ds34 0 cp 1 4 PATH="$(image_file)"
	[ "$output" = "nas1/tank/one-1 4" ]

	twice ds 0 cp 2 4 PATH="$(image_file)"
	[ "$output" = "nas1/tank/one-2 raw" ]

	cmp -n 2097152 /usr/lib/ipxe/ipxe.iso "$(volume_file one-1)"
	cmp "$(volume_file one-1)" "$(volume_file one-2)"
}

@test "an empty image is SOURCE SIZE in 3.4 and SOURCE alone in 7.5" {
	twice ds34 0 mkfs 3 64 PERSISTENT=1
	[ "$output" = "nas1/tank/one-3 64" ]

	twice ds 0 mkfs 4 64 PERSISTENT=1
	[ "$output" = "nas1/tank/one-4" ]
	[ "$(stat -c %s "$(volume_file one-4)")" = 67108864 ]
}

# live OS_IMAGE DATA_IMAGE VM [ID...]: a VM's life; IDs are what follows the locations since 3.6.
live() {
	local os=nas1/tank/one-$1 data=nas1/tank/one-$2 dir=$DIRECTORY/$3 sum step
	shift 3
	local ids=("$@")

	twice tm 0 clone "frontend:$os" "host01:$dir/disk.0" "${ids[@]}"
	twice tm 0 ln "frontend:$data" "host01:$dir/disk.1" "${ids[@]}"
	on node1 test -b "$dir/disk.0"
	on node1 dd if=/dev/urandom of="$dir/disk.1" bs=1M count=8 oflag=direct conv=notrunc,nocreat status=none
	on node1 dd if=/dev/urandom of="$dir/disk.0" bs=4096 count=1 seek=256 oflag=direct conv=notrunc,nocreat status=none
	sum=$(on node1 dd if="$dir/disk.1" bs=1M iflag=direct status=none | sha256sum)

	for step in "host01 frontend" "frontend host01" "host01 host02"; do
		twice tm 0 mv "${step% *}:$dir/disk.0" "${step#* }:$dir/disk.0" "${ids[@]}"
		twice tm 0 mv "${step% *}:$dir/disk.1" "${step#* }:$dir/disk.1" "${ids[@]}"
		twice tm 0 mv "${step% *}:$dir" "${step#* }:$dir" "${ids[@]}"
	done
	[ "$(on node2 dd if="$dir/disk.1" bs=1M iflag=direct status=none | sha256sum)" = "$sum" ]
	run -1 on node1 test -b "$dir/disk.1"
	run -1 on node2 cmp -s "$dir/disk.0" "$(volume_file "$os")"

	twice tm 0 delete "host02:$dir/disk.0" "${ids[@]}"
	twice tm 0 mvds "host02:$dir/disk.1" "$data" "${ids[@]}"
	twice tm 0 delete "host02:$dir" "${ids[@]}"
	[ "$(sha256sum <"$(volume_file "$data")")" = "$sum" ]
	run -1 on node2 test -e "$dir"
}

@test "a VM lives as 3.4 calls it, each action twice" {
	live 1 3 34
}

@test "a VM lives as 7.5 calls it, each action twice" {
	live 2 4 75 75 102
}

@test "3.4 saves a clone as another image by mvds" {
	local dir=$DIRECTORY/35
	ds34 0 mkfs 5 4 PERSISTENT=1
	tm 0 clone frontend:nas1/tank/one-1 "host01:$dir/disk.0"
	on node1 dd if=/dev/urandom of="$dir/disk.0" bs=4096 count=1 seek=256 oflag=direct conv=notrunc,nocreat status=none
	local sum
	sum=$(on node1 dd if="$dir/disk.0" bs=1M iflag=direct status=none | sha256sum)

	twice tm 0 mvds "host01:$dir/disk.0" nas1/tank/one-5

	[ "$(sha256sum <"$(volume_file one-5)")" = "$sum" ]
	tm 0 delete "host01:$dir"
}

@test "removing an image succeeds, also when it is gone" {
	local id
	for id in 1 3 5; do twice ds34 0 rm "$id" 4 SOURCE=nas1/tank/one-$id; done
	for id in 2 4; do twice ds 0 rm "$id" 4 SOURCE=nas1/tank/one-$id; done
	[ ! -e "$(volume_file one-1)" ]
}

@test "nothing is connected on any host and no target is exported when all is removed" {
	run -1 on node1 sh -c 'find /dev/onelun -type l | grep .'
	run -1 on node2 sh -c 'find /dev/onelun -type l | grep .'
	TGT_IPC_SOCKET=$ONELUN_SANDBOX/hosts/nas1/tgt/tgtd.sock tgtadm --lld iscsi --mode target --op show >"$BATS_TEST_TMPDIR/targets"
	[ ! -s "$BATS_TEST_TMPDIR/targets" ]
}
