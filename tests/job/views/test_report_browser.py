"""A real browser opens the page from a file without a network: its charts are drawn, its policy is kept, hostile text
stays text, and it fits a telephone as it fits a screen, by day and by night."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, open_browser
from report_runs import begin, interrupted_run, metric, record, rows, sample, save

from job.run.head import Owner
from job.storage import Bucket, open_bucket
from job.views.report import report_page

pytestmark = pytest.mark.needs_system("chromium", "bash")

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x1b[31m[/INST]"
DRAWN = """[...document.querySelectorAll(".chart")].map((chart) =>
  [chart.id, chart.querySelectorAll(".scatterlayer .trace path, .barlayer path").length, chart.clientWidth])"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two interruptions and samples, as a page."""
    folder = tmp_path_factory.mktemp("story")
    bucket = open_bucket(f"file://{folder}/run")
    interrupted_run(bucket)
    path = folder / "report.html"
    path.write_text(report_page(bucket))
    return path


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_draws_every_chart_and_complains_of_nothing(page: Page, story: Path, width: int, dark: bool) -> None:
    page.open(story, width=width, dark=dark)
    assert page.troubles == []
    charts = page.evaluate(DRAWN)
    assert [chart for chart, _, _ in charts][:3] == ["reward", "timeline", "metric-0"]
    assert all(count > 0 for _, count, _ in charts), charts
    assert all(0 < wide <= width for _, _, wide in charts), charts
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"


def test_it_asks_for_nothing_but_itself(page: Page, story: Path) -> None:
    page.open(story)
    assert [url for url in page.requests if not url.startswith("data:")] == [story.as_uri()]


def test_its_colours_follow_the_reader_while_it_is_open(page: Page, story: Path) -> None:
    page.open(story, dark=False)
    look = """[getComputedStyle(document.documentElement).backgroundColor,
               document.querySelector("#reward .xtick text").style.fill]"""
    light = page.evaluate(look)
    assert light == ["rgb(251, 250, 248)", "rgb(92, 99, 110)"]
    page.look(dark=True)
    page.evaluate(
        f"""new Promise((done) => {{
              const wait = () => {look}[1] !== "{light[1]}" ? done() : requestAnimationFrame(wait);
              wait();
            }})"""
    )
    assert page.evaluate(look) == ["rgb(22, 24, 28)", "rgb(162, 168, 178)"]


def test_the_words_beside_the_charts_can_be_read_without_pointing_at_them(page: Page, story: Path) -> None:
    page.open(story)
    texts = "[...document.querySelectorAll('{0} text')].map((text) => text.textContent.trim())"
    assert {"attempt 1 lost", "attempt 2 preempted", "optimizer step", "trend"} <= set(
        page.evaluate(texts.format("#reward"))
    )
    assert {"lost", "preempted", "finished", "1", "2", "3"} <= set(page.evaluate(texts.format("#timeline")))


def test_hostile_text_runs_nothing_and_loads_nothing(page: Page, bucket: Bucket, tmp_path: Path) -> None:
    begin(bucket, 1)
    save(bucket, Owner.take_over(bucket, 1), 2)
    record(bucket, 1, exit_code=3, reason=HOSTILE, host=HOSTILE, phases={HOSTILE: 2.0, "train": 3.0})
    rows(bucket, 1, "metrics", [metric(step, **{f"reward/{HOSTILE}": 1.0}) for step in (1, 2)])
    rows(bucket, 1, "samples", [sample(2, HOSTILE, HOSTILE)])
    path = tmp_path / "hostile.html"
    path.write_text(report_page(bucket))
    page.open(path)
    assert page.troubles == []
    assert page.evaluate("document.title") == "run: running"
    assert page.evaluate("document.images.length + document.querySelectorAll('main script').length") == 0
    shown = page.evaluate("[...document.querySelectorAll('pre[dir=auto]')].map((text) => text.textContent)")
    assert shown == [HOSTILE.replace("\x1b", "\ufffd")] * 2


def test_markup_that_an_escape_would_have_missed_is_stopped_by_the_policy(
    page: Page, story: Path, tmp_path: Path
) -> None:
    """The second line of defence by itself: the same text put into the page unescaped."""
    path = tmp_path / "unescaped.html"
    path.write_text(
        story.read_text().replace("</main>", f"{HOSTILE}<a href=\"javascript:document.title='owned'\">a</a></main>")
    )
    page.open(path)
    page.evaluate("document.querySelector('main > a').click()")
    assert page.evaluate("document.title") == "run: finished"
    assert any("Content Security Policy" in trouble for trouble in page.troubles)


def test_a_large_run_is_drawn_too(page: Page, bucket: Bucket, tmp_path: Path) -> None:
    begin(bucket, 300)
    ref = save(bucket, Owner.take_over(bucket, 300), 20_000)
    for number in range(1, 301):
        resumed = ref.model_copy(update={"step": 60 * number})
        record(bucket, number, exit_code=75, step=60 * number + 60, resumed=resumed)
    rows(bucket, 300, "metrics", [metric(step) for step in range(1, 20_001)])
    path = tmp_path / "large.html"
    path.write_text(report_page(bucket))
    page.open(path, width=400)
    assert page.troubles == []
    assert all(count > 0 for _, count, _ in page.evaluate(DRAWN))
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_run_that_has_not_begun_is_a_page_without_scripts(page: Page, bucket: Bucket, tmp_path: Path) -> None:
    begin(bucket, 1)
    path = tmp_path / "empty.html"
    path.write_text(report_page(bucket))
    page.open(path)
    assert page.troubles == []
    assert page.evaluate("document.scripts.length") == 0


def test_on_paper_it_is_dark_on_light_whatever_the_screen_is(page: Page, story: Path) -> None:
    page.open(story, dark=True, media="print")
    assert page.troubles == []
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(251, 250, 248)"
    assert page.evaluate("document.querySelector('#reward .xtick text').style.fill") == "rgb(92, 99, 110)"
