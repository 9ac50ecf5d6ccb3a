#!/usr/bin/env bash
# What the container runs: says what is missing, then becomes `python -m job`, which gets every signal itself.
set -euo pipefail
trap 'exit 75' TERM INT HUP # a signal before python has its own handlers: nothing was changed (docs/design.md, Exit codes)

missing() { # exit codes as in docs/design.md: 2 for the caller, 3 for whoever built the image
    echo "entrypoint: $2" >&2
    exit "$1"
}

command -v python > /dev/null || missing 3 "no python on PATH. Run the image, or first: source .venv/bin/activate"
python -c 'import job' 2> /dev/null || missing 3 "the package 'job' is not installed. Run: make setup"
if (($# == 0)) && [[ -z ${BATON_RUN:-} ]]; then
    missing 2 "no run is named. Set BATON_RUN (and BATON_BUCKET), or give RECIPE --run file:///path/of/the/run"
fi
exec python -m job "$@"
