"""From what people name to what VMs run: a container by its digest, and what is known of it.

A tag is resolved, and who built it has to be attested: whoever can push could move it. A digest is what its user
vouches for: it is looked up so that a wrong one is noticed before a VM is paid for; what cannot be looked up is said.
"""

from dataclasses import dataclass

from infra.registry.client import PLATFORM, Found, Registry
from infra.registry.reference import Reference, parse_reference
from infra.registry.signer import signer_of
from job.errors import NeedsPerson, Transient, UsageError
from job.settings.environment import Environment

SOURCE = "BATON_IMAGE"


@dataclass(frozen=True)
class Container:
    """What is written into a spec, and what a person is told of it."""

    image: str
    known: str
    seen: bool = True
    """Whether its registry has shown it."""


def pin_image(given: str, environment: Environment, source: str = SOURCE) -> Container:
    """The container that `source` (a variable or an option) names, by its digest. Raises UsageError for what is wrong,
    not there or for other machines; NeedsPerson for what one may not see or nobody attests; Transient."""
    reference = parse_reference(given, source)
    if reference.digest is not None:
        return _look_up(reference, reference.digest)
    signer = signer_of(environment.image_signer)
    with Registry(reference) as registry:
        found = registry.find()
        _check_platform(reference, found)
        from infra.registry.attestation import PROVENANCE, open_verifier, verify  # a second of imports, for tags only

        verifier = open_verifier(environment.image_trust_root)
        bundles = registry.bundles(found.digest, PROVENANCE)
        build = verify(bundles, str(reference), found.digest, signer, verifier)
    return Container(reference.pinned(found.digest), f"today's {reference}, built by {build}: its attestation holds")


def _look_up(reference: Reference, digest: str) -> Container:
    """What a digest names. Raises UsageError for one that is not there, or not for VMs."""
    image = reference.pinned(digest)
    try:
        with Registry(reference) as registry:
            _check_platform(reference, registry.find())
    except (NeedsPerson, Transient) as error:
        return Container(image, f"as given; not looked up: {error.what.rstrip('.')}", seen=False)
    return Container(image, f"as given; {reference.host} has it, and who built it is yours to know")


def _check_platform(reference: Reference, found: Found) -> None:
    if PLATFORM not in found.platforms:
        has = f"is for {', '.join(found.platforms)[:100]}" if found.platforms else "names no platform"
        raise UsageError(
            f"{reference} {has}: VMs are {PLATFORM}.", fix=f"Build it for them: docker build --platform {PLATFORM} ..."
        )
