"""What is known of zones before a VM is asked for: the claims of the bucket's runs, and advice where there is any."""

from pathlib import Path

import pytest
from seen import claim, end, offer

from infra.cloud.types import Advice, CloudError, Trouble, TroubleKind
from infra.expected import Odds, Work, rank
from infra.reading.zones import MOST_ASKED, ask_advice, history
from job.run.claims import Claims, update_claims
from job.run.layout import CLAIMS
from job.storage import open_bucket

ZONE = ("g2-standard-4", "us-central1-a")


def test_all_runs_of_a_bucket_are_counted_and_a_damaged_one_tells_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run = open_bucket((tmp_path / "runs" / name).as_uri())
        update_claims(run, lambda claims: Claims(attempts=(claim(1, ended=end("preempted", ran_s=3600)),)))
    open_bucket((tmp_path / "runs" / "damaged").as_uri()).write(CLAIMS, b"{")
    assert history(tmp_path.as_uri()) == {ZONE: Odds(hours=2.0, preempted=2, had=2)}
    assert history((tmp_path / "none").as_uri()) == {}


def test_advice_is_asked_on_the_best_spot_zones_and_a_refusal_is_not_known() -> None:
    asked = []

    def advice(zone: str, machine_type: str) -> Advice | None:
        asked.append(zone)
        if zone == "us-central1-b":
            raise CloudError(Trouble(TroubleKind.FORBIDDEN, "403", "compute.advice.capacity"))
        return None if zone == "us-central1-c" else Advice(0.4, 600.0)

    ranked = rank([offer(f"us-central1-{letter}") for letter in "abcdefghijkl"], Work())
    found = ask_advice(advice, ranked)
    assert sorted(asked) == [f"us-central1-{letter}" for letter in "abcdefghijkl"[:MOST_ASKED]]
    assert found[ZONE] == Odds(uptime_s=600.0, obtainability=0.4)
    assert {zone for _, zone in found} == set(asked) - {"us-central1-b", "us-central1-c"}
    assert ask_advice(advice, rank([offer(spot=False)], Work())) == {}


def test_what_is_known_is_what_a_person_is_told() -> None:
    assert Odds().basis == "nothing known: one in 4 h assumed"
    assert Odds(obtainability=0.4, uptime_s=600.0).basis == "obtainability 0.4, most run 10 min or more"
    assert Odds(hours=2.0, had=2).per_hour == pytest.approx(1 / 6)
