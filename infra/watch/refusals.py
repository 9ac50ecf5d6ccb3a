"""How a claim ends whose insert the cloud refused. Pure."""

from infra.cloud.types import Trouble, TroubleKind
from job.run.claims import Claim, How, SeenEnd

MOST_WORDS = 200
_REFUSALS: dict[TroubleKind, How] = {
    TroubleKind.STOCKOUT: "stockout",
    TroubleKind.UNSUPPORTED: "stockout",
    TroubleKind.QUOTA: "quota",
    TroubleKind.QUOTA_EVERYWHERE: "quota",
    TroubleKind.RATE_LIMIT: "rate limit",
    TroubleKind.PREEMPTED: "preempted",
    TroubleKind.INVALID: "refused",
    TroubleKind.TAKEN: "refused",
}
"""What is not here is asked for again: nothing is known, or it passes."""
NOT_HERE = "no such machine there"
EVERYWHERE = "of the whole project"


def refusal(claim: Claim, trouble: Trouble, now_s: float, durable_step: int | None) -> SeenEnd | None:
    """How a claim ends whose insert was answered so; None: ask again later."""
    how = _REFUSALS.get(trouble.kind)
    if how is None:
        return None
    words = f"{trouble.code}: {trouble.message}"
    if trouble.kind is TroubleKind.UNSUPPORTED:
        words = f"{NOT_HERE} ({words})"
    if trouble.kind is TroubleKind.TAKEN:
        words = not_ours(claim)
    if how == "quota":
        where = EVERYWHERE if trouble.kind is TroubleKind.QUOTA_EVERYWHERE else f"in {trouble.region or claim.zone}"
        limit = "" if trouble.limit is None else f", limit {trouble.limit:g}"
        words = f"{trouble.metric or 'quota'} {where}{limit} ({words})"
    return SeenEnd(how=how, at_s=now_s, detail=words[:MOST_WORDS], durable_step=durable_step)


def not_ours(claim: Claim) -> str:
    """Of a VM that has the name: what a person is told."""
    return f"a VM {claim.vm} is in {claim.zone} without the run's labels: look whose it is; resume takes the next name"
