"""What is wanted of this attempt: the recipe, held against what the run in the bucket already is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from job.agent.arguments import Arguments
from job.errors import UsageError
from job.run.blobs import put_blob
from job.run.claims import check_claim, read_claims, refuse_unwanted
from job.run.head import Head, Status, read_head
from job.run.inputs import INPUT_KEYS, PinnedInput, input_path, pin_input
from job.run.model_source import TINY, ModelSource, resolve_model
from job.run.revise import make_revision
from job.run.spec import Spec, SpecModel, read_spec, write_spec
from job.settings import (
    Resolved,
    Settings,
    from_plain,
    identity_differences,
    load_secrets,
    load_settings,
)
from job.storage import Bucket

HUB_TOKEN = "HF_TOKEN"
CHECKPOINT_KEYS = ("lora.enabled", "lora.rank", "lora.targets", "train.sync_ref_model")
"""Settings that say which tensors a checkpoint has; train.beta does too where one of both values is 0."""


@dataclass(frozen=True)
class Wanted:
    """A run as this attempt finds it: what to train, on what, and from where."""

    settings: Settings
    spec: Spec | None
    """The newest revision in the bucket; None for a run that does not exist yet."""
    accepted: tuple[str, ...]
    """Differences to the spec that the caller accepted; they make a new revision."""
    head: Head | None
    inputs: dict[str, PinnedInput]
    """By the setting that names the file."""
    model: dict[str, Any]
    """The pinned model: a ModelSource as plain data."""
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    """Those that the spec names and the environment has not, by their variables."""

    @property
    def hub_token(self) -> str | None:
        """For the Hugging Face Hub: this process's own, else the run's."""
        own = load_secrets().hf_token or self.secrets.get(HUB_TOKEN)
        return None if own is None else own.get_secret_value()


def read_recipe(arguments: Arguments) -> Resolved | None:
    """The settings that the command line asks for, None when it names no recipe. Contacts nothing."""
    return None if arguments.recipe is None else load_settings(arguments.recipe, arguments.overrides)


def find_wanted(bucket: Bucket, arguments: Arguments, asked: Resolved | None, scratch: Path) -> Wanted:
    """Reads what the run is, pins its files and its model, and refuses what cannot be. Changes nothing in the bucket.

    Raises NeedsPerson (stopped, failed), Fenced (a newer attempt is claimed), UsageError (another recipe, no such
    file). A finished run is the caller's to see in `head`.
    """
    spec, head = read_spec(bucket), read_head(bucket)
    if spec is None and asked is None:
        raise UsageError(f"there is no run at {bucket.uri}.", fix="Name a recipe to start one there.")
    if head is not None and head.status is Status.FINISHED:
        assert spec is not None
        return Wanted(from_plain(spec.recipe), spec, (), head, {}, {})
    refuse_unwanted(read_claims(bucket), bucket.uri)
    if arguments.attempt is not None:
        check_claim(bucket, arguments.attempt)
    allowed = arguments.allow_changed
    settings, changed = _settings(spec, asked, allowed, bucket.uri)
    if spec is not None and head is not None and head.checkpoint is not None:
        refuse_unfit(from_plain(spec.recipe), settings)
    accepted = set(changed)
    inputs = {}
    for key in INPUT_KEYS:
        if (given := input_path(settings, key)) is not None:
            recorded = spec.inputs.get(key) if spec is not None and key not in changed else None
            inputs[key] = pin_input(bucket, key, given, recorded, scratch, may_differ=key in allowed)
            if recorded is not None and inputs[key].sha256 != recorded.sha256:
                accepted.add(key)
    secrets = _secrets(spec)
    of_run = spec.model if spec is not None and not {"model.name", "model.revision"} & accepted else None
    token = secrets.get(HUB_TOKEN)
    source = _pin_model(settings, of_run, token, may_differ="model.name" in allowed)
    if of_run is not None and source.sha256 != of_run.sha256 and source.kind == "folder":
        accepted.add("model.name")
    return Wanted(settings, spec, tuple(sorted(accepted)), head, inputs, source.to_plain(), secrets)


def _secrets(spec: Spec | None) -> dict[str, SecretStr]:
    """The run's secrets. Raises NeedsPerson or Transient."""
    if spec is None or spec.machine is None or not spec.machine.secrets:
        return {}
    from job.run.secret_values import read_secrets  # 0.1 s that a run without secrets need not pay

    return read_secrets(spec.machine.secrets)


def _settings(
    spec: Spec | None, asked: Resolved | None, allow_changed: Sequence[str], uri: str
) -> tuple[Settings, tuple[str, ...]]:
    if spec is None:
        assert asked is not None
        return asked.settings, ()
    of_run = from_plain(spec.recipe)
    return (of_run, ()) if asked is None else reconcile(of_run, asked.settings, allow_changed, uri)


def _pin_model(
    settings: Settings, recorded: SpecModel | None, of_run: SecretStr | None, *, may_differ: bool
) -> ModelSource:
    """The model with its commit or hash; an existing run's own commit, and the folder that it was started with."""
    was_folder = recorded is not None and recorded.sha256 is not None and recorded.name != TINY
    if was_folder and not Path(settings.model.name).expanduser().is_dir():
        raise UsageError(
            f"model.name: the folder {settings.model.name} that the run was started with is not here.",
            fix="Put it back, or start the command in the folder that its path is relative to.",
        )
    token = load_secrets().hf_token or of_run
    revision = settings.model.revision if recorded is None else recorded.revision
    source = resolve_model(settings.model.name, revision, token=None if token is None else token.get_secret_value())
    if recorded is None or recorded.sha256 is None or (may_differ and source.kind == "folder"):
        return source
    if source.sha256 is not None and source.sha256 != recorded.sha256:
        raise UsageError(
            f"model.name: {settings.model.name} is not the model that the run was started with "
            f"(sha256 {source.sha256[:12]}, the run has {recorded.sha256[:12]}).",
            fix="Restore the files, use another --run, or accept the difference: --allow-changed model.name",
        )
    return replace(source, sha256=recorded.sha256)


def reconcile(
    of_run: Settings, asked: Settings, allow_changed: Sequence[str], uri: str
) -> tuple[Settings, tuple[str, ...]]:
    """The settings to go on with when a recipe is given for a run that exists; pure.

    A difference in a setting that is part of the run's identity is refused by name, unless it was accepted.
    Operational settings are taken as asked: they change nothing that is learnt.
    """
    differences = identity_differences(of_run, asked)
    refused = [(key, old, new) for key, old, new in differences if key not in allow_changed]
    if refused:
        listed = "; ".join(f"{key} is {old!r} in the run, {new!r} here" for key, old, new in refused)
        keys = " ".join(f"--allow-changed {key}" for key, _, _ in refused)
        raise UsageError(
            f"the run {uri} was started with another recipe: {listed}.",
            fix=f"Use the run's own values, or another --run; to accept the difference: {keys}",
        )
    return asked, tuple(sorted(key for key, _, _ in differences))


def refuse_unfit(of_run: Settings, asked: Settings) -> None:
    """Refuses, accepted or not, a difference with which the run's checkpoints could not be loaded; pure."""
    for key, old, new in identity_differences(of_run, asked):
        if key in CHECKPOINT_KEYS or (key == "train.beta" and 0 in (old, new)):
            raise UsageError(
                f"{key} is {old!r} in the run, {new!r} here: the run's checkpoints fit the first only.",
                fix="Use the run's own value, or another --run.",
            )


def write_spec_for(bucket: Bucket, wanted: Wanted, model: SpecModel) -> Spec:
    """The spec that this attempt trains by; written when the run is new or a difference was accepted.

    Inputs go to blobs first, so that a spec never names one that is not there.
    """
    if wanted.spec is not None and not wanted.accepted:
        return wanted.spec
    spec = make_revision(
        wanted.spec,
        wanted.settings,
        wanted.inputs.values(),
        model,
        machine=None if wanted.spec is None else wanted.spec.machine,
        accepted=wanted.accepted,
    )
    for pinned in wanted.inputs.values():
        put_blob(bucket, pinned.path)
    try:
        write_spec(bucket, spec)
    except UsageError:
        # Two attempts that start at once want the same: which of them goes on is for the claim to say.
        other = read_spec(bucket)
        if other is None or _what_counts(other) != _what_counts(spec):
            raise
        return other
    return spec


def _what_counts(spec: Spec) -> tuple[Any, ...]:
    """What two revisions have in common when the same weights come of them."""
    return spec.revision, spec.fingerprint, {key: pinned.sha256 for key, pinned in spec.inputs.items()}, spec.model
