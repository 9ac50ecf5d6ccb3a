"""A process that has only imported what an attempt imports, and forks attempts from there: 6 s saved on each.

Run as a program: `python -m tests.story.forkserver SOCKET`. One connection is one attempt: a JSON request with the file
descriptors of stdout and stderr; the answers are the pid, then the exit code as waitpid tells it. What runs in the
child is `python -m job` to the letter: same arguments, same environment, signal handlers as at the start of a program.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path


def serve(path: Path) -> None:
    """Serves until the process is killed."""
    import job.training.process  # noqa: F401  # every attempt has it then

    # As `baton train` does it: a signal that comes before the attempt has its handlers waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, reader], [], [])
        if listener in ready:
            connection, _ = listener.accept()
            data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
            pid = os.fork()
            if pid == 0:
                _become_attempt(json.loads(data), fds, [listener, reader, writer, connection, *running.values()])
            for fd in fds:
                os.close(fd)
            running[pid] = connection
            connection.sendall(f"{pid}\n".encode())
        if reader in ready:
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)
            _reap(running)


def _reap(running: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become_attempt(request: dict, fds: list[int], ours: list[socket.socket]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also where the tests run under nohup
        os.setsid()
        for sock in ours:
            sock.close()
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        for place in request["patches"]:
            module, function = place.split(":")
            getattr(importlib.import_module(module), function)()
        from job.__main__ import main

        code = main(request["argv"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
