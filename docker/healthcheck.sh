#!/usr/bin/env bash
# Healthy: the attempt has told the bucket within 3 minutes that it lives (every 10 s, at most every 60 s).
set -euo pipefail
find "${TMPDIR:-/tmp}" -maxdepth 2 -path '*/baton-attempt-*/heartbeat' -newermt '-180 seconds' | grep --quiet .
