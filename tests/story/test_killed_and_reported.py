"""Proves that a run that was killed leaves a report of it, the same sampled completions as one that nobody touched, and
nothing that `baton status --verify` has to say against.
"""

import signal

import pytest
from attempts import Run

from job.run.segments import read_rows
from job.storage import open_bucket
from job.views.report_data import SampledStep, join_samples
from job.views.verify import verify


def sampled(run: Run) -> list[SampledStep]:
    """What was recorded, whoever recorded it."""
    steps = join_samples(read_rows(open_bucket(run.uri), "samples"), durable_step=6)
    return [step.model_copy(update={"attempt": 0}) for step in steps]


@pytest.mark.parametrize("place", ["scored", "mid_accumulation"])
def test_a_killed_run_reports_it_and_sampled_what_an_untouched_one_did(run: Run, untouched: Run, place: str) -> None:
    assert run.kill_at(place, signal.SIGKILL) == -signal.SIGKILL
    run.finish()
    page = (run.bucket / "result/report.html").read_text()
    assert "Finished after step 6: reward " in page
    assert "It was interrupted once." in page
    assert sampled(run) == sampled(untouched) != []
    checks = verify(open_bucket(run.uri)).checks
    assert [check.bad for check in checks if check.bad] == []
    assert {"result", "checkpoints"} <= {check.name.split("/")[0] for check in checks}


def test_a_run_in_cloud_storage_is_reported_and_verified_from_there(cloud_run: Run) -> None:
    cloud_run.finish()
    bucket = open_bucket(cloud_run.uri)
    assert "Finished after step 6: reward " in bucket.read("result/report.html")[0].decode()
    assert [check.bad for check in verify(bucket).checks if check.bad] == []
    bucket.write("result/metrics.jsonl", b"{}\n")
    assert [check.name for check in verify(bucket).checks if check.bad] == ["result"]
