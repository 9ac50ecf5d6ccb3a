#!/usr/bin/env bash
# Makes .venv from the locks, or leaves it alone when it is up to date. `make setup` calls it.
# PYTHON: which Python makes .venv. TORCH: cpu | cuda | auto (cuda where nvidia-smi finds a GPU).
# TORCH_INDEX: where PyTorch's CPU build is looked for when pip's own indexes have none.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-auto}
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
locks=(docker/requirements-{base,train,dev}.txt)
stamp=.venv/baton-setup
say() { echo "setup: $*" >&2; }

if [[ $TORCH == auto ]]; then
    if command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1; then TORCH=cuda; else TORCH=cpu; fi
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    say "Baton needs Python 3.11 or newer, $PYTHON is $("$PYTHON" --version 2>&1 || echo missing)."
    say "Name another one: make setup PYTHON=python3.12"
    exit 2
fi

# What .venv was made from; a change in any of it makes setup run again.
wanted=$({ cat pyproject.toml "${locks[@]}" tools/setup.sh && echo "$TORCH $PWD"; } | cksum)
if [[ -f $stamp && $(< "$stamp") == "$wanted" ]]; then exit 0; fi

say "about 2 minutes and 2 GB the first time (TORCH=$TORCH)"
started=$SECONDS
if [[ ! -x .venv/bin/python ]]; then
    if ! "$PYTHON" -m venv .venv; then
        rm -rf .venv # half of one would pass for a whole one next time
        say "$PYTHON cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv"
        exit 2
    fi
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

torch=$(sed -n 's/^ *"torch==\(.*\)",$/\1/p' pyproject.toml)
install_torch() { pip install -qq --no-deps "$@"; }
have=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))' 2> /dev/null || true)
if [[ $TORCH == cpu ]]; then
    if [[ $have == "$torch+cpu" ]]; then
        say "torch $have is there"
    elif [[ $(uname) == Linux ]]; then
        say "torch $torch, CPU build (about 200 MB)"
        install_torch "torch==$torch+cpu" 2> /dev/null ||
            install_torch "torch==$torch+cpu" --index-url "$TORCH_INDEX" --retries 1 --timeout 20 2> /dev/null || {
            say "the CPU build was found neither by pip nor at $TORCH_INDEX (TORCH_INDEX names another place)."
            say "Taking the CUDA build instead: it works without a GPU, but is 3 GB more to load."
            TORCH=cuda
        }
    else
        install_torch "torch==$torch" # elsewhere the only build there is is the CPU's
    fi
fi
if [[ $TORCH == cuda && $have != "$torch" ]]; then
    say "torch $torch with CUDA (about 3 GB)"
    pip install -qq "torch==$torch"
fi

say "the locked packages ($((SECONDS - started)) s so far)"
for lock in "${locks[@]}"; do
    pip install -qq --no-deps --require-hashes -r "$lock"
done
# compat: a plain path instead of an import hook, which costs every start of Python 20 ms.
pip install -qq --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
echo "$wanted" > "$stamp"
say "done in $((SECONDS - started)) s, $(du -sh .venv | cut -f1) in .venv"
