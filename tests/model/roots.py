"""Where histories begin: runs at different ages, made by the production code itself."""

from collections.abc import Callable

from .bucket import HEAD, Bucket, Fault, Stored
from .laws import head_of
from .search import At, Model, State
from .stepping import Node
from .writers import Writer

Script = tuple[tuple[int, str], ...]

TRAINED: Script = ((0, "begin"), (0, "save"), (0, "save"), (0, "save"))
"""Three steps, two of which head keeps."""


def play(model: Model, script: Script) -> State:
    """The state after these operations of A (0) and B (1), one after another, without trouble."""
    state = State(Bucket.of({}), model.writer(Writer(0)), model.writer(Writer(1, "vm")))
    for slot, name in script:
        state = _go(model, state, slot, name, lambda at: isinstance(at, Node))
    return state


def _go(model: Model, state: State, slot: int, name: str, goes_on: Callable[[At], bool]) -> State:
    writer = (state.a, state.b)[slot]
    assert isinstance(writer, Writer)
    bucket, at = state.bucket, model.start(writer, name)
    while isinstance(at, Node) and goes_on(at):
        move = model.moves(bucket, at, slot, faulty=False, trouble=False)[Fault.NONE]
        bucket, at = move.bucket, move.at
    return state._replace(bucket=bucket, **{"ab"[slot]: at})


def _a_dies(model: Model, state: State) -> State:
    writer = state.a.writer if isinstance(state.a, Node) else state.a
    return state._replace(a=model.writer(writer.dead()))


def empty(model: Model) -> State:
    """Nobody has begun."""
    return play(model, ())


def trained(model: Model) -> State:
    """A owns a run of three steps."""
    return play(model, TRAINED)


def taken_over(model: Model) -> State:
    """B has taken the run over, and A lives and does not know."""
    return play(model, (*TRAINED, (1, "begin")))


def left_over(model: Model) -> State:
    """A died after the MANIFEST of a checkpoint and before head named it."""
    state = _go(model, play(model, TRAINED), 0, "save", lambda at: isinstance(at, Node) and at.request.name != HEAD)
    return _a_dies(model, state)


def finishing(model: Model) -> State:
    """A died between `finishing` and the result."""
    state = play(model, TRAINED)
    return _a_dies(
        model, _go(model, state, 0, "finish", lambda at: isinstance(at, Node) and at.request.name != "result/weights")
    )


def damaged(model: Model) -> State:
    """A died, and the newest checkpoint's bytes are not what they were."""
    return _spoilt(model, 1)


def spoilt(model: Model) -> State:
    """A died, and no checkpoint is good."""
    return _spoilt(model, 2)


def scored(model: Model) -> State:
    """B has taken over; head's newest checkpoint is A's, with an addition of B's."""
    return play(model, (*TRAINED, (0, "score"), (1, "begin"), (1, "score")))


def _spoilt(model: Model, count: int) -> State:
    state = _a_dies(model, play(model, TRAINED))
    objects, head = dict(state.bucket.objects), head_of(state.bucket)
    assert head is not None
    for ref in head["kept"][:count]:
        name = f"{ref['folder']}/state.safetensors"
        stored = objects[name]
        objects[name] = Stored(stored.generation, stored.data[:-8] + bytes(8), damaged=True)
    return state._replace(bucket=Bucket.of(objects))


ROOTS: dict[str, Callable[[Model], State]] = {
    root.__name__: root for root in (empty, trained, taken_over, left_over, finishing, damaged, spoilt, scored)
}
