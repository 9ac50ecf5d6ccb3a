"""Who built a container: its signed provenance, verified against Sigstore's keys. Imports sigstore, so on demand only.

What holds then: a workflow of that file, in that repository, run for main or a tag of that same repository, signed for
exactly this digest, and a public log has it. The certificate's words count; of the statement's own only its subject.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat import asn1
from sigstore.dsse import Statement
from sigstore.errors import Error, VerificationError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from tuf.api.exceptions import RepositoryError

from infra.registry.signer import Build, Signer
from job.errors import BatonError, NeedsPerson, Transient, UsageError

PROVENANCE = "https://slsa.dev/provenance/v1"
BAD = (
    *(Error, ValueError, LookupError, TypeError, RecursionError),
    *(x509.ExtensionNotFound, x509.DuplicateExtension),
)
"""What sigstore, and reading what it has verified, raise of a bundle that is not right."""
_STATEMENT = "application/vnd.in-toto+json"
_EXTENSION = "1.3.6.1.4.1.57264.1"  # https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md


def open_verifier(trust_root: Path | None) -> Verifier:
    """With the keys of a file, or those of sigstore.dev of today, brought up to date by TUF. Raises BatonError."""
    try:
        if trust_root is not None:
            return Verifier(trusted_root=TrustedRoot.from_file(str(trust_root)))
        return Verifier.production()
    except (Error, ValueError, OSError) as error:
        if trust_root is not None:
            raise UsageError(
                f"BATON_IMAGE_TRUST_ROOT: {trust_root} is no trust root of Sigstore: {_line(error)}.",
                fix="Name a trusted_root.json; unset it for sigstore.dev.",
            ) from None
        raise _without_keys(error.__cause__ or error) from None


def _without_keys(cause: BaseException) -> BatonError:
    if isinstance(cause, RepositoryError):
        return NeedsPerson(
            f"Sigstore's keys are not to be trusted: {_line(cause)}.",
            fix="Look at this machine's clock; else wait, or launch by a digest that you vouch for.",
        )
    if isinstance(cause, OSError) and cause.filename is not None:
        return NeedsPerson(
            f"Sigstore's keys cannot be kept: {_line(cause)}.",
            fix="Set XDG_DATA_HOME and XDG_CACHE_HOME to folders that can be written.",
        )
    return Transient(
        f"Sigstore's keys cannot be fetched: {_line(cause)}.",
        fix="Try again with a network; a digest (NAME@sha256:...) needs none.",
    )


def verify(bundles: Iterable[bytes], name: str, digest: str, signer: Signer, verifier: Verifier) -> Build:
    """Who built that digest, by the first of its attestations that holds. Raises NeedsPerson when none does.

    `name`: what people call the container.
    """
    refusals = []
    for bundle in bundles:
        try:
            if (build := _verified(bundle, digest, signer, verifier)) is not None:
                return build
        except BAD as error:
            refusals.append(_line(error))
    by_hand = "Launch it by its digest (NAME@sha256:...) if you know who built it"
    if refusals:
        raise NeedsPerson(
            f"{name}: its attestation does not hold: {refusals[0]}.",
            fix=f"{by_hand}; BATON_IMAGE_SIGNER names who may sign, now {signer}.",
        )
    raise NeedsPerson(
        f"{name}: nothing attests who built it.",
        fix=f"{by_hand}; or name a tag that {signer} has pushed with its provenance.",
    )


def _verified(raw: bytes, digest: str, signer: Signer, verifier: Verifier) -> Build | None:
    """Who signed; None for a bundle about something else than provenance. Raises what is wrong with it."""
    bundle = Bundle.from_json(raw)
    kind, payload = verifier.verify_dsse(bundle, _Policy(signer))
    if kind != _STATEMENT:
        raise VerificationError(f"what is signed is no statement but {kind}")
    Statement(payload)  # refuses what is none
    statement = json.loads(payload)
    if statement["predicateType"] != PROVENANCE:
        return None  # a list of packages, say
    if not any(f"sha256:{one['digest'].get('sha256')}" == digest for one in statement["subject"]):
        raise VerificationError(f"it is about something else than {digest}")
    return build_of(bundle.signing_certificate)


class _Policy:
    """What Sigstore asks of a certificate that it has found to be genuine."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def verify(self, cert: x509.Certificate) -> None:
        """Raises VerificationError for a certificate of somebody else."""
        if (why := self._signer.refusal(build_of(cert))) is not None:
            raise VerificationError(why)


def build_of(cert: x509.Certificate) -> Build:
    """Who asked for that certificate, as Fulcio has recorded it."""
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Build(
        issuer=_recorded(cert, 8),
        workflow=uris[0] if len(uris) == 1 else "",
        repository=_recorded(cert, 12),
        commit=_recorded(cert, 13),
        ref=_recorded(cert, 14),
    )


def _recorded(cert: x509.Certificate, number: int) -> str:
    """One of Fulcio's extensions; empty where a certificate (of a person, say) has none."""
    try:
        value = cert.extensions.get_extension_for_oid(x509.ObjectIdentifier(f"{_EXTENSION}.{number}")).value
    except x509.ExtensionNotFound:
        return ""
    assert isinstance(value, x509.UnrecognizedExtension)
    return asn1.decode_der(str, value.value)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
