"""The chapter's experiments on adapters of perceptrons: expressive power, learning rates, asymmetry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.nn import MLP
from netatlas.core.stats import loglog_slope, stderr
from netatlas.core.train import Ensemble, fit_many, minimize, stack_members

from . import expressive
from .adapters import LoRALinear, count_trainable, freeze
from .asymmetry import cca_fit, frozen_factor_shares
from .loraplus import loraplus_scales, output_change, steps_to_reach

Data = tuple[Tensor, Tensor]
Params = dict[str, Tensor]


# ---------------------------------------------------------------- expressive power


class LinearError(NamedTuple):
    """Spectral errors of the construction for linear networks, ``[ranks, draws]``.

    Attributes:
        depth: frozen layers.
        ranks: ranks of the adapters.
        built: measured error of the construction.
        predicted: singular value that the theorem names.
        ablation: error with random directions in the place of the singular vectors.
        top: largest singular value of the discrepancy, ``[draws]``.
        condition: worst condition number.
    """

    depth: int
    ranks: Sequence[int]
    built: Float[Tensor, "ranks draws"]
    predicted: Float[Tensor, "ranks draws"]
    ablation: Float[Tensor, "ranks draws"]
    top: Float[Tensor, " draws"]
    condition: float


def linear_errors(depth: int, *, width: int = 16, draws: int = 5, seed: int = 0) -> LinearError:
    """The construction at every rank, for random frozen networks and targets.

    Args:
        depth: Frozen layers.
        width: Of all layers.
        draws: Networks.
        seed: Draws them.

    Source:
        zeng2023expressive.
    """
    g = torch.Generator().manual_seed(seed)
    ranks = list(range(width + 1))
    weights, target = expressive.well_conditioned((draws, depth, width), ranks, generator=g)
    turn = torch.linalg.qr(torch.randn(draws, width, width, dtype=torch.float64, generator=g))[0]
    built, ablation, condition = [], [], 1.0
    for rank in ranks:
        made = expressive.lora_construction(weights, target, rank)
        condition = max(condition, float(made.condition.max()))
        other = expressive.lora_construction(weights, target, rank, directions=turn)
        for found, updates in ((built, made.updates), (ablation, other.updates)):
            product = expressive.chain_product(weights + updates)
            found.append(torch.linalg.matrix_norm(product - target, 2))
    predicted = [expressive.least_error(weights, target, rank) for rank in ranks]
    top = torch.linalg.matrix_norm(expressive.discrepancy(weights, target), 2)
    return LinearError(depth, ranks, *(torch.stack(t) for t in (built, predicted, ablation)), top, condition)


class ReluError(NamedTuple):
    """Errors of adapted ReLU networks on new inputs, by rank and draw.

    Attributes:
        ranks: ranks of the construction.
        built: mean squared error of the construction, ``[ranks, draws]``, over inputs on which it stays linear.
        covered: least share of inputs on which it does.
        adam_ranks: ranks trained.
        adam: mean squared error of adapters trained by Adam at their best rate, ``[adam ranks, draws]``.
        last_layer: of the frozen network with its last layer trained instead, ``[draws]``.
    """

    ranks: Sequence[int]
    built: Float[Tensor, "ranks draws"]
    covered: float
    adam_ranks: Sequence[int]
    adam: Float[Tensor, "adam draws"]
    last_layer: Float[Tensor, " draws"]


def relu_errors(
    depth: int, target_depth: int = 1, *, width: int = 16, draws: int = 5, seed: int = 0,
    adam_ranks: Sequence[int] = (), rates: Sequence[float] = (1e-3, 3e-3, 1e-2), steps: int = 500, batch: int = 256,
) -> ReluError:  # fmt: skip
    """The construction for ReLU networks, and adapters with biases trained by Adam beside it.

    Args:
        depth, target_depth: Of the frozen network and of its target.
        width: Of both.
        draws: Networks.
        seed: Draws them.
        adam_ranks: Ranks to be trained; none trains nothing.
        rates: Learning rates to choose from, for each rank and for the last layer.
        steps, batch: Of training, on new inputs at every step.

    Source:
        zeng2023expressive.
    """
    g = torch.Generator().manual_seed(seed)
    ranks = list(range(1, width + 1))
    block = depth // target_depth
    parts = [expressive.well_conditioned((draws, block, width), ranks, generator=g) for _ in range(target_depth)]
    weights, target = torch.cat([w for w, _ in parts], 1), torch.stack([t for _, t in parts], 1)
    bias = expressive.random_network(draws, target_depth, width, generator=g)[1]
    frozen_bias = expressive.random_network(draws, depth, width, generator=g)[1]
    region, fresh = (torch.randn(10_000, width, dtype=torch.float64, generator=g) for _ in range(2))
    wanted = expressive.relu_forward(target, bias, fresh)[0]
    built, covered = [], 1.0
    for rank in ranks:
        made = expressive.relu_construction(weights, target, bias, rank, region.expand(draws, -1, -1))
        output, values = expressive.relu_forward(made.weights, made.biases, fresh)
        inside = torch.ones(output.shape[:-1], dtype=torch.bool)
        for layer in made.inner:
            inside &= (values[layer] >= 0).all(-1)
        covered = min(covered, float(inside.double().mean()))
        square = (output - wanted).square().mean(-1)
        built.append((square * inside).sum(-1) / inside.sum(-1))
    empty = torch.zeros(0, draws, dtype=torch.float64)
    if not adam_ranks:
        return ReluError(ranks, torch.stack(built), covered, (), empty, empty.sum(0))
    trained = _adam_adapters(weights, frozen_bias, target, bias, fresh, [*adam_ranks, None], rates, steps, batch, seed)
    return ReluError(ranks, torch.stack(built), covered, adam_ranks, trained[:-1], trained[-1])


def _adam_adapters(
    weights: Tensor, frozen_bias: Tensor, target: Tensor, bias: Tensor, fresh: Tensor,
    ranks: Sequence[int | None], rates: Sequence[float], steps: int, batch: int, seed: int,
) -> Tensor:  # fmt: skip
    """Mean squared errors ``[ranks, draws]`` at each rank's best rate; rank ``None`` trains the last layer alone."""
    draws, depth, width = weights.shape[:3]
    grid = [(r, rate, d) for r in ranks for rate in rates for d in range(draws)]
    pick = torch.tensor([d for _, _, d in grid])
    w, b0, t, tb = (v[pick].float() for v in (weights, frozen_bias, target, bias))
    used = torch.tensor([0 if r is None else r for r, _, _ in grid])
    mask = (torch.arange(width) < used[:, None]).float()[:, None, None, :]
    last = torch.tensor([r is None for r, _, _ in grid])
    free = torch.ones(len(grid), depth, 1)
    free[last, :-1] = 0
    g = torch.Generator().manual_seed(seed)
    start = torch.randn(len(grid), depth, width, width, generator=g) / width**0.5
    params = {"A": start, "B": torch.zeros_like(start), "bias": b0.clone(), "last": torch.zeros_like(w[:, -1])}

    def network(p: Params, x: Tensor) -> Tensor:
        adapted = w + (p["B"] * mask) @ p["A"].mT.mul(mask).mT
        adapted = torch.cat([adapted[:, :-1], adapted[:, -1:] + (p["last"] * last[:, None, None])[:, None]], 1)
        return expressive.relu_forward(adapted, b0 + (p["bias"] - b0) * free, x)[0]

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(batch, width, generator=generator)
        return (network(p, x) - expressive.relu_forward(t, tb, x)[0]).square().mean((-2, -1))

    lr = torch.tensor([rate for _, rate, _ in grid])
    params, _ = minimize(loss, params, steps=steps, optimizer="adam", lr=lr, seed=seed)
    with torch.no_grad():
        x = fresh[:4000].float()
        error = (network(params, x) - expressive.relu_forward(t, tb, x)[0]).square().mean((-2, -1))
    table = error.reshape(len(ranks), len(rates), draws).double()
    best = table.mean(2).argmin(1)
    return torch.stack([row[i] for row, i in zip(table, best)])


def attention_errors(ranks: Sequence[int], *, width: int = 16, heads: int = 2, seed: int = 0) -> dict[int, float]:
    """Largest error of the attention construction on random inputs, by rank.

    Args:
        ranks: Ranks of the adapters.
        width, heads: Of the block; every head's maps are square.
        seed: Draws blocks and inputs.

    Source:
        zeng2023expressive.
    """
    g = torch.Generator().manual_seed(seed)

    def draw() -> expressive.AttentionBlock:
        maps = expressive.random_network(4, heads, width, generator=g)[0]
        return expressive.AttentionBlock(*maps, expressive.random_network(1, 1, width, generator=g)[0][0, 0])

    frozen, target = draw(), draw()
    x = torch.randn(50, width, 8, dtype=torch.float64, generator=g)
    wanted = expressive.attention_output(target, x)
    return {
        r: float(
            (expressive.attention_output(expressive.attention_construction(frozen, target, r), x) - wanted).abs().max()
        )
        for r in ranks
    }


# ---------------------------------------------------------------- adapters of a pre-trained perceptron


def pretrained(train: Data, widths: Sequence[int], seeds: Sequence[int], *, steps: int, batch: int = 64) -> Ensemble:
    """Networks trained on the original task, one a seed.

    Args:
        train: Inputs as vectors, and labels.
        widths: Of the multilayer perceptrons.
        seeds: One network each.
        steps, batch: Of Adam at 1e-3.
    """
    epochs = max(1, -(-steps * batch // len(train[0])))
    count = steps * batch // epochs
    return fit_many(
        lambda: MLP(widths), train[0][:count], train[1][:count], seeds=seeds, epochs=epochs, batch_size=batch,
        optimizer="adam", lr=1e-3, device=train[0].device,
    )  # fmt: skip


def adapted_stack(bases: Ensemble, seeds: Sequence[int], repeat: int, **lora: object) -> Ensemble:
    """Low-rank adapters on all hidden layers of pre-trained perceptrons, the head frozen, stacked for training.

    Args:
        bases: One network a seed.
        seeds: Of the adapters' random factors.
        repeat: How often all seeds are repeated (once a learning rate).
        lora: ``rank`` and further options of :class:`~netatlas.low_rank.LoRALinear`.
    """
    modules = []
    for index, seed in enumerate(seeds):
        base = freeze(bases.member(index), stacked=True)
        last = len(base.layers) - 1  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [
                layer if i == last else LoRALinear(layer, **lora)  # type: ignore[arg-type]
                for i, layer in enumerate(base.layers)  # type: ignore[arg-type]
            ]
        base.layers = nn.ModuleList(layers)
        modules.append(base)
    params, buffers = stack_members(modules)
    many = lambda part: {k: v.repeat(repeat, *[1] * (v.ndim - 1)) for k, v in part.items()}  # noqa: E731
    return Ensemble(modules[0], many(params), many(buffers))


def adapt_many(
    bases: Ensemble, data: Data, *, seeds: Sequence[int], rates: Sequence[float], steps: int, batch: int = 64,
    ratio: float = 1.0, **lora: object,
) -> Ensemble:  # fmt: skip
    """Train adapters from every seed at every rate as one stack, seeds running fastest; linear decay of the rate.

    Args:
        bases: Pre-trained networks, one a seed.
        data: Inputs and labels of the new task.
        seeds: Of adapters and batches.
        rates: Learning rates, the geometric mean of those of A and B.
        steps, batch: Of Adam.
        ratio: Rate of B over rate of A.
        lora: Options of the adapters.
    """
    start = adapted_stack(bases, seeds, len(rates), **lora)
    epochs = max(1, -(-steps * batch // len(data[0])))
    count = steps * batch // epochs
    lr = torch.tensor(rates).repeat_interleave(len(seeds)).to(data[0].device)
    return fit_many(
        lambda: start.module, data[0][:count], data[1][:count], seeds=list(seeds) * len(rates), epochs=epochs,
        batch_size=batch, optimizer="adam", lr=lr, schedule="linear", init=start, device=data[0].device,
        lr_scale=loraplus_scales(start.params, ratio), diverged="keep",
    )  # fmt: skip


class Tuned(NamedTuple):
    """An arm at the rate that validation chose.

    Attributes:
        rate: the chosen one.
        at_edge: whether it is an end of the grid.
        test: test accuracy, ``[seeds]``.
        train: training accuracy on some examples, ``[seeds]``.
        loss: training loss of each step, smoothed over 10, ``[steps, seeds]``.
        trainable: trained numbers.
        ensemble: the networks of the chosen rate.
    """

    rate: float
    at_edge: bool
    test: Float[Tensor, " seeds"]
    train: Float[Tensor, " seeds"]
    loss: Float[Tensor, "steps seeds"]
    trainable: int
    ensemble: Ensemble


def tuned(many: Ensemble, rates: Sequence[float], seeds: int, train: Data, validation: Data, test: Data) -> Tuned:
    """Choose the rate by mean validation accuracy, then look at the test data.

    Args:
        many: From :func:`adapt_many`.
        rates: As given there.
        seeds: How many.
        train, validation, test: Inputs and labels.
    """
    scores = many.accuracy(*validation).reshape(len(rates), seeds).mean(1)
    best = int(scores.argmax())
    chosen = many[torch.arange(best * seeds, (best + 1) * seeds)]
    smooth = nn.functional.avg_pool1d(chosen.trace.T, 10, 1).T.double()
    return Tuned(
        rates[best], best in (0, len(rates) - 1), chosen.accuracy(*test).cpu(),
        chosen.accuracy(train[0][:500], train[1][:500]).cpu(), smooth.cpu(), count_trainable(many.module), chosen,
    )  # fmt: skip


# ---------------------------------------------------------------- learning rates


def change_slopes(
    widths: Sequence[int],
    rule: str,
    *,
    optimizer: str = "sgd",
    rank: int = 1,
    draws: int = 2000,
    seed: int = 0,
    constant: float = 0.1,
) -> tuple[float, float]:
    r"""Exponents in width of the typical :math:`|\delta^1|` and :math:`|\delta^2|`, from the mean of their logarithms.

    Args:
        widths: To measure at.
        rule: ``"ratio grows"`` for rates (c/n, c), ``"both small"`` for (c/n, c/n), ``"both large"`` for (c, c).
        optimizer, rank: As in :func:`~netatlas.low_rank.output_change`.
        draws: At each width.
        seed: Draws them.
        constant: c.

    Source:
        hayou2024loraplus.
    """
    exponents = {"ratio grows": (1, 0), "both small": (1, 1), "both large": (0, 0)}[rule]
    sizes = []
    for width in widths:
        g = torch.Generator().manual_seed(seed)
        rates = (constant / width ** exponents[0], constant / width ** exponents[1])
        change = output_change(width, rates, draws=draws, generator=g, optimizer=optimizer, rank=rank)
        sizes.append([float(part.abs().log().mean().exp()) for part in (change.first, change.second)])
    columns = list(zip(*sizes))
    return tuple(loglog_slope(widths, column).slope for column in columns)  # type: ignore[return-value]


def speed_up(reference: Tuned, other: Tuned, every: int = 5) -> Float[Tensor, " seeds"]:
    """How much sooner another arm reaches the reference's final smoothed training loss; 0 if it never does.

    Args:
        reference: The arm that sets the target, at its own best rate.
        other: The arm compared.
        every: Steps between evaluations.
    """
    # Counted back from the last step, so that the evaluation that sets the target is one of those looked at.
    curves = [arm.loss.flip(0)[::every].flip(0) for arm in (reference, other)]
    own, its = (steps_to_reach(curve, curves[0][-1], every) for curve in curves)
    return torch.where(its.isfinite(), own / its, torch.zeros_like(its))


# ---------------------------------------------------------------- asymmetry


class Shares(NamedTuple):
    """Shares of the loss that remain, ``[draws]``: with a frozen first factor and with a frozen second one."""

    freeze_a: Float[Tensor, " draws"]
    freeze_b: Float[Tensor, " draws"]


def asymmetry_shares(
    exponent: float, *, width: int = 64, rank: int = 4, draws: int = 200, seed: int = 0, structure: str = "inputs"
) -> Shares:
    r"""Least squares with one factor frozen, for a spectrum :math:`i^{-a}`.

    Args:
        exponent: :math:`a`.
        width, rank: Of the layer and of the update.
        draws: Random changes and frozen factors.
        seed: Draws them.
        structure: Whose spectrum it is: of the ``"inputs"``, or, with isotropic inputs, of the change's
            ``"columns"`` or ``"rows"``.

    Source:
        zhu2024asymmetry.
    """
    g = torch.Generator().manual_seed(seed)
    change = torch.randn(draws, width, width, dtype=torch.float64, generator=g)
    spectrum = torch.arange(1, width + 1, dtype=torch.float64) ** -exponent
    covariance = torch.eye(width, dtype=torch.float64)
    if structure == "inputs":
        covariance = torch.diag(spectrum)
    elif structure == "columns":
        change = change * spectrum.sqrt()
    else:
        change = change * spectrum.sqrt()[:, None]
    return Shares(*frozen_factor_shares(change, covariance, rank, generator=g))


def standard_errors_from(values: Tensor, expected: float) -> float:
    """Distance of a mean from what is expected, in standard errors of the mean.

    Args:
        values: Independent draws.
        expected: The predicted mean.
    """
    return abs(float(values.mean()) - expected) / stderr(values)


def descent_gap(exponent: float, *, width: int = 64, rank: int = 4, draws: int = 5, seed: int = 0) -> float:
    """Largest relative gap between the closed forms and gradient descent on the trained factor.

    Args:
        exponent, width, rank, draws, seed: As in :func:`asymmetry_shares`.
    """
    from .asymmetry import best_first_factor, best_second_factor, excess_loss, haar_orthonormal

    g = torch.Generator().manual_seed(seed)
    change = torch.randn(draws, width, width, dtype=torch.float64, generator=g)
    covariance = torch.diag(torch.arange(1, width + 1, dtype=torch.float64) ** -exponent)
    q = haar_orthonormal(rank, width, draws=draws, generator=g)
    u = haar_orthonormal(rank, width, draws=draws, generator=g).mT
    exact = [
        excess_loss(change, covariance, best_second_factor(change, covariance, q) @ q),
        excess_loss(change, covariance, u @ best_first_factor(change, u)),
    ]
    # A rate per draw from the largest curvature; momentum's from the smallest.
    curvatures = [torch.linalg.eigvalsh(q @ covariance @ q.mT), covariance.diagonal().expand(draws, -1).sort(-1)[0]]
    worst = 0.0
    for kind, (goal, values) in enumerate(zip(exact, curvatures)):
        low, high = values[:, 0].min(), values[:, -1].max()
        momentum = float(((high.sqrt() - low.sqrt()) / (high.sqrt() + low.sqrt())) ** 2)
        lr = float(2 * (1 + momentum) / (high + low) / 2 / 1.05)

        def loss(p: Params, _: int, __: torch.Generator, kind: int = kind) -> Tensor:
            return excess_loss(change, covariance, p["x"] @ q if kind == 0 else u @ p["x"])

        start = torch.zeros(draws, width, rank, dtype=torch.float64)
        start = start if kind == 0 else start.mT.contiguous()
        _, trace = minimize(loss, {"x": start}, steps=400, optimizer="sgd", lr=lr, momentum=momentum)
        worst = max(worst, float(((trace[-1] - goal) / goal).abs().max()))
    return worst


def factor_similarity(first: Ensemble, second: Ensemble, layer: int) -> tuple[Tensor, Tensor]:
    """Agreement of the adapters of two stacks in a layer: row spaces of A, column spaces of B, one number a member.

    Args:
        first, second: Trained adapters.
        layer: Which hidden layer.
    """
    a = [e.params[f"layers.{layer}.A"].mT for e in (first, second)]
    b = [e.params[f"layers.{layer}.B"] for e in (first, second)]
    return cca_fit(*a), cca_fit(*b)
