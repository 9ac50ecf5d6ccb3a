"""What is left of a run is told by its own steps, once there are ten, and by nothing else."""

import pytest

from job.views.attempts import AttemptView
from job.views.forecast import MEASURED_STEPS, forecast, forecast_line

NOW_S = 1_790_000_000.0


def attempt(
    number: int = 1, start: int = 0, last: int | None = None, train_s: float = 0.0, **more: object
) -> AttemptView:
    plain: dict[str, object] = {
        "number": number,
        "incarnation": 0,
        "kind": "vm",
        "host": "h",
        "started_at_s": NOW_S,
        "from_step": start,
        "lost_steps": 0,
        "last_step": last,
        "ended": False,
        "exit_code": None,
        "how": "",
        "phases_s": {"import": 20.0, "train": train_s},
        "machine_type": "g2-standard-4",
        "usd_per_hour": 0.36,
    }
    return AttemptView.model_validate(plain | more)


def test_nothing_is_told_before_ten_steps_without_an_end_or_after_it() -> None:
    nine = attempt(train_s=90.0)
    assert forecast([nine], MEASURED_STEPS - 1, 100, 0.1) is None
    assert forecast([nine], MEASURED_STEPS, None, 0.1) is None
    assert forecast([nine], None, 100, 0.1) is None
    assert forecast([nine], 100, 100, 0.1) is None
    assert forecast([], 10, 100, 0.1) is None
    assert forecast([attempt(train_s=0.0)], 50, 100, 0.1) is None


def test_the_rest_takes_what_steps_took_and_costs_what_the_vm_costs() -> None:
    found = forecast([attempt(last=22, train_s=40.0)], 20, 100, 0.10)
    assert found is not None
    assert (found.step_s, found.measured_steps, found.left_steps, found.left_s) == (2.0, 20, 80, 160.0)
    assert found.usd_more == pytest.approx(0.36 * 160 / 3600)
    assert found.usd_in_all == pytest.approx(0.10 + 0.36 * 160 / 3600)
    line = forecast_line(found, NOW_S)
    assert line.startswith("measured over 20 steps: 2 s each; 3 min of steps, $0.02 more, $0.12 in all")


def test_steps_made_again_were_made_and_another_machine_says_nothing_of_this_one() -> None:
    before = attempt(1, last=30, train_s=80.0, ended=True)
    now = attempt(2, start=30, train_s=20.0, lost_steps=10)
    found = forecast([before, now], 40, 100, None)
    assert found is not None
    assert (found.measured_steps, found.step_s) == (50, 2.0)
    assert found.usd_in_all is None
    faster = attempt(2, start=30, train_s=5.0, machine_type="a2-highgpu-1g")
    found = forecast([before, faster], 40, 100, None)
    assert found is not None
    assert (found.measured_steps, found.step_s) == (10, 0.5)


def test_a_process_has_a_time_and_no_price() -> None:
    found = forecast([attempt(train_s=40.0, kind="process", usd_per_hour=None)], 20, 100, None)
    assert found is not None
    assert (found.usd_more, found.usd_in_all) == (None, None)
    assert "$" not in forecast_line(found, NOW_S)
