"""`baton config`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from infra.cli.output import print_json, print_table
from job.settings import Resolved, fingerprint, flatten, load_settings, to_plain
from job.settings.docs import help_lines

app = typer.Typer(add_completion=False)
SETTINGS = "\n\n".join(["The settings:", *map(escape, help_lines())])


@app.command(epilog=SETTINGS)
def config(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="Recipe TOML; without one only the other sources count.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, as in train.seed=3. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The settings that a recipe comes to, and where each value is from: recipe < .env < environment < --set."""
    resolved = load_settings(recipe, overrides or ())
    if as_json:
        print_json(
            {
                "settings": to_plain(resolved.settings),
                "origins": resolved.origins,
                "fingerprint": fingerprint(resolved.settings),
            }
        )
        return
    print_table(_table(resolved))


def _table(resolved: Resolved) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from job.views.text import printable

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("setting", "value", "from"):
        table.add_column(name, overflow="fold")
    for key, value in flatten(to_plain(resolved.settings)).items():
        origin = resolved.origins[key]
        style = "dim" if origin == "default" else ""
        shown = "" if value is None else json.dumps(value, ensure_ascii=False)
        table.add_row(key, Text(printable(shown)), Text(printable(origin)), style=style)
    return table
