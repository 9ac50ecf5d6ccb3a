"""What people may change of a run: every wish that makes no sense is refused by a line that says why and what to do."""

from typing import Any

import pytest
from vm_runs import IMAGE, MACHINE, NOW_S, PREEMPTED, head, spec, vm

from infra.control import (
    Changes,
    drill_target,
    drilled,
    ended_by_hand,
    refuse_finished,
    refuse_spent,
    revised,
    stopped,
    wanted_again,
)
from job.errors import UsageError
from job.run.claims import Claim, Claims, SeenEnd
from job.run.head import Status

URI = "gs://b/runs/x"
PROCESS = Claim(number=1, kind="process", claimed_at_s=NOW_S, host="box", pid=42)


def test_a_stopped_run_says_why_and_is_not_stopped_twice() -> None:
    once = stopped(Claims(attempts=(vm(1),)), URI, "by me")
    assert (once.want, once.reason, once.attempts) == ("stop", "by me", (vm(1),))
    with pytest.raises(UsageError, match="is stopped already: by me") as refused:
        stopped(once, URI, "by you")
    assert "baton resume" in refused.value.fix
    with pytest.raises(UsageError, match="has failed already: crash loop"):
        stopped(Claims(want="failed", reason="crash loop"), URI, "by me")
    assert wanted_again(once, 1e9) == Claims(attempts=(vm(1),), resumed_at_s=1e9)


def test_a_finished_run_is_not_changed_any_more() -> None:
    refuse_finished(URI, None)
    refuse_finished(URI, head())
    with pytest.raises(UsageError, match="is finished"):
        refuse_finished(URI, head(Status.FINISHED))


@pytest.mark.parametrize(
    ("attempts", "said"),
    [
        ((), "nothing of the run"),
        ((PROCESS,), "is a process on box"),
        ((vm(1, PREEMPTED),), r"is over \(preempted\)"),
        ((vm(1, spot=False),), "on-demand VM: the platform preempts none"),
        ((Claim(number=1, kind="vm", claimed_at_s=NOW_S),), "has no VM yet"),
    ],
)
def test_only_the_spot_vm_that_is_at_work_is_drilled(attempts: tuple[Claim, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        drill_target(Claims(attempts=attempts), URI)
    assert drill_target(Claims(attempts=(vm(1, PREEMPTED), vm(2))), URI) == vm(2)


def test_a_drill_is_recorded_once_and_only_of_the_attempt_that_was_meant() -> None:
    claims = drilled(Claims(attempts=(vm(1, PREEMPTED), vm(2))), 2, "me@box")
    assert [claim.drill for claim in claims.attempts] == [None, "me@box"]
    assert drilled(claims, 2, "you@box") == claims
    for attempts in ((vm(1), vm(2)), (vm(1, PREEMPTED),), ()):
        with pytest.raises(UsageError, match="attempt 1 is over meanwhile"):
            drilled(Claims(attempts=attempts), 1, "me")


def test_an_end_by_hand_goes_over_none_that_is_recorded() -> None:
    end = SeenEnd(how="stopped", at_s=NOW_S)
    claims = ended_by_hand(Claims(attempts=(vm(1, PREEMPTED), vm(2))), 2, end)
    assert [claim.ended for claim in claims.attempts] == [PREEMPTED, end]
    assert ended_by_hand(claims, 1, end) == ended_by_hand(claims, 7, end) == claims


def change(**wanted: Any) -> Any:
    return revised(spec(), Changes(**wanted), who="me", commit="c", now_s=NOW_S)


def test_what_changes_is_a_new_revision_that_names_it() -> None:
    assert change() is None
    assert change(max_usd=20.0) is None
    found = change(max_usd=50.0, spot=False)
    assert (found.revision, found.accepted) == (2, ("machine.max_usd", "machine.spot"))
    assert found.machine == MACHINE.model_copy(update={"max_usd": 50.0, "spot": False})
    assert (found.recipe, found.fingerprint, found.started_by, found.commit) == (spec().recipe, "f", "me", "c")
    assert (found.created_at, change(image=IMAGE.replace("a" * 64, "b" * 64)).revision) == (NOW_S, 2)


def test_new_places_replace_the_old_limits() -> None:
    before = spec(MACHINE.model_copy(update={"zones": ("us-central1-a",)}))
    found = revised(before, Changes(regions=("europe-west4",)), who="me", commit=None, now_s=NOW_S)
    assert found is not None
    assert found.machine is not None
    assert (found.machine.zones, found.machine.regions) == ((), ("europe-west4",))
    assert found.accepted == ("machine.regions", "machine.zones")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"image": "baton:latest"}, "is not pinned"),
        ({"on_demand": "deadline"}, "no deadline is named"),
        ({"on_demand": "after", "spot": False}, "this run has none"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        change(**wish)
    with pytest.raises(UsageError, match="has no VMs to change"):
        revised(spec(None), Changes(**wish), who="me", commit=None, now_s=NOW_S)


def test_a_run_that_has_spent_its_cap_goes_on_only_with_another() -> None:
    spent = (vm(1, PREEMPTED),)  # an hour at 3.6
    nobody_saw_its_end = vm(2)
    assert refuse_spent(MACHINE, (*spent, nobody_saw_its_end), NOW_S + 1e6, URI) == pytest.approx(20 - 3.6)
    with pytest.raises(UsageError, match=r"has spent \$3.60, its cap is \$3.00") as refused:
        refuse_spent(MACHINE.model_copy(update={"max_usd": 3.0}), spent, NOW_S, URI)
    assert "--max-usd 6" in refused.value.fix
