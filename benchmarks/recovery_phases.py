"""A recovery's seconds by phase, from what was seen of it; pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TRAINED_ON = "trained on through the notice"
HANDING_OVER = "handing over: save, release, power off"
DETECTION = "detection"
CLAIM = "claim: end recorded, next VM asked for"
BOOT = "cloud boot (scaled)"
SCRIPT = "startup script"
PULL = "image pull"
START = "container and agent start"
LOOK = "look and restore"
IMPORT = "imports"
CHECK = "check, take the run over"
MODEL = "model load"
FIRST = "first step, as long as any"
LONGER = "first step, longer than others"
OURS = (HANDING_OVER, CLAIM, SCRIPT, START, LOOK, CHECK, LONGER)
"""All but what the cloud takes, detection, image, imports, model, and the training itself."""
TRAINING = ("train", "evaluation", "flush", "result")
"""Of an attempt's phases those after its way to the first step."""


@dataclass(frozen=True)
class Marks:
    """One preemption and the recovery from it; times in seconds since the epoch, all by one machine's clock."""

    notice: int
    """120, 30 or 0."""
    began_s: float
    """Notice, power button, or power cut."""
    stopped_s: float
    """Nothing is trained from then on."""
    over_s: float
    """The cloud shows that the VM ends, or its last word is in the bucket."""
    ended_s: float
    """Its end is recorded in claims.json."""
    asked_s: float
    """The next VM is being created."""
    booted: Mapping[str, float]
    """Phases of the next VM's boot: when they began."""
    started_s: float
    """The next attempt began."""
    phases: Mapping[str, float]
    """Its seconds by phase."""
    stepped_s: float
    """It has made its first step."""
    step_s: float
    """A usual step of this run."""
    made: int
    """The last step that was made."""
    resumed: int
    """The step that the next attempt went on from."""

    @property
    def lost_steps(self) -> int:
        """Steps that are made again."""
        return self.made - self.resumed

    @property
    def detection_s(self) -> float:
        """From the end that can be seen to the end that is recorded."""
        return self.ended_s - self.over_s


def seconds(m: Marks) -> dict[str, float]:
    """By phase, in their order; together they are the time from the preemption to the first new step."""
    before = {name: spent_s for name, spent_s in m.phases.items() if name not in TRAINING}
    train_s = m.started_s + sum(before.values())
    first_s = m.stepped_s - train_s
    return {
        TRAINED_ON: m.stopped_s - m.began_s,
        HANDING_OVER: m.over_s - m.stopped_s,
        DETECTION: m.detection_s,
        CLAIM: m.asked_s - m.ended_s,
        BOOT: m.booted["boot"] - m.asked_s,
        SCRIPT: m.booted["pull"] - m.booted["boot"],
        PULL: m.booted["container"] - m.booted["pull"],
        START: m.started_s - m.booted["container"],
        LOOK: before.get("look", 0.0) + before.get("restore", 0.0),
        IMPORT: before.get("import", 0.0),
        CHECK: before.get("check", 0.0),
        MODEL: before.get("model", 0.0),
        FIRST: min(first_s, m.step_s),
        LONGER: max(0.0, first_s - m.step_s),
    }


def own_share_s(m: Marks) -> float:
    """What is ours of a recovery."""
    spent = seconds(m)
    return sum(spent[phase] for phase in OURS)


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank: a value that was seen, the largest where there are few."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def polled(over_s: Sequence[float], every_s: float, offsets: int = 60) -> list[float]:
    """How long after each of these moments a loop first looks that looks every so often; for evenly spread beginnings
    of such a loop."""
    begins = [every_s * number / offsets for number in range(offsets)]
    return [(begin - moment) % every_s for moment in over_s for begin in begins]
