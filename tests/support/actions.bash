# shellcheck shell=bash
# OpenNebula's two ways of calling a driver script, and one wrapper that says which status is expected. Loaded by the e2e and
# the lab tests, which have set ONELUN_DATASTORES and ONELUN_SOCKET, and in ONELUN_SAFE_DIR where images may come from.

CHECKOUT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
bats_require_minimum_version 1.5.0

# eventually SECONDS COMMAND...: until it succeeds.
eventually() {
	local end=$((SECONDS + $1))
	shift
	until "$@" 2>"$BATS_TEST_TMPDIR/eventually"; do
		((SECONDS < end)) || {
			cat "$BATS_TEST_TMPDIR/eventually" >&2
			return 1
		}
		sleep 0.2
	done
}

# run_action STATUS SCRIPT ARGUMENT...: run a driver script; stdin goes to it. Sets output, stderr and status.
run_action() {
	local expected=$1 script=$2
	shift 2
	local started=$SECONDS
	run --separate-stderr timeout -k 5 300 "$CHECKOUT/$script" "$@"
	# shellcheck disable=SC2154 # bats sets it
	if [ "$status" != "$expected" ]; then
		printf '%s %s\nstatus %s, expected %s, after %s s\nstdout: %s\nstderr: %s\n' \
			"$script" "$*" "$status" "$expected" $((SECONDS - started)) "$output" "$stderr" >&2
		return 1
	fi
}

# document ID SIZE_MB [NAME=VALUE]...: DS_DRIVER_ACTION_DATA of an image. NAMEs: SOURCE, PATH, PERSISTENT, REGTIME, POOLS, SNAPSHOT, FS;
# IMAGE_ATTRIBUTES and DATASTORE_ATTRIBUTES are more of their templates, written as NAME=VALUE.
document() {
	local id=$1 size=$2 SOURCE='' PATH_='' PERSISTENT=0 REGTIME=1700000000 POOLS=nas1/tank SNAPSHOT=-1 FS='' setting kind of_image='' of_datastore=''
	shift 2
	for setting; do
		case $setting in
		SOURCE=*) SOURCE=${setting#*=} ;;
		PATH=*) PATH_=${setting#*=} ;;
		PERSISTENT=*) PERSISTENT=${setting#*=} ;;
		REGTIME=*) REGTIME=${setting#*=} ;;
		POOLS=*) POOLS=${setting#*=} ;;
		FS=*) FS=${setting#*=} ;;
		SNAPSHOT=*) SNAPSHOT=${setting#*=} ;;
		IMAGE_ATTRIBUTES=*) of_image=$(elements "${setting#*=}") ;;
		DATASTORE_ATTRIBUTES=*) of_datastore=$(elements "${setting#*=}") ;;
		esac
	done
	kind="<FORMAT></FORMAT><FS>$FS</FS><DISK_TYPE>2</DISK_TYPE>"
	[ "${RELEASE-}" != 3.4 ] || kind="<FSTYPE>$FS</FSTYPE>"
	cat <<-XML
		<DS_DRIVER_ACTION_DATA><IMAGE><ID>$id</ID><UID>0</UID><GID>0</GID><NAME>image $id</NAME><TYPE>2</TYPE><PERSISTENT>$PERSISTENT</PERSISTENT><REGTIME>$REGTIME</REGTIME><SOURCE><![CDATA[$SOURCE]]></SOURCE><PATH><![CDATA[$PATH_]]></PATH>$kind<SIZE>$size</SIZE><STATE>4</STATE><RUNNING_VMS>0</RUNNING_VMS><TARGET_SNAPSHOT>$SNAPSHOT</TARGET_SNAPSHOT><DATASTORE_ID>102</DATASTORE_ID><DATASTORE>onelun</DATASTORE><TEMPLATE>$of_image</TEMPLATE></IMAGE><DATASTORE><ID>102</ID><NAME>onelun</NAME><DS_MAD>onelun</DS_MAD><TM_MAD>onelun</TM_MAD><BASE_PATH><![CDATA[$ONELUN_DATASTORES/102]]></BASE_PATH><TYPE>0</TYPE><TEMPLATE><ONELUN_POOLS><![CDATA[$POOLS]]></ONELUN_POOLS><SAFE_DIRS><![CDATA[$ONELUN_SAFE_DIR]]></SAFE_DIRS>$of_datastore</TEMPLATE></DATASTORE></DS_DRIVER_ACTION_DATA>
	XML
}

# elements "NAME=VALUE ...": each as an element.
elements() {
	local one
	for one in $1; do printf '<%s><![CDATA[%s]]></%s>' "${one%%=*}" "${one#*=}" "${one%%=*}"; done
}

# ds STATUS ACTION ID SIZE_MB [NAME=VALUE]...: a datastore action as 6.8 and later call it.
ds() {
	local expected=$1 action=$2
	shift 2
	document "$@" | base64 -w0 >"$BATS_TEST_TMPDIR/stdin"
	run_action "$expected" "datastore/onelun/$action" "$1" <"$BATS_TEST_TMPDIR/stdin"
}

# ds34 STATUS ACTION ID SIZE_MB [NAME=VALUE]...: the same as 3.4 calls it.
ds34() {
	local expected=$1 action=$2
	shift 2
	run_action "$expected" "datastore/onelun/$action" "$(RELEASE=3.4 document "$@" | base64 -w0)" "$1" </dev/null
}

# tm STATUS ACTION ARGUMENT...: a transfer action, arguments as they are.
tm() {
	local expected=$1 action=$2
	shift 2
	run_action "$expected" "tm/onelun/$action" "$@" </dev/null
}

# one_sentence PATTERN: stderr is one line, no traceback, and matches the extended regular expression.
one_sentence() {
	# shellcheck disable=SC2154 # bats sets it
	if [ "$(grep -cvE '^(INFO|ERROR|WARN|DEBUG):|^ERROR MESSAGE ' <<<"$stderr")" != 1 ] || ! grep -qE "$1" <<<"$stderr"; then
		printf 'expected one sentence with: %s\nstderr: %s\n' "$1" "$stderr" >&2
		return 1
	fi
}
