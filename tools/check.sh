#!/usr/bin/env bash
# Every check that is not a test, fastest first, with the time each takes; all run, also after a failure.
# `make check` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin

failed=()

stage() {
    local name=$1 started=$SECONDS verdict=ok
    shift
    "$@" || { verdict=FAILED && failed+=("$name"); }
    echo "check: $name: $verdict, $((SECONDS - started)) s" >&2
}

shell_scripts() {
    local scripts
    mapfile -t scripts < <(git grep --untracked -lE '^#!.*\bbash$' -- ':!*.py' ':!*.md')
    if command -v shellcheck > /dev/null; then
        shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
    elif [[ ${CI:-} == true ]]; then
        echo "check: shellcheck is missing: make system-deps" >&2
        return 1
    else
        echo "check: skipped shellcheck, which is missing: sudo make system-deps" >&2
    fi
}

stage "locks" "$bin/python" tools/lock.py --check
stage "format (make format mends it)" "$bin/ruff" format --check --quiet .
stage "lint" "$bin/ruff" check --quiet .
stage "shell" shell_scripts
if [[ -f Dockerfile ]]; then stage "Dockerfile" "$bin/hadolint" Dockerfile; fi
stage "workflows" "$bin/actionlint"
stage "workflows' safety" "$bin/zizmor" --quiet --offline --pedantic --strict-collection .github
stage "settings page" "$bin/python" -m job.settings.docs --check
stage "types" "$bin/mypy"
stage "borders and packaging" "$bin/python" -m pytest -q --no-header tests/test_borders.py tests/test_packaging.py

if ((${#failed[@]} > 0)); then
    printf 'check: %s failed\n' "${failed[@]}" >&2
    exit 1
fi
