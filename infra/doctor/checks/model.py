"""The recipe's model: whether its files may be read, which the public page of a gated one does not tell."""

from collections.abc import Mapping
from pathlib import Path

from infra.doctor.finding import Finding, not_asked, ok, to_do
from infra.doctor.place import Place
from job.errors import NeedsPerson, UsageError
from job.run.model_source import TINY, hub_error
from job.settings import load_secrets

TOKEN = "HF_TOKEN"


def look_at_model(place: Place) -> Finding:
    """Whether the Hub gives its files to VMs: to anybody, or to the token that they get."""
    if place.settings is None:
        return not_asked("no recipe is named: baton doctor RECIPE")
    name, project = place.settings.model.name, place.named_project or "PROJECT"
    if name == TINY:
        return not_asked("the demo's model is made on the machine")
    if Path(name).expanduser().is_dir():
        return to_do(
            f"model.name: {name} is a folder on this machine, which no VM can read",
            f"hf upload ORGANISATION/NAME {name} --private\n# then name that in the recipe",
        )
    token = load_secrets().hf_token
    try:
        try:
            _ask_hub(name, None)
        except NeedsPerson:
            if token is None:
                raise
            _ask_hub(name, token.get_secret_value())
            return judge_token(name, place.environment.secrets(), project)
    except UsageError as error:
        return to_do(error.what.rstrip("."), f"# {error.fix or 'Check the spelling.'}")
    except NeedsPerson as error:
        return to_do(
            error.what.rstrip("."),
            f"# accept its terms: https://huggingface.co/{name}\n"
            f"export {TOKEN}=hf_...   # https://huggingface.co/settings/tokens, one that may read it\n"
            f"infra/setup.sh --project {project}   # stores it for the VMs",
        )
    return ok(f"{name}: the Hub gives its files to anybody")


def judge_token(name: str, versions: Mapping[str, str], project: str) -> Finding:
    """Of a model that the Hub gives to the token that is set here; pure."""
    if TOKEN not in versions:
        return to_do(
            f"{name}: the Hub gives its files to {TOKEN}, and VMs do not get it",
            f"infra/setup.sh --project {project}   # stores it in Secret Manager",
        )
    return ok(f"{name}: the Hub gives its files to {TOKEN}")


def _ask_hub(name: str, token: str | None) -> None:
    """Raises NeedsPerson (gated or private), UsageError (no such model) or Transient."""
    from huggingface_hub import HfApi  # 0.3 s

    try:
        HfApi(token=token or False).auth_check(name)  # else it would show the login of whoever sits here
    except Exception as error:
        raise hub_error(name, None, error) from error
