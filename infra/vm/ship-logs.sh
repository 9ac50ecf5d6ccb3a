#!/usr/bin/env bash
# Ships console.log, boot and container alike, to the run's bucket while it grows: FOLDER/console/000001.log and so on.
# An object is written over until it has its 256 KiB, then the next one begins; together they are the file, byte by
# byte. What is shipped is given back to the disk; where the bucket takes less than is written, so are the oldest that
# wait, and a line says how many. Stopped (baton-logs.service stops after baton.service), it ships the rest first.
set -euo pipefail
cd "$STATE_DIRECTORY"
# shellcheck source=infra/vm/bucket.sh
source bucket.sh
segment_bytes=262144
every_s=5
most_bytes=67108864 # that wait on the disk

number=1
if [[ -s shipped ]]; then number=$(< shipped); fi # full ones, from before a restart
sent_bytes=0

# Goes on with another segment; the disk gets back what is before it. The file keeps its length and the rest its place.
# A file system that makes no holes keeps the whole.
go_on_with() {
    number=$1 sent_bytes=0
    echo "$number" > shipped
    fallocate --punch-hole --offset 0 --length $(((number - 1) * segment_bytes)) console.log 2> /dev/null || true
}

# Fails when the bucket cannot be written now: the next round sends the same again.
ship() {
    local start size name
    while true; do
        start=$(((number - 1) * segment_bytes))
        size=$(($(stat --format %s console.log) - start))
        if ((size > most_bytes)); then
            go_on_with $((number + most_bytes / 2 / segment_bytes))
            echo "baton: $((most_bytes / 2)) bytes of the console are lost: more is written than the bucket takes"
            continue
        fi
        if ((size <= sent_bytes)); then return; fi
        tail --bytes "+$((start + 1))" console.log | head --bytes "$segment_bytes" > segment || true # SIGPIPE for tail
        size=$(stat --format %s segment)
        printf -v name '%s/console/%06d.log' "$FOLDER" "$number"
        put segment "$name" 'text/plain; charset=utf-8' || return
        sent_bytes=$size
        if ((size < segment_bytes)); then return; fi
        go_on_with $((number + 1))
    done
}

ending=
trap 'ending=yes' TERM
while [[ -z $ending ]]; do
    ship || true
    sleep "$every_s" &
    wait "$!" || true
done
ship
