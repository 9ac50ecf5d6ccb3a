#!/usr/bin/env python3
"""`nvidia-smi` on a local VM: answers queries as the machine's GPUs do, and as one that fell off its bus."""

import json
import os
import sys
from pathlib import Path

HARDWARE = json.loads(Path(os.environ["LOCAL_VM_HARDWARE"]).read_text())
KNOWN = {"driver_version": "580.178.04", "ecc.errors.uncorrected.volatile.total": "0"}


def _main(words: list[str]) -> int:
    if not HARDWARE["gpus"]:
        print("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", file=sys.stderr)
        return 9
    if HARDWARE["gpu_sick"]:
        print("Unable to determine the device handle for GPU0: 0000:00:04.0: Unknown Error")
        return 255
    asked = dict(word.split("=", 1) for word in words if "=" in word).get("--query-gpu", "name").split(",")
    for name in HARDWARE["gpus"]:
        known = KNOWN | {"name": name}
        for field in asked:
            if field not in known:
                print(f'Field "{field}" is not a valid field to query.')
                return 2
        print(", ".join(known[field] for field in asked))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1:]))
