#!/usr/bin/env bash
# From an empty machine to baton.service. Google's guest agent runs this as root at every boot.
#
# The machine brings Docker and, for a GPU, NVIDIA's driver and container toolkit (a Deep Learning VM image). What to
# run stands in the VM's metadata, attributes baton-*; no secret does. If it cannot be run, exit.json says why, and
# the machine goes away: it costs money.
set -euo pipefail
export LC_ALL=C HOME=${HOME:-/root}
export STATE_DIRECTORY=${STATE_DIRECTORY:-/var/lib/baton}
metadata=http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1
driver_s=300 # an image without the driver installs it at its first boot
pull_tries=5

mkdir -p "$STATE_DIRECTORY"
cd "$STATE_DIRECTORY"
exec > >(tee -a console.log) 2>&1 # the serial port has it too

phase() { echo "baton-phase $1 $EPOCHREALTIME"; }

attribute() {
    curl --fail --silent --show-error --noproxy '*' --retry 5 --retry-connrefused --max-time 20 \
        --header 'Metadata-Flavor: Google' "$metadata/instance/attributes/$1"
}

doing=boot # the reason in exit.json, should it fail

give_up() {
    local code=$1 command=$2
    trap - ERR
    echo "baton: the boot ends here: '$command' failed with $code" >&2
    bash ended.sh "$doing" "$code" "'$command' failed; the console says more" || systemctl poweroff --no-block
    exit "$code"
}
trap 'give_up "$?" "$BASH_COMMAND"' ERR

phase boot
for file in baton.service baton-logs.service bucket.sh ended.sh gpu-check.sh ship-logs.sh; do
    attribute "baton-file-${file//./_}" > "$file" # a key has no dots
done
role=$(attribute baton-role)
image=$(attribute baton-image)
gpu=$(attribute baton-gpu)

flags=() command=()
case $role in
    attempt)
        run=$(attribute baton-run)
        attempt=$(attribute baton-attempt)
        printf '%s\n' "BATON_RUN=$run" "BATON_ATTEMPT=$attempt" > container.env
        printf -v folder '%s/attempts/%04d' "$run" "$attempt"
        ;;
    watchdog)
        bucket=$(attribute baton-bucket)
        printf '%s\n' "BATON_BUCKET=$bucket" "BATON_PROJECT=$(attribute baton-project)" > container.env
        flags+=(--entrypoint baton)
        command+=(watchdog run --all)
        folder=$bucket/watchdog
        # It runs for months: only starts in quick succession are held against it.
        sed -i 's/^StartLimitIntervalSec=.*/StartLimitIntervalSec=600/' baton.service
        ;;
    *)
        echo "baton: no such role: $role" >&2
        false
        ;;
esac
if [[ $gpu != none ]]; then flags+=(--gpus all); fi
export FOLDER=$folder
printf '%s\n' "IMAGE=$image" "FLAGS=${flags[*]}" "COMMAND=${command[*]}" "GPU=$gpu" "FOLDER=$folder" > unit.env

systemctl link --quiet --force "$PWD/baton-logs.service" "$PWD/baton.service"
systemctl start baton-logs.service

phase driver
if [[ $gpu != none ]]; then
    while ! command -v nvidia-smi > /dev/null && ((SECONDS < driver_s)); do sleep 1; done
fi

phase pull
doing=pull
registry=${image%%/*}
export DOCKER_CONFIG=$PWD/docker # holds the token until the machine is gone
if [[ $registry == *.pkg.dev ]]; then
    # shellcheck source=infra/vm/bucket.sh
    (source bucket.sh && token) | docker login --username oauth2accesstoken --password-stdin "https://$registry"
fi
for ((try = 1; ; try++)); do
    if docker pull --quiet "$image"; then break; fi
    if ((try == pull_tries)); then false; fi
    sleep $((try * try))
done
doing=boot

phase container
systemctl start --no-block baton.service # which answers for everything from here on, a failed start too
