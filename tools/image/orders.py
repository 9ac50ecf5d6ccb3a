"""The command lines that build, push and look up an image with each engine; all pure."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from job.errors import UsageError
from tools.image.engine import Engine
from tools.image.trouble import PLATFORM

CHANGED = "-changed"
TARGETS = ("slim", "train-cpu", "train")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*")
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+)(:[0-9]+)?/")


@dataclass(frozen=True)
class Base:
    """What the image stands on."""

    name: str
    """As the engine takes it: NAME@sha256:..., or a local name."""
    digest: str | None
    """None for one that was made here."""


@dataclass(frozen=True)
class Build:
    """One target to be built."""

    target: str
    base: Base
    commit: str
    """As tag_of() has it."""
    context: Path
    unsloth: bool = True
    wheels: Path | None = None
    """A folder with PyTorch's CPU build."""
    ca: Path | None = None
    """Certificates of a proxy, for the time of the build."""
    torch_index: str | None = None
    cache: str | None = None
    """A repository that keeps layers between builds, of machines that keep nothing."""

    @property
    def tag(self) -> str:
        """Its local name."""
        return f"localhost/baton/{self.target}:{tag_of(self.commit)}"


def build_command(
    engine: Engine, build: Build, *, push_to: str | None = None, metadata: Path | None = None
) -> list[str]:
    """Builds, under a local name; with `push_to` (docker with buildx only) straight into a registry, in zstd."""
    arguments = {"BASE_IMAGE": build.base.name, "REVISION": build.commit}
    if build.torch_index:
        arguments["TORCH_INDEX"] = build.torch_index
    if build.target == "train":
        arguments["UNSLOTH"] = "yes" if build.unsloth else "no"
    labels = {"org.opencontainers.image.base.name": build.base.name.partition("@")[0]}
    if build.base.digest:
        labels["org.opencontainers.image.base.digest"] = build.base.digest
    if build.target == "train" and not build.unsloth:
        labels["org.opencontainers.image.licenses"] = "Apache-2.0"
    common = [
        f"--target={build.target}",
        f"--platform={PLATFORM}",
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        *(f"--label={name}={value}" for name, value in labels.items()),
        *([f"--secret=id=ca,src={build.ca}"] if build.ca else []),
    ]
    context = str(build.context)
    if engine.name == "docker" and engine.buildx:
        # zstd: a third faster to unpack than gzip at the same size; OCI media types name it.
        output = f"type=image,name={push_to},push=true,oci-mediatypes=true,compression=zstd,force-compression=true"
        where = [f"--output={output}"] if push_to else ["--load", f"--tag={build.tag}"]
        if build.cache:
            kept = f"type=registry,ref={build.cache}:{build.target}"
            where += [f"--cache-from={kept}", f"--cache-to={kept},mode=max" if push_to else ""]
        wheels = [f"--build-context=wheels={build.wheels}"] if build.wheels else []
        told = [f"--metadata-file={metadata}"] if metadata else []
        return ["docker", "buildx", "build", *common, *filter(None, where), *wheels, *told, context]
    where = [f"--tag={build.tag}"]
    if engine.name == "docker":
        return ["docker", "build", *common, "--network=host", *where, context]
    # Docker's format: OCI's has no HEALTHCHECK. The network is the host's: there need be no other one for a build.
    # Further build contexts are no mounts in every version of theirs; a volume is.
    wheels = [f"--volume={build.wheels}:/mnt/wheels:ro"] if build.wheels else []
    mine = ["--format=docker", "--layers", "--network=host", *wheels]
    if engine.name == "buildah":
        return ["buildah", "build", "--isolation=chroot", *mine, *common, *where, context]
    return ["podman", "build", *mine, *common, *where, context]


def pull_command(engine: Engine, image: str) -> list[str]:
    """Brings an image here."""
    quiet = {"docker": ["docker", "pull", "--quiet"], "podman": ["podman", "pull", "--quiet"]}
    command = quiet.get(engine.name, ["buildah", "pull", "--quiet"])
    return [*command, *([] if engine.name == "docker" else tls(image)), image]


def push_command(engine: Engine, local: str, remote: str, digest_file: Path, *, zstd: bool) -> list[str]:
    """Sends a local image to a registry; podman and buildah write its digest to a file."""
    if engine.name == "docker":
        return ["docker", "push", remote]
    form = ["--format=oci", "--compression-format=zstd"] if zstd else ["--format=v2s2", "--compression-format=gzip"]
    return [engine.name, "push", *form, *tls(remote), f"--digestfile={digest_file}", local, f"docker://{remote}"]


def copy_command(source: str, to: str) -> list[str]:
    """Copies NAME@DIGEST, byte for byte, to NAME or NAME:TAG; without a tag it is found by its digest only."""
    digest = digest_in(source, source)
    name, tag = copied_name(to)
    target = f"{name}:{tag}" if tag else f"{name}@{digest}"
    plain = [f"--{end}-tls-verify=false" for end, name in (("src", source), ("dest", to)) if tls(name)]
    return ["skopeo", "copy", "--preserve-digests", *plain, f"docker://{source}", f"docker://{target}"]


def copied_name(to: str) -> tuple[str, str]:
    """NAME and TAG of NAME[:TAG]. Registries want small letters; an owner on GitHub may be written with capitals."""
    path, slash, last = to.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{path}{slash}{last}".lower(), tag


def tls(image: str) -> list[str]:
    """A registry on this machine speaks plain HTTP; any other must not."""
    return ["--tls-verify=false"] if _LOOPBACK.match(image) else []


def remote_name(registry: str, target: str, commit: str) -> str:
    """HOST/PROJECT/REPO/TARGET:TAG. Raises UsageError for what is no registry."""
    if not _REGISTRY.fullmatch(registry):
        raise UsageError(
            f"{registry!r} is no registry.",
            fix="HOST[:PORT]/PROJECT/REPO, such as us-docker.pkg.dev/my-project/baton, without a scheme.",
        )
    return f"{registry}/{target}:{tag_of(commit)}"


def digest_in(text: str, what: str) -> str:
    """The digest that an engine printed. Raises UsageError when there is none."""
    if text.startswith("{"):  # buildx's metadata: the first digest in it is that of the image's configuration
        text = str(json.loads(text).get("containerimage.digest", text))
    if found := DIGEST.search(text):
        return found[0]
    raise UsageError(f"No digest of {what} was told: {text.strip()[-200:]!r}.")


def pushed_name(remote: str, digest: str) -> str:
    """What `launch` takes: the name with its digest instead of the tag."""
    return f"{remote.rpartition(':')[0]}@{digest}"


def commit_of(head: str, changed: str) -> str:
    """What the image says it was made from: `git rev-parse HEAD`, marked when `git status --porcelain` is not empty."""
    return f"{head.strip()}{CHANGED if changed.strip() else ''}"


def tag_of(commit: str) -> str:
    """The image's tag: twelve digits of the commit, and the mark."""
    return commit[:12] + (CHANGED if commit.endswith(CHANGED) else "")
