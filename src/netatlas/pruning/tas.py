r"""Transformable architecture search: widths and depth of a pruned network by gradient, then distillation into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.train import Params, minimize

from .stacked import initial_parameters

FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def width_candidates(channels: int, fractions: Sequence[float] = FRACTIONS) -> list[int]:
    r"""Candidate widths :math:`\lfloor f C\rfloor`, at least 1, without repetitions.

    Args:
        channels: :math:`C \ge 1`.
        fractions: Shares :math:`f` in (0, 1].

    Raises:
        ValueError: For no channel or shares out of range.
    """
    require(channels >= 1, "at least one channel", channels)
    require(all(0 < f <= 1 for f in fractions), "fractions in (0, 1]", list(fractions))
    return sorted({max(int(channels * f + 1e-9), 1) for f in fractions})


def depth_candidates(layers: int) -> list[int]:
    r"""Candidate depths :math:`\{\lfloor L/3\rfloor, \lfloor 2L/3\rfloor, L\}` of a stage, at least 1."""
    require(layers >= 1, "at least one layer", layers)
    return sorted({max(layers // 3, 1), max(2 * layers // 3, 1), layers})


def interpolation_matrix(before: int, after: int, size: int | None = None) -> Float[Tensor, "size size"]:
    r"""Channel-wise interpolation as a matrix: column :math:`i` averages channels
    :math:`\lfloor iC/C'\rfloor` to :math:`\lceil (i+1)C/C'\rceil - 1`.

    Args:
        before: Channels :math:`C`.
        after: Channels :math:`C'`.
        size: Rows and columns, zeros beyond ``before`` and ``after``; default ``before`` x ``after``.

    Raises:
        ValueError: For no channels, or a size too small.
    """
    require(before >= 1 and after >= 1, "positive channel counts", (before, after))
    shape = (before, after) if size is None else (size, size)
    require(shape[0] >= before and shape[1] >= after, f"a size of at least {max(before, after)}", size)
    i = torch.arange(after)
    start, end = i * before // after, -(-(i + 1) * before // after)
    channel = torch.arange(before)[:, None]
    inside = ((channel >= start) & (channel < end)).double() / (end - start)
    matrix = torch.zeros(shape, dtype=torch.float64)
    matrix[:before, :after] = inside
    return matrix


def channel_wise_interpolation(x: Float[Tensor, "..."], channels: int, dim: int = 1) -> Float[Tensor, "..."]:
    r"""Adaptive average pooling over the channel axis: :math:`O'_i = \operatorname{mean}(O_{\lfloor iC/C'\rfloor}, \ldots, O_{\lceil (i+1)C/C'\rceil - 1})`.

    Args:
        x: Feature maps.
        channels: New number of channels :math:`C'`.
        dim: The channel axis.

    Raises:
        ValueError: For fewer than one channel before or after.

    Source:
        dong2019tas.
    """  # noqa: E501
    require(channels >= 1 and x.shape[dim] >= 1, "positive channel counts", (x.shape[dim], channels))
    if channels == x.shape[dim]:
        return x
    matrix = interpolation_matrix(x.shape[dim], channels).to(x.device, x.dtype)
    return torch.movedim(torch.movedim(x, dim, -1) @ matrix, -1, dim)


class Sampled(NamedTuple):
    """Choices drawn without replacement, and the relaxed weights that sum to one over them."""

    index: Tensor
    weight: Tensor


def gumbel_sample(
    logits: Float[Tensor, "*batch choices"], temperature: float, count: int, generator: torch.Generator
) -> Sampled:
    r"""Relaxed choice of a few out of many.

    .. math:: \hat p_j = \operatorname{softmax}_j\bigl((\log p_j + o_j)/\tau\bigr), \quad o = -\log(-\log u), \qquad
        I \sim \text{multinomial}(\hat p + 10^{-7}), \quad w_j = \hat p_j \Big/ \sum_{i\in I}\hat p_i

    Args:
        logits: Of the choices; :math:`p` is their softmax.
        temperature: :math:`\tau > 0`.
        count: :math:`|I|`, at most the number of choices.
        generator: Of the noise.

    Raises:
        ValueError: For a temperature or a count out of range, or logits that are not finite.

    Source:
        dong2019tas.
    """
    require(temperature > 0, "a positive temperature", temperature)
    require(1 <= count <= logits.shape[-1], f"a count in [1, {logits.shape[-1]}]", count)
    require_finite("logits", logits)
    u = torch.rand(logits.shape, generator=generator, dtype=logits.dtype).clamp(1e-20, 1 - 1e-7)
    noisy = (logits.log_softmax(-1) - (-u.log()).log()) / temperature
    relaxed = noisy.softmax(-1)
    flat = relaxed.detach().reshape(-1, relaxed.shape[-1]) + 1e-7
    index = torch.multinomial(flat, count, generator=generator).reshape(*relaxed.shape[:-1], count)
    # Softmax over the chosen logits is the same as dividing by the chosen probabilities, and cannot underflow.
    return Sampled(index, noisy.gather(-1, index).softmax(-1))


def mlp_cost(widths: Sequence[float] | Tensor, inputs: int, classes: int) -> float | Tensor:
    """Multiply-adds of an MLP with these hidden widths; the last axis of a tensor holds the layers."""
    hidden = widths if isinstance(widths, Tensor) else torch.tensor(list(widths), dtype=torch.float64)
    cost = inputs * hidden[..., 0] + (hidden[..., :-1] * hidden[..., 1:]).sum(-1) + classes * hidden[..., -1]
    return cost if isinstance(widths, Tensor) else float(cost)


def expected_cost(
    widths: Float[Tensor, "*batch layers choices"],
    depths: Float[Tensor, "*batch depths"],
    *,
    candidates: Sequence[int],
    depth_choices: Sequence[int],
    inputs: int,
    classes: int,
) -> Float[Tensor, "*batch"]:
    r"""Expected multiply-adds when every layer draws its width, and the stage its depth, independently.

    .. math:: E = \sum_d q_d \Bigl( n_0 \bar c_1 + \sum_{l=2}^{d} \bar c_{l-1}\bar c_l + K \bar c_d \Bigr),
        \qquad \bar c_l = \sum_j p_{lj} c_j

    Args:
        widths: Probabilities of the widths.
        depths: Probabilities of the depths.
        candidates: The widths.
        depth_choices: The depths.
        inputs: :math:`n_0`.
        classes: :math:`K`.

    Raises:
        ValueError: For shapes that do not fit the candidates.
    """
    require(widths.shape[-1] == len(candidates), f"probabilities of {len(candidates)} widths", tuple(widths.shape))
    require(depths.shape[-1] == len(depth_choices), f"probabilities of {len(depth_choices)} depths", depths.shape)
    mean = widths @ torch.tensor(candidates, dtype=widths.dtype, device=widths.device)
    costs = torch.stack([mlp_cost(mean[..., :d], inputs, classes) for d in depth_choices], -1)  # type: ignore[arg-type]
    return (depths * costs).sum(-1)


def cost_penalty(expected: Tensor, actual: Tensor, target: float, tolerance: float) -> Tensor:
    r"""The cost term: :math:`\log E` above the band :math:`[(1-t)R, (1+t)R]` of the actual cost, :math:`-\log E` below, 0 inside."""  # noqa: E501
    sign = (actual > (1 + tolerance) * target).to(expected.dtype) - (actual < (1 - tolerance) * target).to(
        expected.dtype
    )
    return sign * expected.log()


class Architectures(NamedTuple):
    """What a search found, one a member: logits, and the most probable widths (0 beyond the depth)."""

    width_logits: Tensor
    depth_logits: Tensor
    widths: Tensor


def _most_probable(alpha: Tensor, beta: Tensor, candidates: Tensor, depth_choices: Tensor) -> Tensor:
    widths = candidates[alpha.argmax(-1)]
    depth = depth_choices[beta.argmax(-1)]
    return widths * (torch.arange(1, widths.shape[-1] + 1) <= depth[:, None])


def _cost_of(widths: Tensor, inputs: int, classes: int) -> Tensor:
    """Cost of widths [M, L] with zeros beyond the depth."""
    depth = (widths > 0).sum(-1)
    last = widths.gather(-1, (depth - 1)[:, None])[:, 0]
    return mlp_cost(widths.double(), inputs, 0) + classes * last.double()  # type: ignore[operator]


def search_architecture(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    *,
    channels: int,
    layers: int,
    target: float,
    seeds: Sequence[int],
    steps: int,
    classes: int,
    batch_size: int = 64,
    depths: Sequence[int] | None = None,
    samples: int = 2,
    interpolate: bool = True,
    lr: float = 3e-3,
    logit_lr: float = 0.1,
    cost_weight: float = 2.0,
    tolerance: float = 0.05,
    regression: bool = False,
    seed: int = 0,
) -> Architectures:
    r"""Search widths and depth of an MLP with ReLU: weights on training data, logits on validation data and cost.

    Every layer outputs :math:`\sum_{j\in I}\hat p_j\,\mathrm{CWI}(O_{1:c_j}, \max_{i\in I} c_i)`, prefixes of one
    shared weight; the stage outputs :math:`\sum_l \hat q_l\,\mathrm{CWI}(O_l, C_{\text{last}})`. Temperature 10 to 0.1.

    Args:
        train: Inputs ``[N, features]`` and targets for the weights.
        validation: The same for the logits.
        channels: Width of the full network's hidden layers.
        layers: Hidden layers.
        target: Multiply-adds :math:`R` aimed at.
        seeds: One a member.
        steps: Steps; each has one gradient on either data.
        classes: Outputs.
        batch_size: Examples a gradient.
        depths: Candidate depths; ``None`` for those of :func:`depth_candidates`.
        samples: :math:`|I|`.
        interpolate: False pads prefixes with zeros instead (ablation).
        lr: Adam's rate of the weights.
        logit_lr: Adam's rate of the logits.
        cost_weight: Weight of :func:`cost_penalty`.
        tolerance: Half-width of the cost's band.
        regression: Squared error instead of cross-entropy.
        seed: Of batches and noise.

    Raises:
        ValueError: For depths out of range.

    Source:
        dong2019tas.
    """
    depth_choices = depth_candidates(layers) if depths is None else sorted(depths)
    require(depth_choices[0] >= 1 and depth_choices[-1] == layers, f"depths up to {layers}", depth_choices)
    candidates = width_candidates(channels)
    table = torch.stack(
        [
            torch.stack(
                [
                    interpolation_matrix(a, b, channels)
                    if interpolate
                    else torch.diag((torch.arange(channels) < min(a, b)).double())
                    for b in candidates
                ]
            )
            for a in candidates
        ]
    ).float()
    inputs = train[0].shape[1]
    params = initial_parameters([inputs, *[channels] * layers, classes], seeds)
    members = len(seeds)
    params["alpha"] = torch.zeros(members, layers, len(candidates))
    params["beta"] = torch.zeros(members, len(depth_choices))
    generator = torch.Generator().manual_seed(seed)
    widths_of, depths_of = torch.tensor(candidates), torch.tensor(depth_choices)

    def transform(before: Tensor, after: Tensor) -> Tensor:
        return table[before, after]

    def outputs(p: Mapping[str, Tensor], x: Tensor, temperature: float) -> Tensor:
        chosen = gumbel_sample(p["alpha"], temperature, samples, generator)
        deep = gumbel_sample(p["beta"], temperature, min(samples, len(depth_choices)), generator)
        share = torch.zeros_like(p["beta"]).scatter(-1, deep.index, deep.weight)
        widest = chosen.index.amax(-1)
        total, h = 0, x
        for layer in range(layers):
            weight, bias = p[f"layers.{layer}.weight"], p[f"layers.{layer}.bias"]
            full = torch.baddbmm(bias[:, None], h, weight.mT).relu()
            mixing = sum(
                chosen.weight[:, layer, j, None, None] * transform(chosen.index[:, layer, j], widest[:, layer])
                for j in range(samples)
            )
            h = full @ mixing
            if layer + 1 in depth_choices:
                own = share[:, depth_choices.index(layer + 1), None, None]
                total = total + own * (h @ transform(widest[:, layer], widest[:, -1]))
        head = f"layers.{layers}"
        return torch.baddbmm(p[f"{head}.bias"][:, None], total, p[f"{head}.weight"].mT)

    def error(out: Tensor, y: Tensor) -> Tensor:
        if regression:
            return (out - y).square().mean((1, 2))
        flat = torch.nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none")
        return flat.reshape(members, -1).mean(1)

    def draw(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(pair[0]), (members, batch_size), generator=generator)
        return pair[0][index], pair[1][index]

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        temperature = 10 + (0.1 - 10) * step / max(steps - 1, 1)
        logits = {n: v for n, v in p.items() if n in ("alpha", "beta")}
        weights = {n: v for n, v in p.items() if n not in logits}
        x, y = draw(train)
        fit = error(outputs(weights | {n: v.detach() for n, v in logits.items()}, x, temperature), y)
        x, y = draw(validation)
        choose = error(outputs({n: v.detach() for n, v in weights.items()} | logits, x, temperature), y)
        mean = expected_cost(
            logits["alpha"].softmax(-1), logits["beta"].softmax(-1), candidates=candidates,
            depth_choices=depth_choices, inputs=inputs, classes=classes,
        )  # fmt: skip
        found = _most_probable(logits["alpha"].detach(), logits["beta"].detach(), widths_of, depths_of)
        actual = _cost_of(found, inputs, classes).to(mean.dtype)
        return fit + choose + cost_weight * cost_penalty(mean, actual, target, tolerance)

    scale = {n: (logit_lr / lr if n in ("alpha", "beta") else 1.0) for n in params}
    params, _ = minimize(loss, params, steps=steps, optimizer="adam", lr=lr, lr_scale=scale, seed=seed)
    alpha, beta = params["alpha"], params["beta"]
    return Architectures(alpha, beta, _most_probable(alpha, beta, widths_of, depths_of))


def scale_into_band(
    widths: Int[Tensor, " layers"], target: float, *, inputs: int, classes: int, channels: int, tolerance: float = 0.05
) -> tuple[Tensor, bool]:
    """Multiply all widths by one factor until the cost lies in the band; widths beyond the depth stay 0.

    Args:
        widths: Hidden widths.
        target: Multiply-adds.
        inputs: Inputs of the network.
        classes: Outputs.
        channels: Largest width.
        tolerance: Half-width of the band.

    Returns:
        The widths nearest to the target, and whether they had to change.
    """

    def cost(w: Tensor) -> float:
        return float(_cost_of(w[None], inputs, classes)[0])

    if abs(cost(widths) / target - 1) <= tolerance:
        return widths, False
    factors = torch.linspace(0.1, 10, 4000, dtype=torch.float64)
    options = [torch.where(widths > 0, (widths * f).round().clamp(1, channels), 0).long() for f in factors]
    return min(options, key=lambda w: abs(cost(w) - target)), True


def distillation_loss(
    student: Float[Tensor, "*members examples classes"],
    teacher: Float[Tensor, "*members examples classes"],
    labels: Int[Tensor, "*members examples"],
    *,
    weight: float = 0.9,
    temperature: float = 4.0,
) -> Float[Tensor, "*members"]:
    r"""Knowledge transfer, :math:`(1-a)\,\mathrm{CE} + a\,T^2\,\mathrm{KL}(\sigma(z_t/T)\,\|\,\sigma(z_s/T))`, the mean over examples.

    Args:
        student: Logits :math:`z_s`.
        teacher: Logits :math:`z_t`; no gradient flows to them.
        labels: Class indices.
        weight: :math:`a` in [0, 1].
        temperature: :math:`T > 0`.

    Raises:
        ValueError: For shapes that differ or numbers out of range.

    Source:
        dong2019tas.
    """  # noqa: E501
    require(student.shape == teacher.shape, f"teacher logits {tuple(student.shape)}", tuple(teacher.shape))
    require(0 <= weight <= 1 and temperature > 0, "a weight in [0, 1], positive temperature", (weight, temperature))
    hard = -student.log_softmax(-1).gather(-1, labels[..., None])[..., 0].mean(-1)
    log_s, log_t = (student / temperature).log_softmax(-1), (teacher.detach() / temperature).log_softmax(-1)
    soft = (log_t.exp() * (log_t - log_s)).sum(-1).mean(-1)
    return (1 - weight) * hard + weight * temperature**2 * soft


def prefix_networks(
    widths: Int[Tensor, "members layers"], *, channels: int, inputs: int, classes: int, seeds: Sequence[int]
) -> tuple[Params, dict[str, Tensor]]:
    r"""Stacked networks of different widths: prefixes of equal tensors, He's scale :math:`\sqrt{2/n}` of own fan-in.

    A layer beyond a member's depth hands its input on: an identity on the last width, which training does not change.

    Args:
        widths: Hidden widths, 0 beyond the depth.
        channels: Width of the tensors.
        inputs: Inputs.
        classes: Outputs.
        seeds: One a member.

    Returns:
        Parameters, and a mask of what may change.
    """
    members, layers = widths.shape
    sizes = [inputs, *[channels] * layers, classes]
    params: Params = {}
    free: dict[str, Tensor] = {}
    draws = [torch.Generator().manual_seed(s) for s in seeds]
    before = torch.full((members,), inputs)
    for layer, (a, b) in enumerate(zip(sizes, sizes[1:])):
        own = widths[:, layer] if layer < layers else torch.full((members,), classes)
        skip = own == 0
        after = torch.where(skip, before, own)
        values = torch.stack([torch.randn(b, a, generator=g) for g in draws])
        inside = (torch.arange(b)[:, None] < after[:, None, None]) & (torch.arange(a) < before[:, None, None])
        identity = torch.eye(b, a) * inside
        values = values * (2 / before[:, None, None]).sqrt() * inside
        name = f"layers.{layer}"
        params[f"{name}.weight"] = torch.where(skip[:, None, None], identity, values)
        params[f"{name}.bias"] = torch.zeros(members, b)
        free[f"{name}.weight"] = inside & ~skip[:, None, None]
        free[f"{name}.bias"] = (torch.arange(b) < after[:, None]) & ~skip[:, None]
        before = after
    return params, free
