"""Histories by chance: longer than a search can go, several crashes and faults in each; a seed says which one it is."""

import gc
import random
from collections.abc import Mapping

from .bucket import Bucket, Fault, faults_of
from .roots import ROOTS
from .search import Broken, Flight, Model, State, told
from .stepping import Node
from .writers import Writer

MOST_NODES = 200_000
"""What is remembered of production code's answers: 1.3 GB."""
WEIGHTS = {"begin": 6, "save": 6, "score": 2, "prune": 2, "look": 2, "finish": 1, "stop": 1, "resume": 1}


class Histories:
    """Lives one history after another, and remembers between them what production code does.

    To be made and used within `deterministic`.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._roots: dict[str, State]
        self._remember_nothing()

    def _remember_nothing(self) -> None:
        Bucket.known.clear()
        Node.live.clear()
        self._model = Model()
        self._roots = {}
        gc.collect()
        self._roots = {name: root(self._model) for name, root in ROOTS.items()}
        self._until = next(Node.numbers) + MOST_NODES

    def live(self, seed: int) -> list[str]:
        """What happened in the history of that seed. Raises Broken, whose story is the same up to there."""
        if next(Node.numbers) > self._until:
            self._remember_nothing()
        history = _History(self._model, self._roots, random.Random(seed))
        try:
            history.live()
        except Broken as broken:
            broken.path = [*broken.path, *reversed(history.story)]
            raise
        self.calls += len(history.story)
        return history.story


class _History:
    def __init__(self, model: Model, roots: Mapping[str, State], chance: random.Random) -> None:
        self.model, self.chance = model, chance
        root = chance.choice(list(roots))
        state = roots[root]
        self.bucket: Bucket = state.bucket
        self.at = [state.a, state.b]
        self.flights: list[Flight] = []
        self.story = [f"{root}:"]
        self.operations = chance.randint(2, 7)
        self.crash_share, self.fault_share = chance.choice([0.0, 0.01, 0.04]), chance.choice([0.0, 0.02, 0.06])
        self.stickiness = chance.choice([0.3, 0.8, 0.95])
        self.trouble = False

    def live(self) -> None:
        """Until no operation is under way and none may begin; then somebody takes the run over in peace."""
        slot = 0
        while self.operations or any(isinstance(at, Node) for at in self.at):
            if self.chance.random() > self.stickiness or not self.can_go_on(slot):
                slot = 1 - slot
            if self.flights and self.chance.random() < 0.1:
                self.arrive(self.flights.pop(self.chance.randrange(len(self.flights))))
            elif self.can_go_on(slot):
                self.go_on(slot)
        for flight in self.flights:
            self.arrive(flight)
        self.trouble = True  # what went wrong before may show now
        node = self.model.start(self.model.writer(Writer(2)), "begin")
        while isinstance(node, Node):
            node = self.call(2, node, Fault.NONE)

    def can_go_on(self, slot: int) -> bool:
        """Whether a writer has something to do."""
        return isinstance(self.at[slot], Node) or self.operations > 0

    def go_on(self, slot: int) -> None:
        """A writer's next call, or its death."""
        at = self.at[slot]
        if (isinstance(at, Node) or at.owning is not None) and self.chance.random() < self.crash_share:
            self.at[slot] = self.model.writer((at.writer if isinstance(at, Node) else at).dead())
            self.story.append(f"{'AB'[slot]} dies")
            return
        if isinstance(at, Writer):
            names = at.able_to()
            name = self.chance.choices(names, [WEIGHTS[name] for name in names])[0]
            at = self.model.start(at, name)
            self.operations -= 1
        assert at.request is not None
        fault = Fault.NONE
        if self.chance.random() < self.fault_share:
            fault = self.chance.choice(faults_of(at.request))
        self.at[slot] = self.call(slot, at, fault)

    def call(self, slot: int, node: Node, fault: Fault) -> Node | Writer:
        """The call of `node`, and where its writer is then."""
        self.trouble = self.trouble or fault is not Fault.NONE
        move = self.model.move(self.bucket, node, slot, fault, trouble=self.trouble)
        self.story.append(told(slot, node, move.fault, move.ended))
        self.bucket = move.bucket
        if move.flight is not None:
            self.flights.append(move.flight)
        return move.at

    def arrive(self, flight: Flight) -> None:
        """A call that was late."""
        self.bucket = self.model.arrive(self.bucket, flight)
        self.story.append(f"- arrives late: {flight[0]}")
