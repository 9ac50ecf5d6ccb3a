"""What every refusal has in common: an exit code, one error in at most two lines, and nothing changed in the run."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attempts import Process, Run, tree


def refuse(
    run: Run,
    exit_code: int,
    what: str,
    fix: str = "",
    *,
    argv: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Starts an attempt, which must end with that code and exactly this error, and leave the run as it was."""
    before = everything(run.bucket)
    attempt = run.server.attempt(run.argv() if argv is None else argv, cwd=run.workplace, folder=run.folder, env=env)
    assert attempt.wait() == exit_code, attempt.err
    assert attempt.err.splitlines() == [f"error: {what}", *([f"  {fix}"] if fix else [])], attempt.err
    assert (attempt.folder / f"{attempt.name}.out").read_text() == ""
    assert everything(run.bucket) == before


def fails(run: Run, exit_code: int, what: str, fix: str, *, patches: Sequence[str] = ()) -> Process:
    """Starts an attempt that must fail once it trains, with that code and this error as its only and last one."""
    attempt = run.start(patches=patches)
    assert attempt.wait() == exit_code, attempt.err
    assert attempt.err.splitlines()[-2:] == [f"error: {what}", f"  {fix}"], attempt.err
    assert attempt.err.count("error:") == 1
    assert "Traceback" not in attempt.err
    return attempt


def everything(folder: Path) -> dict[str, str]:
    """Every file with its bytes, every folder, and whether there is anything at all."""
    if not folder.is_dir():
        return {}
    return {**{str(path): "" for path in [folder, *folder.rglob("*")]}, **tree(folder)}


def own_workplace(run: Run) -> Run:
    """The same run in a copy of the user's folder, in which a test may change anything."""
    return replace(run, workplace=Path(shutil.copytree(run.workplace, run.folder / "user")))


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """A file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines))
