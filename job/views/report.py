"""A run as one HTML page: it holds all it needs, asks no server for anything, and runs no text of the run.

Everything of the run is text, escaped and without control characters; a content security policy lets only the page's
own two scripts run, known by their hash, should any text ever be taken for more.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from job.storage import Bucket
from job.views.report_charts import figures
from job.views.report_data import Report, read_report
from job.views.report_words import page_words

PAGE = Path(__file__).with_name("report_page")
PLOTLY_STYLE_IDS = ("plotly.js-style-global", "plotly.js-style-modebar")
_INJECTED_STYLE = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
"""plotly.js brings the styles of its maps when no element has this id: they are not needed, and not allowed."""


def report_page(bucket: Bucket) -> str:
    """The page of a run in a bucket. Raises UsageError where there is no run."""
    return render(read_report(bucket))


def render(report: Report) -> str:
    """The page; pure but for the files that it is made of."""
    import jinja2
    from plotly.offline import get_plotlyjs

    styles, script, plotly = _page_file("styles.css"), _page_file("script.js"), get_plotlyjs()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    ours = environment.from_string(_page_file("page.html.j2"))
    drawn = figures(report)
    return ours.render(
        **page_words(report),
        policy=policy(styles, script, plotly),
        style_ids=(*PLOTLY_STYLE_IDS, *_INJECTED_STYLE.findall(plotly)),
        styles=_trusted(styles),
        script=_trusted(script),
        plotly=_trusted(plotly),
        figures=_trusted(json_in_html(drawn)) if drawn else "",
    )


def policy(styles: str, *scripts: str) -> str:
    """The content security policy: nothing but these styles and scripts. Empty styles may stand for plotly's own."""
    allowed = " ".join(_source(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src-elem {_source(styles)} {_source('')}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def json_in_html(data: Any) -> str:
    """JSON that ends no script element and begins no comment in one."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page_file(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _trusted(text: str) -> Any:
    """Text of this project or of plotly, or JSON made safe: goes into the page as it is."""
    from markupsafe import Markup

    assert not re.search(r"</(script|style)|<!--", text, re.IGNORECASE), "would end the element that holds it"
    return Markup(text)
