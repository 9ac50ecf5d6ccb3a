"""Metrics by step, small enough to draw: one point per row, or mean, least and most of a bucket of rows; pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

MOST_POINTS = 1000
"""Of one curve: a screen is not wider, and a page of 100,000 steps stays small."""
ENDS_ROWS = 10
"""Rows whose mean counts as the value at the start, and at the end."""


class Series(BaseModel):
    """One metric of the run, ordered by step."""

    model_config = ConfigDict(frozen=True)

    name: str
    """As it is in the rows."""
    steps: tuple[int, ...]
    """Of a bucket the last."""
    mean: tuple[float, ...]
    low: tuple[float, ...] | None = None
    """Least value of each bucket; None where every point is one row. `high` likewise."""
    high: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None
    """Mean of the standard deviation that goes with the metric, where every row has one."""
    rows: int
    start: float
    """Mean of the first rows, ENDS_ROWS of them or half of all."""
    end: float
    """Mean of the last rows, as many."""
    ends_rows: int


def make_series(name: str, rows: Iterable[Mapping[str, Any]], spread: str | None = None) -> Series | None:
    """The metric `name` of the rows that have it as a finite number; None when none has.

    `spread` names the row's standard deviation of it.
    """
    points = [
        (row["step"], value, finite(row.get(spread)) if spread is not None else None)
        for row in rows
        if (value := finite(row.get(name))) is not None
    ]
    if not points:
        return None
    ends_rows = max(1, min(ENDS_ROWS, len(points) // 2))
    values = [value for _, value, _ in points]
    spreads = [deviation for _, _, deviation in points if deviation is not None]
    buckets = _buckets(len(points))
    bucketed = len(buckets) < len(points)
    return Series(
        name=name,
        steps=tuple(points[part.stop - 1][0] for part in buckets),
        mean=tuple(mean(values[part]) for part in buckets),
        low=tuple(min(values[part]) for part in buckets) if bucketed else None,
        high=tuple(max(values[part]) for part in buckets) if bucketed else None,
        spread=tuple(mean(spreads[part]) for part in buckets) if len(spreads) == len(points) else None,
        rows=len(points),
        start=mean(values[:ends_rows]),
        end=mean(values[-ends_rows:]),
        ends_rows=ends_rows,
    )


def smooth(values: Sequence[float]) -> list[float]:
    """The trend: each value's mean with its neighbours, as many as a twentieth of all, fewer at both ends."""
    reach = max(1, len(values) // 40)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    trend = []
    for i in range(len(values)):
        begin, end = max(0, i - reach), min(len(values), i + reach + 1)
        trend.append((sums[end] - sums[begin]) / (end - begin))
    return trend


def finite(value: object) -> float | None:
    """The value as a float, None unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number that no float holds
        return None
    return number if math.isfinite(number) else None


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; of huge ones too."""
    return math.fsum(value / len(values) for value in values)


def _buckets(count: int) -> list[slice]:
    """`count` rows in at most MOST_POINTS consecutive parts, as even as can be."""
    parts = min(count, MOST_POINTS)
    return [slice(i * count // parts, (i + 1) * count // parts) for i in range(parts)]
