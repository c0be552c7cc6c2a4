#!/usr/bin/env bats
# A disk that the NAS has formatted grows under its VM, and what the VM discards comes back to the pool.

load lab.bash
load leftovers.bash

teardown() { lab_down; }

# bytes_used: of the pool, as its storage tells it.
bytes_used() { ask nas1 pool_capacity zpool=tank | jq .used_bytes; }

# grow_and_discard OPTION...
grow_and_discard() {
	lab_up "$@"
	local dir=$DIRECTORY/6 before
	ds 0 mkfs 6 64 PERSISTENT=1 FS=ext4
	tm 0 ln frontend:nas1/tank/one-6 "host01:$dir/disk.1" 6 102
	expects 0 node1 sh -ec "mount -o discard $dir/disk.1 /mnt; echo before >/mnt/kept; sync"

	tm 0 resize "host01:$dir/disk.1" 256 6 102
	tm 0 resize "host01:$dir/disk.1" 256 6 102
	expects 0 node1 sh -ec "
		test \$(blockdev --getsize64 $dir/disk.1) = $((256 << 20))
		resize2fs $dir/disk.1 2>/dev/null >/dev/null
		grep -qx before /mnt/kept
		test \$(df --output=size -B1M /mnt | tail -1) -gt 200"

	before=$(bytes_used)
	expects 0 node1 sh -ec "dd if=/dev/urandom of=/mnt/big bs=1M count=128 conv=fsync status=none"
	eventually 120 filled "$before"
	expects 0 node1 sh -ec "rm /mnt/big; sync; fstrim /mnt"
	eventually 120 returned "$before"

	expects 0 node1 sh -ec "umount /mnt; fsck.ext4 -fn $dir/disk.1"
	tm 0 mvds "host01:$dir/disk.1" nas1/tank/one-6 6 102
	ds 0 rm 6 64 SOURCE=nas1/tank/one-6
	nothing_left
}

# filled BYTES: the pool uses what was written since then. ZFS counts a transaction group once it is on disk.
filled() { (($(bytes_used) > $1 + (100 << 20))); }

# returned BYTES: the pool uses about as little as then.
returned() { (($(bytes_used) < $1 + (20 << 20))); }

@test "on lvm a mounted disk grows, and discarded space returns to the pool" {
	grow_and_discard --engine lvm
}

@test "on zfs a mounted disk grows, and discarded space returns to the pool" {
	grow_and_discard --engine zfs
}
