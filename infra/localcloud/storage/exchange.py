"""One request on its way through: which faults strike it, and what is counted of it."""

import time
from collections.abc import Iterator

from infra.localcloud.storage.accounting import Entry
from infra.localcloud.storage.faults import ANSWERS, Faults, Rule, answer
from infra.localcloud.storage.messages import ConnectionCut, Media, Request, Response
from infra.localcloud.storage.routes import CARRY_DATA, Route

ON_DATA = ("cut", "corrupt", "stall")


class Exchange:
    """A request and what has become of it so far."""

    def __init__(self, request: Request, where: Route, faults: Faults) -> None:
        self.request = request
        self.route = where
        self._faults = faults
        self._began_s = time.time()
        self._began = time.monotonic()
        self._fault = ""
        self._changed = False
        self._cut_at: int | None = None

    def strike_before(self) -> None:
        """The faults that come before the answer is made. Raises what they want the client to see."""
        faults, where, request = self._faults, self.route, self.request
        slow = self._noted(faults.take(where, "slow"))
        if slow is not None:
            faults.wait(slow.delay_s or 0.0)
        refusing = self._noted(faults.take(where, *ANSWERS))
        if refusing is not None:
            raise answer(refusing.kind, where, request.account)
        rule = None
        if where.operation != "download":  # how long that is, its answer knows
            rule = self._noted(faults.take(where, *ON_DATA, data_bytes=request.data_bytes))
        if where.operation not in CARRY_DATA and rule is not None:
            if rule.kind == "cut":
                raise ConnectionCut
            faults.wait(rule.delay_s)
        elif slow is not None or rule is not None:
            request.tamper = lambda blocks: self._tampered(slow, rule, blocks)

    def strike_after(self, response: Response) -> None:
        """The faults that come after it: the bytes of a download, the reply itself."""
        self._changed = response.changed
        if response.changed:
            self._faults.changed(self.route)
        media = response.body
        if isinstance(media, Media):
            rule = self._noted(self._faults.take(self.route, *ON_DATA, data_bytes=media.length))
            if rule is not None and rule.kind == "cut":
                self._cut_at = rule.after_bytes
            if rule is not None or self.request.tamper is not iter:
                blocks = self.request.tamper(media.opened.blocks(media.start, media.length))
                media.tampered = self._tampered(None, rule, blocks)
        if self._noted(self._faults.take(self.route, "lost_reply", changed=response.changed)) is not None:
            if isinstance(media, Media):
                media.opened.close()
            raise ConnectionCut

    def sent_bytes(self, response: Response) -> int:
        """How many bytes of a body the client gets."""
        length = len(response.body) if isinstance(response.body, bytes) else response.body.length
        return length if self._cut_at is None else min(length, self._cut_at)

    def entry(self, status: int, sent_bytes: int) -> Entry:
        """What is counted: a resumable upload is one operation, when its object is there."""
        price_class = self.route.price_class
        if self.route.operation in ("resumable_put", "resumable_query"):
            price_class = "A" if self._changed else "free"
        return Entry(
            at_s=self._began_s,
            method=self.request.method,
            operation=self.route.operation,
            price_class=price_class,
            bucket=self.route.bucket,
            object=self.route.name,
            account=self.request.account,
            status=status,
            received_bytes=self.request.body.read_bytes,
            sent_bytes=sent_bytes,
            duration_s=time.monotonic() - self._began,
            fault=self._fault,
        )

    def _noted(self, rule: Rule | None) -> Rule | None:
        if rule is not None:
            self._fault = rule.kind
        return rule

    def _tampered(self, slow: Rule | None, rule: Rule | None, blocks: Iterator[bytes]) -> Iterator[bytes]:
        if slow is not None and slow.bandwidth_bytes_per_s:
            blocks = self._faults.throttle(slow, blocks)
        return blocks if rule is None else self._faults.tamper(rule, blocks)
