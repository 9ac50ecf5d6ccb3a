#!/usr/bin/env bash
# Starts a run on a VM: infra/launch.sh [RECIPE] --gpu a100 --spot. All options: infra/launch.sh --help
set -euo pipefail
baton="$(dirname "$(readlink -f "$0")")/../.venv/bin/baton"
[[ -x $baton ]] || baton=$(command -v baton) || {
    echo "launch: baton is not installed. Run: make setup" >&2
    exit 3
}
exec "$baton" launch "$@"
