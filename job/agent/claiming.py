"""Taking the run over: a number in claims.json, then head. Nothing before this changes the run."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from job.errors import UsageError
from job.run.attempt import read_record
from job.run.claims import check_claim, claim_process, read_claims, refuse_unwanted
from job.run.head import Head, Owner, Status, read_head
from job.run.heartbeat import read_heartbeat
from job.storage import Bucket


@dataclass(frozen=True)
class Claimed:
    """This attempt's turn at the run."""

    owner: Owner
    kind: Literal["process", "vm"]
    replaced: Head | None
    """Head as the owner before left it, None for the first attempt."""
    reached_step: int | None
    """The last step that the owner before told of, None when it told of none."""
    machine_before: Mapping[str, str]
    """What the owner before ran on; empty when it did not say."""

    def changed_machine(self, machine: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """(what, before, now) of everything that is not as it was."""
        before = self.machine_before
        return [(what, before[what], machine[what]) for what in before if machine.get(what, "") != before[what]]


def is_left_to_do(bucket: Bucket, number: int | None) -> bool:
    """Whether the run is still wanted, of this attempt; False when it is finished.

    Much may have happened since the first look: a model was downloaded. Raises NeedsPerson for a run that is
    stopped or has failed, Fenced when a newer attempt was claimed.
    """
    head = read_head(bucket)
    if head is not None and head.status is Status.FINISHED:
        return False
    refuse_unwanted(read_claims(bucket), bucket.uri)
    if number is not None:
        check_claim(bucket, number)
    return True


def claim(bucket: Bucket, number: int | None, fingerprint: str) -> Claimed | None:
    """Claims a number (unless one was claimed for this process) and takes head over; None when the run is finished.

    Raises Fenced when a newer attempt was claimed, or owns head.
    """
    before = read_head(bucket)
    if before is not None and before.status is Status.FINISHED:
        return None
    kind: Literal["process", "vm"] = "process"
    if number is not None:
        kind = check_claim(bucket, number).kind
    else:
        number = claim_process(bucket, host=socket.gethostname(), pid=os.getpid())[0].number
    try:
        owner = Owner.take_over(bucket, number, fingerprint=fingerprint)
    except UsageError:  # finished between two requests; the number is claimed for nothing then
        return None
    heartbeat = None if before is None else read_heartbeat(bucket, before.attempt)
    record = None if before is None else read_record(bucket, before.attempt)
    return Claimed(
        owner,
        kind,
        before,
        None if heartbeat is None else heartbeat[0].step,
        {} if record is None else record.machine,
    )
