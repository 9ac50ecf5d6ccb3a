"""`python -m infra.localcloud`: the local cloud itself; `baton local up` starts it and waits until it is ready."""

import argparse
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from infra.localcloud.cloud import local_cloud
from infra.localcloud.state import Running, holding, last_known, write
from job.errors import BatonError


def main() -> int:
    """Serves until SIGTERM, SIGINT or the order to end."""
    parser = argparse.ArgumentParser(prog="python -m infra.localcloud", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder with its state")
    parser.add_argument("--project", required=True, help="its only project")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times faster the cloud is")
    parser.add_argument("--image-env", action="append", default=[], metavar="NAME=VALUE", help="of every container")
    parser.add_argument("--pull-s", type=float, default=0.0, help="how long docker pull takes")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with holding(arguments.home):
            _serve(arguments, stop)
    except BatonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _serve(arguments: argparse.Namespace, stop: threading.Event) -> None:
    home: Path = arguments.home
    before = last_known(home)
    (home / "cloud.json").unlink(missing_ok=True)
    shutil.rmtree(home / "vms", ignore_errors=True)  # disks of VMs whose host failed
    image_env = dict(pair.split("=", 1) for pair in arguments.image_env)
    with local_cloud(
        home,
        project=arguments.project,
        scale=arguments.scale,
        ports=(0, 0, 0)
        if before is None
        else (_port(before.compute_url), _port(before.storage_url), _port(before.secrets_url)),
        image_env=image_env,
        pull_s=arguments.pull_s,
        shutdown=stop.set,
    ) as cloud:
        write(home, Running(pid=os.getpid(), scale=arguments.scale, **cloud.addresses()))
        stop.wait()
    shutil.rmtree(home / "vms", ignore_errors=True)


def _port(url: str) -> int:
    """Clients that were pointed at the last one find this one."""
    return int(url.rpartition(":")[2])


if __name__ == "__main__":
    raise SystemExit(main())
