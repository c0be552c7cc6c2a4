#!/usr/bin/env bats
# Attributes of datastores and images on a NAS with a pool of files: what it gives, what it refuses, and what a wiped disk leaves.

load sandbox.bash

setup_file() { sandbox_up; }
teardown_file() { sandbox_down; }

# refused WORDS NAME=VALUE: an image with that attribute is not made, for that reason.
refused() {
	local words=$1
	shift
	ds 1 mkfs 90 16 "$@"
	one_sentence "$words"
	[ ! -e "$(volume_file one-90)" ]
}

@test "a thick image has all of its blocks, and so has a disk that is cloned from it" {
	ds 0 mkfs 1 16 IMAGE_ATTRIBUTES="ONELUN_PROVISIONING=thick"
	ds 0 mkfs 2 16
	tm 0 clone "frontend:nas1/tank/one-1" "host01:$DIRECTORY/7/disk.0" 7 102

	[ $(($(stat -c '%b * %B' "$(volume_file one-1)"))) -ge $((16 << 20)) ]
	[ $(($(stat -c '%b * %B' "$(volume_file one-1-7-0)"))) -ge $((16 << 20)) ]
	[ $(($(stat -c '%b * %B' "$(volume_file one-2)"))) -lt $((1 << 20)) ]
	tm 0 delete "host01:$DIRECTORY/7/disk.0" 7 102
}

@test "an image's own attribute wins over its datastore's" {
	ds 0 mkfs 3 16 IMAGE_ATTRIBUTES="ONELUN_PROVISIONING=thin" DATASTORE_ATTRIBUTES="ONELUN_PROVISIONING=thick"

	[ $(($(stat -c '%b * %B' "$(volume_file one-3)"))) -lt $((1 << 20)) ]
}

@test "what a pool of files cannot do is one sentence with the attribute, its value and the kind of the pool" {
	refused 'ONELUN_COMPRESSION=zstd cannot be had in pool tank of the kind file' IMAGE_ATTRIBUTES="ONELUN_COMPRESSION=zstd"
	refused 'ONELUN_VOLBLOCKSIZE=65536 cannot be had in pool tank of the kind file' DATASTORE_ATTRIBUTES="ONELUN_VOLBLOCKSIZE=64K"
	refused 'ONELUN_WIPE=discard cannot be had in pool tank of the kind file' IMAGE_ATTRIBUTES="ONELUN_WIPE=discard"
}

@test "what is no attribute or no value is one sentence that says what it should be" {
	refused 'ONELUN_PROVISIONIG, which onelun does not know: did you mean ONELUN_PROVISIONING' IMAGE_ATTRIBUTES="ONELUN_PROVISIONIG=thick"
	refused "ONELUN_WIPE of image 90 is 'all': it should be none or discard or zero" IMAGE_ATTRIBUTES="ONELUN_WIPE=all"
	refused 'ONELUN_POOLS of image 90 has nas1/spare, which its datastore onelun does not have' IMAGE_ATTRIBUTES="ONELUN_POOLS=nas1/spare"
}
