"""Where to work, and secrets: what the environment says beside the recipe, and below it the folder's `.env`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from job.errors import UsageError

DOTENV = Path(".env")
SECRETS = ("HF_TOKEN", "GEMINI_API_KEY", "OPENAI_API_KEY", "WANDB_API_KEY")
"""What a VM may need of Secret Manager."""
Version = Annotated[str, Field(pattern=r"^projects/[a-z0-9.:-]+/secrets/[A-Za-z0-9_-]+/versions/[1-9][0-9]*$")]
"""A version by its number: what is read again after a preemption is what was read before."""


class Environment(BaseSettings):
    """Where things are, not how anything is trained. Field `bucket` is the variable BATON_BUCKET."""

    model_config = SettingsConfigDict(
        env_prefix="BATON_", env_ignore_empty=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    bucket: str | None = None
    """`gs://BUCKET` or `file:///folder`: where a run given by its name lies, under `runs/`."""
    run: str | None = None
    """URI or name of the run, when the command line names none."""
    attempt: Annotated[int, Field(ge=1)] | None = None
    """Number that was claimed for this process; without it the process claims one by itself."""
    project: str | None = None
    """Google Cloud project."""
    image: str | None = None
    """Container image of the attempts: by its digest; or by a tag, which is resolved once its builder is verified."""
    image_signer: str | None = None
    """Whose images a tag may name: `OWNER/REPO` on GitHub, or `OWNER/REPO/WORKFLOW.yaml`; else this clone's origin."""
    image_trust_root: Path | None = None
    """Keys of a Sigstore of one's own, its `trusted_root.json`; without it those of sigstore.dev."""
    boot_image: str | None = None
    """Image that VMs boot, `PROJECT/FAMILY` or a full name; without it the one that infra/machines.toml names."""
    service_account: str | None = None
    """Account of the VMs; without it baton-vm@PROJECT.iam.gserviceaccount.com."""
    subnet: str | None = None
    """Subnet of the VMs, of that name in every region, with Private Google Access; without it `baton`."""
    secret_hf_token: Version | None = None
    """Where a VM reads HF_TOKEN: `projects/PROJECT/secrets/NAME/versions/NUMBER` in Secret Manager."""
    secret_gemini_api_key: Version | None = None
    """Where a VM reads GEMINI_API_KEY, in the same form."""
    secret_openai_api_key: Version | None = None
    """Where a VM reads OPENAI_API_KEY."""
    secret_wandb_api_key: Version | None = None
    """Where a VM reads WANDB_API_KEY."""

    def secrets(self) -> dict[str, str]:
        """The versions that are set, by the variable that each is for."""
        found = {name: getattr(self, f"secret_{name.lower()}") for name in SECRETS}
        return {name: version for name, version in found.items() if version is not None}


class Secrets(BaseSettings):
    """Never part of what is written anywhere; printed, they show stars. Field `hf_token` is HF_TOKEN."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    hf_token: SecretStr | None = None
    """Hugging Face token, for gated and private models."""
    baton_billing_key: SecretStr | None = None
    """API key with which `launch` reads today's prices (Cloud Billing Catalog); without it your login is used."""
    baton_webhook: SecretStr | None = None
    """Where watchdogs post what becomes of runs, in Slack's format. Whoever knows the address can post there."""


def load_environment(dotenv: Path | None = DOTENV) -> Environment:
    """BATON_BUCKET and the like, from `.env` < environment. Raises UsageError."""
    try:
        return Environment(_env_file=dotenv)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"BATON_{str(first['loc'][0]).upper()}"
        if name.startswith("BATON_SECRET_"):  # what stands there may be the secret itself
            raise UsageError(
                f"{name} does not name a version of a secret.",
                fix="Give projects/PROJECT/secrets/NAME/versions/NUMBER, as infra/setup.sh writes it to .env.",
            ) from None
        raise UsageError(f"{name} is {first['input']!r}, not the number of an attempt.", fix="Use 1, 2, 3...") from None


def load_secrets(dotenv: Path | None = DOTENV) -> Secrets:
    """Tokens and keys, from `.env` < environment."""
    return Secrets(_env_file=dotenv)


def read_variables(env: Mapping[str, str] | None, dotenv: Path | None) -> dict[str, tuple[str, str]]:
    """{variable: (value, where it is set)}: the environment over `.env`, `.env`'s first; empty means not set.

    `env` None: this process's. Raises UsageError.
    """
    variables: dict[str, tuple[str, str]] = {}
    if dotenv is not None and dotenv.is_file():
        try:
            found = dotenv_values(dotenv, interpolate=False)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{dotenv} cannot be read: {error}.") from None
        variables = {name: (value, f".env {name}") for name, value in found.items() if value}
    for name, value in (os.environ if env is None else env).items():
        if value:
            variables.pop(name, None)
            variables[name] = (value, f"environment {name}")
    return variables
