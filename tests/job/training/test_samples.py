"""Completions that are recorded for people are the same whatever killed the run, and recording them changes nothing."""

import itertools
import json
from typing import Any

import pytest

from job.training.samples import AT_A_STEP, MOST_CHARACTERS, is_sampled, sample_row
from tests.job.training.exact_runs import recipe, train, uninterrupted

CASES = {
    "plain": recipe(),
    "two generations per step": recipe(gradient_accumulation_steps=2, steps_per_generation=1),
    "a batch for four steps": recipe(num_iterations=2, steps_per_generation=4, max_steps=10),
}


def sampled(rows: list[str]) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, rows) if "samples" in row]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kills", [(("scored", 2),), (("micro-step", 3), ("slot", 1), ("optimizer-step", 2))])
def test_a_run_that_was_killed_records_the_same_completions_once(case: str, kills: tuple[tuple[str, int], ...]) -> None:
    whole = train(CASES[case], sampled_steps=100)
    assert sampled(train(CASES[case], kills, sampled_steps=100).rows) == sampled(whole.rows) != []


def test_recording_changes_nothing_that_is_learnt() -> None:
    case = CASES["a batch for four steps"]
    plain, recorded = uninterrupted(case), train(case, sampled_steps=100)
    assert [row for row in recorded.rows if "samples" not in json.loads(row)] == plain.rows
    assert recorded.scored == plain.scored
    assert all((tensor == plain.tensors[name]).all() for name, tensor in recorded.tensors.items())


def test_what_is_recorded_is_what_was_scored() -> None:
    rows = sampled(train(CASES["plain"], sampled_steps=100).rows)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        rewards = [sample["reward"] for sample in row["samples"]]
        assert rewards == sorted(rewards)
        assert all(sample["prompt"].count("+") == 1 for sample in row["samples"])


def test_a_batch_for_several_steps_is_recorded_with_the_first_of_them() -> None:
    assert [row["step"] for row in sampled(train(CASES["a batch for four steps"], sampled_steps=100).rows)] == [1, 9]


@pytest.mark.parametrize("wanted", [1, 7, 50])
@pytest.mark.parametrize("max_steps", [1, 2, 49, 50, 51, 180, 99, 100_000])
@pytest.mark.parametrize("steps", [1, 4])
def test_about_as_many_steps_as_wanted_are_sampled_the_first_and_the_last_among_them(
    wanted: int, max_steps: int, steps: int
) -> None:
    firsts = range(1, max_steps + 1, steps)
    chosen = [n for n in firsts if is_sampled(n, n + steps - 1, max_steps=max_steps, sampled_steps=wanted)]
    assert {firsts[0], firsts[-1]} <= set(chosen)
    assert len(chosen) <= 2 * wanted + 2
    assert len(chosen) >= min(wanted, len(firsts))
    gaps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert max(gaps, default=0) <= max(1, max_steps // wanted) + steps


def test_none_are_sampled_where_none_are_wanted() -> None:
    assert not any(is_sampled(n, n, max_steps=9, sampled_steps=0) for n in range(1, 10))


def test_a_row_holds_the_least_and_the_most_rewarded_and_those_without_a_reward() -> None:
    row = sample_row(3, list("abcdef"), list("ABCDEF"), [0.5, 0.9, float("nan"), 0.1, 0.2, 0.9])
    assert row["step"] == 3
    assert [(s["prompt"], s["completion"], s["reward"]) for s in row["samples"]] == [
        ("c", "C", None),
        ("e", "E", 0.2),
        ("a", "A", 0.5),
        ("f", "F", 0.9),
    ]
    assert len(sample_row(1, ["a"], ["b"], [1.0])["samples"]) == 1


def test_a_row_is_small_whatever_the_model_said() -> None:
    row = sample_row(1, ["\U0001f600" * 10**6] * 8, ["\x00" * 10**6] * 8, [0.0] * 8)
    assert len(row["samples"]) == AT_A_STEP
    assert all(len(sample["completion"]) == MOST_CHARACTERS for sample in row["samples"])
    assert len(json.dumps(row)) < 256_000
