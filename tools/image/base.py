"""The base image: by digest, as the registry tells it; made from Debian's archive where no registry can be reached."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from job.errors import BatonError, NeedsPerson, Transient
from tools.image import run
from tools.image.orders import DIGEST, Base, digest_in, pull_command
from tools.image.trouble import check_platform

DEFAULT = "docker.io/library/debian:bookworm-slim"
MADE_HERE = "localhost/baton/base:bookworm"
SUITE = "bookworm"
PACKAGES = "ca-certificates"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")  # as in -slim


def resolve(engines: run.Engines, asked: str | None) -> Base:
    """The base to build on. `asked`: a name, with or without a digest; else Debian's, or one made here.

    Raises NeedsPerson for one of another processor, and Transient when one that was asked for cannot be reached.
    """
    name = asked or DEFAULT
    if name.startswith("localhost/"):
        return Base(name, None)
    try:
        engines.run(pull_command(engines.engine, name), doing=f"pulling the base image {name}", image=name)
    except Transient as error:
        if asked:
            raise
        print(f"image: {error.what}", file=sys.stderr)
        return Base(from_debian(engines), None)
    check_platform([_told(engines, name, "architecture")], name)
    if DIGEST.search(name):
        return Base(name, digest_in(name, name))
    digest = digest_in(_told(engines, name, "digest"), name)
    return Base(f"{name.rpartition(':')[0]}@{digest}", digest)


def from_debian(engines: run.Engines) -> str:
    """Debian 12 as mmdebstrap makes it from the signed archive, under a local name; kept for the next build."""
    try:
        _told(engines, MADE_HERE, "architecture")
    except BatonError:
        pass
    else:
        print(f"image: the base is {MADE_HERE}, made here before", file=sys.stderr)
        return MADE_HERE
    if os.getuid() != 0:
        raise NeedsPerson(
            "No registry can be reached, and only root can make a base image from Debian's archive.",
            fix="Check the network, name another base with BASE_IMAGE, or run as root.",
        )
    mmdebstrap = run.program("mmdebstrap", why="no registry can be reached, it makes a base from Debian's archive")
    with tempfile.TemporaryDirectory(prefix="baton-base-") as folder:
        archive = Path(folder) / "base.tar"
        print(f"image: making {MADE_HERE} from Debian's archive (half a minute)", file=sys.stderr)
        command = [
            *(mmdebstrap, "--quiet", "--variant=minbase", f"--include={PACKAGES}"),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            *(SUITE, str(archive)),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Transient(
                f"No registry can be reached, and Debian's archive gave no base: {done.stderr.strip()[-200:]}",
                fix="Check the network, or name another base with BASE_IMAGE.",
            )
        for import_command in import_commands(engines.engine.name, archive):
            engines.run(import_command, doing=f"importing {MADE_HERE}")
    return MADE_HERE


def import_commands(engine: str, archive: Path) -> list[list[str]]:
    """How a tar of a file system becomes an image; pure."""
    if engine == "buildah":
        made = "baton-base"
        return [
            ["buildah", "from", "--name", made, "scratch"],
            ["buildah", "add", "--quiet", made, str(archive), "/"],
            ["buildah", "commit", "--quiet", "--rm", made, MADE_HERE],
        ]
    return [[engine, "import", str(archive), MADE_HERE]]


def _told(engines: run.Engines, name: str, field: str) -> str:
    """What the engine's own record of an image that is here says. Raises BatonError when there is none."""
    formats = {
        "docker": {"architecture": "{{.Architecture}}", "digest": "{{index .RepoDigests 0}}"},
        "podman": {"architecture": "{{.Architecture}}", "digest": "{{.Digest}}"},
        "buildah": {"architecture": "{{.OCIv1.Architecture}}", "digest": "{{.FromImageDigest}}"},
    }
    engine = engines.engine.name
    kind = ["inspect", "--type=image"] if engine == "buildah" else ["image", "inspect"]
    command = [engine, *kind, f"--format={formats[engine][field]}", name]
    return engines.run(command, doing=f"looking at {name}", image=name).strip()
