"""The next revision of what is wanted, told by whom and from which code it was made."""

import getpass
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from job.run.inputs import PinnedInput
from job.run.spec import Input, Machine, Spec, SpecModel
from job.settings import Settings, fingerprint, to_plain


def make_revision(
    before: Spec | None,
    settings: Settings,
    inputs: Iterable[PinnedInput],
    model: SpecModel,
    *,
    machine: Machine | None,
    accepted: tuple[str, ...] = (),
) -> Spec:
    """The revision after `before` (None: the first). Whoever writes it puts the inputs into blobs/ first."""
    return Spec(
        revision=1 if before is None else before.revision + 1,
        recipe=to_plain(settings),
        inputs={one.key: Input(sha256=one.sha256, bytes=one.size_bytes, name=one.name) for one in inputs},
        model=model,
        machine=machine,
        fingerprint=fingerprint(settings),
        accepted=accepted,
        started_by=this_user(),
        commit=this_commit(),
        created_at=time.time(),
    )


def this_user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        return "unknown"


def this_commit() -> str | None:
    """The commit of the code that runs, None where nobody knows: the image says it in BATON_COMMIT, a clone by git."""
    if commit := os.environ.get("BATON_COMMIT"):
        return commit
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
