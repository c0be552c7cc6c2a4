#!/usr/bin/env bats
# A cable is cut: a short cut is ridden out by who writes, and one that outlasts the deadline ends every action in time, with
# one sentence, and with nothing that the repeat could not put right.

load lab.bash
load writing.bash
load leftovers.bash

FINISH_S=20

setup_file() { lab_up --engine lvm --finish-s $FINISH_S; }
teardown_file() { lab_down; }

# begin NAME ACTION ARGUMENT...: a transfer action in the background. How it ended, and after how long, is in NAME.end.
begin() {
	local name=$BATS_TEST_TMPDIR/$1 action=$CHECKOUT/tm/onelun/$2 status=0 started=$SECONDS
	shift 2
	{
		timeout -k 5 120 "$action" "$@" >"$name.out" 2>"$name.err" || status=$?
		echo "$status $((SECONDS - started))" >"$name.end"
	} </dev/null 3>&- &
}

# insist NAME ACTION ARGUMENT...: the same until it succeeds, for as long as an operator has patience.
insist() {
	local name=$BATS_TEST_TMPDIR/$1 action=$CHECKOUT/tm/onelun/$2 status started=$SECONDS
	shift 2
	{
		until
			status=0
			timeout -k 5 120 "$action" "$@" >"$name.out" 2>"$name.err" || status=$?
			((status == 0 || SECONDS - started > 180))
		do sleep 1; done
		echo "$status $((SECONDS - started))" >"$name.end"
	} </dev/null 3>&- &
}

# each HOW ACTION...: begin or insist on these actions, each on a disk of a VM on node1.
each() {
	local how=$1 action
	shift
	for action; do
		case $action in
		clone) $how clone clone frontend:nas1/tank/one-1 "host01:$DIRECTORY/11/disk.0" 11 102 ;;
		ln) $how ln ln frontend:nas1/tank/one-2 "host01:$DIRECTORY/12/disk.0" 12 102 ;;
		mv) $how mv mv "host01:$DIRECTORY/13/disk.0" "host02:$DIRECTORY/13/disk.0" 13 102 ;;
		delete) $how delete delete "host01:$DIRECTORY/14/disk.0" 14 102 ;;
		esac
	done
}

# ended STATUSES ACTION...: with one of these statuses, in time, and with one sentence when it failed.
ended() {
	local statuses=$1 action status took
	shift
	for action; do
		read -r status took <"$BATS_TEST_TMPDIR/$action.end"
		stderr=$(<"$BATS_TEST_TMPDIR/$action.err")
		echo "# $action: status $status after $took s: $stderr" >&3
		[[ " $statuses " == *" $status "* ]]
		# Whoever ends the work has a moment to tell it.
		((took <= FINISH_S + 10))
		[ "$status" = 0 ] || one_sentence '^cannot '
	done
}

# through_a_cut HOST ACTION ACTION: the cable of HOST is cut when these two have begun, and before the other two of clone, ln, mv
# and delete begin.
through_a_cut() {
	local host=$1 action vm others=()
	shift
	for action in clone ln mv delete; do [[ " $* " == *" $action "* ]] || others+=("$action"); done
	ds 0 mkfs 1 64
	ds 0 mkfs 2 64 PERSISTENT=1
	for vm in 13 14; do tm 0 clone frontend:nas1/tank/one-1 "host01:$DIRECTORY/$vm/disk.0" $vm 102; done
	writer node1 stamp "$DIRECTORY/13/disk.0" </dev/null

	each begin "$@"
	sleep 0.7
	cut "$host"
	each begin "${others[@]}"
	wait
	ended "0 1" "$@"
	ended 1 "${others[@]}"

	heal "$host"
	each insist clone ln mv delete
	wait
	for action in clone ln mv delete; do
		echo "# $action again: $(<"$BATS_TEST_TMPDIR/$action.end") $(<"$BATS_TEST_TMPDIR/$action.err")" >&3
		grep -q '^0 ' "$BATS_TEST_TMPDIR/$action.end"
	done
	writer node1 stamp "$DIRECTORY"/1{1,2}/disk.0 </dev/null
	# A record begins with the name of the device that it was written to.
	expects 0 node2 sh -c "head -c 100 $DIRECTORY/13/disk.0 | grep -q '^$DIRECTORY/13/disk.0 0\$'"

	tm 0 delete "host01:$DIRECTORY/11/disk.0" 11 102
	tm 0 mvds "host01:$DIRECTORY/12/disk.0" nas1/tank/one-2 12 102
	tm 0 delete "host02:$DIRECTORY/13/disk.0" 13 102
	for vm in 1 2; do ds 0 rm $vm 64 SOURCE=nas1/tank/one-$vm; done
	nothing_left
}

@test "a VM writes on after 12 s without the NAS's cable, and 12 s without its host's" {
	local disk=$DIRECTORY/1/disk.0 host
	ds 0 mkfs 1 256 PERSISTENT=1
	tm 0 ln frontend:nas1/tank/one-1 "host01:$disk" 1 102
	write_on node1 "$disk" vm 4

	for host in nas1 node1; do
		cut $host
		sleep 12
		heal $host
		goes_on vm
	done

	stop_writer node1 vm
	all_there node1 "$disk" vm
	tm 0 mvds "host01:$disk" nas1/tank/one-1 1 102
	ds 0 rm 1 256 SOURCE=nas1/tank/one-1
	nothing_left
}

@test "actions end in time, and succeed when repeated, after the cable of the NAS was cut for longer than they may take" {
	through_a_cut nas1 clone mv
}

@test "actions end in time, and succeed when repeated, after the cable of a host was cut for longer than they may take" {
	through_a_cut node1 ln delete
}
