"""What is known of zones before a VM is asked for there: the bucket's own runs, and the cloud's advice."""

from collections.abc import Callable, Sequence
from functools import partial

from infra.cloud.types import Advice, CloudError
from infra.expected import Odds, Ranked, Zone, odds_of
from infra.reading.runs import runs_of
from job.errors import BatonError
from job.run.claims import Claim, read_claims
from job.storage import open_bucket
from job.storage.parallel import in_parallel

MOST_RUNS = 200
"""Of a bucket, whose claims are read: the last by name."""
MOST_ASKED = 8
"""Zones on which advice is asked for: the best without it."""
AT_ONCE = 16


def history(bucket_uri: str) -> dict[Zone, Odds]:
    """What spot VMs of all runs of the bucket met with. What cannot be read tells nothing."""
    try:
        uris = runs_of(bucket_uri)[-MOST_RUNS:]
    except BatonError:
        return {}
    found = in_parallel((partial(_claims, uri) for uri in uris), AT_ONCE)
    return odds_of(claim for claims in found for claim in claims)


def ask_advice(advice: Callable[[str, str], Advice | None], ranked: Sequence[Ranked]) -> dict[Zone, Odds]:
    """The cloud's advice on the best zones; none where it gives none: not known is not bad."""
    asked = [one.offer for one in ranked if one.offer.spot and one.offer.accelerator is None][:MOST_ASKED]
    said = in_parallel((partial(_asked, advice, offer.zone, offer.machine_type) for offer in asked), AT_ONCE)
    return {
        (offer.machine_type, offer.zone): Odds(uptime_s=one.uptime_s, obtainability=one.obtainability)
        for offer, one in zip(asked, said, strict=True)
        if one is not None
    }


def _claims(uri: str) -> tuple[Claim, ...]:
    try:
        return read_claims(open_bucket(uri)).attempts
    except BatonError:
        return ()


def _asked(advice: Callable[[str, str], Advice | None], zone: str, machine_type: str) -> Advice | None:
    try:
        return advice(zone, machine_type)
    except CloudError:
        return None
