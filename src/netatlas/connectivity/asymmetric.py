r"""Networks with fewer symmetries: frozen weights in every row, ensembles of them, and mixtures of experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite

Task = Literal["classification", "regression"]


def asymmetry_mask(rows: int, columns: int, fixed: int, *, seed: int) -> Bool[Tensor, "rows columns"]:
    r"""Which weights of a layer are trained: each row freezes its own set of ``fixed`` inputs, no two rows the same.

    Args:
        rows: Output neurons.
        columns: Input coordinates.
        fixed: Frozen weights a row; 0 freezes nothing.
        seed: An integer that names the layer: all networks that share it share their frozen weights.

    Returns:
        True where a weight is trained.

    Raises:
        ValueError: For a number of frozen weights outside of the row, or too few different sets for all rows.

    Source:
        chernov2025asymensembles; the masks of asymmetric networks (arXiv 2405.20231).
    """
    require(rows >= 1 and columns >= 1, "at least one row and column", (rows, columns))
    require(0 <= fixed <= columns, f"between 0 and {columns} frozen weights a row", fixed)
    if fixed == 0:
        return torch.ones(rows, columns, dtype=torch.bool)
    require(math.comb(columns, fixed) >= rows, f"at least {rows} different sets of frozen weights",
            math.comb(columns, fixed))  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[tuple[int, ...], None] = {}
    # Rows that came twice are drawn anew: rare, unless nearly all sets are needed.
    while len(chosen) < rows:
        drawn = torch.rand(rows - len(chosen), columns, generator=generator).topk(fixed, 1).indices.sort(1).values
        chosen |= dict.fromkeys(map(tuple, drawn.tolist()))
    mask = torch.ones(rows, columns, dtype=torch.bool)
    mask[torch.arange(rows)[:, None], torch.tensor(list(chosen))] = False
    return mask


class AsymmetricLinear(nn.Module):
    r"""A linear layer in which every row has frozen entries of its own.

    .. math:: W = M \odot V + (1 - M) \odot \kappa G, \qquad G_{ij} \sim N(0, 1)\ \text{fixed}

    Args:
        inputs: Input features.
        outputs: Output features.
        fixed: Frozen weights a row.
        scale: :math:`\kappa`; 0 gives a sparse layer.
        seed: Names the layer; the mask and :math:`G` are functions of it.

    Shapes:
        ``[..., inputs]`` to ``[..., outputs]``.

    Raises:
        ValueError: As :func:`asymmetry_mask`; for a negative or infinite scale.

    Source:
        chernov2025asymensembles.
    """

    mask: Tensor
    frozen: Tensor

    def __init__(self, inputs: int, outputs: int, *, fixed: int, scale: float, seed: int) -> None:
        super().__init__()
        require(0 <= scale < math.inf, "a finite scale of at least 0", scale)
        mask = asymmetry_mask(outputs, inputs, fixed, seed=seed)
        values = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed + 1))
        self.register_buffer("mask", mask.to(values))
        self.register_buffer("frozen", (1 - mask.to(values)) * scale * values)
        self.linear = nn.Linear(inputs, outputs)

    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """The weight in use: trained where the mask is one, frozen elsewhere."""
        return self.mask * self.linear.weight + self.frozen

    def forward(self, x: Float[Tensor, "*N inputs"]) -> Float[Tensor, "*N outputs"]:
        return nn.functional.linear(x, self.weight(), self.linear.bias)


class AsymmetricMLP(nn.Module):
    r"""Fully connected network of :class:`AsymmetricLinear` layers (the W-MLP): no two neurons can change places.

    Args:
        widths: Input, hidden and output widths.
        fixed: Frozen weights a row, one number a layer; cut to what the layer has.
        scale: :math:`\kappa`, for all layers.
        seed: Names the network's masks: networks with equal seeds can be averaged.
        activation: Between layers.

    Shapes:
        ``[N, widths[0]]`` to ``[N, widths[-1]]``.

    Raises:
        ValueError: For numbers that do not fit together.

    Source:
        chernov2025asymensembles.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        fixed: Sequence[int],
        scale: float = 1.0,
        seed: int = 0,
        activation: Literal["gelu", "relu"] = "gelu",
    ) -> None:
        super().__init__()
        require(len(widths) >= 2 and len(fixed) == len(widths) - 1, "one number of frozen weights a layer",
                (list(widths), list(fixed)))  # fmt: skip
        require(activation in ("gelu", "relu"), "an activation out of gelu, relu", repr(activation))
        self.layers = nn.ModuleList(
            AsymmetricLinear(a, b, fixed=f, scale=scale, seed=1000 * seed + 10 * number)
            for number, (a, b, f) in enumerate(zip(widths, widths[1:], fixed))
        )
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()

    def forward(self, x: Float[Tensor, "N features"]) -> Float[Tensor, "N outputs"]:
        for number, layer in enumerate(self.layers):
            x = layer(self.activation(x) if number else x)
        return x


class Gate(nn.Module):
    r"""Weights of the experts for a sample: softmax, or Gumbel-softmax with its noise.

    .. math:: g = \operatorname{softmax}(Ax + c), \qquad
              g = \operatorname{softmax}\bigl((Ax + c + \gamma)/\tau\bigr),\ \gamma_k \sim \text{Gumbel}(0, 1)

    In evaluation the noisy gate is averaged over fixed draws of the noise.

    Args:
        inputs: Input features.
        experts: Number of experts.
        temperature: :math:`\tau`, or ``None`` for the plain softmax.
        draws: Draws of the noise in evaluation.

    Raises:
        ValueError: For fewer than one expert or a temperature that is not positive.
    """

    noise: Tensor

    def __init__(self, inputs: int, experts: int, *, temperature: float | None = None, draws: int = 10) -> None:
        super().__init__()
        require(experts >= 1, "at least one expert", experts)
        require(temperature is None or temperature > 0, "a positive temperature", temperature)
        self.linear, self.temperature = nn.Linear(inputs, experts), temperature
        uniform = torch.rand(draws, experts, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
        self.register_buffer("noise", -torch.log(-torch.log(uniform)))

    def forward(self, x: Float[Tensor, "N inputs"]) -> Float[Tensor, "N experts"]:
        logits = self.linear(x)
        if self.temperature is None:
            return logits.softmax(-1)
        if self.training:
            uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            return ((logits - torch.log(-torch.log(uniform))) / self.temperature).softmax(-1)
        return ((logits[..., None, :] + self.noise) / self.temperature).softmax(-1).mean(-2)


class MixtureOfExperts(nn.Module):
    r"""A gate's average of the experts' outputs, :math:`y = \sum_k g_k(x)\, E_k(x)`.

    Args:
        experts: Networks of one architecture.
        gate: Gives their weights for a sample.

    Shapes:
        ``[N, inputs]`` to ``[N, outputs]``.

    Raises:
        ValueError: For no experts.

    Source:
        chernov2025asymensembles.
    """

    def __init__(self, experts: Sequence[nn.Module], gate: nn.Module) -> None:
        super().__init__()
        require(len(experts) > 0, "at least one expert", 0)
        self.experts, self.gate = nn.ModuleList(experts), gate

    def forward(self, x: Float[Tensor, "N inputs"]) -> Float[Tensor, "N outputs"]:
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return torch.einsum("nk,nko->no", self.gate(x), outputs)


class MixtureOfInterpolatedExperts(nn.Module):
    r"""Each sample runs through its own interpolation of the experts' weights.

    .. math:: z_\ell = \phi\Bigl(\sum_k g_k(x)\,\bigl(W_\ell^{(k)} z_{\ell-1} + b_\ell^{(k)}\bigr)\Bigr)

    One gate serves all layers. This is no average of outputs: the experts meet before every activation.

    Args:
        experts: Networks with ``layers`` (each callable) and ``activation``, of one architecture.
        gate: Gives their weights for a sample.

    Shapes:
        ``[N, inputs]`` to ``[N, outputs]``.

    Raises:
        ValueError: For no experts, or experts of different depth.

    Source:
        chernov2025asymensembles.
    """

    def __init__(self, experts: Sequence[nn.Module], gate: nn.Module) -> None:
        super().__init__()
        require(len(experts) > 0, "at least one expert", 0)
        depths = {len(expert.layers) for expert in experts}  # type: ignore[arg-type]
        require(len(depths) == 1, "experts of one depth", sorted(depths))
        self.experts, self.gate, self.depth = nn.ModuleList(experts), gate, depths.pop()

    def forward(self, x: Float[Tensor, "N inputs"]) -> Float[Tensor, "N outputs"]:
        weights = self.gate(x)
        for number in range(self.depth):
            if number:
                x = self.experts[0].activation(x)  # type: ignore[operator]
            values = torch.stack([expert.layers[number](x) for expert in self.experts], 1)  # type: ignore[index]
            x = torch.einsum("nk,nko->no", weights, values)
        return x


def ensemble_score(
    outputs: Float[Tensor, "M N C"], targets: Tensor, sizes: Sequence[int], *, task: Task = "classification"
) -> Float[Tensor, " sizes"]:
    r"""Score of ensembles of growing size, averaged over all disjoint ensembles of that size.

    An ensemble averages logits (or predictions). The score is accuracy, or the coefficient of determination
    :math:`R^2 = 1 - \sum (y-\hat y)^2 / \sum (y-\bar y)^2`; larger is better.

    Args:
        outputs: Outputs of M members.
        targets: Labels ``[N]``, or values ``[N, C]``.
        sizes: Ensemble sizes between 1 and M.
        task: ``"classification"`` or ``"regression"``.

    Raises:
        ValueError: For sizes outside of 1 to M, outputs that are not finite, or targets that do not fit.

    Source:
        chernov2025asymensembles.
    """
    require(task in ("classification", "regression"), "a task out of classification, regression", repr(task))
    require(outputs.ndim == 3 and outputs.shape[1] == len(targets), f"outputs [M, {len(targets)}, C]", outputs.shape)
    require_finite("outputs", outputs)
    members = len(outputs)
    require(len(sizes) > 0 and all(1 <= s <= members for s in sizes), f"sizes between 1 and {members}", list(sizes))
    scores = []
    for size in sizes:
        means = outputs[: members // size * size].unflatten(0, (-1, size)).double().mean(1)
        if task == "classification":
            scores.append((means.argmax(-1) == targets).double().mean())
        else:
            spread = (targets.double() - targets.double().mean(0)).square().sum()
            scores.append((1 - (means - targets.double()).square().sum((1, 2)) / spread).mean())
    return torch.stack(scores)


def member_disagreement(outputs: Float[Tensor, "M N C"]) -> float:
    """Share of inputs on which two members answer differently, averaged over all pairs.

    Args:
        outputs: Outputs of at least two members.

    Raises:
        ValueError: For fewer than two members.
    """
    members = len(outputs)
    require(members >= 2, "at least two members", members)
    answers = outputs.argmax(-1)
    different = (answers[:, None] != answers[None]).double().mean(-1)
    return float(different.sum() / (members * (members - 1)))
