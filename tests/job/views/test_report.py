"""The report says what the run's records say, of a run that has not begun as of one of 100,000 steps and 300 attempts,
and nothing that a model, a task or a machine wrote is anything but text in it."""

import json
import re
from html import unescape

import plotly.graph_objects
import pytest
from plotly.offline import get_plotlyjs
from report_runs import begin, interrupted_run, metric, record, rows, sample, save

from job.errors import UsageError
from job.run.claims import update_claims
from job.run.head import Owner
from job.run.segments import Row
from job.storage import Bucket
from job.views.report import json_in_html, policy, render, report_page
from job.views.report_charts import Figure
from job.views.report_data import join_samples, read_report, spread_out
from job.views.report_series import MOST_POINTS, make_series, smooth
from job.views.report_words import headline, tiles

MOST_BYTES = 6_000_000
HOSTILE = "<script>alert(1)</script>\x1b[31m\x07[/INST]\"'><img src=x>\u202e{{7*7}}"


def said(page: str) -> str:
    """The page's text, without scripts, styles and markup."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", bare)).split())


def drawn(page: str) -> dict[str, Figure]:
    """The figures that the page holds; valid ones for plotly."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    shown: dict[str, Figure] = json.loads(found[1])
    for figure in shown.values():
        # Colours are names until the page resolves them; all else plotly itself checks.
        plotly.graph_objects.Figure(json.loads(re.sub(r"var\(--[a-z0-9-]+\)", "red", json.dumps(figure))))
    return shown


def test_it_says_how_it_ended_what_the_reward_did_and_what_was_lost(bucket: Bucket) -> None:
    interrupted_run(bucket)
    report = read_report(bucket)
    assert headline(report) == "Finished after step 100: reward 0.42 → 0.98. It was interrupted twice."
    shown = {tile["title"]: (tile["value"], tile["note"]) for tile in tiles(report)}
    assert shown["Reward"] == ("0.42 → 0.98", "mean of the first and of the last 10 steps")
    assert shown["Durable steps"] == ("100", "of 100 wanted")
    assert shown["Interruptions"] == ("2", "1 preempted, 1 killed or lost; 3 attempts")
    assert shown["Steps lost"] == ("6", "or more: who is killed cannot tell of the last")
    assert shown["Time"] == ("2 min", "78% of it training")
    assert shown["Cost"][0] == "not known"
    text = said(render(report))
    assert "killed or lost 0 → 40 6 or more 35.0" in text, "what was lost stands with the attempt that lost it"
    assert "preempted: stopped on SIGTERM" in text
    assert f"baton status {bucket.uri} --verify" in text
    assert report.lineage.checkpoint is not None
    assert f"sha256 {report.lineage.checkpoint.manifest_sha256}" in text


def test_a_rule_stands_at_each_interruption_and_a_strip_over_the_steps_that_were_lost(bucket: Bucket) -> None:
    interrupted_run(bucket)
    layout = drawn(report_page(bucket))["reward"]["layout"]
    rules = [shape["x0"] for shape in layout["shapes"] if shape["type"] == "line"]
    strips = [(shape["x0"], shape["x1"]) for shape in layout["shapes"] if shape["type"] == "rect"]
    assert (rules, strips) == ([40, 70], [(40, 46)])
    assert [label["text"] for label in layout["annotations"]] == ["attempt 1 lost", "attempt 2 preempted"]


def test_the_timeline_puts_every_phase_of_every_attempt_on_one_axis(bucket: Bucket) -> None:
    interrupted_run(bucket)
    traces = drawn(report_page(bucket))["timeline"]["data"]
    bars = {trace["name"]: trace for trace in traces if trace["type"] == "bar"}
    assert list(bars) == ["train", "import", "check", "model", "look"]
    assert bars["train"]["y"] == [1, 2, 3]
    assert bars["train"]["base"] == pytest.approx([5.0, 45.0, 85.0])
    assert bars["train"]["x"] == pytest.approx([30.0] * 3)
    ends = next(trace for trace in traces if trace["type"] == "scatter")
    assert [how.strip() for how in ends["text"]] == ["lost", "preempted", "finished"]


def test_a_run_without_a_durable_step_has_a_page_too(bucket: Bucket) -> None:
    begin(bucket, 1)
    page = report_page(bucket)
    assert "No step is durable yet." in said(page)
    assert "No attempt has begun yet." in said(page)
    assert 'id="figures"' not in page
    record(bucket, 1)
    Owner.take_over(bucket, 1)
    rows(bucket, 1, "metrics", [metric(1)])
    assert list(drawn(report_page(bucket))) == ["timeline"], "rows above the durable step may yet be computed again"


def test_a_run_of_one_step_shows_a_point_and_no_rise(bucket: Bucket) -> None:
    begin(bucket, 1)
    save(bucket, Owner.take_over(bucket, 1), 1)
    record(bucket, 1)
    rows(bucket, 1, "metrics", [metric(1)])
    report = read_report(bucket)
    assert headline(report) == "At step 1 of 100: reward 0.32."
    curve = drawn(render(report))["reward"]["data"][-1]
    assert (curve["mode"], curve["x"], curve["y"]) == ("lines+markers", [1], [pytest.approx(1 - 0.7**1.1, abs=1e-6)])


def test_the_cost_is_told_where_somebody_said_what_the_machine_costs(bucket: Bucket) -> None:
    begin(bucket, 2, usd_per_hour=7.2)
    record(bucket, 1, exit_code=75)
    record(bucket, 2, exit_code=0)
    report = read_report(bucket)
    assert report.verdict.cost_usd == pytest.approx(7.2 * 2 * 35 / 3600)
    assert {tile["title"]: tile["value"] for tile in tiles(report)}["Cost"] == "about $0.14"


def test_where_there_is_no_run_it_says_so(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="there is no run at"):
        report_page(bucket)


def test_100_000_steps_and_300_attempts_make_a_page_of_less_than_6_mb(bucket: Bucket) -> None:
    begin(bucket, 300, max_steps=100_000)
    owner = Owner.take_over(bucket, 300)
    ref = save(bucket, owner, 100_000)
    for number in range(1, 301):
        at = ref.model_copy(update={"step": 333 * (number - 1)})
        record(bucket, number, exit_code=75 if number % 2 else None, step=333 * number, resumed=at, reason="x" * 500)
    rows(bucket, 300, "metrics", [metric(step, kl=0.1) for step in range(1, 100_001)])
    many = [sample(step, "p" * 4000, "c" * 4000) for step in range(1, 100_001, 2000)]
    rows(bucket, 300, "samples", many)
    page = report_page(bucket)
    assert len(page.encode()) < MOST_BYTES
    shown = drawn(page)
    assert all(len(trace["x"]) <= MOST_POINTS for name in ("reward", "metric-0") for trace in shown[name]["data"])
    assert shown["reward"]["layout"]["annotations"] == [], "300 numbers would cover each other"
    assert {trace["type"] for trace in shown["timeline"]["data"]} == {"bar"}
    assert shown["timeline"]["layout"]["barmode"] == "stack", "300 rows would be a staircase of specks"
    assert len(shown["reward"]["layout"]["shapes"]) == 299, "the newest is not over"
    assert said(page).count("x" * 100) == 150


def test_older_attempts_than_the_newest_300_are_counted_and_left_out(bucket: Bucket) -> None:
    begin(bucket, 302)
    for number in range(1, 303):
        record(bucket, number)
    text = said(report_page(bucket))
    assert "2 older attempts are left out" in text


def test_text_of_the_run_is_text_wherever_it_stands(bucket: Bucket) -> None:
    begin(bucket, 2)
    save(bucket, Owner.take_over(bucket, 1), 5)
    ref = save(bucket, Owner.take_over(bucket, 2), 7)
    hostile = {"host": HOSTILE, "phases": {HOSTILE: 3.0, "train": 2.0}, "machine": {"cpu": HOSTILE}}
    record(bucket, 1, exit_code=3, reason=HOSTILE, step=5, **hostile)
    record(bucket, 2, resumed=ref, **hostile)
    rows(bucket, 2, "metrics", [metric(step, **{f"reward/{HOSTILE}": 0.5}) for step in (6, 7)])
    rows(bucket, 2, "samples", [sample(7, HOSTILE, f"{HOSTILE}\n\nsecond line")])
    update_claims(bucket, lambda before: before.model_copy(update={"want": "stop", "reason": HOSTILE}))
    page = report_page(bucket)
    plotly = get_plotlyjs()
    for trouble in ("<script>alert", "<img", "\x1b", "\x07", "\u202e"):
        assert trouble not in page.replace(plotly, ""), trouble
    assert re.findall(r"<script[^>]*>", page.replace(plotly, "")) == [
        '<script type="application/json" id="figures">',
        "<script>",
        "<script>",
    ]
    inert = HOSTILE.replace("\x1b", "\ufffd").replace("\x07", "\ufffd").replace("\u202e", "\ufffd")
    shown = unescape(page.replace(plotly, ""))
    # Its reason, how and where an attempt was, the part of the reward, the prompt, the completion.
    assert shown.count(inert) >= 5
    assert f"{inert}\n\nsecond line</pre>" in shown
    for figure in drawn(page).values():
        assert "<img" not in json.dumps(figure), "plotly reads a little HTML"


def test_right_to_left_text_emoji_and_long_names_come_through(bucket: Bucket) -> None:
    begin(bucket, 1)
    save(bucket, Owner.take_over(bucket, 1), 1)
    record(bucket, 1, host="h" * 10_000)
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f466"
    rows(bucket, 1, "metrics", [metric(1, **{f"reward/{'n' * 5000}": 1.0})])
    rows(bucket, 1, "samples", [sample(1, "مرحبا بالعالم", f"שלום {family}")])
    page = report_page(bucket)
    assert '<pre dir="auto">مرحبا بالعالم</pre>' in page
    assert f"שלום {family}" in page
    assert "h" * 81 not in page
    assert "n" * 61 not in page


def test_samples_of_the_newest_attempt_count_and_broken_rows_do_not() -> None:
    told = [
        Row(1, sample(3, "p", "old")),
        Row(2, sample(3, "p", "new")),
        Row(2, {"step": 4, "samples": "no list"}),
        Row(2, {"samples": []}),
        Row(2, sample(9, "p", "above the durable step")),
    ]
    found = join_samples(told, durable_step=8)
    assert [(step.step, step.attempt, step.samples[0].completion) for step in found] == [(3, 2, "new")]


def test_of_many_sampled_steps_the_first_the_last_and_some_between_are_shown() -> None:
    steps = join_samples((Row(1, sample(step, "p", "c")) for step in range(1, 51)), 50)
    shown = [step.step for step in spread_out(steps)]
    assert (len(shown), shown[0], shown[-1]) == (12, 1, 50)
    assert shown == sorted(set(shown))


def test_a_bucket_of_steps_keeps_mean_least_and_most() -> None:
    series = make_series("reward", [{"step": i, "reward": float(i % 10)} for i in range(1, 10_001)])
    assert series is not None
    assert (len(series.steps), series.steps[-1], series.rows) == (MOST_POINTS, 10_000, 10_000)
    assert series.low is not None
    assert series.high is not None
    assert (series.mean[0], series.low[0], series.high[0]) == (pytest.approx(4.5), 0.0, 9.0)


def test_numbers_that_are_none_are_left_out_and_huge_ones_kept() -> None:
    values = [None, float("nan"), float("inf"), True, "1", 10**400, 1e308, 1e308, -1.0]
    series = make_series("x", [{"step": i, "x": value} for i, value in enumerate(values)])
    assert series is not None
    assert series.mean == (1e308, 1e308, -1.0)
    assert make_series("y", [{"step": 1}]) is None


def test_the_trend_of_a_constant_is_that_constant() -> None:
    assert smooth([2.0] * 7) == pytest.approx([2.0] * 7)
    assert smooth([0.0, 3.0]) == pytest.approx([1.5, 1.5])


def test_json_in_the_page_ends_no_script() -> None:
    written = json_in_html({"a": "</script><!--&"})
    assert not re.search(r"[<>&]", written)
    assert json.loads(written) == {"a": "</script><!--&"}


def test_the_policy_allows_nothing_but_the_pages_own_scripts_and_styles() -> None:
    told = dict(part.strip().split(" ", 1) for part in policy("a{}", "one", "two").split(";"))
    assert told["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-\S+' 'sha256-\S+'", told["script-src"])
    assert "unsafe" not in told["script-src"] + told["style-src-elem"]
