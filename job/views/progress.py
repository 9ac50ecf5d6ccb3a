"""The progress of an attempt: one moving line on a terminal, elsewhere plain lines of the same fields."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from job.run.attempt import ResumedFrom
from job.views.printer import Printer
from job.views.text import printable, printable_lines

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PLAIN_EVERY_S = 5.0  # a log is read later: more lines would hide the others
BAR_COLUMNS = 12
WIDE_COLUMNS = 120  # where the fields leave room for a bar
REFRESHES_PER_S = 2  # the age of the durable step counts seconds
LAST_LINES_S = 2.0  # for whoever reads to read them


@dataclass(frozen=True)
class Fields:
    """What a progress line says. NaN and None: not known yet."""

    step: int = 0
    max_steps: int | None = None
    reward: float | None = None
    reward_std: float | None = None
    """Spread of the rewards within a group: where it is 0 there is nothing to learn from."""
    loss: float | None = None
    step_s: float | None = None
    tokens_per_s: float | None = None
    durable_step: int | None = None
    durable_age_s: float | None = None


class Progress:
    """Shows rows of TRL's log, the durable step, and lines for people. Any thread may call it, and none waits for it.

    What touches the stream is done by the printer's thread, which does not exist before the first line, when the
    attempt has forked.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._max_steps: int | None = None
        self._meter = _Meter()
        self._durable: tuple[int, float] | None = None
        self._shown_s = -math.inf
        self._printer = Printer(self._write)
        self._moves = False
        self._bar: RichProgress | None = None
        """The printer's."""

    def begin(self, max_steps: int | None) -> None:
        """Training begins; `max_steps` None where it is not known. On a terminal the moving line appears."""
        self._max_steps = max_steps
        if not self._moves and self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._moves = True
            self._printer.call(self._draw)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of the log: of training, of an evaluation, or the summary at the end, which is not shown."""
        if "eval_reward" in row:
            self.say(f"step {row.get('step')}: evaluation: reward {number_text(row['eval_reward'])}")
        elif "reward" in row:
            self._meter.take(row)
            if not self._moves and self._is_due():
                self._shown_s = self._clock()
                self.say(self.line())

    def durable(self, step: int) -> None:
        """`step` is safe in the bucket."""
        if self._durable is None or self._durable[0] != step:
            self._durable = step, self._clock()

    def say(self, text: str) -> None:
        """Lines for people, above the moving line. What they quote may be hostile; it is made harmless."""
        for line in printable_lines(text):
            self._printer.line(line)

    def end(self) -> None:
        """The moving line stays as it is and moves no more. May be called twice."""
        self._moves = False
        self._printer.call(self._end)

    def close(self) -> None:
        """The end, after which the last lines are read, unless nobody reads."""
        self.end()
        self._printer.flush(LAST_LINES_S)

    def line(self) -> str:
        """All fields as they are now, as one line of plain text."""
        step, at_s = self._durable or (None, 0.0)
        age_s = None if step is None else self._clock() - at_s
        return format_line(self._meter.fields(self._max_steps, step, age_s))

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _draw(self) -> None:
        self._bar = _draw(self._stream, self.line, lambda: (self._meter.step, self._max_steps))

    def _end(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def _is_due(self) -> bool:
        return self._clock() - self._shown_s >= PLAIN_EVERY_S or self._meter.step == self._max_steps


def format_line(fields: Fields) -> str:
    """`step 12/180  reward 0.41 ± 0.22  loss 0.013  0.17 s/step  3100 tokens/s  step 11 durable for 2 s`."""
    of = "" if fields.max_steps is None else f"/{fields.max_steps}"
    durable = "nothing durable yet"
    if fields.durable_step is not None and fields.durable_age_s is not None:
        durable = f"step {fields.durable_step} durable for {seconds(fields.durable_age_s)}"
    return "  ".join(
        (
            f"step {fields.step}{of}",
            f"reward {number_text(fields.reward)} ± {number_text(fields.reward_std)}",
            f"loss {number_text(fields.loss)}",
            f"{number_text(fields.step_s)} s/step",
            f"{'-' if fields.tokens_per_s is None else format(fields.tokens_per_s, '.0f')} tokens/s",
            durable,
        )
    )


def resumed_line(uri: str, resumed: ResumedFrom) -> str:
    """The first line after a resume: where it goes on, and what was lost on the way."""
    lost = "nothing was lost"
    if not resumed.orderly:
        known = f", {resumed.lost_steps} or more," if resumed.lost_steps else ""
        lost = f"what was made after it{known} is made again"
    return printable(f"resumed {uri} from step {resumed.step} ({resumed.folder}): {lost}")


def seconds(duration_s: float) -> str:
    """`8 s`, `3 min`, `2.5 h`: as precise as a person needs."""
    if duration_s < 100:
        return f"{duration_s:.0f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 6000 else f"{duration_s / 3600:.1f} h"


class _Meter:
    """Reads TRL's rows; knows what two of them together say."""

    def __init__(self) -> None:
        self.step = 0
        self._row: Mapping[str, Any] = {}
        self._tokens_per_s: float | None = None

    def take(self, row: Mapping[str, Any]) -> None:
        """A row with `step`, and whatever else it has."""
        step, before = int(row.get("step", self.step)), self._row
        step_s, tokens, tokens_before = (
            _known(row.get("step_time")),
            _known(row.get("num_tokens")),
            _known(before.get("num_tokens")),
        )
        if step_s and tokens is not None and tokens_before is not None and step > self.step:
            # num_tokens counts the whole run, step_time is the mean of the rows' steps.
            self._tokens_per_s = (tokens - tokens_before) / (step_s * (step - self.step))
        self.step, self._row = step, row

    def fields(self, max_steps: int | None, durable_step: int | None, durable_age_s: float | None) -> Fields:
        """All of it; before the first row the step is the durable one."""
        return Fields(
            step=max(self.step, durable_step or 0),
            max_steps=max_steps,
            reward=_known(self._row.get("reward")),
            reward_std=_known(self._row.get("reward_std")),
            loss=_known(self._row.get("loss")),
            step_s=_known(self._row.get("step_time")),
            tokens_per_s=self._tokens_per_s,
            durable_step=durable_step,
            durable_age_s=durable_age_s,
        )


def _draw(stream: TextIO, line: Callable[[], str], done: Callable[[], tuple[int, int | None]]) -> "RichProgress":
    """The moving line: a bar, and the fields; both are asked for at every refresh."""
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    class FieldsColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(line())  # two lines where the terminal is narrow: no field is cut off

    class StepsColumn(ProgressColumn):
        def render(self, task: Task) -> ProgressBar:
            step, max_steps = done()
            return ProgressBar(total=max_steps, completed=step, width=BAR_COLUMNS)

    console = Console(file=stream)
    columns = [FieldsColumn(), StepsColumn()]
    bar = RichProgress(
        *(columns if console.width >= WIDE_COLUMNS else columns[:1]),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task("")
    bar.start()
    return bar


def _known(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def number_text(value: object) -> str:
    """Three significant digits, no exponent for what a person compares by eye."""
    number = _known(value)
    if number is None:
        return "-"
    if number == 0 or not math.isfinite(number) or 1e-3 <= abs(number) < 1e4:
        return f"{number:.3g}"
    return f"{number:.1e}"
