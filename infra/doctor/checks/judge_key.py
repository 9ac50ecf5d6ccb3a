"""The key of an LLM judge: named, never sent. A judge is asked in the first step, when a VM is paid for already."""

from collections.abc import Mapping

from infra.doctor.finding import Finding, not_asked, ok, to_do
from infra.doctor.place import Place

KEYS = ("GEMINI_API_KEY", "OPENAI_API_KEY")


def look_at_judge_key(place: Place) -> Finding:
    """Whether VMs get the key that is meant for them."""
    return judge_keys(place.set_in, place.environment.secrets(), place.named_project or "PROJECT")


def judge_keys(set_in: Mapping[str, str], versions: Mapping[str, str], project: str) -> Finding:
    """By where each is set here (`.env` is this project's, the environment may be meant for others) and what is named
    for VMs; pure, and blind to what the values are."""
    lost = [name for name in KEYS if name in set_in and name not in versions]
    if meant := [name for name in lost if set_in[name].startswith(".env")]:
        return to_do(
            f"{' and '.join(meant)} in .env: VMs do not get it, no version of it in Secret Manager is named",
            f"infra/setup.sh --project {project}   # stores it",
        )
    if there := [name for name in KEYS if name in versions]:
        return ok("; ".join(f"VMs read {name} from {versions[name]}" for name in there) + "; it was sent to nobody")
    if lost:
        return not_asked(f"{' and '.join(lost)} of this shell is not for VMs until infra/setup.sh stores it")
    return not_asked(f"no key is set ({', '.join(KEYS)}); only rewards that ask a judge need one")
