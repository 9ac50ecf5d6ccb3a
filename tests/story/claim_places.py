"""Makes an attempt stay where it is about to take the run over, or has half done so: patches like those of places."""

from typing import Any

from tests.story.places import here


def before_the_claim() -> None:
    """Everything is checked, nothing is changed."""
    import job.agent.attempt

    _before(job.agent.attempt, "is_left_to_do")


def spec_written() -> None:
    """The run's spec is there, no number is claimed."""
    import job.agent.attempt

    _before(job.agent.attempt, "claim")


def number_claimed() -> None:
    """A number is claimed, head is not taken over."""
    import job.agent.claiming

    _before(job.agent.claiming.Owner, "take_over")


def head_taken() -> None:
    """Head is this attempt's, which does not know it yet."""
    import job.agent.claiming

    original = job.agent.claiming.Owner.take_over

    def patched(*args: Any, **kwargs: Any) -> Any:
        owner = original(*args, **kwargs)
        here()
        return owner

    job.agent.claiming.Owner.take_over = patched  # type: ignore[method-assign]


def first_objects() -> None:
    """The attempt's first objects are about to be written."""
    import job.agent.record

    _before(job.agent.record.LiveRecord, "write")


def _before(owner: Any, name: str) -> None:
    original = getattr(owner, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        here()
        return original(*args, **kwargs)

    setattr(owner, name, patched)
