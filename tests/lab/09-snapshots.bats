#!/usr/bin/env bats
# Snapshots and save-as on real engines: a host never sees blocks of before a revert, and what is saved is one moment.

load lab.bash
load leftovers.bash

teardown() { lab_down; }

twice() {
	"$@"
	"$@"
}

# written DISK WORD: put it into the disk's filesystem, as a VM does that is then powered off.
written() { expects 0 node1 sh -ec "mount $1 /mnt; echo $2 >/mnt/word; sync; umount /mnt"; }

# holds HOST DISK WORD: it has the word, and its filesystem is whole.
holds() {
	expects 0 "$1" sh -ec "fsck.ext4 -fn $2 >/dev/null 2>&1; mount $2 /mnt; cat /mnt/word; umount /mnt"
	[ "$output" = "$3" ]
}

# snapshots_of_a_life OPTION...
snapshots_of_a_life() {
	lab_up "$@"
	local disk=$DIRECTORY/9/disk.1 saved=$DIRECTORY/10/disk.0
	twice ds 0 mkfs 9 64 PERSISTENT=1 FS=ext4
	tm 0 ln frontend:nas1/tank/one-9 "host01:$disk" 9 102

	written "$disk" first
	twice tm 0 snap_create "host01:$disk" 0 9 102
	written "$disk" second
	expects 0 node1 sh -c "mount $disk /mnt"
	twice tm 0 snap_create_live "host01:$disk" 1 9 102
	tm 1 snap_revert "host01:$disk" 0 9 102
	one_sentence 'one-9 is in use on node1 .*power its VM off first'
	expects 0 node1 umount /mnt
	written "$disk" third

	# Back to the older one: the younger lives on, and the host's cache forgets.
	twice tm 0 snap_revert "host01:$disk" 0 9 102
	holds node1 "$disk" first
	tm 0 resize "host01:$disk" 96 9 102
	expects 0 node1 blockdev --getsize64 "$disk"
	[ "$output" = $((96 << 20)) ]
	twice tm 0 snap_revert "host01:$disk" 1 9 102
	holds node1 "$disk" second

	# Saved as another image: the disk of now, then a snapshot of it.
	ds 0 mkfs 10 96 PERSISTENT=1
	tm 0 cpds "host01:$disk" nas1/tank/one-10 0 9 102
	tm 0 ln frontend:nas1/tank/one-10 "host02:$saved" 10 102
	holds node2 "$saved" first

	twice tm 0 snap_delete "host01:$disk" 0 9 102
	twice tm 0 snap_delete "host01:$disk" 1 9 102
	holds node1 "$disk" second
	tm 0 mvds "host01:$disk" nas1/tank/one-9 9 102
	tm 0 mvds "host02:$saved" nas1/tank/one-10 10 102
	ds 0 rm 9 64 SOURCE=nas1/tank/one-9
	ds 0 rm 10 96 SOURCE=nas1/tank/one-10
	nothing_left
}

@test "on lvm, lio, iscsi a disk goes back, is saved, and leaves nothing" {
	snapshots_of_a_life --engine lvm
}

@test "on zfs, lio, iscsi a disk goes back, is saved, and leaves nothing" {
	snapshots_of_a_life --engine zfs
}
