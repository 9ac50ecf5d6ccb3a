"""The RUN of a command line."""

from typing import TYPE_CHECKING

from job.errors import UsageError

if TYPE_CHECKING:  # --help needs none of it
    from job.run.spec import Spec
    from job.storage import Bucket


def open_run(run: str | None) -> "Bucket":
    """The bucket of the run that is named by URI, path or name; None: BATON_RUN's. Raises UsageError."""
    from job.run.uri import run_uri
    from job.settings import load_environment
    from job.storage import open_bucket

    environment = load_environment()
    name = run or environment.run
    if not name:
        raise UsageError("No run is named.", fix="Name it (file:///path, gs://BUCKET/runs/NAME), or set BATON_RUN.")
    return open_bucket(run_uri(name, environment.bucket))


def project_of(spec: "Spec | None") -> str:
    """The Google Cloud project of a run's VMs: the spec's, else BATON_PROJECT. Raises UsageError."""
    from job.settings import load_environment

    recorded = None if spec is None or spec.machine is None else spec.machine.project
    project = recorded or load_environment().project
    if not project:
        raise UsageError("No project is known.", fix="Set BATON_PROJECT to the Google Cloud project of the VMs.")
    return project
