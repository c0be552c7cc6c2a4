#!/usr/bin/env bash
# Install onelun on this machine, for one or more roles. docs/install.md leads through a whole cloud.
#
#   install.sh --frontend [--now]      on the OpenNebula front-end (on each, where there are several)
#   install.sh --nas [--now]           on a NAS
#   install.sh --compute [--now]       on a host
#   install.sh ROLE --check            what is missing, or would stand in the way of serving
#   install.sh ROLE --uninstall [--purge]
#
# Every call may be repeated, and a later release is installed over an earlier one the same way: services that run are given it.
# Nothing else is started or enabled without --now, no file of OpenNebula is changed, and of a configuration that exists no line is:
# it is given a section of a role that is new on the machine.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/install.sh
source "$ROOT/scripts/lib/install.sh"
# shellcheck source=deploy/install/program.sh
source "$ROOT/deploy/install/program.sh"
# shellcheck source=deploy/install/machine.sh
source "$ROOT/deploy/install/machine.sh"

usage() {
	cat <<'EOF'
usage: install.sh --frontend | --nas | --compute [options]     (roles may be combined)

  --check                 name what is missing or would stand in the way; change nothing
  --uninstall             remove the role; configuration and state stay
  --purge                 with --uninstall: configuration and state of this machine too (volumes stay in their pools)
  --now                   enable and start the services, or restart those that run (which a new release does by itself)
  --user, --group NAME    OpenNebula's user and group (oneadmin)
  --cloud UUID            the cloud's UUID on a second front-end: the same as on the first
  --opennebula-version V  the release, where remotes/VERSION does not tell
  --root DIR              put everything below DIR, for packages and trials; also DESTDIR

ONE_LOCATION is honoured. Python packages come from the package index, or with PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR from DIR.
EOF
}

ROLES=() ACTION=install NOW='' PURGE='' CLOUD='' VERSION=''
OWNER=oneadmin GROUP='' BASE=${DESTDIR:-}

# argument OPTION COUNT: an option that needs an argument has one.
argument() { (($2 >= 2)) || fail "$1 needs an argument"; }

while (($#)); do
	case $1 in
	--frontend | --nas | --compute) ROLES+=("${1#--}") ;;
	--check | --uninstall) ACTION=${1#--} ;;
	--now) NOW=1 ;;
	--purge) PURGE=1 ;;
	--user | --group | --cloud | --opennebula-version | --root)
		argument "$1" $#
		case $1 in
		--user) OWNER=$2 ;;
		--group) GROUP=$2 ;;
		--cloud) CLOUD=$2 ;;
		--opennebula-version) VERSION=$2 ;;
		--root) BASE=$2 ;;
		esac
		shift
		;;
	-h | --help)
		usage
		exit 0
		;;
	*)
		usage >&2
		fail "there is no option $1"
		;;
	esac
	shift
done

((${#ROLES[@]})) || {
	usage >&2
	fail "say what this machine is: --frontend, --nas or --compute"
}
BASE=${BASE%/}
GROUP=${GROUP:-$(id -gn "$OWNER" 2>/dev/null || printf '%s' "$OWNER")}
where_opennebula_is

case $ACTION in
install)
	check_machine
	install_program
	for role in "${ROLES[@]}"; do install_role "$role"; done
	reload_units
	restart_running
	if [ -n "$NOW" ]; then start_roles; fi
	what_next
	;;
uninstall)
	for role in "${ROLES[@]}"; do check_unused "$role"; done
	for role in "${ROLES[@]}"; do uninstall_role "$role"; done
	uninstall_program
	reload_units
	;;
check)
	status=0
	for role in "${ROLES[@]}"; do check_role "$role" || status=1; done
	exit "$status"
	;;
esac
