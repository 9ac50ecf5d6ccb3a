"""The age of the prices by which offers are ranked and caps are held."""

import os
from datetime import UTC, datetime

from infra.billing import cache_folder, live_prices
from infra.compute import OVERRIDE
from infra.doctor.finding import Finding, ok, to_do
from infra.doctor.place import Place
from infra.machines import machines

OLD_MONTHS = 6
"""Spot prices have doubled within a year; the cap is held by these."""


def look_at_prices(place: Place) -> Finding:
    """Those that a launch has read from the billing catalog today; else those that come with this version."""
    today = f"{datetime.fromtimestamp(place.now_s, UTC):%Y-%m-%d}"
    if not os.environ.get(OVERRIDE) and live_prices(None, cache_folder(os.environ), today) is not None:
        return ok(f"of today, {today}, by the billing catalog")
    return judge_prices(machines().date, place.now_s)


def judge_prices(date: str, now_s: float) -> Finding:
    """By the month that they are of (YYYY-MM); pure."""
    now, of = datetime.fromtimestamp(now_s, UTC), datetime.strptime(date, "%Y-%m")
    months = (now.year - of.year) * 12 + now.month - of.month
    age = f"{months} month{'' if months == 1 else 's'} old"
    if months > OLD_MONTHS:
        return to_do(
            f"prices are of {date}, {age}: estimates and caps are computed by them",
            "git pull\n# or write today's into infra/prices.csv, and their month into infra/machines.toml",
        )
    return ok(f"of {date}, {age}")
