"""Whether the neurons of an MLP are computed apart from each other, which all slimming rests on: tried, not assumed.

Names and shapes do not show it: a model may normalise its activations over all neurons, or keep the largest of them.
Then the neurons that are left compute something else once the others are gone.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coreinfer.mlp import Mlp, gather_mlp, shape_of, using

TOKENS, KEPT = 3, 32
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative to the largest output; 16-bit floats have 0.05


def kind(mlp: Mlp) -> Hashable:
    """What decides how an MLP computes: MLPs of one kind need one trial. Settings differ between layers in Gemma 3n."""
    own = vars(mlp.owner).items()
    settings = sorted((k, v) for k, v in own if isinstance(v, bool | int | float | str) and not k.startswith("layer_i"))
    return type(mlp.owner), tuple(settings), tuple(type(child) for child in mlp.owner.children())


@torch.no_grad()
def is_separable(mlp: Mlp) -> bool:
    """Run the MLP on random input in full, and sliced to its most active neurons: their part must be the same."""
    shape = shape_of(mlp.modules[mlp.inputs[0]])
    assert shape is not None
    noise = torch.randn(1, TOKENS, shape[1], generator=torch.Generator().manual_seed(0))
    x = noise.to(mlp.device, mlp.dtype)
    with _quiet(mlp.owner):
        try:
            a = _seen(mlp, mlp.modules, x)[0]
            most = a.float().abs().amax(tuple(range(a.ndim - 1))).topk(min(KEPT, mlp.width)).indices.sort().values
            masked = mlp.down(torch.zeros_like(a).index_copy(-1, most, a[..., most]))
            sliced = _seen(mlp, gather_mlp(mlp, most.int().cpu().numpy()), x)[1]
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):  # shapes or arguments that do not fit
            return False
    worst = (sliced.float() - masked.float()).abs().max()
    return bool(worst <= TOLERANCE.get(x.dtype, 0.05) * masked.float().abs().max())


def _seen(mlp: Mlp, modules: dict[str, nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """Run the owner on ``modules``: what goes into the output projection (..., k) and what comes out (..., H)."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = modules[mlp.output].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    try:
        with using(mlp, modules):
            mlp.owner(x)
    finally:
        hook.remove()
    return seen[0]


@contextmanager
def _quiet(owner: nn.Module) -> Iterator[None]:
    """Without dropout; every module's mode is given back."""
    modes = {module: module.training for module in owner.modules()}
    owner.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
