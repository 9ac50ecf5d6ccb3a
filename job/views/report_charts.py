"""The report's charts as plotly figures in plain data; pure. Colours name CSS variables, which the page resolves.

plotly reads a little HTML in its texts, so text of a run is escaped here, although the page's policy runs none of it.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from job.views.attempts import AttemptView
from job.views.boots import has_run
from job.views.report_data import Ending, Report, end_s, ending
from job.views.report_series import Series, smooth
from job.views.text import printable

Figure = dict[str, Any]

MOST_ATTEMPTS = 300
"""Newest ones that are drawn and listed."""
MOST_WORDY_RULES, MOST_RULES_WITH_NUMBER = 3, 30
LABEL_PX = 16
RUG_FROM = 0.94
"""Where rules begin, of the height, once there are so many that whole ones would cover the curve."""
MOST_ROWS = 40
"""Attempts that have a row each on one time axis; more of them are columns side by side."""
PHASES = (
    *("train", "evaluation", "import", "check", "model", "look", "restore", "claim", "flush", "result"),
    *("create", "boot", "pull"),
)
"""Those that have a colour of their own, which styles.css knows by their place; others share one."""
OTHER, UNTOLD = "other", "not recorded"
UNTOLD_LEAST_S = 0.5
RULE_COLOURS: dict[Ending, str] = {"preempted": "--amber", "lost": "--red", "failed": "--red"}
END_SYMBOLS: dict[Ending, str] = {"finished": "circle", "preempted": "diamond", "lost": "x", "failed": "square"}


class Span(NamedTuple):
    """A phase of an attempt."""

    attempt: int
    from_s: float
    """Seconds since the epoch."""
    spent_s: float
    told: str
    """The phase's own name, harmless in plotly."""


def figures(report: Report) -> dict[str, Figure]:
    """Every chart by the id of its element."""
    drawn: dict[str, Figure] = {}
    if report.reward is not None:
        drawn["reward"] = reward_figure(report)
    attempts = begun_attempts(report)
    if attempts:
        drawn["timeline"] = (timeline_figure if len(attempts) <= MOST_ROWS else columns_figure)(attempts)
    for number, series in enumerate(report.metrics):
        drawn[f"metric-{number}"] = metric_figure(series)
    return drawn


def begun_attempts(report: Report) -> list[AttemptView]:
    """Those that are drawn, oldest first."""
    return [a for a in report.run.attempts if has_run(a)][-MOST_ATTEMPTS:]


def reward_figure(report: Report) -> Figure:
    """The reward by step: mean, trend, spread; a rule where an attempt was interrupted, a band where it lost steps."""
    series = report.reward
    assert series is not None
    steps = list(series.steps)
    traces: list[Figure] = []
    if series.spread is not None:
        pairs = list(zip(series.mean, series.spread, strict=True))
        low, high = [m - s for m, s in pairs], [m + s for m, s in pairs]
        traces += _band(steps, low, high, "--band", "mean ± standard deviation of the completions")
    if series.low is not None and series.high is not None:
        traces += _band(steps, series.low, series.high, "--envelope", "least and most of the steps at a point")
    of = "mean of a step" if series.low is None else f"mean of {series.rows / len(steps):.0f} steps"
    traces.append(_line(steps, series.mean, "--curve-pale", 1, of, markers=len(steps) == 1))
    if len(steps) > 2:
        traces.append(_line(steps, smooth(series.mean), "--curve", 2.5, "trend"))
    if (evaluation := report.evaluation) is not None:
        drawn = _line(list(evaluation.steps), evaluation.mean, "--green", 1.5, "evaluation", markers=True)
        traces.append(drawn)
    shapes, annotations = _rules(report.run.attempts)
    layout = _layout("optimizer step", "reward", 380)
    layout |= {"shapes": shapes, "annotations": annotations, "showlegend": True}
    layout["margin"]["t"] = 8 + 2 * LABEL_PX
    return {"data": traces, "layout": layout}


def timeline_figure(attempts: Sequence[AttemptView]) -> Figure:
    """One row per attempt, on one time axis: its phases end to end, then how it ended."""
    begin_s = min(attempt.started_at_s for attempt in attempts)
    unit, unit_s = _time_unit(max(map(end_s, attempts)) - begin_s)
    traces = [
        {
            **_bars(group, spans, f"attempt %{{y}}: %{{text}} %{{x:.3~g}} {unit}<extra></extra>"),
            "orientation": "h",
            "y": [span.attempt for span in spans],
            "base": [_short((span.from_s - begin_s) / unit_s) for span in spans],
            "x": [_short(span.spent_s / unit_s) for span in spans],
        }
        for group, spans in _grouped(attempts).items()
    ]
    traces.append(_ends(attempts, begin_s, unit_s))
    layout = _layout(f"{unit} since the run began", "attempt", max(120, 70 + 30 * len(attempts)))
    numbers = [attempt.number for attempt in attempts]
    ticks = {"tickmode": "array", "tickvals": numbers, "ticktext": [str(number) for number in numbers]}
    layout["yaxis"] |= {"range": [len(numbers) - 0.4, -0.6], "showgrid": False, "fixedrange": True, "type": "category"}
    layout["yaxis"] |= ticks | {"categoryorder": "array", "categoryarray": numbers}
    layout |= {"barmode": "overlay", "hovermode": "closest"}
    layout["margin"]["r"] = 84  # room for how it ended, in words
    return {"data": traces, "layout": layout}


def columns_figure(attempts: Sequence[AttemptView]) -> Figure:
    """Of many attempts: a column each, side by side, as high as the attempt was long, its phases stacked."""
    unit, unit_s = _time_unit(max(end_s(attempt) - attempt.started_at_s for attempt in attempts))
    traces = [
        {
            **_bars(group, spans, f"attempt %{{x}}: %{{text}} %{{y:.3~g}} {unit}<extra></extra>"),
            "x": [span.attempt for span in spans],
            "y": [_short(span.spent_s / unit_s) for span in spans],
        }
        for group, spans in _grouped(attempts).items()
    ]
    layout = _layout("attempt", f"{unit} of the attempt", 320) | {"barmode": "stack", "hovermode": "closest"}
    return {"data": traces, "layout": layout}


def metric_figure(series: Series) -> Figure:
    """A small chart of one metric: every point pale, the trend over it."""
    steps = list(series.steps)
    traces: list[Figure] = []
    if series.low is not None and series.high is not None:
        traces += _band(steps, series.low, series.high, "--envelope", "least and most")
    traces.append(_line(steps, series.mean, "--curve-pale", 1, "each step", markers=len(steps) == 1))
    if len(steps) > 2:
        traces.append(_line(steps, smooth(series.mean), "--curve", 2, "trend"))
    layout = _layout("", "", 150)
    layout["margin"] = {"l": 44, "r": 8, "t": 6, "b": 24}
    layout["yaxis"]["nticks"] = 4
    if min(series.mean) == max(series.mean):  # plotly would draw it between -1 and 1
        value = series.mean[0]
        layout["yaxis"]["range"] = [value - abs(value) / 2, value + abs(value) / 2] if value else [-1, 1]
    layout["xaxis"]["nticks"] = 5
    return {"data": traces, "layout": layout}


def phase_class(phase: str) -> str:
    """The colour of a phase, as its class in the page's styles says it."""
    if phase == UNTOLD:
        return "untold"
    return str(PHASES.index(phase)) if phase in PHASES else "other"


def _grouped(attempts: Sequence[AttemptView]) -> dict[str, list[Span]]:
    """The spans of all attempts by phase, in the order in which the legend names the phases."""
    found: dict[str, list[Span]] = {group: [] for group in (*PHASES, OTHER, UNTOLD)}
    for attempt in attempts:
        at_s = attempt.started_at_s
        untold_s = end_s(attempt) - at_s - sum(attempt.phases_s.values())
        untold = [(UNTOLD, untold_s)] if untold_s >= UNTOLD_LEAST_S else []
        for phase, spent_s in [*attempt.phases_s.items(), *untold]:
            group = phase if phase in found else OTHER
            found[group].append(Span(attempt.number, at_s, spent_s, escape(printable(phase, 40))))
            at_s += spent_s
    return {group: spans for group, spans in found.items() if spans}


def _bars(group: str, spans: Sequence[Span], hover: str) -> Figure:
    return {
        "type": "bar",
        "name": group,
        "text": [span.told for span in spans],
        "textposition": "none",
        "hovertemplate": hover,
        "marker": {"color": f"var(--phase-{phase_class(group)})", "line": {"width": 0}},
        "width": 0.72,
    }


def _ends(attempts: Sequence[AttemptView], begin_s: float, unit_s: float) -> Figure:
    """A mark where each attempt ended, with the word."""
    endings = [ending(attempt) for attempt in attempts]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [_short((end_s(attempt) - begin_s) / unit_s) for attempt in attempts],
        "y": [attempt.number for attempt in attempts],
        "text": [f" {how}" for how in endings],
        "textposition": "middle right",
        "textfont": {"size": 12, "color": "var(--ink)"},
        "marker": {
            "size": 8,
            "symbol": [END_SYMBOLS.get(how, "triangle-right") for how in endings],
            "color": [f"var({RULE_COLOURS.get(how, '--green')})" for how in endings],
        },
        "hovertemplate": "attempt %{y}:%{text}<extra></extra>",
        "cliponaxis": False,
        "showlegend": False,
    }


def _rules(attempts: Sequence[AttemptView]) -> tuple[list[Figure], list[Figure]]:
    """(shapes, annotations): a rule at the step from which the next attempt went on, a band of the steps lost there."""
    found: list[tuple[AttemptView, int, int]] = []
    for number, attempt in enumerate(attempts):
        after = next((later for later in attempts[number + 1 :] if later.from_step is not None), None)
        step = attempt.last_step if after is None else after.from_step
        if ending(attempt) in RULE_COLOURS and step is not None:
            found.append((attempt, step, 0 if after is None else after.lost_steps))
    shapes: list[Figure] = []
    annotations: list[Figure] = []
    few = len(found) <= MOST_RULES_WITH_NUMBER
    across = {"yref": "paper", "y0": 0, "y1": 1}
    along = across | {"y0": 0 if few else RUG_FROM}
    for attempt, step, lost_steps in found:
        how = ending(attempt)
        colour = f"var({RULE_COLOURS[how]})"
        if lost_steps:
            lost = {"type": "rect", "x0": step, "x1": step + lost_steps, "fillcolor": colour, "opacity": 0.15}
            shapes.append({**across, **lost, "line": {"width": 0}, "layer": "below"})
        line = {"color": colour, "width": 1.5 if few else 1, "dash": "dot" if few else "solid"}
        shapes.append({**along, "type": "line", "x0": step, "x1": step, "line": line})
        if few:
            word = f"attempt {attempt.number} {how}" if len(found) <= MOST_WORDY_RULES else f"{attempt.number}"
            label = {"text": word, "font": {"size": 12, "color": colour}, "showarrow": False}
            place = {"x": step, "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center"}
            place["yshift"] = LABEL_PX * (len(annotations) % 2)  # neighbours do not cover each other
            annotations.append({**label, **place})
    return shapes, annotations


def _band(steps: list[int], low: Sequence[float], high: Sequence[float], colour: str, name: str) -> list[Figure]:
    edge: Figure = {"type": "scatter", "mode": "lines", "x": steps, "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        {**edge, "y": _shorts(low), "showlegend": False},
        {**edge, "y": _shorts(high), "fill": "tonexty", "fillcolor": f"var({colour})", "name": name},
    ]


def _line(
    steps: list[int], values: Sequence[float], colour: str, width: float, name: str, *, markers: bool = False
) -> Figure:
    paint: Figure = {"line": {"color": f"var({colour})", "width": width}}
    if markers:
        paint["marker"] = {"color": f"var({colour})", "size": 7}
    mode = "lines+markers" if markers else "lines"
    hover = f"step %{{x}}: %{{y:.4~g}} ({name})<extra></extra>"
    values = _shorts(values)
    return {"type": "scatter", "mode": mode, "x": steps, "y": values, "name": name, "hovertemplate": hover, **paint}


def _layout(x_title: str, y_title: str, height: int) -> Figure:
    axis: Figure = {
        "gridcolor": "var(--grid)",
        "zerolinecolor": "var(--grid)",
        "linecolor": "var(--grid)",
        "tickfont": {"size": 12},
        "automargin": True,
    }
    return {
        "height": height,
        "margin": {"l": 52, "r": 16, "t": 8, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--muted)"},
        "xaxis": {
            **axis,
            "exponentformat": "none",
            "separatethousands": True,
            "title": {"text": x_title, "standoff": 8, "font": {"size": 13}},
        },
        "yaxis": {**axis, "exponentformat": "e", "title": {"text": y_title, "standoff": 8, "font": {"size": 13}}},
        "showlegend": False,
        "legend": {"orientation": "h", "y": -0.18, "yanchor": "top", "x": 0, "font": {"size": 12}},
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--grid)", "font": {"color": "var(--ink)"}},
        "dragmode": "zoom",
    }


def _time_unit(seconds: float) -> tuple[str, float]:
    for name, unit_s, most in (("seconds", 1.0, 180), ("minutes", 60.0, 180), ("hours", 3600.0, 96)):
        if seconds <= most * unit_s:
            return name, unit_s
    return "days", 86400.0


def _shorts(values: Sequence[float]) -> list[float]:
    return [_short(value) for value in values]


def _short(value: float) -> float:
    """Six digits: nobody sees more, and the page stays small."""
    return float(f"{value:.6g}")
