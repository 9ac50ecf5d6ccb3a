"""A launch's first writes: the user's files, then revision 1 of the spec. Who writes it first has the run's name."""

import tempfile
from pathlib import Path

from infra.launch.planning import LaunchPlan, next_claim
from infra.launch.prepare import Prepared, pin_files
from job.errors import UsageError
from job.run.blobs import put_blob
from job.run.claims import Claim, Claims, read_claims, refuse_unwanted, update_claims
from job.run.head import Status, read_head
from job.run.revise import make_revision
from job.run.spec import Spec, SpecModel, read_spec, write_spec
from job.storage import Bucket


def begin(bucket: Bucket, plan: LaunchPlan, prepared: Prepared, model: SpecModel) -> Spec:
    """Uploads what the recipe names and writes revision 1. Raises UsageError when the name is taken meanwhile."""
    with tempfile.TemporaryDirectory(prefix="baton-launch-") as scratch:
        inputs = pin_files(bucket, prepared.files, Path(scratch))
        for pinned in inputs:
            put_blob(bucket, pinned.path)
        spec = make_revision(None, plan.settings, inputs, model, machine=plan.machine)
    try:
        write_spec(bucket, spec)
    except UsageError:
        found = read_spec(bucket)
        who = "somebody" if found is None else found.started_by
        raise UsageError(
            f"another launch, by {who}, has just taken the name {bucket.uri}: that one goes on.",
            fix=f"baton attach {bucket.uri}   or launch this one under another --run.",
        ) from None
    return spec


def go_on(bucket: Bucket, spec: Spec, plan: LaunchPlan) -> Spec:
    """A run that exists gets the machine that this launch names, as its next revision where that is another."""
    if spec.machine == plan.machine:
        return spec
    revised = make_revision(spec, plan.settings, (), spec.model, machine=plan.machine, accepted=("machine",))
    revised = revised.model_copy(update={"inputs": spec.inputs})
    write_spec(bucket, revised)
    return revised


def claim_vm(bucket: Bucket, plan: LaunchPlan, now_s: float) -> Claim:
    """Claims the next number for the VM of the best offer: any watchdog finishes it from here. Raises UsageError when
    another launch was quicker, NeedsPerson for a run that is not wanted."""

    def change(claims: Claims) -> Claims:
        refuse_unwanted(claims, bucket.uri)
        refuse_second(claims, bucket.uri)
        return claims.model_copy(update={"attempts": (*claims.attempts, next_claim(plan, claims, now_s))})

    claim = update_claims(bucket, change).newest
    assert claim is not None
    return claim


def refuse_second(claims: Claims, uri: str) -> None:
    """Raises UsageError where a VM is claimed already."""
    newest = claims.newest
    if newest is not None and newest.ended is None and newest.kind == "vm":
        raise UsageError(
            f"attempt {newest.number} of {uri} has a VM already: {newest.vm} in {newest.zone}.",
            fix=f"baton attach {uri}",
        )


def refuse_taken(bucket: Bucket) -> None:
    """Raises UsageError where a run of that name exists, and says what it is doing."""
    if read_spec(bucket) is None:
        return
    raise UsageError(
        f"the name {bucket.uri} is in use: {_doing(bucket)}.",
        fix=f"Choose another --run; or look at that one: baton attach {bucket.uri}",
    )


def refuse_busy(bucket: Bucket) -> Spec:
    """The spec of a run that may be given a VM. Raises UsageError (no such run, finished, at work), NeedsPerson."""
    spec = read_spec(bucket)
    if spec is None:
        raise UsageError(f"there is no run at {bucket.uri}.", fix="Name a recipe to start one there.")
    head, claims = read_head(bucket), read_claims(bucket)
    refuse_unwanted(claims, bucket.uri)
    if head is not None and head.status is Status.FINISHED:
        raise UsageError(f"the run {bucket.uri} is finished.", fix=f"baton get {bucket.uri} brings its result.")
    refuse_second(claims, bucket.uri)
    return spec


def _doing(bucket: Bucket) -> str:
    head, claims = read_head(bucket), read_claims(bucket)
    if head is not None and head.status is Status.FINISHED:
        return "that run is finished"
    newest = claims.newest
    if claims.want != "run":
        return f"that run {'is stopped' if claims.want == 'stop' else 'has failed'}"
    if newest is None:
        return "that run waits for its first VM"
    return f"attempt {newest.number} of that run " + ("is at work" if newest.ended is None else newest.ended.how)
