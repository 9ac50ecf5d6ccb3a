"""Every order in which two writers' calls can happen, with a crash and a fault anywhere; no state is searched twice."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .bucket import HEAD, LATE, TROUBLE, Bucket, Fault, Request, faults_of
from .laws import broken_at_end, broken_by, broken_by_rest
from .stepping import Node
from .writers import OPERATIONS, Writer

At = Writer | Node
"""Where a writer is: between operations, or in one, with a call that nobody has answered yet."""
Flight = tuple[Request, int]
"""A call that is under way for a time of its own, and whose it is."""


class Broken(Exception):
    """A law is broken; the path, last choice first, tells how it came to that."""

    def __init__(self, law: str, *path: str) -> None:
        super().__init__(law)
        self.law = law
        self.path = list(path)

    def story(self) -> str:
        """What happened, one choice a line, then the law."""
        return "\n".join([*reversed(self.path), f"BROKEN: {self.law}"])


class State(NamedTuple):
    """A moment of a history."""

    bucket: Bucket
    a: At
    b: At
    operations: int = 0
    """That may still begin."""
    crashes: int = 0
    """That may still happen."""
    faults: int = 0
    trouble: bool = False
    """Whether a fault has happened."""
    flights: tuple[Flight, ...] = ()


class Move(NamedTuple):
    """One way in which a writer's next call can go."""

    fault: Fault
    bucket: Bucket
    at: At
    flight: Flight | None
    ended: str | None
    """How the operation ended with it, where it did."""


class Model:
    """What production code does next: looked up, or found out by running it."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Writer, str], Node] = {}
        self._writers: dict[tuple[object, ...], Writer] = {}
        self._looker = Writer(2)
        self._rested: set[int] = set()
        self._moves: dict[tuple[Bucket, Node, Fault, bool], Move] = {}

    def writer(self, writer: Writer) -> Writer:
        """The one object for equal ones."""
        return self._writers.setdefault(writer.key, writer)

    def start(self, writer: Writer, name: str) -> Node:
        """An operation at its first call."""
        if (node := self._nodes.get((writer, name))) is None:
            begun = replace(writer, operations=writer.operations + 1)
            node = self._nodes[writer, name] = Node(begun, name, OPERATIONS[name])
        return node

    def next_states(self, state: State) -> list[State]:
        """All that can happen next. Raises Broken."""
        bucket, a, b, operations, crashes, faults, trouble, flights = state
        found = []
        for slot, at in ((0, a), (1, b)):
            for node, left in self._open(at, operations):
                for fault, after, next_at, flight, _ in self.moves(
                    bucket, node, slot, faulty=faults > 0, trouble=trouble
                ):
                    new_a, new_b = (next_at, b) if slot == 0 else (a, next_at)
                    under_way = flights
                    if flights or flight is not None:
                        under_way = tuple(f for f in (*flights, flight) if f is not None and not after.is_void(f[0]))
                    found.append(
                        State(after, new_a, new_b, left, crashes, faults - (fault > 0), trouble or fault > 0, under_way)
                    )
            if crashes and (isinstance(at, Node) or at.owning is not None):
                dead = self.writer((at.writer if isinstance(at, Node) else at).dead())
                new_a, new_b = (dead, b) if slot == 0 else (a, dead)
                found.append(State(bucket, new_a, new_b, operations, crashes - 1, faults, trouble, flights))
        for position, flight in enumerate(flights):
            after = self.arrive(bucket, flight)
            rest = tuple(f for f in flights[:position] + flights[position + 1 :] if not after.is_void(f[0]))
            found.append(State(after, a, b, operations, crashes, faults, trouble, rest))
        return found

    def tell(self, state: State) -> list[str]:
        """The same in words."""
        found = []
        for slot, at in ((0, state.a), (1, state.b)):
            for node, _ in self._open(at, state.operations):
                for move in self.moves(state.bucket, node, slot, faulty=state.faults > 0, trouble=state.trouble):
                    found.append(told(slot, node, move.fault, move.ended))
            if state.crashes and (isinstance(at, Node) or at.owning is not None):
                found.append(f"{'AB'[slot]} dies")
        return [*found, *(f"- arrives late: {request}" for request, _ in state.flights)]

    def _open(self, at: At, operations: int) -> Iterator[tuple[Node, int]]:
        """What a writer may do next, and the operations that may begin after that."""
        if isinstance(at, Node):
            yield at, operations
        elif operations:
            for name in at.able_to():
                yield self.start(at, name), operations - 1

    def arrive(self, bucket: Bucket, flight: Flight) -> Bucket:
        """The bucket once a late call is there. Raises Broken."""
        request, by = flight
        after, _ = bucket.answer(request, by if request.name == HEAD else LATE)
        self._check(bucket, after, request, f"- arrives late: {request}")
        return after

    def move(self, bucket: Bucket, node: Node, slot: int, fault: Fault, *, trouble: bool) -> Move:
        """One of the ways in which the next call of `node` can go. Raises Broken."""
        key = bucket, node, fault, trouble
        if (known := self._moves.get(key)) is None:
            known = self._moves[key] = self._move(bucket, node, slot, fault, trouble=trouble)
        return known

    def moves(self, bucket: Bucket, node: Node, slot: int, *, faulty: bool, trouble: bool) -> tuple[Move, ...]:
        """All the ways in which the next call of `node` can go. Raises Broken."""
        key = node.number * 4 + faulty * 2 + trouble
        if (known := bucket.moves.get(key)) is None:
            assert node.request is not None
            faults = (Fault.NONE, *faults_of(node.request)) if faulty else (Fault.NONE,)
            known = tuple(self._move(bucket, node, slot, fault, trouble=trouble) for fault in faults)
            bucket.moves[key] = known
        return known

    def _move(self, bucket: Bucket, node: Node, slot: int, fault: Fault, *, trouble: bool) -> Move:
        request, by = node.request, node.writer.by
        assert request is not None
        after, reply = bucket, TROUBLE
        if fault not in (Fault.CUT, Fault.LATE):
            after, reply = bucket.answer(request, by, torn=fault is Fault.TORN)
            self._check(bucket, after, request, told(slot, node, fault, None))
        if fault is Fault.TWICE:
            first, (after, reply) = after, after.answer(request, by)
            self._check(first, after, request, told(slot, node, fault, None))
        next_node = node.step(TROUBLE if fault is Fault.LOST else reply)
        flight = (request, by) if fault in (Fault.LATE, Fault.AGAIN) else None
        if next_node.outcome is None:
            return Move(fault, after, next_node, flight, None)
        ended = next_node.outcome.kind
        if (law := broken_at_end(after, next_node, next_node.outcome, trouble=trouble or fault != 0)) is not None:
            raise Broken(law, told(slot, node, fault, ended))
        return Move(fault, after, self.writer(next_node.after), flight, ended)

    def _check(self, before: Bucket, after: Bucket, request: Request, told: str) -> None:
        """The laws of one change, and of what a restore would find now. Raises Broken."""
        law = broken_by(before, after, request)
        if law is None and after.number not in self._rested:
            self._rested.add(after.number)
            node = self.start(self._looker, "look")
            while node.outcome is None:
                assert node.request is not None
                node = node.step(after.answer(node.request, 0)[1])
            law = broken_by_rest(after, node.outcome)
        if law is not None:
            raise Broken(law, told)


@dataclass
class Search:
    """What was looked at."""

    model: Model = field(default_factory=Model)
    moves: int = 0
    histories: dict[State, int] = field(default_factory=dict)
    """Of every state visited: how many ways there are to go on from it to an end."""

    def explore(self, state: State) -> int:
        """Visits everything that can follow, once; returns the number of histories. Raises Broken."""
        known = self.histories
        count = 0
        states = self.model.next_states(state)
        self.moves += len(states)
        for number, after in enumerate(states):
            if (more := known.get(after)) is None:
                try:
                    more = self.explore(after)
                except Broken as broken:
                    broken.path.append(self.model.tell(state)[number])
                    raise
            count += more
        known[state] = count = count or 1
        return count


def told(slot: int, node: Node, fault: Fault, ended: str | None) -> str:
    """A call in words."""
    begins = f"{node.name}: " if not node.asked else ""
    wrong = f" [{fault.name.lower()}]" if fault else ""
    return f"{'ABC'[slot]} {begins}{node.request}{wrong}{f' -> {ended}' if ended else ''}"
