"""What the report says in words and tables, made from its data; pure. All of it is text: the page escapes it."""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from job.run.layout import parse_checkpoint_folder
from job.settings.keys import flatten
from job.views.attempts import AttemptView, ending_words, where_words
from job.views.boots import has_run
from job.views.progress import number_text, seconds
from job.views.report_charts import OTHER, PHASES, UNTOLD, begun_attempts, phase_class
from job.views.report_data import Report, cost_usd, end_s, ending
from job.views.report_series import Series
from job.views.text import printable, printable_lines

LONGEST = 200
"""Characters of a name or reason."""
LONGEST_TEXT = 4000
MOST_PHASE_COLUMNS = 12
MOST_FACTS = 200
TONES = {"finished": "good", "running": "busy", "finishing": "busy", "starting": "busy", "failed": "bad"}
ENDING_TONES = {"finished": "good", "at work": "busy", "preempted": "warn", "lost": "bad", "failed": "bad"}
TITLES = {
    "reward/none_share": "share without a verdict",
    "frac_reward_zero_std": "share of groups without signal",
    "loss": "loss",
    "kl": "KL from the start, nats per token",
    "entropy": "entropy",
    "completions/mean_length": "completion length, tokens",
    "completions/clipped_ratio": "share of completions cut off",
    "grad_norm": "norm of the gradients",
    "learning_rate": "learning rate",
    "step_time": "seconds per step",
}


def page_words(report: Report) -> dict[str, Any]:
    """Everything that the page's template asks for, but styles and scripts."""
    run, attempts = report.run, begun_attempts(report)
    uri = printable(run.uri, LONGEST)
    phases = list(dict.fromkeys(phase for attempt in attempts for phase in attempt.phases_s))[:MOST_PHASE_COLUMNS]
    return {
        "report": report,
        "run": run,
        "uri": uri,
        "name": printable(unquote(run.uri.rpartition("/")[2]), LONGEST) or uri,
        "tone": TONES.get(run.status, "warn"),
        "headline": headline(report),
        "tiles": tiles(report),
        "reward_words": reward_words(report.reward),
        "attempts": [
            _attempt(attempt, next(iter(attempts[i + 1 :]), None), phases, report.usd_per_hour)
            for i, attempt in reversed([*enumerate(attempts)])
        ],
        "left_out": sum(map(has_run, run.attempts)) - len(attempts),
        "costs": any(cost_usd(attempt, report.usd_per_hour) is not None for attempt in attempts),
        "phases": _phases(report),
        "table_phases": [printable(phase, 30) for phase in phases],
        "metrics": [{"title": title(series.name), "ends": ends(series)} for series in report.metrics],
        "samples": _samples(report),
        "command": printable(f"baton status {shlex.quote(run.uri)} --verify"),
        "facts": facts(report),
        "chain": chain(attempts),
        "recipe": [
            {"name": printable(key, 80), "value": printable(json.dumps(value, ensure_ascii=False), LONGEST)}
            for key, value in list(flatten(report.recipe).items())[:MOST_FACTS]
        ],
        "read_at": _utc(report.read_at_s),
    }


def headline(report: Report) -> str:
    """The verdict in one or two sentences."""
    run, verdict = report.run, report.verdict
    of = "" if run.max_steps is None or run.max_steps == verdict.steps else f" of {run.max_steps}"
    did = {"finished": "Finished after", "failed": "Failed after", "stopped": "Stopped after"}.get(run.status, "At")
    where = f"{did} step {verdict.steps}{of}" if verdict.steps else "No step is durable yet"
    reward = ""
    if (series := report.reward) is not None:
        moved = series.rows > 1
        reward = (
            f": reward {_reward(series.start)} → {_reward(series.end)}"
            if moved
            else (f": reward {_reward(series.end)}")
        )
    interrupted = verdict.preempted + verdict.lost + verdict.failed
    often = {1: "once", 2: "twice"}.get(interrupted, f"{interrupted} times")
    times = f" It was interrupted {often}." if interrupted else ""
    return f"{where}{reward}.{times}"


def tiles(report: Report) -> list[dict[str, str]]:
    """The numbers under the headline, each with what it means."""
    verdict, series = report.verdict, report.reward
    shown: list[dict[str, str]] = []

    def tile(name: str, value: str, note: str = "") -> None:
        shown.append({"title": name, "value": value, "note": note})

    if series is None:
        tile("Reward", "-", "no step is durable yet")
    elif series.rows == 1:
        tile("Reward", _reward(series.end), "one step")
    else:
        of = f"mean of the first and of the last {series.ends_rows} steps" if series.ends_rows > 1 else "first, last"
        tile("Reward", f"{_reward(series.start)} → {_reward(series.end)}", of)
    of_steps = "" if report.run.max_steps is None else f"of {report.run.max_steps} wanted"
    tile("Durable steps", f"{verdict.steps}", of_steps)
    kinds = (("preempted", verdict.preempted), ("killed or lost", verdict.lost), ("failed", verdict.failed))
    told = ", ".join(f"{count} {kind}" for kind, count in kinds if count)
    attempts = f"{verdict.attempts} attempt{'' if verdict.attempts == 1 else 's'}"
    tile("Interruptions", f"{sum(count for _, count in kinds)}", f"{told + '; ' if told else ''}{attempts}")
    or_more = "or more: who is killed cannot tell of the last" if verdict.maybe_more_lost else "made again"
    tile("Steps lost", f"{verdict.lost_steps}", or_more if verdict.lost_steps or verdict.maybe_more_lost else "")
    if verdict.wall_s is not None:
        share = verdict.phases_s.get("train", 0.0) / verdict.wall_s if verdict.wall_s > 0 else 0.0
        tile("Time", seconds(verdict.wall_s), f"{min(share, 1.0):.0%} of it training")
    if verdict.cost_usd is None:
        tile("Cost", "not known", "nobody said what the machine costs")
    else:
        vms = any(attempt.kind == "vm" for attempt in report.run.attempts)
        of = "the VMs with their disks, by list prices" if vms else "the machine, while attempts had it"
        tile("Cost", f"about ${verdict.cost_usd:.2f}", of)
    return shown


def reward_words(series: Series | None) -> str:
    """What the reward's chart shows, for who cannot see it."""
    if series is None:
        return ""
    if series.rows == 1:
        return f"One step: {_reward(series.end)}."
    mean = "" if series.ends_rows == 1 else f" (means of {series.ends_rows} steps)"
    return f"From {_reward(series.start)} to {_reward(series.end)}{mean} over {series.rows} steps."


def title(name: str) -> str:
    """What a metric is called; a part of the reward by the name that its task gave it."""
    return TITLES.get(name) or printable(f"reward part: {name.removeprefix('reward/')}", 60)


def ends(series: Series) -> str:
    """`0.41 → 0.93`."""
    if series.rows == 1:
        return number_text(series.end)
    return f"{number_text(series.start)} → {number_text(series.end)}"


def facts(report: Report) -> list[dict[str, str]]:
    """What the result was made from and what it consists of, each with its hash where it has one."""
    lineage = report.lineage
    shown: list[dict[str, str]] = []

    def fact(name: str, value: str, sha256: str | None = None) -> None:
        hashed = "" if sha256 is None else printable(f"sha256 {sha256}", LONGEST)
        shown.append({"name": printable(name, LONGEST), "value": printable(value, LONGEST), "hash": hashed})

    if (ref := lineage.checkpoint) is not None:
        fact("newest checkpoint", f"{ref.folder} (manifest; {lineage.kept} kept)", ref.manifest_sha256)
    for name, file in sorted(lineage.result.items())[:MOST_FACTS]:
        fact(f"result/{name}", f"{file.size_bytes:,} bytes", file.sha256)
    if (model := lineage.model) is not None:
        fact("base model", model.name + (f" at {model.revision}" if model.revision else ""), model.sha256)
    for key, pinned in lineage.inputs.items():
        fact(key, f"{pinned.name} ({pinned.bytes:,} bytes)", pinned.sha256)
    if lineage.fingerprint is not None:
        fact("settings", f"revision {lineage.revision} (fingerprint)", lineage.fingerprint)
    if lineage.accepted:
        fact("accepted differences", ", ".join(lineage.accepted))
    if lineage.commit is not None:
        fact("code", f"commit {lineage.commit}")
    if lineage.created_at_s is not None:
        fact("started", f"{_utc(lineage.created_at_s)} UTC by {lineage.started_by}")
    return shown


def chain(attempts: Sequence[AttemptView]) -> list[dict[str, str]]:
    """For each attempt that resumed: from which checkpoint, whose, by which hash."""
    links = []
    for attempt in attempts:
        if (origin := attempt.resumed_from) is not None:
            parsed = parse_checkpoint_folder(origin.folder)
            links.append(
                {
                    "attempt": f"{attempt.number}",
                    "step": f"{origin.step}",
                    "by": "-" if parsed is None else f"attempt {parsed[1]}",
                    "hash": printable(origin.manifest_sha256 or "not recorded", LONGEST),
                }
            )
    return links


def _reward(value: float) -> str:
    """Two digits after the point where they say enough: its steps' spread is larger than the third."""
    return f"{value:.2f}" if value == 0 or 0.01 <= abs(value) < 1000 else number_text(value)


def _attempt(
    attempt: AttemptView, after: AttemptView | None, phases: Sequence[str], usd_per_hour: float | None
) -> dict[str, Any]:
    """A row of the table. `after`: the attempt that went on from it, which knows what was lost with it."""
    machine = ", ".join(value for what, value in attempt.machine.items() if value != "none")
    told = (attempt.phases_s.get(phase) for phase in phases)
    resumed = None if after is None else after.resumed_from
    more = resumed is not None and not resumed.orderly
    cost = cost_usd(attempt, usd_per_hour)
    return {
        "number": f"{attempt.number}" + (f".{attempt.incarnation}" if attempt.incarnation else ""),
        "tone": ENDING_TONES.get(ending(attempt), "warn"),
        "how": ending_words(attempt),
        "steps": "" if attempt.from_step is None else f"{attempt.from_step} → {_or_dash(attempt.last_step)}",
        "lost": "" if resumed is None else f"{resumed.lost_steps}{' or more' if more else ''}",
        "seconds": f"{end_s(attempt) - attempt.started_at_s:.1f}",
        "cost": "" if cost is None else f"${cost:.2f}" if cost >= 0.1 else f"${cost:.2g}",
        "phases": ["" if spent_s is None else f"{spent_s:.1f}" for spent_s in told],
        "began": _utc(attempt.started_at_s),
        "where": printable(where_words(attempt), 80),
        "machine": printable(machine, 80),
    }


def _phases(report: Report) -> list[dict[str, str]]:
    """The legend: phases of all attempts with their seconds, in the order in which the bars are drawn."""
    spent: dict[str, float] = {}
    for phase, spent_s in report.verdict.phases_s.items():
        spent[phase] = spent.get(phase, 0.0) + spent_s
    own = [phase for phase in PHASES if phase in spent]
    others = [phase for phase in spent if phase not in PHASES]
    shown = [(phase, phase_class(phase), spent[phase]) for phase in own]
    shown += [(phase, phase_class(OTHER), spent[phase]) for phase in others[:MOST_PHASE_COLUMNS]]
    untold_s = sum(end_s(a) - a.started_at_s - sum(a.phases_s.values()) for a in begun_attempts(report))
    if untold_s >= 1:
        shown.append((UNTOLD, phase_class(UNTOLD), untold_s))
    return [{"name": printable(name, 40), "class": place, "seconds": f"{total:.1f} s"} for name, place, total in shown]


def _samples(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "step": step.step,
            "attempt": step.attempt,
            "samples": [
                {
                    "prompt": _text(sample.prompt),
                    "completion": _text(sample.completion),
                    "reward": "none" if sample.reward is None else number_text(sample.reward),
                }
                for sample in step.samples
            ],
        }
        for step in report.samples
    ]


def _text(text: str) -> str:
    """Several lines, each harmless."""
    shown = "\n".join(printable_lines(text[: LONGEST_TEXT + 1]))
    return shown if len(text) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT]}…"


def _or_dash(step: int | None) -> str:
    return "-" if step is None else f"{step}"


def _utc(at_s: float) -> str:
    try:
        return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a clock that was far off
        return f"{at_s:g}"
