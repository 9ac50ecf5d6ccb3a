#!/usr/bin/env bash
# Before every start of the container: is the GPU there, and well? Fails where not; sick-gpu then holds what is wrong.
set -euo pipefail
export LC_ALL=C
cd "$STATE_DIRECTORY"
if [[ $GPU == none ]]; then exit 0; fi
answer_s=60

sick() {
    echo "$1" > sick-gpu
    echo "baton: the GPU is sick: $1" >&2
    exit 1
}

fields=name,ecc.errors.uncorrected.volatile.total
answer=$(timeout --kill-after 5 "$answer_s" nvidia-smi --query-gpu="$fields" --format=csv,noheader 2>&1) ||
    sick "nvidia-smi failed with $? (124: no answer in $answer_s s): ${answer:0:300}"
if [[ -z $answer ]]; then sick "nvidia-smi lists none"; fi
while IFS=, read -r name errors; do
    errors=${errors// /}
    if [[ $errors =~ ^[0-9]+$ ]] && ((errors > 0)); then # [N/A] where ECC is off
        sick "$name: $errors uncorrected memory errors since the driver was loaded"
    fi
    echo "baton: $name is well"
done <<< "$answer"
rm -f sick-gpu
