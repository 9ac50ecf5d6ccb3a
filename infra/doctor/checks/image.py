"""The container of the VMs."""

from infra.doctor.finding import Finding, not_known, ok, to_do
from infra.doctor.place import Place
from infra.registry.images import pin_image
from job.errors import NeedsPerson, UsageError


def look_at_image(place: Place) -> Finding:
    """Whether the registry has it, for VMs; of a tag also who built it, as a launch would ask."""
    given = place.environment.image
    if not given:
        setup = f"infra/setup.sh --project {place.named_project or 'PROJECT'}"
        fix = f"{setup}\n# or BATON_IMAGE=HOST/PROJECT/REPO/train:TAG of your own: make image-push"
        return to_do("BATON_IMAGE names no container: VMs run one", fix)
    try:
        found = pin_image(given, place.environment)
    except (UsageError, NeedsPerson) as error:
        return to_do(error.what.rstrip("."), f"# {error.fix}")
    if not found.seen:
        return not_known(f"{found.image}: {found.known}")
    return ok(f"{found.image}: {found.known}")
