"""Laptops of the stories: launches that are left alone, and watchdogs for whom seconds are minutes."""

import subprocess
import sys
from collections.abc import Callable

from cloud_runs import Command, VmRun


def launch_and_go(run: VmRun, gone: Callable[[], bool] | None = None) -> None:
    """Launches a run from a laptop that is gone (SIGKILL) once `gone` holds, by default once a VM was asked for: from
    then on nobody looks after it but whom the story starts.
    """
    launcher = run.cloud.start(*run.launch_words("--watch-here"), name=f"{run.name}-laptop")
    happened = gone or (lambda: bool(run.vms()))
    try:
        run.wait_until(lambda: happened() or not launcher.lives(), f"the launch\n{launcher.said}")
        assert launcher.lives(), launcher.said
    finally:
        launcher.kill()


def watch_impatiently(run: VmRun, **policy: float) -> Command:
    """A watchdog that waits seconds where others wait minutes (tests/story/impatient.py)."""
    number = len(run.watchdogs)
    out, err = (run.cloud.home / f"{run.name}-impatient-{number}.{end}" for end in ("out", "err"))
    changes = [f"{name}={seconds}" for name, seconds in policy.items()]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.story.impatient", run.uri, *changes],
            cwd=run.cloud.workplace,
            env=run.cloud.env(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    run.watchdogs.append(Command(process, out, err))
    return run.watchdogs[-1]
