#!/usr/bin/env bash
# What the container runs: says what is missing, then becomes `python -m job`, which gets every signal itself.
set -euo pipefail
trap 'exit 75' TERM INT HUP # a signal before python has its own handlers: nothing was changed (docs/design.md, Exit codes)

missing() { # exit codes as in docs/design.md: 2 for the caller, 3 for whoever built the image or the machine
    echo "entrypoint: $2" >&2
    exit "$1"
}

command -v python > /dev/null || missing 3 "no python on PATH. Run the image, or first: source .venv/bin/activate"
python -c 'import job' 2> /dev/null || missing 3 "the package 'job' is not installed. Run: make setup"
if (($# == 0)) && [[ -z ${BATON_RUN:-} ]]; then
    missing 2 "no run is named. Set BATON_RUN (and BATON_BUCKET), or give RECIPE --run file:///path/of/the/run"
fi
for folder in "${TMPDIR:-/tmp}" "${XDG_CACHE_HOME:-}"; do
    [[ ! -e $folder || -w $folder ]] ||
        missing 3 "user $(id -u) cannot write to $folder. Mount a tmpfs or a volume there that this user may write to"
done
if [[ -n ${BATON_NEEDS_DRIVER:-} ]]; then # set in the image for GPUs; empty: train without one all the same
    found=$(timeout 20 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head -n 1) || found=
    [[ $found =~ ^[0-9]+ ]] || missing 3 "no GPU here. Run with --gpus all and NVIDIA's container toolkit, or take the image train-cpu"
    ((BASH_REMATCH[0] >= BATON_NEEDS_DRIVER)) ||
        missing 3 "CUDA 13 needs NVIDIA's driver $BATON_NEEDS_DRIVER or newer, found $found. Boot a newer VM image"
fi
exec python -m job "$@"
