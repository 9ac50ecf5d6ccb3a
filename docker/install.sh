#!/usr/bin/env bash
# Installs layers of the locks into the image's Python: install.sh LAYER...; `tools` is what does it, with Debian's pip.
# No cache stays behind. A secret `ca` is the certificates of a proxy between the build and the package index.
set -euo pipefail
cd /opt/tools
export UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
if [[ -e /run/secrets/ca ]]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi

if [[ $1 == tools ]]; then
    python3 -m venv venv
    exec venv/bin/python -m pip install --quiet --no-cache-dir --no-deps --require-hashes -r requirements-build.txt
fi

index=() locks=()
if compgen -G '/opt/wheels/torch-*.whl' > /dev/null; then
    index=(--no-index --find-links /opt/wheels)
elif [[ -n ${TORCH_INDEX:-} ]]; then
    index=(--default-index "$TORCH_INDEX")
fi
for layer in "$@"; do locks+=(--requirement "/opt/locks/requirements-$layer.txt"); done
exec venv/bin/uv pip install --quiet --python /opt/venv --no-deps --require-hashes "${index[@]}" "${locks[@]}"
