"""Proves that a run that is killed anywhere ends with the weights and the log of one that nobody touched, bit for bit.

Real processes, killed from outside: at places that the process tells of, and at random moments (the seed is printed).
"""

import signal

import pytest
from attempts import Run, logged, random_moments, weights_sha256

PLACES = [
    "model_loading",
    "generation",
    "scoring",
    "mid_accumulation",
    "staging",
    "upload",
    "head_write",
    "evaluation",
    "result_files",
    "finishing",
]


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_at_a_place_gives_75_and_the_run_ends_with_the_same_weights(
    run: Run, reference: str, place: str
) -> None:
    assert run.kill_at(place, signal.SIGTERM) == 75
    assert run.finish() == reference
    head = run.head()
    assert head is not None
    assert (head["status"], head["checkpoint"]["step"]) == ("finished", 6)


@pytest.mark.parametrize("place", ["scoring", "staging", "upload", "head_write", "finishing"])
def test_sigkill_at_a_place_loses_no_weights(run: Run, reference: str, place: str) -> None:
    assert run.kill_at(place, signal.SIGKILL) == -signal.SIGKILL
    assert run.finish() == reference


@pytest.mark.parametrize(
    "place",
    [
        "mid_accumulation",
        *(
            pytest.param(place, marks=pytest.mark.long)
            for place in ("generation", "scored", "evaluation", "adapter_files", "result_files", "half_result")
        ),
    ],
)
def test_a_machine_that_is_gone_at_a_place_loses_no_weights_and_no_rows(run: Run, untouched: Run, place: str) -> None:
    attempt = run.start_at(place)
    attempt.kill_group(signal.SIGKILL)
    assert attempt.wait() == -signal.SIGKILL
    assert run.finish() == weights_sha256(untouched)
    assert logged(run) == logged(untouched)


def test_sigterm_while_restoring_gives_75_and_changes_nothing(run: Run, reference: str) -> None:
    assert run.kill_at("mid_accumulation", signal.SIGTERM) == 75
    before = run.head()
    assert run.kill_at("restore", signal.SIGTERM) == 75
    assert run.head() == before
    assert run.finish() == reference


def test_random_sigkills_and_sigterms_until_it_is_finished(run: Run, untouched: Run) -> None:
    moments = random_moments()
    codes = []
    while run.head() is None or run.json("head.json")["status"] != "finished":
        attempt = run.start()
        run.wait_for_step(run.durable_step() + moments.randrange(0, 3), attempt)
        for _ in range(moments.randrange(200_000)):
            pass
        if attempt.lives() and len(codes) < 6:
            attempt.kill(moments.choice([signal.SIGTERM, signal.SIGKILL]))
        codes.append(attempt.wait())
        assert codes[-1] in (0, 75, -signal.SIGKILL), attempt.err
    assert codes[-1] == 0
    assert weights_sha256(run) == weights_sha256(untouched)
    assert logged(run) == logged(untouched)
