#!/usr/bin/env bash
# Installs layers of the locks into the image's Python: install.sh LAYER...
# With Debian's pip, a wheel of 2 MB that /opt/tools holds for the time of the build. No cache stays behind. A secret `ca`
# is the certificates of a proxy between the build and the package index.
set -euo pipefail
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if [[ -e /run/secrets/ca ]]; then export PIP_CERT=/run/secrets/ca; fi

options=()
if [[ $1 == torch-cpu ]]; then # on PyTorch's own index only, or in a folder: docker's build context, podman's volume
    options=(--index-url "$TORCH_INDEX")
    for folder in /opt/wheels /mnt/wheels; do
        if compgen -G "$folder/torch-*.whl" > /dev/null; then options=(--no-index --find-links "$folder"); fi
    done
fi
for layer in "$@"; do options+=(--requirement "/opt/locks/requirements-$layer.txt"); done
exec /opt/venv/bin/python /opt/tools/pip.whl/pip install --quiet --no-deps --require-hashes "${options[@]}"
