"""Every benchmark runs and reports in one form; how a window becomes a cost, and a claim. No time is ever judged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.checkpoint_stall import Case, Measured, Round, claims_of, rounds_of
from benchmarks.measure import mean_of, ratio_of_sums
from benchmarks.pipeline import Durable, Upload

ROOT = Path(__file__).resolve().parent.parent
SOME_SECONDS = ["cli", "checkpoint_stall", "notice", "transfer"]
LONGER = ["train_step", "restore"]  # two trainers, or three cold starts


@pytest.mark.parametrize("name", [*SOME_SECONDS, *(pytest.param(name, marks=pytest.mark.long) for name in LONGER)])
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
    runnable = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert runnable == {*SOME_SECONDS, *LONGER}


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
