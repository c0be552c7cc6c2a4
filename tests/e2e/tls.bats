#!/usr/bin/env bats
# The whole stack over TLS, where every role logs in by its certificate and nobody has a password.

load sandbox.bash

setup_file() { sandbox_up --tls; }
teardown_file() { sandbox_down; }

# ask_by CERTIFICATE USER: whether a NAS answers to the URL of USER with another's certificate.
ask_by() {
	local url=${ONELUN_AMQP_URL/\/\/frontend@/\/\/$2@}
	ONELUN_AMQP_URL=${url/\/frontend.pem/\/$1.pem} onelun ask nas1 list_zvols --within 60
}

@test "every role goes by TLS, and no user of the broker has a password" {
	run cat "$ONELUN_SANDBOX"/etc/*.toml
	[ "$(grep -c '^url = "amqps://[^:@]*@.*certfile=' <<<"$output")" = 4 ]

	run -0 "$ONELUN_SANDBOX/broker/rabbitmqctl" -q export_definitions - --format json
	[ "$(jq -c '[.users[] | select(.name != "admin") | .password_hash] | unique' <<<"$output")" = '[""]' ]
}

@test "an image is made and cloned, a host writes to the clone, and it goes again" {
	ds 0 mkfs 1 64
	[ "$output" = nas1/tank/one-1 ]

	tm 0 clone frontend:nas1/tank/one-1 "host01:$DIRECTORY/5/disk.0" 5 102
	on node1 dd if=/dev/zero of="$DIRECTORY/5/disk.0" bs=4096 count=1 oflag=direct conv=notrunc status=none

	tm 0 delete "host01:$DIRECTORY/5/disk.0" 5 102
	on node1 [ ! -L "$DIRECTORY/5/disk.0" ]
}

@test "a host's certificate asks a NAS nothing, whoever its URL says that it is" {
	run -0 ask_by frontend frontend
	run -1 ask_by compute.node1 compute.node1
	run -1 ask_by compute.node1 frontend
	run -1 ask_by compute.node1 nas.nas1
}
