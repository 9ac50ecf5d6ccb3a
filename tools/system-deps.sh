#!/usr/bin/env bash
# Installs what checks and tests need of the system, with apt, where that can be done. `make system-deps` calls it.
# `system-deps.sh image`: what building and testing the image needs, which no other target pays for.
# Where it cannot be done it says the command and succeeds: the tests that need something missing say so by name.
set -euo pipefail
group=${1:-tests}

case $group in
    tests)
        declare -A package_of=(
            [mount]=mount
            [chromium]=chromium
            [docker-registry]=docker-registry
            [shellcheck]=shellcheck
            [systemd-analyze]=systemd
            [umount]=mount
            [unshare]=util-linux
        )
        ;;
    image)
        declare -A package_of=(
            [buildah]=buildah
            [docker-registry]=docker-registry
            [mmdebstrap]=mmdebstrap
            [catatonit]=catatonit # for `run --init`
            [podman]=podman
            [skopeo]=skopeo # copies between registries
            [runc]=runc # podman's own crun refuses a hybrid of cgroup v1 and v2
        )
        PATH=$PATH:/usr/sbin
        ;;
    *)
        echo "system-deps: no such group: $group (tests, image)" >&2
        exit 2
        ;;
esac

# Not in Debian's archive, so that it cannot be installed here.
[[ $group != tests ]] || command -v gcloud > /dev/null ||
    echo "system-deps: missing gcloud; what needs it is skipped. To install: https://cloud.google.com/sdk/docs/install" >&2

missing=()
for program in "${!package_of[@]}"; do
    command -v "$program" > /dev/null || missing+=("${package_of[$program]}")
done
if ((${#missing[@]} == 0)); then exit 0; fi

if [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null; then
    echo "system-deps: installing ${missing[*]} (about a minute)" >&2
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" > /dev/null
else
    echo "system-deps: missing ${missing[*]}; what needs them is skipped. To install: sudo tools/system-deps.sh $group" >&2
fi
