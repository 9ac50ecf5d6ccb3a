"""Makes a trainer compute for nothing before it trains: each function is a patch for an attempt."""

from typing import Any

from tests.story.places import here


def first_check() -> None:
    """Whoever checks first stays there, in BATON_TEST_PLACE; who comes after goes on."""
    import job.training.process

    check = job.training.process.check

    def patched(*args: Any) -> Any:
        here()
        return check(*args)

    job.training.process.check = patched


def every_load() -> None:
    """Nobody ever has a model."""
    import job.training.process

    def load_for_ever(*args: Any) -> Any:
        while True:
            pass

    job.training.process.load_model = load_for_ever
