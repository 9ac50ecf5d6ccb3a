"""Offers are ranked by what the whole run is expected to cost there: price, preemptions, starts, traffic, history."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from seen import claim, end, offer

from infra.expected import (
    IMAGE_GIB,
    PREEMPTED_EVERY_H,
    START_S,
    Odds,
    Work,
    advised,
    expected,
    odds_of,
    rank,
)

ZONE = ("g2-standard-4", "us-central1-a")
BAD = Odds(hours=1.0, preempted=9)


def test_on_demand_costs_its_work_and_one_start() -> None:
    found = expected(offer(usd=1.0, spot=False), Work(hours=10))
    assert found.hours == pytest.approx(10 + START_S / 3600)
    assert (found.vms, found.per_hour, found.waited_h, found.traffic_usd) == (1, 0, 0, 0)
    assert found.usd == pytest.approx(found.hours)


def test_more_preemptions_mean_more_hours_starts_and_money() -> None:
    rates = [Odds(hours=8.0, preempted=count) for count in (0, 2, 8, 32)]
    found = [expected(offer(), Work(hours=10), odds) for odds in rates]
    for less, more in pairwise(found):
        assert less.usd < more.usd
        assert less.hours < more.hours
        assert less.vms < more.vms


def test_the_expected_hours_are_those_of_many_runs_thrown_by_dice() -> None:
    draw, work, odds = random.Random(7), Work(hours=10), Odds()

    def one_run() -> float:
        left_h, paid_h, lost_h = work.hours, 0.0, (work.start_s + work.lost_s) / 3600
        while True:
            life_h = draw.expovariate(odds.per_hour)
            if life_h >= left_h + work.start_s / 3600:
                return paid_h + left_h + work.start_s / 3600
            paid_h += life_h
            left_h -= max(0.0, life_h - lost_h)

    thrown = [one_run() for _ in range(4000)]
    assert expected(offer(), work, odds).hours == pytest.approx(sum(thrown) / len(thrown), rel=0.02)


def test_a_cheap_zone_that_preempts_all_the_time_is_not_the_cheapest() -> None:
    cheap, dear = offer(usd=0.3), offer("us-central1-b", 0.4)
    assert rank([dear, cheap], Work())[0].offer == cheap
    assert rank([dear, cheap], Work(), {ZONE: BAD})[0].offer == dear


def test_a_bucket_elsewhere_costs_its_traffic_and_may_be_worth_it() -> None:
    home, far = offer(usd=0.4), offer("asia-east1-a", 0.3, usd_per_gib=0.08)
    short, long = Work(hours=0.5, restore_gib=0.1), Work(hours=400, restore_gib=0.1, pull_gib=1.0)
    assert rank([far, home], short)[0].offer == home
    assert rank([far, home], long)[0].offer == far
    found = expected(far, short)
    assert found.traffic_usd > found.vms * IMAGE_GIB * 0.08


def test_an_image_is_pulled_from_where_its_registry_is() -> None:
    home = offer(usd=0.4)
    near, far = (expected(home, Work(registry_region=region)) for region in ("us-central1", "europe-west4"))
    assert near.traffic_usd == 0
    assert far.traffic_usd == pytest.approx(far.vms * IMAGE_GIB * 0.05)


def test_advice_of_a_short_life_counts_and_of_an_hour_or_more_is_no_news() -> None:
    assert Odds(uptime_s=3600.0).per_hour == Odds().per_hour == 1 / PREEMPTED_EVERY_H
    assert Odds(uptime_s=600.0).per_hour == pytest.approx(6 * math.log(2))
    assert Odds(uptime_s=60.0).per_hour > Odds(uptime_s=600.0).per_hour


def test_a_vm_that_is_hardly_to_be_had_is_waited_for() -> None:
    often, seldom = (expected(offer(), Work(), Odds(obtainability=likely)) for likely in (1.0, 0.1))
    assert often.waited_h == 0
    assert seldom.waited_h > 1
    assert often.usd < seldom.usd < often.usd * 1.1, "waiting costs the watchdog only"
    a, b = offer(), offer("us-central1-b")
    assert rank([a, b], Work(), {ZONE: Odds(obtainability=0.1)})[0].offer == b


def test_what_became_of_claims_is_what_is_known_of_a_zone() -> None:
    lived = claim(1, ended=end("preempted", ran_s=7200))
    drilled = claim(2, ended=end("preempted", ran_s=3600), drill="me")
    refused = claim(3, ended=end("stockout", ran_s=None))
    elsewhere = claim(4, ended=end("finished", ran_s=3600), zone="us-east4-a")
    on_demand = claim(5, ended=end("finished", ran_s=3600), spot=False)
    found = odds_of([lived, drilled, refused, elsewhere, on_demand, claim(6)])
    assert found == {
        ZONE: Odds(hours=3.0, preempted=1, refused=1, had=2),
        ("g2-standard-4", "us-east4-a"): Odds(hours=1.0, had=1),
    }
    assert found[ZONE].basis == "1 in 3.0 h of this bucket's runs, 1 refused for want of capacity"


def test_advice_stands_beside_the_own_history() -> None:
    own = Odds(hours=3.0, preempted=1)
    said = {ZONE: Odds(uptime_s=600.0, obtainability=0.4), ("g2-standard-4", "us-east4-a"): Odds(obtainability=0.9)}
    found = advised({ZONE: own}, said)
    assert found[ZONE] == replace(own, uptime_s=600.0, obtainability=0.4)
    assert found["g2-standard-4", "us-east4-a"] == Odds(obtainability=0.9)
    assert "obtainability 0.4" in found[ZONE].basis
