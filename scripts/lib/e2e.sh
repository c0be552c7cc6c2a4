#!/usr/bin/env bash
# The e2e suite: each file brings up a sandbox of its own, and fails when anything of it is left.
set -euo pipefail

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
cd "$ROOT"

trap 'scripts/sandbox down' EXIT
bats --timing "${@:-tests/e2e}"
