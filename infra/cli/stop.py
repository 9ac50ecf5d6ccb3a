"""`baton stop`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.output import print_json
from infra.cli.runs import open_run
from job.errors import Transient

if TYPE_CHECKING:
    from job.storage import Bucket

app = typer.Typer(add_completion=False)
LOOK_EVERY_S = 2.0
PATIENCE_S = 300.0


@app.command()
def stop(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="URI of the run, or its name in BATON_BUCKET (else BATON_RUN).")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; shown by status and to whoever resumes it.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when no attempt is at work any more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Stops a run: its attempt saves everything and leaves; no other one is started. `baton resume` goes on.

    An attempt hears of it with its next heartbeat (10 s), and its VM powers off; `baton down` deletes VMs at once.
    """
    from infra.cloud.access import who_asks
    from infra.control import refuse_finished, stopped
    from job.run.claims import update_claims
    from job.run.head import read_head
    from job.views.status import read_status

    bucket = open_run(run)
    found = read_status(bucket)  # refuses what is no run
    refuse_finished(bucket.uri, read_head(bucket))
    why = reason or f"by {who_asks()}"
    update_claims(bucket, lambda claims: stopped(claims, bucket.uri, why))
    open_attempts = [attempt for attempt in found.attempts if not attempt.ended]
    if wait and open_attempts:
        _wait(bucket)
    if as_json:
        print_json({"uri": bucket.uri, "want": "stop", "reason": why, "was_at_work": found.at_work})
        return
    typer.echo(f"{bucket.uri} is stopped: {why}", err=True)
    if open_attempts and not wait:
        where = open_attempts[-1].vm or open_attempts[-1].host or "somewhere"
        typer.echo(f"  attempt {open_attempts[-1].number} ({where}) saves everything and leaves", err=True)


def _wait(bucket: "Bucket") -> None:
    from job.views.status import read_status

    until_s = time.monotonic() + PATIENCE_S
    while True:
        found = read_status(bucket)
        if not found.at_work and all(attempt.ended or not attempt.heard_s for attempt in found.attempts):
            return
        if time.monotonic() > until_s:
            raise Transient(
                f"an attempt of {bucket.uri} has not left after {PATIENCE_S:.0f} s.",
                fix=f"See baton status {bucket.uri}; baton down {bucket.uri} deletes its VM.",
            )
        time.sleep(LOOK_EVERY_S)
