"""A Sigstore of the tests' own: certificate authority, both transparency logs, and the trust root that names them.

It signs as Fulcio and Rekor do, byte by byte, so that the sigstore library verifies what it verifies in real bundles.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PROVENANCE = "https://slsa.dev/provenance/v1"
SCT_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
SHA256 = ECDSA(hashes.SHA256())


@dataclass(frozen=True)
class Identity:
    """What GitHub says of a job to Fulcio, which writes it into the certificate."""

    repository: str = "me/baton"
    workflow: str = "me/baton/.github/workflows/image.yaml"
    workflow_ref: str = "refs/tags/v1.0"
    ref: str = "refs/tags/v1.0"
    issuer: str = "https://token.actions.githubusercontent.com"
    commit: str = "c0ffee" * 6 + "c0ff"

    def extensions(self) -> dict[int, str]:
        """Fulcio's, by the last number of their OID."""
        return {
            8: self.issuer,
            12: f"https://github.com/{self.repository}",
            13: self.commit,
            14: self.ref,
        }


@dataclass
class OwnSigstore:
    """One instance; bundles that one signed hold by its own trust root only."""

    ca_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    ct_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    log_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' own fulcio")])
        key = self.ca_key.public_key()
        usage = key_usage(key_cert_sign=True, crl_sign=True)
        self.ca = (
            x509.CertificateBuilder(name, name, key, x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=9))
            .not_valid_after(NOW + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self.ca_key, hashes.SHA256())
        )

    def trust_root(self) -> str:
        """The trusted_root.json that verifies what this instance signed."""
        since = (NOW - timedelta(days=9)).isoformat().replace("+00:00", "Z")

        def log(key: EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": since}}
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": {"keyId": b64(log_id(key))},
            }

        authority = {
            "subject": {"organization": "tests", "commonName": "the tests' own fulcio"},
            "uri": "https://fulcio.test",
            "certChain": {"certificates": [{"rawBytes": b64(self.ca.public_bytes(Encoding.DER))}]},
            "validFor": {"start": since},
        }
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log_key, "https://rekor.test")],
            "certificateAuthorities": [authority],
            "ctlogs": [log(self.ct_key, "https://ct.test")],
        }
        return json.dumps(root)

    def attest(
        self,
        digest: str,
        identity: Identity | None = None,
        *,
        predicate_type: str = PROVENANCE,
        predicate: dict[str, Any] | None = None,
        kind: str = "application/vnd.in-toto+json",
        signed_at: datetime = NOW,
        certified_at: datetime = NOW,
    ) -> dict[str, Any]:
        """The bundle of a statement about that digest, signed by that identity."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "registry.test/baton/train", "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": predicate_type,
            "predicate": predicate
            or {"buildDefinition": {"buildType": "https://actions.github.io/buildtypes/workflow/v1"}},
        }
        key = generate_private_key(SECP256R1())
        certificate = self._certify(key, identity or Identity(), certified_at)
        payload = json.dumps(statement).encode()
        signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload), SHA256)
        envelope = {"payload": b64(payload), "payloadType": kind, "signatures": [{"sig": b64(signature)}]}
        return {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [self._logged(envelope, payload, certificate, signed_at)],
            },
            "dsseEnvelope": envelope,
        }

    def _certify(self, key: EllipticCurvePrivateKey, identity: Identity, at: datetime) -> x509.Certificate:
        """A certificate for ten minutes, with the CT log's word that it has it."""
        uri = x509.UniformResourceIdentifier(f"https://github.com/{identity.workflow}@{identity.workflow_ref}")
        builder = (
            x509.CertificateBuilder(self.ca.subject, x509.Name([]), key.public_key(), x509.random_serial_number())
            .not_valid_before(at)
            .not_valid_after(at + timedelta(minutes=10))
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        )
        for number, value in identity.extensions().items():
            oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, asn1.encode_der(value)), critical=False)
        tbs = builder.sign(self.ca_key, hashes.SHA256()).tbs_certificate_bytes
        milliseconds = int(at.timestamp() * 1000)
        issuer = hashlib.sha256(spki(self.ca_key)).digest()
        signed = struct.pack(">BBQH", 0, 0, milliseconds, 1) + issuer + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = self.ct_key.sign(signed, SHA256)
        sct = b"\0" + log_id(self.ct_key) + struct.pack(">QHBBH", milliseconds, 0, 4, 3, len(signature)) + signature
        listed = struct.pack(">HH", len(sct) + 2, len(sct)) + sct
        extension = x509.UnrecognizedExtension(SCT_OID, asn1.encode_der(listed))
        return builder.add_extension(extension, critical=False).sign(self.ca_key, hashes.SHA256())

    def _logged(
        self, envelope: dict[str, Any], payload: bytes, certificate: x509.Certificate, at: datetime
    ) -> dict[str, Any]:
        """Rekor's entry of that envelope, the first of two in its log."""
        (signature,) = envelope["signatures"]
        pem = b64(certificate.public_bytes(Encoding.PEM))
        body = rfc8785.dumps(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": hashed(json.dumps(envelope).encode()),
                    "payloadHash": hashed(payload),
                    "signatures": [{"signature": signature["sig"], "verifier": pem}],
                },
            }
        )
        other = hashlib.sha256(b"\0another entry").digest()
        root = hashlib.sha256(b"\1" + hashlib.sha256(b"\0" + body).digest() + other).digest()
        note = f"rekor.test - 1\n2\n{b64(root)}\n"
        signed = b64(log_id(self.log_key)[:4] + self.log_key.sign(note.encode(), SHA256))
        time_s, log = int(at.timestamp()), log_id(self.log_key)
        promise = {"body": b64(body), "integratedTime": time_s, "logID": log.hex(), "logIndex": 0}
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(time_s),
            "inclusionPromise": {"signedEntryTimestamp": b64(self.log_key.sign(rfc8785.dumps(promise), SHA256))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "2",
                "hashes": [b64(other)],
                "checkpoint": {"envelope": f"{note}\n\N{EM DASH} rekor.test {signed}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """The extension with these uses and no other."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def spki(key: EllipticCurvePrivateKey) -> bytes:
    """The public key, as certificates hold it."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def log_id(key: EllipticCurvePrivateKey) -> bytes:
    """How a log is named by its key."""
    return hashlib.sha256(spki(key)).digest()


def hashed(data: bytes) -> dict[str, str]:
    """A hash as Rekor writes it."""
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def b64(data: bytes) -> str:
    """Base64 as JSON has it."""
    return base64.b64encode(data).decode()


def of(identity: Identity | None = None, **changes: str) -> Identity:
    """The identity of the project's own CI, but for these changes."""
    return replace(identity or Identity(), **changes)
