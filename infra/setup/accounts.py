"""Accounts and their rights: the table of infra/setup/grants.py as gcloud's commands."""

from collections.abc import Sequence

from infra.setup.grants import (
    ACTS_AS,
    BUILD,
    CI,
    COMPUTE,
    ONLY_OURS,
    RUNS,
    VIEWER,
    VM,
    WATCHDOG,
    WATCHDOG_ROLE,
    WRITE,
    WRITER_ROLE,
    WRITES,
)
from infra.setup.steps import Command, Found, Step, binding, gcloud, look, thing
from infra.setup.wanted import Wanted

PURPOSE = {
    VM: "Baton: the VM of an attempt",
    WATCHDOG: "Baton: the watchdog VM",
    CI: "Baton: CI, which pushes images",
    BUILD: "Baton: Cloud Build",
}
POOL, PROVIDER = "baton", "github"
ISSUER = "https://token.actions.githubusercontent.com"
USER = "roles/iam.serviceAccountUser"
BUCKETS, FOLDERS = ("storage", "buckets"), ("storage", "managed-folders")
ACCOUNTS = ("iam", "service-accounts")


def account_steps(wanted: Wanted) -> Sequence[Step]:
    """The accounts of the VMs and what they may do with the bucket, with VMs and with each other."""
    return (
        *(_account(wanted, name) for name in (VM, WATCHDOG)),
        _role(wanted, WRITER_ROLE, "Baton: writes objects", {f"storage.objects.{verb}" for verb in WRITE}),
        _role(wanted, WATCHDOG_ROLE, "Baton: watchdog", COMPUTE),
        *_on_objects(wanted),
        binding(
            f"{WATCHDOG}@ creates and deletes VMs that are called {POOL}-..., and no others",
            ("projects",),
            wanted.project,
            wanted.member(WATCHDOG),
            _custom(wanted, WATCHDOG_ROLE),
            f"VMs of Baton={ONLY_OURS}",
        ),
        *(
            binding(f"{who}@ may give VMs the rights of {other}@", ACCOUNTS, wanted.account(other), member, USER)
            for who, others in ACTS_AS.items()
            for other in others
            for member in (wanted.member(who),)
        ),
    )


def ci_steps(wanted: Wanted) -> Sequence[Step]:
    """The account of CI, and the GitHub repository that has its rights without a key; nothing where none is named."""
    if wanted.github is None:
        return ()
    pools = f"--location=global --workload-identity-pool={POOL}".split()
    condition = (
        f"assertion.repository_id == '{wanted.github_id}' && "
        f"assertion.job_workflow_ref.startsWith('{wanted.github}/.github/workflows/image.yaml@') && "
        "(assertion.ref == 'refs/heads/main' || assertion.ref_type == 'tag')"
    )
    group = ("iam", "workload-identity-pools")
    home = f"projects/{wanted.number}/locations/global/workloadIdentityPools/{POOL}"
    who = f"principalSet://iam.googleapis.com/{home}/attribute.repository_id/{wanted.github_id}"
    provider = gcloud(
        *group,
        "providers",
        "create-oidc",
        PROVIDER,
        *pools,
        f"--issuer-uri={ISSUER}",
        "--attribute-mapping=google.subject=assertion.sub,attribute.repository_id=assertion.repository_id",
        f"--attribute-condition={condition}",
    )

    def make_provider(found: Found) -> Sequence[Command]:
        if found is None:
            return (provider,)
        same = found.get("attributeCondition") == condition and found.get("state") != "DELETED"
        flags = (PROVIDER, *pools)
        back = [gcloud(*group, "providers", "undelete", *flags)] if found.get("state") == "DELETED" else []
        change = gcloud(*group, "providers", "update-oidc", *flags, f"--attribute-condition={condition}")
        return () if same else (*back, change)

    return (
        _account(wanted, CI),
        Step(
            f"pool {POOL} of identities from elsewhere",
            look(*group, "describe", POOL, "--location=global"),
            lambda found: _made_or_back(found, group, POOL, ("--location=global",)),
            lambda found: (
                () if found.get("state") == "DELETED" else (gcloud(*group, "delete", POOL, "--location=global"),)
            ),
        ),
        Step(
            f"GitHub's word for {wanted.github}, main and tags, counts there",
            look(*group, "providers", "describe", PROVIDER, *pools),
            make_provider,
            lambda _: (),  # it goes with its pool
        ),
        binding(
            f"that repository's image.yaml has the rights of {CI}@",
            ACCOUNTS,
            wanted.account(CI),
            who,
            "roles/iam.workloadIdentityUser",
        ),
    )


def build_steps(wanted: Wanted) -> Sequence[Step]:
    """The account that Cloud Build works as; nothing where it is not asked for."""
    if not wanted.cloud_build:
        return ()
    folder = f"gs://{wanted.bucket}/builds/"
    return (
        _account(wanted, BUILD),
        *_folder(folder),
        binding(f"{BUILD}@ reads {folder}", FOLDERS, folder, wanted.member(BUILD), VIEWER),
        binding(
            f"{BUILD}@ writes the log of its builds",
            ("projects",),
            wanted.project,
            wanted.member(BUILD),
            "roles/logging.logWriter",
        ),
    )


def _account(wanted: Wanted, name: str) -> Step:
    return thing(
        f"account {name}@",
        look(*ACCOUNTS, "describe", wanted.account(name)),
        gcloud(*ACCOUNTS, "create", name, f"--display-name={PURPOSE[name]}"),
        gcloud(*ACCOUNTS, "delete", wanted.account(name)),
    )


def _custom(wanted: Wanted, role: str) -> str:
    return f"projects/{wanted.project}/roles/{role}"


def _role(wanted: Wanted, role: str, title: str, permissions: set[str] | frozenset[str]) -> Step:
    """A role of the project's own. One that was deleted is kept by Google for a week, and its name with it."""
    words, of = ("iam", "roles"), f"--project={wanted.project}"
    asked = f"--permissions={','.join(sorted(permissions))}"

    def make(found: Found) -> Sequence[Command]:
        if found is None:
            return (gcloud(*words, "create", role, of, f"--title={title}", "--stage=GA", asked),)
        back = [gcloud(*words, "undelete", role, of)] if found.get("deleted") else []
        same = set(found.get("includedPermissions", ())) == permissions
        return (*back, *(() if same else (gcloud(*words, "update", role, of, asked),)))

    return Step(
        f"role {role}: {len(permissions)} permissions",
        look(*words, "describe", role, of),
        make,
        lambda found: () if found.get("deleted") else (gcloud(*words, "delete", role, of),),
    )


def _on_objects(wanted: Wanted) -> Sequence[Step]:
    folder = f"gs://{wanted.bucket}/{RUNS}"
    return (
        *_folder(folder),
        *(binding(f"{name}@ reads {folder}", FOLDERS, folder, wanted.member(name), VIEWER) for name in (VM, WATCHDOG)),
        *(
            binding(
                f"{name}@ writes {names.title}",
                BUCKETS,
                f"gs://{wanted.bucket}",
                wanted.member(name),
                _custom(wanted, WRITER_ROLE),
                f"{names.title}={names.condition(wanted.bucket)}",
            )
            for name, places in WRITES.items()
            for names in places
        ),
    )


def _folder(url: str) -> Sequence[Step]:
    describe, create = look(*FOLDERS, "describe", url), gcloud(*FOLDERS, "create", url)
    return (thing(f"managed folder {url}", describe, create, kept="it goes with the bucket"),)


def _made_or_back(found: Found, group: tuple[str, ...], name: str, flags: tuple[str, ...]) -> Sequence[Command]:
    if found is None:
        return (gcloud(*group, "create", name, *flags),)
    return (gcloud(*group, "undelete", name, *flags),) if found.get("state") == "DELETED" else ()
