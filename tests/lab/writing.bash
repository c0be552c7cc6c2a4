# shellcheck shell=bash
# A program that writes on a host as a VM would, while the test does something to the lab (tests/lab/writer.py).

# writer HOST ARGUMENT...
writer() {
	local host=$1
	shift
	on "$host" python3 /checkout/tests/lab/writer.py "$@"
}

# write_on HOST DEVICE NAME [WRITERS]: in the background, until stop_writer, for 600 s at most or LIMIT; what is durable is told in the file acknowledged/NAME.
write_on() {
	mkdir -p "$BATS_TEST_TMPDIR/acknowledged"
	# Not by `on`, so that the process is known.
	PYTHONPATH=$CHECKOUT:$CHECKOUT/lib "$CHECKOUT/.venv/bin/python" -m tests.support.lab exec --id "$LAB" --limit "${LIMIT:-600}" "$1" \
		python3 /checkout/tests/lab/writer.py write "$2" "$3" "/run/stop-$3" "${4:-1}" </dev/null \
		>"$BATS_TEST_TMPDIR/acknowledged/$3" 2>"$BATS_TEST_TMPDIR/$3.err" 3>&- &
	WRITER=$!
	eventually 120 acknowledged "$3" 20
}

# acknowledged NAME COUNT: so many records of NAME are durable, and the writer goes on.
acknowledged() {
	(($(wc -l <"$BATS_TEST_TMPDIR/acknowledged/$1") >= $2)) || {
		cat "$BATS_TEST_TMPDIR/$1.err" >&2
		return 1
	}
}

# goes_on NAME: it acknowledges 20 more; when iscsid does not bring its session back, the agent comes to it after half a minute.
goes_on() {
	eventually 180 acknowledged "$1" $(($(wc -l <"$BATS_TEST_TMPDIR/acknowledged/$1") + 20))
}

# stop_writer HOST NAME: it must not have met an error. Its longest wait is told.
stop_writer() {
	expects 0 "$1" touch "/run/stop-$2"
	local status=0
	wait "$WRITER" || status=$?
	on "$1" rm -f "/run/stop-$2" </dev/null
	echo "# $2: $(<"$BATS_TEST_TMPDIR/$2.err")" >&3
	[ "$status" = 0 ] || {
		echo "the writer $2 ended with status $status" >&2
		return 1
	}
}

# all_there HOST DEVICE NAME: everything that was acknowledged to NAME, read past the host's caches.
all_there() {
	local status=0
	on "$1" sh -c 'sync; echo 3 >/proc/sys/vm/drop_caches' </dev/null
	writer "$1" verify "$2" "$3" <"$BATS_TEST_TMPDIR/acknowledged/$3" || status=$?
	[ "$status" = 0 ] || on "$1" dmesg </dev/null | tail -n 20 >&2
	return "$status"
}
