"""The network of the VMs: no address outside it, a way in by Identity-Aware Proxy only, a way out to Google only."""

from collections.abc import Sequence
from itertools import count

from infra.setup.steps import Command, Found, Step, gcloud, look, thing
from infra.setup.wanted import Wanted
from job.run.spec import SUBNET

IAP = "35.235.240.0/20"
"""Where Identity-Aware Proxy connects from (its documentation, 2026)."""
FIREWALL = f"{SUBNET}-ssh-from-iap"


def network_steps(wanted: Wanted) -> Sequence[Step]:
    """In the order of their making."""
    describe = look("compute", "networks", "describe", SUBNET)
    create = gcloud("compute", "networks", "create", SUBNET, "--subnet-mode=custom", "--bgp-routing-mode=regional")
    rule = gcloud(
        "compute",
        "firewall-rules",
        "create",
        FIREWALL,
        f"--network={SUBNET}",
        "--direction=INGRESS",
        "--allow=tcp:22",
        f"--source-ranges={IAP}",
    )
    return (
        thing(f"network {SUBNET}", describe, create, gcloud("compute", "networks", "delete", SUBNET)),
        _subnets(wanted),
        thing(
            "ssh by Identity-Aware Proxy, nothing else comes in",
            look("compute", "firewall-rules", "describe", FIREWALL),
            rule,
            gcloud("compute", "firewall-rules", "delete", FIREWALL),
        ),
        *(_nat(wanted) if wanted.nat else ()),
    )


def _subnets(wanted: Wanted) -> Step:
    def make(found: Found) -> Sequence[Command]:
        known = {one["region"].rpartition("/")[2]: one for one in found or ()}
        taken = {one["ipCidrRange"] for one in known.values()}
        free = (f"10.64.{number}.0/24" for number in count() if f"10.64.{number}.0/24" not in taken)
        words = ("compute", "networks", "subnets")
        new = [
            gcloud(
                *words,
                "create",
                SUBNET,
                f"--network={SUBNET}",
                f"--region={region}",
                f"--range={next(free)}",
                "--enable-private-ip-google-access",
            )
            for region in wanted.regions
            if region not in known
        ]
        closed = [
            gcloud(*words, "update", SUBNET, f"--region={region}", "--enable-private-ip-google-access")
            for region, one in sorted(known.items())
            if not one.get("privateIpGoogleAccess")
        ]
        return (*new, *closed)

    def undo(found: Found) -> Sequence[Command]:
        regions = sorted(one["region"].rpartition("/")[2] for one in found)
        return [gcloud("compute", "networks", "subnets", "delete", SUBNET, f"--region={one}") for one in regions]

    what = f"its subnets in {len(wanted.regions)} regions, with a way to Google's services"
    listed = look("compute", "networks", "subnets", "list", f"--filter=name={SUBNET}")
    return Step(what, listed, make, undo, at_once=True)


def _nat(wanted: Wanted) -> Sequence[Step]:
    """A router and a gateway in each region; a gateway is paid for while VMs use it."""
    listed = look("compute", "routers", "list", f"--filter=name={SUBNET}")

    def regions_of(found: Found, *, with_nat: bool) -> set[str]:
        return {one["region"].rpartition("/")[2] for one in found or () if one.get("nats") or not with_nat}

    def routers(found: Found) -> Sequence[Command]:
        missing = [region for region in wanted.regions if region not in regions_of(found, with_nat=False)]
        words = ("compute", "routers", "create", SUBNET, f"--network={SUBNET}")
        return [gcloud(*words, f"--region={region}") for region in missing]

    def gateways(found: Found) -> Sequence[Command]:
        missing = [region for region in wanted.regions if region not in regions_of(found, with_nat=True)]
        words = ("compute", "routers", "nats", "create", SUBNET, f"--router={SUBNET}")
        flags = ("--auto-allocate-nat-external-ips", "--nat-all-subnet-ip-ranges")
        return [gcloud(*words, f"--region={region}", *flags) for region in missing]

    def undo(found: Found) -> Sequence[Command]:
        there = sorted(regions_of(found, with_nat=False))
        return [gcloud("compute", "routers", "delete", SUBNET, f"--region={region}") for region in there]

    return (
        Step("routers", listed, routers, undo, at_once=True),
        Step("Cloud NAT: a way out to everywhere", listed, gateways, lambda _: (), at_once=True),
    )
