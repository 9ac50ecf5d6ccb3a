"""Proves the arithmetic of how often checkpoints are written and how long training may go on after a notice."""

import pytest

from job.agent.cadence import BUSY_SHARE, STORAGE_SHARE, last_safe_moment_s, paid_pause_s, pause_s


def test_with_a_core_free_the_next_upload_need_not_wait() -> None:
    assert pause_s(5.0, cores=4, trainer_threads=2) == 0


@pytest.mark.parametrize("upload_cpu_s", [0.01, 0.1, 3.0])
def test_with_no_core_free_uploads_take_their_share_of_the_loop(upload_cpu_s: float) -> None:
    wait_s = pause_s(upload_cpu_s, cores=2, trainer_threads=2)
    assert upload_cpu_s / wait_s == pytest.approx(BUSY_SHARE)


def test_two_flushes_and_the_margin_fit_between_the_last_safe_moment_and_the_deadline() -> None:
    assert last_safe_moment_s(1000.0, flush_s=7.0, margin_s=5.0) == 1000 - 14 - 5


def test_storage_that_is_billed_takes_its_share_of_the_machines_price() -> None:
    upload_usd, machine_usd_per_hour = 0.0001, 0.5
    uploads_an_hour = 3600 / paid_pause_s(upload_usd, machine_usd_per_hour=machine_usd_per_hour)
    assert uploads_an_hour * upload_usd == pytest.approx(STORAGE_SHARE * machine_usd_per_hour)
    assert paid_pause_s(0.0, machine_usd_per_hour=machine_usd_per_hour) == 0
