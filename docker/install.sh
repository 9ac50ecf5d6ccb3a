#!/usr/bin/env bash
# Installs layers of the locks into the image's Python: install.sh LAYER...
# With Debian's pip, a wheel of 2 MB that /opt/tools holds for the time of the build. No cache stays behind. A secret `ca`
# is the certificates of a proxy between the build and the package index.
set -euo pipefail
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if [[ -e /run/secrets/ca ]]; then export PIP_CERT=/run/secrets/ca; fi

options=()
for folder in /opt/wheels /mnt/wheels; do # a build context of docker's, a volume of podman's
    if compgen -G "$folder/torch-*.whl" > /dev/null; then options=(--no-index --find-links "$folder"); fi
done
if ((${#options[@]} == 0)) && [[ -n ${TORCH_INDEX:-} ]]; then options=(--index-url "$TORCH_INDEX"); fi
for layer in "$@"; do options+=(--requirement "/opt/locks/requirements-$layer.txt"); done
exec /opt/venv/bin/python /opt/tools/pip.whl/pip install --quiet --no-deps --require-hashes "${options[@]}"
