#!/usr/bin/env bats
# Sizes, filesystems, volatile disks and copies from pool to pool, with real tools and targets, every action twice.

load sandbox.bash

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

twice() {
	"$@"
	"$@"
}

# type_on NODE DEVICE: the filesystem that the host sees.
type_on() { on "$1" blkid -p -o value -s TYPE "$2"; }

# bytes_on NODE DEVICE
bytes_on() { on "$1" blockdev --getsize64 "$2"; }

@test "a new image is formatted as FS asks, and nothing is made of a word that is none" {
	local fs id=10
	for fs in ext2 ext3 ext4 btrfs vfat ntfs swap; do
		twice ds 0 mkfs $id 128 FS=$fs
		[ "$output" = "nas1/tank/one-$id" ]
		[ "$(blkid -p -o value -s TYPE "$(volume_file one-$id)")" = $fs ]
		ds 0 rm $id 128 SOURCE=nas1/tank/one-$id
		id=$((id + 1))
	done
	twice ds34 0 mkfs 20 64 FS=ext3
	[ "$output" = "nas1/tank/one-20 64" ]
	e2fsck -fn "$(volume_file one-20)"

	ds 1 mkfs 21 64 FS='ext4; reboot'
	one_sentence "IMAGE/FS is 'ext4; reboot', which is none of raw, ext2"
	ds 1 mkfs 21 16 FS=xfs
	one_sentence "cannot be formatted with xfs: mkfs.xfs failed"
	[ ! -e "$(volume_file one-21)" ]
	run ! compgen -G "$ONELUN_SANDBOX/hosts/nas1/pool/.new-*"
}

@test "a disk of a VM that is off grows on its host, and its filesystem with it" {
	local dir=$DIRECTORY/50
	tm 0 ln frontend:nas1/tank/one-20 "host01:$dir/disk.0" 50 102
	local link
	link=$(on node1 readlink "$dir/disk.0")

	twice tm 0 resize "host01:$dir/disk.0" 96 50 102

	[ "$(on node1 readlink "$dir/disk.0")" = "$link" ]
	[ "$(bytes_on node1 "$dir/disk.0")" = $((96 << 20)) ]
	on node1 e2fsck -fp "$dir/disk.0"
	on node1 resize2fs "$dir/disk.0"
	on node1 e2fsck -fn "$dir/disk.0"
}

@test "a disk that is open stays as it is, and says what to do; so does one that is to shrink" {
	local dir=$DIRECTORY/50
	on node1 sh -c "exec 3<>$dir/disk.0; echo open >$ONELUN_SANDBOX/open; while [ -e $ONELUN_SANDBOX/open ]; do sleep 0.1; done" 3>&- &
	local holder=$!
	eventually 120 test -e "$ONELUN_SANDBOX/open"

	tm 1 resize "host01:$dir/disk.0" 128 50 102
	one_sentence "one-20 is open on node1.*power the VM off and resize the disk while it is off"
	tm 1 resize "host01:$dir/disk.0" 64 50 102
	one_sentence "cannot be shrunk"

	[ "$(bytes_on node1 "$dir/disk.0")" = $((96 << 20)) ]
	[ "$(stat -c %s "$(volume_file one-20)")" = $((96 << 20)) ]
	rm "$ONELUN_SANDBOX/open"
	wait "$holder"
	tm 0 resize "host01:$dir/disk.0" 128 50 102
	[ "$(bytes_on node1 "$dir/disk.0")" = $((128 << 20)) ]
}

@test "a disk that no host has grows too" {
	local dir=$DIRECTORY/50
	tm 0 mv "host01:$dir/disk.0" "frontend:$dir/disk.0" 50 102

	twice tm 0 resize "frontend:$dir/disk.0" 160 50 102

	tm 0 mv "frontend:$dir/disk.0" "host02:$dir/disk.0" 50 102
	[ "$(bytes_on node2 "$dir/disk.0")" = $((160 << 20)) ]
	on node2 e2fsck -fn "$dir/disk.0"
	tm 0 mvds "host02:$dir/disk.0" nas1/tank/one-20 50 102
	tm 0 delete "host02:$dir" 50 103
}

# volatile VM [ID...]: disks without an image, from their making to their end.
volatile() {
	local vm=$1 dir=$DIRECTORY/$1
	shift
	twice tm 0 mkimage 64 ext3 "host01:$dir/disk.2" "$@"
	twice tm 0 mkimage 16 raw "host01:$dir/disk.3" "$@"
	twice tm 0 mkswap 8 "host01:$dir/disk.4" "$@"
	[ "$(type_on node1 "$dir/disk.2")" = ext3 ]
	run -2 type_on node1 "$dir/disk.3"
	[ "$(type_on node1 "$dir/disk.4")" = swap ]
	[ "$(bytes_on node1 "$dir/disk.3")" = $((16 << 20)) ]
	[ "$(on node1 readlink "$dir/disk.2")" = "/dev/onelun/nas1/tank/one-vm-$vm-2" ]
	on node1 e2fsck -fn "$dir/disk.2"
	on node1 dd if=/dev/urandom of="$dir/disk.3" bs=1M count=4 oflag=direct conv=notrunc,nocreat status=none
	SUM=$(on node1 dd if="$dir/disk.3" bs=1M iflag=direct status=none | sha256sum)
}

@test "volatile disks of 7.5 are made, grow, move and end" {
	local dir=$DIRECTORY/60 disk
	volatile 60 60 103

	twice tm 0 resize "host01:$dir/disk.4" 12 60 103
	for disk in 2 3 4; do
		twice tm 0 mv "host01:$dir/disk.$disk" "host02:$dir/disk.$disk" 60 103
	done
	twice tm 0 mv "host01:$dir" "host02:$dir" 60 103
	[ "$(on node2 dd if="$dir/disk.3" bs=1M iflag=direct status=none | sha256sum)" = "$SUM" ]
	[ "$(bytes_on node2 "$dir/disk.4")" = $((12 << 20)) ]
	for disk in 2 3 4; do
		twice tm 0 delete "host02:$dir/disk.$disk" 60 103
	done
	twice tm 0 delete "host02:$dir" 60 103
	run ! compgen -G "$ONELUN_SANDBOX/hosts/nas1/pool/one-vm-*"
}

@test "volatile disks of 3.4 go with their directory" {
	local dir=$DIRECTORY/61
	volatile 61

	twice tm 0 mv "host01:$dir" "host02:$dir"
	[ "$(on node2 dd if="$dir/disk.3" bs=1M iflag=direct status=none | sha256sum)" = "$SUM" ]
	[ "$(type_on node2 "$dir/disk.2")" = ext3 ]
	twice tm 0 delete "host02:$dir/"
	run ! compgen -G "$ONELUN_SANDBOX/hosts/nas1/pool/one-vm-*"
	run -1 on node2 test -e "$dir"
}

@test "an image of one pool is copied into another, and out of a datastore of files" {
	ds 0 mkfs 30 32 FS=ext4
	dd if=/dev/urandom of="$(volume_file one-30)" bs=1M seek=5 count=2 conv=notrunc status=none

	twice ds 0 clone 31 32 PATH=nas1/tank/one-30 POOLS=nas1/spare
	[ "$output" = "nas1/spare/one-31 raw" ]
	cmp "$(volume_file one-30)" "$(volume_file nas1/spare/one-31)"
	[ "$(stat -c %b "$(volume_file nas1/spare/one-31)")" -lt 32768 ]
	twice ds 0 clone 32 32 PATH=nas1/spare/one-31 POOLS="nas1/spare nas1/tank"
	[ "$output" = "nas1/spare/one-32 raw" ]

	mkdir -p "$ONELUN_DATASTORES/1"
	qemu-img convert -f raw -O qcow2 "$(volume_file one-30)" "$ONELUN_DATASTORES/1/abcdef"
	chmod 644 "$ONELUN_DATASTORES/1/abcdef"
	twice ds 0 clone 33 32 PATH="$ONELUN_DATASTORES/1/abcdef" POOLS=nas1/spare
	cmp "$(volume_file one-30)" "$(volume_file nas1/spare/one-33)"

	ds 1 clone 34 32 PATH=nas1/tank/one-77 POOLS=nas1/spare
	one_sentence "there is no volume one-77 in pool tank"
	ds 1 clone 34 32 PATH="$ONELUN_SANDBOX/etc/frontend.toml" POOLS=nas1/spare
	one_sentence "from which no image may be registered"
}

# until_copying: return as soon as a copy into the other pool is under way, which it is for a moment.
until_copying() {
	local end=$((SECONDS + 120))
	until compgen -G "$ONELUN_SANDBOX/hosts/nas1/spare/.new-*"; do
		((SECONDS < end)) || return 1
		sleep 0.01
	done
}

@test "a copy that is killed in the middle leaves nothing on either side, and a repeat succeeds" {
	ds 0 mkfs 40 256
	dd if=/dev/urandom of="$(volume_file one-40)" bs=1M count=200 conv=notrunc status=none
	document 41 256 PATH=nas1/tank/one-40 POOLS=nas1/spare | base64 -w0 >"$BATS_TEST_TMPDIR/stdin"
	"$CHECKOUT/datastore/onelun/clone" 41 <"$BATS_TEST_TMPDIR/stdin" &
	local stub=$!
	until_copying
	kill -TERM "$stub"
	if wait "$stub"; then return 1; fi

	eventually 120 sh -c "! ls -d $ONELUN_SANDBOX/hosts/nas1/*/.new-*"
	[ ! -e "$(volume_file nas1/spare/one-41)" ]

	ds 0 clone 41 256 PATH=nas1/tank/one-40 POOLS=nas1/spare
	cmp "$(volume_file one-40)" "$(volume_file nas1/spare/one-41)"
}

@test "a copy outlives the NAS agent that it is made with" {
	"$CHECKOUT/datastore/onelun/clone" 42 < <(document 42 256 PATH=nas1/tank/one-40 POOLS=nas1/spare | base64 -w0) >"$BATS_TEST_TMPDIR/said" &
	local stub=$!
	until_copying
	kill -KILL "$(pid_of nas1)"
	sleep 1
	restart nas1

	wait "$stub"
	[ "$(cat "$BATS_TEST_TMPDIR/said")" = "nas1/spare/one-42 raw" ]
	cmp "$(volume_file one-40)" "$(volume_file nas1/spare/one-42)"
	eventually 120 sh -c "! ls -d $ONELUN_SANDBOX/hosts/nas1/*/.new-*"
}

@test "nothing is connected on any host and no target is exported when all is removed" {
	local source
	for source in tank/one-20 tank/one-30 spare/one-31 spare/one-32 spare/one-33 tank/one-40 spare/one-41 spare/one-42; do
		twice ds 0 rm "${source##*-}" 32 SOURCE="nas1/$source"
	done
	run -1 on node1 sh -c 'find /dev/onelun -type l | grep .'
	run -1 on node2 sh -c 'find /dev/onelun -type l | grep .'
	TGT_IPC_SOCKET=$ONELUN_SANDBOX/hosts/nas1/tgt/tgtd.sock tgtadm --lld iscsi --mode target --op show >"$BATS_TEST_TMPDIR/targets"
	[ ! -s "$BATS_TEST_TMPDIR/targets" ]
}
