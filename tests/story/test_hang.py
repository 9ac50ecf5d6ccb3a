"""Proves that a trainer that stops making progress is found out, tells where it stands, and is started again."""

from attempts import Run, weights_sha256


def test_a_trainer_that_hangs_is_started_again_from_memory_and_its_stack_is_in_the_log(
    run: Run, reference: str
) -> None:
    run.settings.append("attempt.hang_timeout_s=3")
    marker = run.folder / "at-scoring"
    attempt = run.start(patches=["tests.story.places:scoring"], env={"BATON_TEST_PLACE": str(marker)})
    assert attempt.wait() == 0, attempt.err
    assert marker.exists()
    assert "hangs" in attempt.err
    assert "places.py" in attempt.err, "the stack says where"
    assert len(run.events("trainer_crashed")) == 1
    assert weights_sha256(run) == reference
