"""`python -m tools.image`: builds, pushes and pulls Baton's image. What `make image` and `make image-push` call."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from job.errors import BatonError, NeedsPerson
from tools.image import base, run
from tools.image.engine import Engine
from tools.image.orders import (
    TARGETS,
    Base,
    Build,
    build_command,
    commit_of,
    copied_name,
    copy_command,
    digest_in,
    pull_command,
    push_command,
    pushed_name,
    remote_name,
)
from tools.image.trouble import check_disk, refuses_zstd

ROOT = Path(__file__).resolve().parents[2]
NOT_LOOKED_UP = "sha256:LOOKED-UP-WHEN-IT-IS-BUILT"


def main(argv: Sequence[str]) -> int:
    """One command; stdout is data (names of images), stderr is talk."""
    given = _parser().parse_args(argv)
    os.chdir(ROOT)
    try:
        given.act(given)
    except BatonError as error:
        print(f"image: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def build(given: argparse.Namespace) -> None:
    """Builds the targets, and prints their local names."""
    engines = _engines(given)
    if not given.dry_run:
        _room(engines, given.target)
    found = _base(engines, given)
    for target in given.target:
        order = order_of(target, found)
        command = build_command(engines.engine, order)
        if given.dry_run:
            print(shlex.join(command))
            continue
        engines.run(command, doing=f"building {target}", image=found.name, show=True)
        print(order.tag)


def push(given: argparse.Namespace) -> None:
    """Pushes what was built from this commit (docker with buildx: builds it from its cache), and prints NAME@DIGEST."""
    engines = _engines(given)
    names = {target: remote_name(given.registry, target, commit()) for target in given.target}
    found = _base(engines, given)
    for target, remote in names.items():
        order = order_of(target, found)
        with tempfile.TemporaryDirectory(prefix="baton-push-") as folder:
            told = Path(folder) / "told"
            if engines.engine.buildx:
                commands = [build_command(engines.engine, order, push_to=remote, metadata=told)]
            elif engines.engine.name == "docker":
                commands = [["docker", "tag", order.tag, remote], ["docker", "push", remote]]
            else:
                commands = [push_command(engines.engine, order.tag, remote, told, zstd=given.compression == "zstd")]
            if given.dry_run:
                print(*(shlex.join(command) for command in commands), sep="\n")
                continue
            try:
                output = [engines.run(one, doing=f"pushing {remote}", image=remote, show=True) for one in commands]
            except BatonError as error:
                if given.compression != "zstd" or not refuses_zstd(error.what) or engines.engine.name == "docker":
                    raise
                print("image: the registry does not take zstd; gzip then", file=sys.stderr)
                command = push_command(engines.engine, order.tag, remote, told, zstd=False)
                output = [engines.run(command, doing=f"pushing {remote}", image=remote, show=True)]
            text = told.read_text() if told.exists() else output[-1]
            tell(pushed_name(remote, digest_in(text, remote)), target)


def look_up_base(given: argparse.Namespace) -> None:
    """Prints the base image with the digest that the registry tells; what is built anywhere may stand on the same."""
    tell(_base(_engines(given), given).name)


def copy(given: argparse.Namespace) -> None:
    """Copies an image from one registry to another, and prints its new name."""
    command = copy_command(given.source, given.to)
    if given.dry_run:
        print(shlex.join(command))
        return
    run.program("skopeo", why="it copies images between registries")
    run.Engines(Engine("podman"), run.settings()).run(command, doing=f"copying {given.source}", image=given.source)
    name, _ = copied_name(given.to)
    tell(f"{name}@{digest_in(given.source, given.source)}", os.environ.get("TARGET"))


def tell(image: str, target: str | None = None) -> None:
    """Prints NAME@DIGEST; for later steps of a workflow also as outputs: image, name, digest and TARGET."""
    print(image)
    if outputs := os.environ.get("GITHUB_OUTPUT"):
        name, _, digest = image.partition("@")
        lines = {"image": image, "name": name, "digest": digest} | ({target: image} if target else {})
        with Path(outputs).open("a") as file:
            file.writelines(f"{key}={value}\n" for key, value in lines.items())


def pull(given: argparse.Namespace) -> None:
    """Pulls an image, by its digest, and prints its name."""
    engines = _engines(given)
    command = pull_command(engines.engine, given.image)
    if given.dry_run:
        print(shlex.join(command))
        return
    engines.run(command, doing=f"pulling {given.image}", image=given.image)
    print(given.image)


def settings(given: argparse.Namespace) -> None:
    """Prints what podman and buildah need in their environment on this machine: eval "$(...)"."""
    del given
    for name, value in run.settings().items():
        print(f"export {name}={shlex.quote(value)}")


def order_of(target: str, found: Base) -> Build:
    """The target as this clone and this environment have it."""
    ca = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    folders = [Path(folder) for folder in os.environ.get("PIP_FIND_LINKS", "").split() if Path(folder).is_dir()]
    return Build(
        target=target,
        base=found,
        commit=commit(),
        context=ROOT,
        unsloth=os.environ.get("UNSLOTH", "yes") != "no",
        wheels=next((folder for folder in folders if any(folder.glob("torch-*+cpu-*.whl"))), None),
        ca=Path(ca) if ca and Path(ca).is_file() else None,
        torch_index=os.environ.get("TORCH_INDEX") or None,
        cache=os.environ.get("CACHE") or None,
    )


def commit() -> str:
    """What the images of this clone are made from."""
    told = [
        subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
    ]
    return commit_of(*told)


def _engines(given: argparse.Namespace) -> run.Engines:
    """The engine that works here; a dry run needs none, and is told of the one that CI has."""
    if given.dry_run and given.engine:
        return run.Engines(Engine(given.engine, buildx=given.engine == "docker"))
    try:
        return run.find(given.engine)
    except NeedsPerson:
        if not given.dry_run:
            raise
        return run.Engines(Engine("docker", buildx=True))


def _base(engines: run.Engines, given: argparse.Namespace) -> Base:
    asked = os.environ.get("BASE_IMAGE") or None
    if given.dry_run:
        return Base(asked or f"{base.DEFAULT.rpartition(':')[0]}@{NOT_LOOKED_UP}", None)
    return base.resolve(engines, asked)


def _room(engines: run.Engines, targets: Sequence[str]) -> None:
    if (folder := run.storage_folder(engines)) is not None:
        for target in targets:
            check_disk(target, shutil.disk_usage(folder).free, str(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.image", description=__doc__)
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--dry-run", action="store_true", help="print the commands; contact no registry")
    shared.add_argument("--engine", choices=("docker", "podman", "buildah"), help="default: the first that answers")
    targets = argparse.ArgumentParser(add_help=False)
    targets.add_argument("target", nargs="+", choices=TARGETS, metavar="TARGET", help=", ".join(TARGETS))
    one = commands.add_parser("build", parents=[shared, targets], help="build; BASE_IMAGE, UNSLOTH=no, TORCH_INDEX")
    one.set_defaults(act=build)
    one = commands.add_parser("push", parents=[shared, targets], help="push what was built from this commit")
    one.add_argument("--registry", required=True, help="HOST/PROJECT/REPO")
    one.add_argument("--compression", choices=("zstd", "gzip"), default="zstd", help="zstd where the registry takes it")
    one.set_defaults(act=push)
    one = commands.add_parser("pull", parents=[shared], help="pull by digest")
    one.add_argument("image")
    one.set_defaults(act=pull)
    one = commands.add_parser("base", parents=[shared], help="the base image with its digest")
    one.set_defaults(act=look_up_base)
    one = commands.add_parser("copy", parents=[shared], help="copy NAME@DIGEST to another registry, or give it a tag")
    one.add_argument("source")
    one.add_argument("to")
    one.set_defaults(act=copy)
    one = commands.add_parser("settings", help="what podman and buildah need in their environment here")
    one.set_defaults(act=settings)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
