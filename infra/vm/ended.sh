#!/usr/bin/env bash
# How it ended, for whoever looks from outside: FOLDER/exit.json, also when nothing in the container could say a word.
#
#   ended.sh                       by baton.service, after every end of the container
#   ended.sh REASON CODE DETAIL    by the startup script: no container ever ran
#
# An end after which systemd starts the container again is none: a line on the console is all it gets. After any other
# the machine has nothing left to do.
set -euo pipefail
export LC_ALL=C
cd "$STATE_DIRECTORY"
# shellcheck source=infra/vm/bucket.sh
source bucket.sh
put_tries=3

# What this start of the container said of its end, should it have said anything: hostile text, like all that it wrote.
last_error() {
    # shellcheck disable=SC2016 # $ is the last line
    tail --bytes 65536 console.log | sed --quiet '/^\(error: \|baton: the container ended with\)/h; ${x; s/^error: //p}'
}

# Sets reason, code and detail from what Docker and systemd know.
look() {
    local out_of_memory
    reason=exit detail=
    if [[ -s sick-gpu ]]; then
        reason='sick gpu' code=1 detail=$(< sick-gpu)
    elif read -r code out_of_memory < <(docker inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}}' baton); then
        if [[ $out_of_memory == true ]]; then
            detail='the kernel killed a process of the container for want of memory'
            if ((code == 137)); then reason='out of memory'; fi
        elif ((code != 0 && code != 75)); then
            detail=$(last_error)
        fi
    else
        reason=boot code=${EXIT_STATUS:-1} detail='docker made no container; the console says more'
        [[ $code =~ ^[0-9]+$ ]] || code=1
    fi
}

# Whether nothing starts the container again: baton.service says when it does.
is_over() {
    local starts most
    case $code in 0 | 2 | 3 | 4 | 75) return 0 ;; esac
    if [[ $(systemctl is-system-running) == stopping ]]; then return 0; fi
    starts=$(($(systemctl show --property NRestarts --value baton.service) + 1))
    most=$(systemctl show --property StartLimitBurst --value baton.service)
    ((starts >= most))
}

quoted() {
    local text=${1:0:500}
    text=${text//[^[:print:]]/ }
    text=${text//\\/\\\\}
    echo "\"${text//\"/\\\"}\""
}

if (($# == 3)); then
    reason=$1 code=$2 detail=$3
else
    look
    echo "baton: the container ended with $code ($reason)${detail:+: $detail}"
    is_over || exit 0
fi
trap 'systemctl poweroff --no-block' EXIT
if [[ ${FOLDER:?the boot did not get that far} == */watchdog ]]; then exit 0; fi # nobody waits for it
printf '{"exit_code": %d, "reason": %s, "detail": %s, "at_s": %s}\n' \
    "$code" "$(quoted "$reason")" "$(quoted "$detail")" "$EPOCHREALTIME" > exit.json
for ((try = 1; try <= put_tries; try++)); do
    if put exit.json "$FOLDER/exit.json" application/json; then exit 0; fi
    sleep 1
done
echo "baton: exit.json could not be written to the bucket" >&2
exit 1
