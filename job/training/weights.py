"""Weights and optimizer state by name: out of the live objects, and back into them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from job.advice import NOT_FINITE_FIX
from job.arena import REFERENCE_PREFIX
from job.errors import NeedsPerson, UsageError

Named = Sequence[tuple[str, torch.nn.Parameter]]


def live_tensors(
    trained: Named, reference: Named, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a step changes: `model/NAME`, `optim/NAME/KEY`, `ref/NAME`.

    optimizer.state_dict() would build a dict per tensor; this does not.
    """
    for name, parameter in trained:
        yield f"model/{name}", parameter
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            assert torch.is_tensor(value), f"the optimizer keeps {key} of {name} as a {type(value).__name__}"
            yield f"optim/{name}/{key}", value
    for name, parameter in reference:
        yield f"{REFERENCE_PREFIX}{name}", parameter


def load_weights(saved: Mapping[str, torch.Tensor], trained: Named, reference: Named) -> None:
    """Copies weights into the live parameters. Raises UsageError when they are of another model."""
    with torch.no_grad():
        for prefix, parameters in (("model/", trained), (REFERENCE_PREFIX, reference)):
            for name, parameter in parameters:
                tensor = saved.get(f"{prefix}{name}")
                if tensor is None or (tensor.dtype, tensor.shape) != (parameter.dtype, parameter.shape):
                    raise UsageError(
                        f"The checkpoint does not fit the model: {prefix}{name} "
                        + ("is missing." if tensor is None else f"is {tensor.dtype} {tuple(tensor.shape)}.")
                    )
                parameter.copy_(tensor)


def optimizer_tensors(saved: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of the optimizer's tensors, by parameter and key."""
    states: dict[str, dict[str, torch.Tensor]] = {}
    for path, tensor in saved.items():
        if path.startswith("optim/"):
            name, _, key = path.removeprefix("optim/").rpartition("/")
            states.setdefault(name, {})[key] = tensor.clone()
    return states


def load_optimizer(
    optimizer: torch.optim.Optimizer, states: Mapping[str, Mapping[str, torch.Tensor]], trained: Named
) -> None:
    """Gives the optimizer the state of every parameter back."""
    names = {id(parameter): name for name, parameter in trained}
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    optimizer.load_state_dict(  # not by assignment: a fused optimizer wants `step` on the GPU
        {
            "state": {i: states[name] for i, name in enumerate(order) if name in states},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )


def refuse_non_finite(step: int, loss: Any, trained: Named, grad_norm: Any) -> None:
    """Raises NeedsPerson: what is published can always be gone on from."""
    weights = torch.nn.utils.get_total_norm([p.detach() for _, p in trained])
    for what, value in (("loss", loss), ("norm of the weights", weights), ("norm of the gradients", grad_norm)):
        # Clipping to an infinite norm makes every gradient 0: the run would go on and learn nothing.
        if value is not None and not math.isfinite(value):
            raise NeedsPerson(f"The {what} is {float(value)} after step {step}.", fix=NOT_FINITE_FIX)
