#!/usr/bin/env bats
# Installing as docs/install.md says, on guests that have nothing of onelun: a NAS with LVM and a front-end with Debian's RabbitMQ by
# install.sh, two hosts by the Debian packages. A disk's life with what was installed, a newer release, certificates in place of
# passwords, their renewal, and no trace after all is removed.
#
# Guests reach no package index: the Python packages come as wheels, which docs/install.md has as a way. systemd is their first process,
# so that what the units forbid is forbidden here.

# shellcheck disable=SC2030,SC2031 # `run` sets $output in the test that reads it

load lab.bash
load writing.bash

export ONELUN_DATASTORES=/var/lib/one/datastores ONELUN_SAFE_DIR=/var/tmp
DISK=/var/lib/one//datastores/103/0/disk.0

setup_file() {
	lab_up --clean --bare
	export ONELUN_DATASTORES=/var/lib/one/datastores
	# Users and files that OpenNebula's packages bring.
	local host
	for host in one node1 node2; do
		expects 0 "$host" sh -ec '
			groupadd -g 9869 oneadmin
			useradd -u 9869 -g 9869 -d /var/lib/one -M oneadmin
			install -d -o oneadmin -g oneadmin /var/lib/one /var/lib/one/datastores /var/lib/one/datastores/103'
	done
	# The name of a machine, as Debian's installer writes it.
	expects 0 one sh -ec 'printf "%s\n" "127.0.0.1 localhost" "127.0.1.1 one.example.org one" >>/etc/hosts'
	for host in nas1 node1 node2; do expects 0 "$host" sh -c "echo '$(address one) one.example.org' >>/etc/hosts"; done
	opennebula install
	# Running, as its package leaves it: guests are kept from starting what the root that they share has.
	LIMIT=500 expects 0 one sh -ec '
		rm -f /run/systemd/system/rabbitmq-server.service /run/systemd/system/epmd.*
		systemctl daemon-reload
		systemctl start rabbitmq-server'
	for host in one nas1 node1 node2; do traces "$host" >"$BATS_FILE_TMPDIR/before.$host"; done
}

teardown_file() { lab_down; }

# opennebula VERB...: of tests/lab/opennebula.py, on the front-end.
opennebula() { expects 0 one env PYTHONPATH=/checkout PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 /checkout/tests/lab/opennebula.py "$@"; }

# traces HOST: every path with its type, owner, group, mode and what a link leads to; the contents of OpenNebula's own files. What
# Debian's package tools remember of each package that ever was there is theirs, and devices are the pool's volumes.
traces() {
	# shellcheck disable=SC2016 # the guest's shell expands
	expects 0 "$1" sh -ec '
		for place in / /run /dev; do
			find "$place" -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /checkout -o -path /root \
				-o -path /run/lab -o -path /run/systemd -o -path /run/lab-lower -o -path /run/udev -o -path /run/lock -o -path /run/sudo \
				-o -path /etc/rabbitmq -o -path /var/lib/rabbitmq \
				-o -path /var/log -o -path /var/cache/apt -o -path /var/lib/apt -o -path /var/lib/dpkg \
				-o -path /dev/block -o -path /dev/mapper -o -path /dev/onelun -o -path /dev/disk -o -path "/dev/dm-*" \) -prune \
				-o -printf "%p %y %u %g %m %l\n"
		done | LC_ALL=C sort
		dpkg-query -W -f "\${Package} \${Status}\n"
		if [ -d /etc/one ]; then find /etc/one -type f -exec sha256sum {} +; fi
		find /dev/onelun -mindepth 2 2>/dev/null || true'
	# shellcheck disable=SC2154 # bats sets it
	printf '%s\n' "$output"
}

# copied HOST FILE: there as /root/FILE, unpacked.
copied() { on "$1" sh -ec "mkdir -p /root/$2 && tar -C /root/$2 -x" <"$BATS_FILE_TMPDIR/$2.tar"; }

# configured HOST FILE: what an operator writes with an editor: /etc/onelun/onelun.toml by the sed script on stdin.
configured() { on "$1" sed -i -f - /etc/onelun/onelun.toml; }

# url NAME: as `onelun broker setup` wrote it, for sed.
url() { on one cat "/etc/onelun/broker/$1.url" </dev/null | sed 's/&/\\&/g'; }

as_oneadmin() { on one runuser -u oneadmin -- "$@"; }

# action STATUS SCRIPT ARGUMENT...: as oned runs it, below remotes; stdin goes to it.
action() {
	local expected=$1 script=$2
	shift 2
	run --separate-stderr as_oneadmin "/var/lib/one/remotes/$script" "$@"
	# shellcheck disable=SC2154 # bats sets it
	if [ "$status" != "$expected" ]; then
		printf '%s %s\nstatus %s, expected %s\n%s\n' "$script" "$*" "$status" "$expected" "$stderr" >&2
		return 1
	fi
}

image_action() {
	document "${@:2}" | base64 -w0 >"$BATS_TEST_TMPDIR/stdin"
	action 0 "datastore/onelun/$1" "$2" <"$BATS_TEST_TMPDIR/stdin"
}

@test "a NAS, two hosts and a front-end are installed, and every check finds nothing" {
	# Before the clock starts: what an operator's mirror of packages has.
	git -C "$CHECKOUT" ls-files -z | tar -C "$CHECKOUT" -c --null -f "$BATS_FILE_TMPDIR/onelun.tar" -T -
	mkdir "$BATS_FILE_TMPDIR/wheels"
	PYTHONPATH=$CHECKOUT "$CHECKOUT/.venv/bin/python" -c 'import sys, pathlib, tests.support.wheels as wheels
wheels.write_wheels(["pika", "lxml", "click", "msgspec", "rich", "rtslib-fb"], pathlib.Path(sys.argv[1]))' "$BATS_FILE_TMPDIR/wheels"
	tar -C "$BATS_FILE_TMPDIR/wheels" -cf "$BATS_FILE_TMPDIR/wheels.tar" .
	PIP_NO_INDEX=1 PIP_FIND_LINKS=$BATS_FILE_TMPDIR/wheels "$CHECKOUT/scripts/package" "$BATS_FILE_TMPDIR/packages"
	tar -C "$BATS_FILE_TMPDIR/packages" -cf "$BATS_FILE_TMPDIR/packages.tar" .
	local started=$SECONDS host

	for host in nas1 one; do
		copied "$host" onelun
		copied "$host" wheels
	done
	for host in node1 node2; do copied "$host" packages; done
	LIMIT=500 expects 0 nas1 sh -c 'cd /root/onelun && PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels ./install.sh --nas' 3>&- &
	local nas=$!
	LIMIT=500 expects 0 one sh -c 'cd /root/onelun && PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels ./install.sh --frontend' 3>&- &
	local one=$!
	for host in node1 node2; do
		LIMIT=300 expects 0 "$host" sh -c 'cd /root/packages && apt-get install -qy --no-install-recommends ./onelun_*.deb ./onelun-compute_*.deb'
	done
	wait "$one"
	# Without TLS, which addresses of test networks may.
	LIMIT=500 expects 0 one onelun broker setup --broker-address "$(address one):5672" \
		--frontend frontend --nas nas1 --compute node1 --compute node2
	wait "$nas"

	configured nas1 <<-END
		s|^url = .*|url = "$(url nas.nas1)"|
		s|^address = .*|address = "$(address nas1)"|
		s|^backend = "zfs"|backend = "lvm"|
		s|^dataset = .*|vg = "onelun"\nthin_pool = "thin"|
	END
	for host in node1 node2; do configured "$host" <<<"s|^url = .*|url = \"$(url "compute.$host")\"|"; done
	configured one <<-END
		s|^url = .*|url = "$(url frontend)"|
		s|^nas = .*|nas = ["nas1"]|
		\$a "node1" = "node1"
		\$a "node2" = "node2"
	END

	# Nothing runs yet that could have been forgotten.
	expects 1 one onelun frontend check
	[[ $output == *"oned.conf: "* && $output == *"socket: no frontend serves"* ]]
	expects 0 nas1 onelun nas check
	[[ $output == "nas1 can serve: pool tank, exporter lio, "* ]]
	[[ $output == *"without mkfs.btrfs no image can be made with btrfs: install the package btrfs-progs"* ]]
	expects 0 nas1 systemctl enable --now onelun-nas
	for host in node1 node2; do
		expects 0 "$host" onelun compute check
		[ "$output" = "$host can serve: connector iscsi, broker checked" ]
		expects 0 "$host" systemctl enable --now onelun-compute
	done
	expects 0 one systemctl enable --now onelun-frontend
	expects 0 one onelun register
	[[ $output == *"+TM_MAD_CONF"* ]]
	expects 0 one onelun register --apply
	on one sh -c 'PYTHONPATH=/checkout PYTHONDONTWRITEBYTECODE=1 setsid /usr/bin/python3 /checkout/tests/lab/opennebula.py \
		serve node1 node2 >/var/log/oned.log 2>&1 & echo $! >/run/lab/oned.pid' </dev/null
	eventually 120 on one grep -q serves /var/log/oned.log </dev/null

	expects 0 one onelun frontend check
	[[ $output == "frontend can serve: oned.conf, vmm_execrc, scripts, socket, oned, broker checked"* ]]
	echo "# installed in $((SECONDS - started)) s" >&3
}

@test "a disk lives with what was installed" {
	image_action mkfs 3 64 FS=ext4
	[ "$output" = nas1/tank/one-3 ]
	action 0 tm/onelun/clone one:nas1/tank/one-3 "node1:$DISK" 0 102 </dev/null
	expects 0 node1 sh -ec "fsck.ext4 -fn $DISK && stat -Lc %F $DISK && stat -c %U $DISK"
	[[ $output == *"block special file"*oneadmin* ]]
	action 0 tm/onelun/mv "node1:$DISK" "node2:$DISK" 0 102 </dev/null
	expects 0 node2 fsck.ext4 -fn "$DISK"
}

# confined HOST UNIT: what the kernel says of the unit's process: user, capabilities, filter of system calls.
confined() {
	expects 0 "$1" sh -ec "
		pid=\$(systemctl show --property MainPID --value $2)
		grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/\$pid/status
		grep -E '^Max core file size' /proc/\$pid/limits"
	# Nothing of it gains rights, and its system calls are filtered.
	[[ $output == *NoNewPrivs:?1* && $output == *Seccomp:?2* && $output =~ "Max core file size"\ +0\  ]]
}

# lacks CAPABILITY...: numbers of linux/capability.h that are in no set of what `confined` has printed.
lacks() {
	local bounds number
	bounds=$(sed -n 's/^CapBnd:\t//p' <<<"$output")
	for number; do (((16#$bounds >> number & 1) == 0)); done
}

@test "the services have no more rights than their work takes" {
	local net_raw=13 sys_boot=22 sys_time=25 mac_admin=33 bpf=39
	confined nas1 onelun-nas
	lacks $net_raw $sys_boot $sys_time $mac_admin $bpf
	# shellcheck disable=SC2016 # the guest's shell expands
	expects 0 nas1 sh -c '
		for path in /usr/bin/x /usr/lib/x /boot/x /etc/x /etc/onelun/x; do
			if nsenter -m -t "$(systemctl show --property MainPID --value onelun-nas)" touch $path; then echo "$path was written"; fi
		done'
	[[ $output != *written* && $output == *"Read-only file system"* ]]
	confined node1 onelun-compute
	lacks $net_raw $sys_boot $sys_time $mac_admin $bpf
	confined one onelun-frontend
	[[ $output == *CapEff:?0000000000000000* && $output == *CapBnd:?0000000000000000* && $output =~ Uid:.9869.9869.9869.9869 ]]
}

@test "a newer release keeps what was configured, and what runs is given it" {
	local host before
	expects 0 nas1 sha256sum /etc/onelun/onelun.toml
	before=$output
	expects 0 nas1 sh -ec '
		systemctl show --property MainPID onelun-nas
		sed -i "s/^__version__ = .*/__version__ = \"0.9.9\"/" /root/onelun/lib/onelun/__init__.py
		cd /root/onelun && PIP_FIND_LINKS=/nowhere ./install.sh --nas >/dev/null 2>&1
		systemctl show --property MainPID onelun-nas
		onelun --version'
	[ "${#lines[@]}" = 3 ]
	[ "${lines[0]}" != "${lines[1]}" ]
	[[ ${lines[2]} == *0.9.9* ]]
	expects 0 nas1 sha256sum /etc/onelun/onelun.toml
	[ "$output" = "$before" ]
	# And nothing is restarted that is up to date.
	expects 0 nas1 sh -ec '
		systemctl show --property MainPID onelun-nas
		/root/onelun/install.sh --nas >/dev/null 2>&1
		systemctl show --property MainPID onelun-nas'
	[ "${lines[0]}" = "${lines[1]}" ]
	# The VM's disk did not notice.
	expects 0 node2 fsck.ext4 -fn "$DISK"
	eventually 120 on one onelun frontend check </dev/null
}

# documented SECTION HOST: what docs/install.md has typed on HOST in that section, a command a line, for this cloud's machines.
documented() {
	sed -n "/^## $1/,/^## /p" "$CHECKOUT/docs/install.md" | sed -e :a -e '/\\$/{N; s/\\\n *//; ba' -e '}' |
		sed -n "s/^$2# *//p" | sed -e 's/ --nas nas2//; s/ --compute kvm3//; s/kvm/node/g'
}

# As OpenSSH's, which the guests do not have: from the directory of the certificates.
ssh() { on "$@" </dev/null; }
scp() {
	local to=${*: -1}
	# shellcheck disable=SC2312 # what is not there is missed by the check of that role
	on one tar -C /etc/onelun/broker/tls -c "${@:2:$#-2}" </dev/null | on "${to%%:*}" tar -C "${to#*:}" -xp
}

# certify: the command of docs/install.md that makes users and certificates.
certify() { LIMIT=500 expects 0 one sh -ec "$(documented '2\.' one | grep '^onelun broker setup')"; }

# carry USER: its files to its machine, as docs/install.md says it of the first NAS and the first host.
carry() {
	local first
	case $1 in
	nas.*) first=nas1 ;;
	compute.*) first=node1 ;;
	esac
	eval "$(documented '2\.' one | grep "^ssh $first " | sed "s/$first/${1#*.}/g")"
}

# certified HOST USER: its new URL in its configuration.
certified() { configured "$1" <<<"s|^url = .*|url = \"$(url "$2")\"|"; }

# asked_by URL: what the check of node1 says with another URL.
asked_by() {
	# shellcheck disable=SC2016 # the guest's shell expands
	expects 1 node1 sh -c '
		sed "s|^url = .*|url = \"$0\"|" /etc/onelun/onelun.toml >/root/other.toml
		ONELUN_CONFIG=/root/other.toml onelun compute check' "$1"
}

@test "a cloud that lives changes from passwords to certificates, and a disk that is written to does not notice" {
	local host user password old disk=${DISK%0}1
	old=$(url compute.node1)
	image_action mkfs 4 4096 PERSISTENT=1
	action 0 tm/onelun/ln one:nas1/tank/one-4 "node1:$disk" 0 102 </dev/null
	LIMIT=3000 write_on node1 "$disk" tls

	certify
	[[ $output == *"Made: "*broker.pem* && $output == *"systemctl restart rabbitmq-server"* ]]
	# Whoever is connected stays so; whoever comes with a password is too late, and with a certificate too early.
	image_action mkfs 5 64
	image_action rm 5 64 SOURCE=nas1/tank/one-5
	asked_by "$old"
	[[ $output == *"refuses the password of user compute.node1"* ]]
	asked_by "$(url compute.node1)"
	[[ $output == *"cannot read the certificate /etc/onelun/tls/compute.node1.pem: No such file"* ]]
	carry nas.nas1
	for host in node1 node2; do carry "compute.$host"; done
	asked_by "$(url compute.node1)"
	[[ $output == *"the broker at one.example.org:5671 cannot be reached: Connection refused"* ]]

	certified nas1 nas.nas1
	certified one frontend
	for host in node1 node2; do certified "$host" "compute.$host"; done
	LIMIT=900 expects 0 one sh -ec "$(documented '2\.' one | grep -vE '^(ssh|onelun) ')"
	expects 0 nas1 sh -ec 'onelun nas check && systemctl restart onelun-nas'
	for host in node1 node2; do expects 0 "$host" sh -ec 'onelun compute check && systemctl restart onelun-compute'; done
	expects 0 one systemctl restart onelun-frontend
	eventually 120 on one onelun frontend check </dev/null

	expects 0 one rabbitmqctl -q list_connections user ssl auth_mechanism
	for user in frontend nas.nas1 compute.node1 compute.node2; do [[ $output == *"$user"?true?EXTERNAL* ]]; done
	[[ $output != *PLAIN* ]]
	goes_on tls
	stop_writer node1 tls
	all_there node1 "$disk" tls
	action 0 tm/onelun/delete "node1:$disk" 0 102 </dev/null
	image_action rm 4 4096 SOURCE=nas1/tank/one-4

	# A password opens nothing any more, by whatever way.
	password=${old#*//*:}
	password=${password%%@*}
	asked_by "$old"
	[[ $output == *":5672 cannot be reached: Connection refused"* ]]
	old="amqps://compute.node1:$password@one.example.org:5671/%2F?cafile=/etc/onelun/tls/ca.pem"
	asked_by "$old"
	[[ $output == *"lets nobody in without a certificate"* || $output == *"does not speak AMQP"* ]]
	asked_by "$old\\&certfile=/etc/onelun/tls/compute.node1.pem"
	[[ $output == *"takes no password"* ]]
}

# says TEXT: the check of the NAS does.
says() {
	run on nas1 onelun nas check </dev/null
	[[ $output == *"$1"* ]]
}

@test "certificates are renewed, and nothing is restarted" {
	local before_nas before_broker running='systemctl show --property MainPID onelun-nas rabbitmq-server'
	# As they are when two years are nearly over.
	expects 0 one env PYTHONPATH=/checkout PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c '
import pathlib, shutil, tempfile
from tests.support.certificates import dated
tls = pathlib.Path("/etc/onelun/broker/tls")
for name, host in (("nas.nas1", None), ("broker", "one.example.org")):
    made = dated(tls, name, pathlib.Path(tempfile.mkdtemp()), begins_s=-86400, ends_s=7.5 * 86400, host=host)
    shutil.copy(made, tls / made.name)'
	expects 0 one sh -ec "
		cd /etc/onelun/broker/tls
		install -m 0640 -g rabbitmq -t /etc/rabbitmq/onelun broker.pem
		rabbitmqctl eval 'ssl:clear_pem_cache().'"
	carry nas.nas1
	eventually 120 says "our certificate /etc/onelun/tls/nas.nas1.pem ends on "
	eventually 120 says "the broker's certificate of one.example.org:5671 ends on "
	expects 0 nas1 sh -c "$running" && before_nas=$output
	expects 0 one sh -c "$running" && before_broker=$output

	certify
	[[ $output == *"Made: /etc/onelun/broker/tls/broker.pem, /etc/onelun/broker/tls/nas.nas1.pem"$'\n'* ]]
	[[ $output != *"systemctl restart"* ]]
	# What it says.
	expects 0 one sh -ec "$(grep '^  [ir]' <<<"$output")"
	carry nas.nas1

	eventually 120 on nas1 onelun nas check </dev/null
	expects 0 nas1 sh -c "$running"
	[ "$output" = "$before_nas" ]
	expects 0 one sh -c "$running"
	[ "$output" = "$before_broker" ]
	# The agent comes back with what it was given.
	expects 0 one rabbitmqctl close_all_connections renewed
	eventually 120 on one onelun frontend check </dev/null
}

@test "what is in use is not removed, and all is removed without a trace" {
	expects 1 one /root/onelun/install.sh --frontend --uninstall
	[[ $output == *"run \`onelun register --remove --apply\`"* ]]
	expects 100 node2 apt-get purge -qy onelun-compute
	[[ $output == *"disks are connected here"* ]]
	expects 0 node2 fsck.ext4 -fn "$DISK"
	action 0 tm/onelun/delete "node2:$DISK" 0 102 </dev/null
	for host in node1 node2; do action 0 tm/onelun/delete "$host:${DISK%/*}" 0 103 </dev/null; done
	image_action rm 3 64 SOURCE=nas1/tank/one-3

	expects 0 one onelun register --remove --apply
	# shellcheck disable=SC2016 # as above
	expects 0 one sh -ec 'kill $(cat /run/lab/oned.pid); /root/onelun/install.sh --frontend --uninstall --purge'
	for host in node1 node2; do expects 0 "$host" apt-get purge -qy onelun-compute onelun; done
	expects 0 nas1 /root/onelun/install.sh --nas --uninstall --purge

	local left=0
	for host in one nas1 node1 node2; do
		traces "$host" >"$BATS_FILE_TMPDIR/after.$host"
		diff -u "$BATS_FILE_TMPDIR/before.$host" "$BATS_FILE_TMPDIR/after.$host" || left=1
	done
	[ "$left" = 0 ]
}
