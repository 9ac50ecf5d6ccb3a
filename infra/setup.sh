#!/usr/bin/env bash
# Makes a project on Google Cloud ready for runs, once: infra/setup.sh --project PROJECT. All options: --help
set -euo pipefail
baton="$(dirname "$(readlink -f "$0")")/../.venv/bin/baton"
[[ -x $baton ]] || baton=$(command -v baton) || {
    echo "setup: baton is not installed. Run: make setup" >&2
    exit 3
}
exec "$baton" setup "$@"
