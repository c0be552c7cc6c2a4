#!/usr/bin/env bats
# What a real oned 7.5 asked, in its order: the lines of its recorded transfer scripts, run as its one_tm.rb runs them, with a oned
# behind them that tells the recorded VMs. Most lines come twice, as after `onevm recover --retry`.

# shellcheck disable=SC2030,SC2031,SC2034 # each test is a process of its own; oned.bash reads TWICE

load oned.bash

setup_file() {
	sandbox_up
	oned_up
	images 3 4 8 9 10 11 28 36
}
teardown_file() {
	oned_down
	sandbox_down
}

setup() { DIR=$DIRECTORY/0 TWICE=yes; }

# megabytes NODE DISK
megabytes() { echo $(($(on "$1" blockdev --getsize64 "$DIR/disk.$2") >> 20)); }

scribble() { on "$1" dd if=/dev/urandom of="$DIR/disk.$2" bs=1M count=4 oflag=direct conv=notrunc,nocreat status=none; }
sum() { on "$1" dd if="$DIR/disk.$2" bs=1M iflag=direct status=none | sha256sum; }

ALL='0=one-3-0-0 1=one-4 2=one-vm-0-2 3=one-vm-0-3 4=one-8 5=one-3-0-5'
VOLUMES='one-3-0-0 one-3-0-5 one-4 one-8 one-vm-0-2 one-vm-0-3'

@test "a VM begins: clones, a persistent image, volatile disks and a CD-ROM" {
	is '0 vm-0.lcm-4 1 host01'

	walk vm0-transfer.0.prolog

	[ "$(disks node1)" = "$ALL" ]
	[ "$(exported)" = "$VOLUMES" ]
	[ "$(megabytes node1 0) $(megabytes node1 5)" = '64 256' ]
	run ! on node1 dd if=/dev/zero of="$DIR/disk.4" bs=512 count=1 oflag=direct conv=notrunc,nocreat
	scribble node1 1
	sum node1 1 >"$BATS_FILE_TMPDIR/sum"
}

@test "it is moved while it is off or saved, stopped and resumed, undeployed and resumed elsewhere" {
	# life.bats moves everything twice.
	TWICE=''
	local step
	for step in 'vm0-transfer.7.migrate 43 node2' 'vm0-transfer.8.migrate 8 node1' 'vm0-transfer.3.stop 10 -' \
		'vm0-transfer.4.resume 9 node2' 'vm0-transfer.4.stop 30 -' 'vm0-transfer.5.resume 31 node1'; do
		# shellcheck disable=SC2086 # words
		set -- $step
		is "0 vm-0.lcm-4 $2 host01"
		walk "$1"
		if [ "$3" = - ]; then
			[ "$(exported)" = '' ]
			[ "$(readlink "$DIR/disk.1")" = /dev/onelun/nas1/tank/one-4 ]
			for node in node1 node2; do on $node test ! -e "$DIR"; done
		else
			[ "$(disks "$3")" = "$ALL" ]
			[ "$(exported)" = "$VOLUMES" ]
			[ ! -e "$DIR" ]
		fi
	done
	[ "$(sum node1 1)" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
}

@test "a host that is lost is fenced when its VM is taken to another one" {
	local agent
	agent=$(pid_of node1)
	kill "$agent"
	eventually 60 gone "$agent"
	is '0 vm-0.lcm-4 60 host02'

	walk vm0-transfer.7.migrate

	TWICE=''
	[ "$(disks node2)" = "$ALL" ]
	[ "$(sum node2 1)" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
	restart node1
	eventually 120 bash -c "[ -z \"\$($ONELUN_NODE1 find /dev/onelun -type l)\" ]"
	on node1 rm -rf "$DIR"
	is '0 vm-0.lcm-4 43 host01'
	walk vm0-transfer.8.migrate
	[ "$(exported)" = "$VOLUMES" ]
}

@test "snapshots, save-as and a new size, of a VM that runs and is powered off" {
	ds 0 mkfs 21 64
	ds 0 mkfs 26 64
	is '0 vm-0.lcm-4 3 host01'
	recorded snap_create_live
	walk vm0-transfer.32.disk_saveas
	cmp <(on node1 dd if="$DIR/disk.0" bs=1M iflag=direct status=none) "$(volume_file one-21)"
	is '0 vm-0.lcm-4 22 host01'
	walk vm0-transfer.37.disk_snapshot
	scribble node1 1
	walk vm0-transfer.38.disk_snapshot
	walk vm0-transfer.39.disk_snapshot
	[ "$(sum node1 1)" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
	walk vm0-transfer.40.disk_saveas
	[ "$(sha256sum <"$(volume_file one-26)")" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
	walk vm0-transfer.40.disk_snapshot

	walk vm0-transfer.41.disk_resize

	[ "$(megabytes node1 1)" = 160 ]
	[ "$(disks node1)" = "$ALL" ]
	[ "$(exported)" = "$VOLUMES" ]
}

@test "disks are attached to the running VM, rolled back and detached: a clone, a persistent image, swap" {
	is '0 vm-0.lcm-17 17 host01'
	walk vm0-transfer.42.prolog_attach
	[ "$(disks node1)" = "$ALL 7=one-9-0-7" ]
	# The hypervisor refuses it: oned takes it back in the same state.
	walk vm0-transfer.43.epilog_detach
	[ "$(disks node1)" = "$ALL" ]
	[ ! -e "$(volume_file one-9-0-7)" ]
	walk vm0-transfer.42.prolog_attach
	is '0 vm-0.lcm-18 18 host01'
	walk vm0-transfer.43.epilog_detach
	[ ! -e "$(volume_file one-9-0-7)" ]

	is '0 vm-0.lcm-17 17 host01 7:SOURCE=nas1/tank/one-10 7:CLONE=NO 7:SAVE=YES'
	walk vm0-transfer.42.prolog_attach 's/CLONE/LN/; s/one-9/one-10/'
	[ "$(disks node1)" = "$ALL 7=one-10" ]
	is '0 vm-0.lcm-18 18 host01'
	recorded mvds
	[ -e "$(volume_file one-10)" ]

	walk vm0-transfer.44.prolog_attach
	[ "$(disks node1)" = "$ALL 7=one-vm-0-7" ]
}

@test "it ends: what is its own goes, images stay, and nothing is exported" {
	is '0 vm-0.lcm-12 11 host01'
	sum node1 1 >"$BATS_FILE_TMPDIR/sum"

	walk vm0-transfer.47.epilog

	on node1 test ! -e "$DIR"
	[ "$(exported)" = '' ]
	[ "$(cd "$ONELUN_SANDBOX/hosts/nas1/pool" && echo one-*)" = 'one-10 one-11 one-21 one-26 one-28 one-3 one-36 one-4 one-8 one-9' ]
	[ "$(sha256sum <"$(volume_file one-4)")" = "$(cat "$BATS_FILE_TMPDIR/sum")" ]
}

# second HOST: VM 2 begins there, with three disks like those of VM 0.
second() { walk vm0-transfer.0.prolog "4,\$d; s#/103/0/#/103/2/#; s#\(.*\) 0 #\1 2 #; s/host01/$1/"; }

@test "a VM whose host is lost is deleted, and its images are free at once" {
	DIR=$DIRECTORY/2
	is '2 vm-0.lcm-4 1 host01'
	second host01
	[ "$(disks node1)" = '0=one-3-2-0 1=one-4 2=one-vm-2-2' ]
	local agent
	agent=$(pid_of node1)
	kill "$agent"
	eventually 60 gone "$agent"
	is '2 vm-0.lcm-4 23 host01'

	walk vm2-transfer.0.delete

	[ "$(exported)" = '' ]
	[ ! -e "$(volume_file one-3-2-0)" ]
	[ ! -e "$(volume_file one-vm-2-2)" ]
	[ -e "$(volume_file one-4)" ]
	restart node1
	eventually 120 bash -c "[ -z \"\$($ONELUN_NODE1 find /dev/onelun -type l)\" ]"
	on node1 rm -rf "$DIR"
}

@test "a VM is made anew on another host, and begins with what its images have" {
	DIR=$DIRECTORY/2
	is '2 vm-0.lcm-4 1 host01'
	second host01
	scribble node1 0
	is '2 vm-0.lcm-4 15 host01'
	walk vm2-transfer.0.delete
	is '2 vm-0.lcm-4 1 host02'

	second host02

	[ "$(disks node2)" = '0=one-3-2-0 1=one-4 2=one-vm-2-2' ]
	[ "$(disks node1)" = '' ]
	[ "$(sum node2 0)" = "$(sha256sum <"$(volume_file one-3)")" ]
	is '2 vm-0.lcm-4 23 host02'
	walk vm2-transfer.0.delete 's/host01/host02/'
	[ "$(exported)" = '' ]
}

# two KIND...: VMs 5 and 6 have image 11 on both hosts; KIND is what oned says of the disk.
two() {
	local changes="0:SOURCE=nas1/tank/one-11 0:CLONE=NO $*"
	is "5 vm-0.lcm-4 1 host01 $changes" "6 vm-0.lcm-4 1 host02 $changes"
	lines <<-END
		LN onelun vm:onelun/one-11 host01:/var/lib/one//datastores/103/5/disk.0 5 102
		LN onelun vm:onelun/one-11 host02:/var/lib/one//datastores/103/6/disk.0 6 102
	END
}

@test "an immutable image is read by VMs on two hosts, and is there when they are gone" {
	two 0:SAVE=NO 0:READONLY=YES
	[ "$(exported)" = 'one-11 one-11' ]
	run ! on node2 dd if=/dev/zero of="$DIRECTORY/6/disk.0" bs=512 count=1 oflag=direct conv=notrunc,nocreat

	lines <<-END
		DELETE onelun host01:/var/lib/one//datastores/103/5/disk.0 5 102
		DELETE onelun host02:/var/lib/one//datastores/103/6/disk.0 6 102
	END

	[ "$(exported)" = '' ]
	[ -e "$(volume_file one-11)" ]
}

@test "a shareable image is written by VMs on two hosts; one that is not is refused to the second" {
	two 0:SAVE=YES 0:SHAREABLE=YES
	[ "$(exported)" = 'one-11 one-11' ]
	printf shared | on node1 dd of="$DIRECTORY/5/disk.0" bs=512 conv=notrunc,nocreat,sync oflag=direct status=none
	[ "$(on node2 dd if="$DIRECTORY/6/disk.0" bs=512 count=1 iflag=direct status=none | tr -d '\0')" = shared ]

	lines <<<'MVDS onelun host01:/var/lib/one//datastores/103/5/disk.0 onelun/one-11 5 102'
	[ "$(exported)" = one-11 ]
	on node2 dd if="$DIRECTORY/6/disk.0" of=/dev/null bs=512 count=1 iflag=direct status=none
	is '5 vm-0.lcm-4 1 host01 0:SOURCE=nas1/tank/one-11 0:CLONE=NO'
	tm 1 ln frontend:nas1/tank/one-11 "host01:$DIRECTORY/5/disk.0" 5 102
	one_sentence 'one-11 is mapped to node2'
	is '6 vm-0.lcm-4 11 host02 0:SOURCE=nas1/tank/one-11 0:CLONE=NO 0:SHAREABLE=YES'
	lines <<<'MVDS onelun host02:/var/lib/one//datastores/103/6/disk.0 onelun/one-11 6 102'
	[ "$(exported)" = '' ]
}

# of_ssh: what ssh/mv does to the directory after the disks: the other place gets a copy, which has the links as they are.
of_ssh() {
	on "$2" rm -rf "$DIR"
	on "$2" mkdir -p "$DIR"
	on "$1" tar -C "$DIR" -c . | on "$2" tar -C "$DIR" -x
	on "$1" rm -rf "$DIR"
}

@test "with ssh as the system datastore's driver it is called by other names, and has the disks alone" {
	DIR=${DIRECTORY%/*}/110/12
	ds 0 mkfs 39 64
	is '12 vm-12.lcm-4 1 host01 1:SIZE=64'
	recorded clone.ssh
	recorded ln.ssh
	[ "$(disks node1)" = '0=one-28-12-0 1=one-36' ]
	recorded snap_create_live.ssh 's#/17/#/12/#; s# 17 # 12 #'
	recorded snap_create.ssh 's#/17/#/12/#; s# 17 # 12 #'
	recorded snap_revert.ssh 's#/17/#/12/#; s# 17 # 12 #'
	recorded snap_delete.ssh 's#/17/#/12/#; s# 17 # 12 #'
	recorded cpds.ssh
	cmp "$(volume_file one-36)" "$(volume_file one-39)"
	recorded resize.ssh
	[ "$(megabytes node1 1)" = 300 ]
	recorded clone.ssh 's/disk.0/disk.4/; s/one-28/one-9/'
	recorded delete.ssh
	[ "$(disks node1)" = '0=one-28-12-0 1=one-36' ]

	for disk in 0 1; do recorded mv.ssh "s/disk.0/disk.$disk/g; s/host02/from/; s/host01/host02/; s/from/host01/"; done
	of_ssh node1 node2
	[ "$(disks node2)" = '0=one-28-12-0 1=one-36' ]
	for disk in 0 1; do recorded mv.ssh "s/disk.0/disk.$disk/g"; done
	of_ssh node2 node1
	[ "$(disks node1)" = '0=one-28-12-0 1=one-36' ]
	is '12 vm-12.lcm-4 10 host01'
	for disk in 0 1; do recorded mv.ssh "s/disk.0/disk.$disk/g; s/host01/vm/; s/host02/host01/"; done
	[ "$(exported)" = '' ]

	is '12 vm-12.lcm-4 11 host01'
	recorded mvds.ssh
	recorded delete.ssh 's/disk.4/disk.0/; s/host01/vm/'
	[ ! -e "$(volume_file one-28-12-0)" ]
	[ -e "$(volume_file one-36)" ]
	[ ! -e "$DIR/disk.0" ]
	[ ! -e "$DIR/disk.1" ]
}
