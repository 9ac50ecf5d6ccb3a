"""`python -m infra.localcloud.storage`: serves until it is stopped; its address is the one line on stdout."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from infra.localcloud.storage.server import start
from job.errors import BatonError


def main() -> int:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m infra.localcloud.storage", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (the default) takes a free one")
    parser.add_argument("--root", type=Path, help="folder that keeps everything; without it all is gone at the end")
    parser.add_argument("--policy", type=Path, help="JSON file: which token is whose, and what each may do")
    parser.add_argument("--discard", action="store_true", help="count and sum uploads, keep no bytes (for benchmarks)")
    parser.add_argument(
        "--bucket", action="append", default=[], help="a bucket that is there from the start; repeatable"
    )
    parser.add_argument(
        "--user", type=int, metavar="UID", help="answer this user as well: a container's, which is not this one's"
    )
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    keep_bytes = not arguments.discard
    try:
        with start(
            arguments.root,
            port=arguments.port,
            policy=arguments.policy,
            keep_bytes=keep_bytes,
            also_user=arguments.user,
        ) as server:
            for name in arguments.bucket:
                server.make_bucket(name)
            print(server.url, flush=True)
            stop.wait()
    except BatonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
