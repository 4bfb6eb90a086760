r"""Mountainside and ridge: when two runs part, and what curvature says about the barrier between their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require
from netatlas.core.curvature import flatten_params
from netatlas.core.states import check_states
from netatlas.core.train import batch_order

from .barriers import Groups, Stack, layer_groups


def branched_orders(
    examples: int, epochs: int, *, seeds: Sequence[tuple[int, int]], branch: int
) -> Int[Tensor, "epochs 2*pairs examples"]:
    """Orders of the examples for pairs of runs that see the same batches up to a step and different ones after it.

    The first of a pair keeps the order of its first seed. The second follows it for ``branch`` examples; what is left
    of that epoch it sees in an order of its own, and so all later epochs.

    Args:
        examples: Number of examples.
        epochs: Passes over them.
        seeds: Two seeds a pair: of the common order, and of the order after the branch.
        branch: How many examples both have seen when they part (steps times batch size), over all epochs.

    Returns:
        Orders for :func:`netatlas.core.train.fit_many`: first and second run of each pair, pair by pair.

    Raises:
        ValueError: For no pairs, or a branch outside of the training.
    """
    require(len(seeds) > 0, "at least one pair of seeds", 0)
    require(0 <= branch <= epochs * examples, f"a branch between 0 and {epochs * examples} examples", branch)
    epoch, seen = divmod(branch, examples)
    orders = []
    for common, own in seeds:
        first, second = batch_order(common, examples, epochs), batch_order(own, examples, epochs)
        second[:epoch] = first[:epoch]
        if epoch < epochs and seen:
            rest = first[epoch, seen:]
            generator = torch.Generator().manual_seed(own)
            second[epoch] = torch.cat([first[epoch, :seen], rest[torch.randperm(len(rest), generator=generator)]])
        orders += [first, second]
    return torch.stack(orders, 1)


def branch_angle(branch: Stack, first: Stack, second: Stack) -> Float[Tensor, " M"]:
    r"""Angle, in degrees, between the ways of two runs since they parted.

    .. math:: \angle(\theta_1 - \theta_k,\ \theta_2 - \theta_k)

    Args:
        branch: Where they parted, ``[M, ...]`` each.
        first, second: Where they are now.

    Returns:
        Angles; 0 where a run has not moved, or both moved alike.

    Raises:
        ValueError: For networks that do not correspond.

    Source:
        singh2024landscaping.
    """
    check_states([branch, first, second])
    start = flatten_params(dict(branch), stacked=True).double()
    a, b = (flatten_params(dict(end), stacked=True).double() - start for end in (first, second))
    # The half-angle form: the cosine loses the digits of small angles.
    a, b = (v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-300) for v in (a, b))
    chord, chain = torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1)
    moved = (torch.linalg.vector_norm(a, dim=1) > 0) & (torch.linalg.vector_norm(b, dim=1) > 0)
    return torch.where(moved, torch.rad2deg(2 * torch.atan2(chord, chain)), torch.zeros_like(chord))


def _member_losses(module: nn.Module, inputs: Tensor, targets: Tensor):
    def loss(params: dict[str, Tensor]) -> Tensor:
        logits = vmap(lambda p: functional_call(module, p, (inputs,)))(params)
        flat = nn.functional.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)), reduction="none")
        return flat.reshape(len(logits), -1).mean(1)

    return loss


def _hessian_times(gradient: Sequence[Tensor], leaves: Stack, parts: Sequence[Stack]) -> Tensor:
    """Products ``[K, M, D]`` of the Hessian with K directions, through the gradient's graph."""

    def product(vectors: list[Tensor], batched: bool) -> Tensor:
        found = torch.autograd.grad(
            list(gradient), list(leaves.values()), vectors, retain_graph=True, is_grads_batched=batched
        )
        return torch.cat([g.flatten(1 + batched) for g in found], -1)

    if len(parts) > 1:
        try:
            return product([torch.stack([part[name] for part in parts]) for name in leaves], True)
        except RuntimeError:
            # Some layers' second derivatives have no batching rule (group normalisation): one direction at a time.
            pass
    return torch.stack([product([part[name] for name in leaves], False) for part in parts])


class SecondOrder(NamedTuple):
    r"""Parts of the second-order picture along given directions ``[K, M]``, at both ends.

    Attributes:
        slope: :math:`(g_1\cdot d,\ g_2\cdot d)`, ``[2, K, M]``.
        curvature: :math:`(d^\top H_1 d,\ d^\top H_2 d)`, ``[2, K, M]``.
        square: :math:`\lVert d\rVert^2`, ``[K, M]``.
    """

    slope: Tensor
    curvature: Tensor
    square: Tensor


def directional_curvature(
    module: nn.Module, first: Stack, second: Stack, inputs: Tensor, targets: Tensor, *, groups: Groups | None = None
) -> SecondOrder:
    r"""Gradient and Hessian along the line between two networks, and along its part in each layer.

    Full batch. One Hessian-vector product a direction and end; all pairs and directions at once.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        groups: Layers by name; default: :func:`layer_groups`.

    Returns:
        Directions: the whole displacement first, then its part in each layer.

    Raises:
        ValueError: For networks that do not correspond.

    Source:
        singh2024landscaping; the expansion is our own.
    """
    check_states([first, second])
    groups = layer_groups(list(first)) if groups is None else groups
    full = {name: second[name] - first[name] for name in first}
    parts = [full]
    for names in groups.values():
        parts.append({name: value if name in names else torch.zeros_like(value) for name, value in full.items()})
    directions = torch.stack([flatten_params(part, stacked=True) for part in parts])
    loss = _member_losses(module, inputs, targets)
    slopes, curvatures = [], []
    for end in (first, second):
        leaves = {name: value.detach().clone().requires_grad_(True) for name, value in end.items()}
        # One graph serves both: the gradient gives the slopes, and its derivative along d gives H d.
        gradient = torch.autograd.grad(loss(leaves).sum(), list(leaves.values()), create_graph=True)
        flat = flatten_params(dict(zip(leaves, gradient)), stacked=True).detach()
        slopes.append((directions.double() * flat.double()).sum(-1))
        product = _hessian_times(gradient, leaves, parts)
        curvatures.append((directions.double() * product.double()).sum(-1))
    return SecondOrder(torch.stack(slopes), torch.stack(curvatures), directions.double().square().sum(-1))


def barrier_second_order(found: SecondOrder, *, gradient: bool = True, share: float = 0.5) -> Float[Tensor, " M"]:
    r"""Height of the barrier from what is known at the two ends alone.

    Expanding the loss at :math:`\theta_1 + \alpha D` from both ends to second order, and weighting each expansion by
    its nearness:

    .. math::

        B(\alpha) \approx (1-\alpha)\bigl[\alpha\, g_1\!\cdot\! D + \tfrac{\alpha^2}{2} D^\top H_1 D\bigr]
                 + \alpha\bigl[-(1-\alpha)\, g_2\!\cdot\! D + \tfrac{(1-\alpha)^2}{2} D^\top H_2 D\bigr]

    At one half this is :math:`\tfrac14(g_1-g_2)\cdot D + \tfrac1{16}D^\top(H_1+H_2)D`.

    Args:
        found: As :func:`directional_curvature` gives it.
        gradient: Whether to keep the gradients; without them no valley can be told from two.
        share: :math:`\alpha`.

    Source:
        singh2024landscaping (second-order analysis); this expansion is our own, the paper's constants were not found.
    """
    (g1, g2), (h1, h2) = found.slope[:, 0], found.curvature[:, 0]
    a = share
    bent = (1 - a) * a**2 / 2 * h1 + a * (1 - a) ** 2 / 2 * h2
    return bent + (a * (1 - a) * (g1 - g2) if gradient else 0.0)


def layer_second_order(found: SecondOrder, *, gradient: bool = True) -> Float[Tensor, "layers M"]:
    r"""Rise of the first network's loss when one layer moves half way to the second.

    .. math:: L(\theta_1 + \tfrac12 D_\ell) - L(\theta_1) \approx \tfrac12\, g_1\!\cdot\! D_\ell
              + \tfrac18\, D_\ell^\top H_1 D_\ell

    Args:
        found: As :func:`directional_curvature` gives it.
        gradient: Whether to keep the gradient.

    Source:
        singh2024landscaping; the expansion is our own.
    """
    return found.curvature[0, 1:] / 8 + (found.slope[0, 1:] / 2 if gradient else 0.0)


class RidgeRuns(NamedTuple):
    """Pairs of walks on the toy landscape.

    Attributes:
        first: Where the first walk of each pair ends, ``[pairs, 2]``.
        second: Where the second ends.
        apart: Whether they ended in different valleys.
        barrier: Height of the ridge between the two ends.
        branch_height: Mean ``y`` where the pairs parted.
    """

    first: Tensor
    second: Tensor
    apart: Tensor
    barrier: Tensor
    branch_height: float


def ridge_landscape(x: Tensor, y: Tensor, *, pull: float = 0.5, floor: float = 1.5) -> Tensor:
    r"""A landscape with one valley that forks: a ridge rises at :math:`x=0` where :math:`y > 0`.

    .. math:: L(x, y) = \bigl(x^2 - s(y)\bigr)^2 - c\,\min(y, y_{\max}),\qquad s(y) = \min(\max(y, 0), 1)

    The ridge stands :math:`s(y)^2` above the valleys :math:`x = \pm\sqrt{s(y)}`.

    Args:
        x, y: Coordinates, of equal shapes.
        pull: The slope :math:`c` down the valley.
        floor: :math:`y_{\max}`, where the slope ends.

    Source:
        A toy in the sense of singh2024landscaping; the formula is our own.
    """
    return (x.square() - y.clamp(0, 1)).square() - pull * y.clamp(max=floor)


def ridge_walks(
    branch: int,
    *,
    pairs: int = 200,
    noisy: int = 1500,
    calm: int = 300,
    step: float = 0.01,
    noise: float = 0.1,
    seed: int = 0,
    grid: int = 201,
) -> RidgeRuns:
    r"""Noisy gradient descent from above the fork: pairs that share their noise for a while, then part.

    Args:
        branch: Steps that a pair shares.
        pairs: Number of pairs.
        noisy: Noisy steps after the branch.
        calm: Steps without noise at the end.
        step: Step length :math:`\eta`.
        noise: Standard deviation of the noise in x, in units of :math:`\sqrt\eta` a step.
        seed: Seeds the noise.
        grid: Points on the line between two ends, for the barrier.

    Raises:
        ValueError: For a negative number of steps or no pairs.
    """
    require(branch >= 0 and noisy >= 0 and calm >= 0 and pairs >= 1, "non-negative steps and at least one pair",
            (branch, noisy, calm, pairs))  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    spread = noise * step**0.5

    def move(place: Tensor, kick: Tensor | float) -> Tensor:
        place = place.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(ridge_landscape(place[..., 0], place[..., 1]).sum(), place)
        moved = place.detach() - step * slope
        moved[..., 0] += kick
        return moved

    def kicks(count: int) -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64) * spread

    start = torch.tensor([0.0, -1.0], dtype=torch.float64).expand(pairs, 2)
    for _ in range(branch):
        start = move(start, kicks(pairs))
    both = torch.cat([start, start])
    for _ in range(noisy):
        both = move(both, kicks(2 * pairs))
    for _ in range(calm):
        both = move(both, 0.0)
    first, second = both[:pairs], both[pairs:]
    shares = torch.linspace(0, 1, grid, dtype=torch.float64)[:, None, None]
    line = first + shares * (second - first)
    height = ridge_landscape(line[..., 0], line[..., 1])
    a = shares[..., 0]
    barrier = (height - (1 - a) * height[0] - a * height[-1]).max(0).values
    apart = first[:, 0].sign() != second[:, 0].sign()
    return RidgeRuns(first, second, apart, barrier, float(start[:, 1].mean()))
