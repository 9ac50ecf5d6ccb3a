"""How long a run still takes and costs, by the steps that it made: what replaces the plan's estimate. Pure."""

from collections.abc import Sequence
from datetime import datetime

from job.views.attempts import AttemptView, View
from job.views.progress import seconds

MEASURED_STEPS = 10
"""Fewer tell too little: the first compiles and fills caches."""
TRAIN = "train"


class Forecast(View):
    """From what was measured, without further preemptions."""

    step_s: float
    measured_steps: int
    left_steps: int
    left_s: float
    usd_more: float | None
    """None where no price is known."""
    usd_in_all: float | None


def forecast(
    attempts: Sequence[AttemptView],
    durable_step: int | None,
    max_steps: int | None,
    machines_usd: float | None,
) -> Forecast | None:
    """By the attempts on machines like the newest; None before MEASURED_STEPS, and where the end is not known."""
    if not attempts or max_steps is None or durable_step is None or durable_step >= max_steps:
        return None
    newest = attempts[-1]
    trained_s, made = 0.0, 0
    for position, attempt in enumerate(attempts):
        if (attempt.kind, attempt.machine_type) != (newest.kind, newest.machine_type) or attempt.from_step is None:
            continue
        last = attempt.last_step if position < len(attempts) - 1 or attempt.ended else durable_step
        following = attempts[position + 1] if position < len(attempts) - 1 else None
        made += max(0, (last or 0) - attempt.from_step) + (0 if following is None else following.lost_steps)
        trained_s += attempt.phases_s.get(TRAIN, 0.0)
    if made < MEASURED_STEPS or trained_s <= 0:
        return None
    return project(trained_s / made, made, max_steps - durable_step, newest.usd_per_hour, machines_usd)


def project(
    step_s: float, measured_steps: int, left_steps: int, usd_per_hour: float | None, spent_usd: float | None
) -> Forecast:
    """The rest at that pace."""
    left_s = left_steps * step_s
    more = None if usd_per_hour is None else usd_per_hour * left_s / 3600
    return Forecast(
        step_s=step_s,
        measured_steps=measured_steps,
        left_steps=left_steps,
        left_s=left_s,
        usd_more=more,
        usd_in_all=None if more is None or spent_usd is None else spent_usd + more,
    )


def forecast_line(found: Forecast, now_s: float) -> str:
    """For people: `measured over 57 steps: 2.3 s each; 38 min more...`."""
    more = "" if found.usd_more is None else f", ${found.usd_more:.2f} more"
    in_all = "" if found.usd_in_all is None else f", ${found.usd_in_all:.2f} in all"
    done = datetime.fromtimestamp(now_s + found.left_s).astimezone()
    return (
        f"measured over {found.measured_steps} steps: {found.step_s:.2g} s each; {seconds(found.left_s)} of steps"
        f"{more}{in_all} without preemptions, done at {done:%Y-%m-%d %H:%M}"
    )
