"""Every benchmark runs and reports in one form; how a window becomes a cost, and a claim. No time is ever judged."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.checkpoint_stall import Case, Measured, Round, claims_of, rounds_of
from benchmarks.measure import mean_of, ratio_of_sums
from benchmarks.pipeline import Durable, Upload
from benchmarks.plan import Sky, Weather, a_day, run, staying
from benchmarks.recovery import claims_of as recovery_claims
from benchmarks.recovery_phases import Marks, own_share_s, percentile, polled, seconds
from infra.expected import START_S

ROOT = Path(__file__).resolve().parent.parent
SOME_SECONDS = ["cli", "checkpoint_stall", "notice", "plan", "transfer"]
LONGER = ["train_step", "restore", "recovery", "watchdog"]  # two trainers, some cold starts, a minute of looks


IN_CONTAINERS = ["image"]


@pytest.mark.parametrize(
    "name",
    [
        *SOME_SECONDS,
        *(pytest.param(name, marks=pytest.mark.long) for name in LONGER),
        *(pytest.param(name, marks=pytest.mark.image) for name in IN_CONTAINERS),
    ],
)
def test_a_smoke_run_prints_tables_and_writes_claims_without_judging_them(name: str, tmp_path: Path) -> None:
    file = tmp_path / "claims.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(file)],
        cwd=ROOT,
        env=os.environ | {"BATON_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    claims = json.loads(file.read_text())
    assert claims, "no claim was told"
    for claim in claims:
        assert set(claim) == {"claim", "value", "unit", "goal", "holds"}
        assert isinstance(claim["value"], float | int)
        assert claim["holds"] is None, "a smoke run judged a claim"
        assert claim["unit"] in done.stdout
    assert "commit" in done.stdout


def test_every_benchmark_has_a_smoke_run_here() -> None:
    runnable = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "options(__doc__" in path.read_text()}
    assert runnable == {*SOME_SECONDS, *LONGER, *IN_CONTAINERS}


def test_a_days_capacity_goes_up_and_down_and_a_run_pays_for_what_it_lived() -> None:
    weather = Weather(availability=0.5, gap_h=0.25, up=(0.0, 1.0), down=(0.0, 1.0))
    skies = [Sky(weather, random.Random(seed)) for seed in range(200)]
    assert 60 < sum(sky.until_h(0.0)[0] for sky in skies) < 140
    for sky in skies[:20]:
        up, until_h = sky.until_h(0.0)
        assert sky.until_h(until_h - 1e-6) == (up, until_h)
        assert sky.until_h(until_h)[0] is not up
    ever = Sky(Weather(availability=1.0, gap_h=1e6, up=(0.0, 1.0), down=(0.0, 1.0)), random.Random(0))
    days = [a_day(seed, [weather]) for seed in range(5)]
    for day in days:
        offer = day.offers[0]
        calm = replace(day, skies={zone: ever for zone in day.skies})
        whole_usd = (day.work.hours + START_S / 3600) * offer.usd_per_hour
        assert run(calm, lambda left, known, offer=offer: [offer], {}) >= whole_usd
        if offer.usd_per_gib == 0:
            assert run(calm, lambda left, known, offer=offer: [offer], {}) == pytest.approx(whole_usd)
        costs = staying(day, {})
        assert costs.best <= min(costs.ranking, costs.cheapest_hour)


def window(kind: str, begin_s: float, end_s: float, held_s: float = 0.0) -> dict[str, Any]:
    return {"kind": kind, "begin_s": begin_s, "end_s": end_s, "held_s": held_s, "waited_s": 0.0}


def test_a_window_beside_an_upload_is_part_of_the_cost_of_its_round() -> None:
    windows = [
        window("none", 0.0, 2.0),
        window("ours", 2.0, 4.3, held_s=0.1),  # 0.3 more than the others
        window("none", 4.3, 6.3),
        window("none", 6.3, 8.4),  # the addition is uploaded: 0.1 more
        window("none", 8.4, 10.4),
        window("stock", 10.4, 13.4, held_s=0.9),
        window("none", 13.4, 15.4),
    ]
    uploads = [Upload(2.1, 2.5, 2, 0, 4.0), Upload(6.5, 6.6, 2, 1, 0.0)]
    (ours,) = rounds_of("ours", windows, uploads)
    assert ours.held_s == 0.1
    assert ours.idle_s == pytest.approx(2.0)
    assert ours.lost_s == pytest.approx(0.4)
    assert ours.uploads_s == pytest.approx(4.5)
    (stock,) = rounds_of("stock", windows, uploads)
    assert stock.held_s == 0.9
    assert stock.lost_s == pytest.approx(1.0)


def test_work_in_the_background_comes_back_after_its_pause_and_the_hold_at_every_step() -> None:
    often = Round(held_s=0.1, lost_s=0.4, idle_s=2.0, uploads_s=4.5)
    seldom = Round(held_s=0.1, lost_s=0.4, idle_s=2.0, uploads_s=30.0)
    assert often.share == pytest.approx(0.01 + 0.03)
    assert seldom.share == pytest.approx(0.01 + 0.01)


def test_a_goal_that_is_missed_does_not_hold() -> None:
    windows = [window("none", 0.0, 2.0), window("ours", 2.0, 4.3, held_s=0.02), window("none", 4.3, 6.3)]
    windows += [window("stock", 6.3, 8.5, held_s=0.2), window("none", 8.5, 10.5)]
    case = Case("loop", 2, 1)
    measured = Measured(case, rounds_of("ours", windows, []), rounds_of("stock", windows, []), [])
    verdicts = {claim.claim.split(": ")[1]: claim.holds for claim in claims_of([measured])}
    assert verdicts == {
        "loop held per step": True,  # 0.02 s of 10 s: 0.2 %
        "slow-down of the loop": False,  # 0.3 s of 10 s: 3 %
        "held less than by stock": True,  # 10 times
    }


def test_a_ratio_of_equal_pairs_has_no_width_and_drift_does_not_move_it() -> None:
    drifting = [(1.02 * s, s) for s in (1.0, 1.1, 1.3, 0.9)]
    interval = ratio_of_sums(drifting)
    assert [interval.value, interval.low, interval.high] == pytest.approx([1.02] * 3)


def test_an_interval_holds_its_estimate() -> None:
    interval = mean_of([1.0, 2.0, 3.0, 10.0])
    assert interval.low < interval.value == 4.0 < interval.high


def test_a_round_is_over_when_all_is_durable_and_the_pause_is_past() -> None:
    durable = Durable()
    durable.tell(3, 0, next_s=0.0)
    assert durable.covers(3, 0)
    assert not durable.covers(3, 1)
    durable.tell(3, 1, next_s=float("inf"))
    assert not durable.covers(3, 1)


BOOT_S, IMPORT_S, MODEL_S, STEP_S = 3.0, 6.0, 2.0, 2.5


def recovered(notice: int, *, made: int = 10, first_s: float = STEP_S, handing_over_s: float = 0.0) -> Marks:
    """A recovery of which half a second each is detection, claim, script, start, look, restore and check."""
    over_s = 1000.0 + handing_over_s
    asked_s = over_s + 1.0
    started_s = asked_s + BOOT_S + 1.0
    phases = {"look": 0.5, "restore": 0.5, "import": IMPORT_S, "check": 0.5, "model": MODEL_S, "train": 99.0}
    trains_s = started_s + 1.5 + IMPORT_S + MODEL_S
    booted = {"boot": asked_s + BOOT_S, "pull": asked_s + BOOT_S + 0.5, "container": asked_s + BOOT_S + 0.5}
    return Marks(
        notice=notice,
        began_s=900.0,
        stopped_s=1000.0,
        over_s=over_s,
        ended_s=over_s + 0.5,
        asked_s=asked_s,
        booted=booted,
        started_s=started_s,
        phases=phases,
        stepped_s=trains_s + first_s,
        step_s=STEP_S,
        made=made,
        resumed=10,
    )


def test_the_phases_of_a_recovery_are_all_of_its_time_and_ours_are_what_nobody_else_takes() -> None:
    plain = recovered(120)
    assert sum(seconds(plain).values()) == pytest.approx(plain.stepped_s - plain.began_s)
    assert own_share_s(plain) == pytest.approx(6 * 0.5)
    assert own_share_s(recovered(120, first_s=STEP_S + 1.0, handing_over_s=2.0)) == pytest.approx(3.0 + 1.0 + 2.0)
    quick = recovered(120, first_s=1.0)  # its batch had been scored before
    assert own_share_s(quick) == pytest.approx(3.0)
    assert sum(seconds(quick).values()) == pytest.approx(quick.stepped_s - quick.began_s)


def test_a_slow_recovery_or_a_step_lost_in_spite_of_a_notice_does_not_hold() -> None:
    def verdicts(detection_s: float, *measured: Marks) -> list[bool | None]:
        return [claim.holds for claim in recovery_claims(measured, [(1000.0, detection_s)] * 100, 20)]

    good = recovered(120), recovered(30), recovered(0, made=11)
    assert verdicts(0.5, *good) == [True, None, True, True, True, True]
    assert verdicts(5.1, *good)[0] is False
    assert verdicts(0.5, recovered(120, handing_over_s=2.1))[2] is False
    assert verdicts(0.5, recovered(30, made=11))[3] is False
    assert verdicts(0.5, recovered(0, made=12))[4] is False


def test_a_loop_that_looks_every_15_s_is_late_by_half_of_it_and_at_most_by_all_of_it() -> None:
    late_s = polled([1000.0, 1003.3], 15.0)
    assert all(0 <= value < 15 for value in late_s)
    assert sum(late_s) / len(late_s) == pytest.approx(7.5, abs=0.3)
    assert [percentile([3.0, 1.0, 2.0], percent) for percent in (0, 50, 99, 100)] == [1.0, 2.0, 3.0, 3.0]
