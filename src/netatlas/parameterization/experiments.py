"""The chapter's experiments: what is trained, at which sizes, and what is read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats as scipy_stats
from torch import Tensor, nn

from netatlas.core.nn import MLP
from netatlas.core.parameterization import (
    ABC,
    KINDS,
    abc_regime,
    alignment_exponent,
    coordinate_check,
    layer_kinds,
    layer_outputs,
    parameterize,
    width_exponent,
)
from netatlas.core.stats import Interval, spearman
from netatlas.core.train import fit_many, minimize
from netatlas.parameterization import narrow, recurrent
from netatlas.parameterization.linear_limit import (
    Corpus,
    analogy_accuracy,
    cbow,
    draw_tasks,
    meta_train,
)
from netatlas.parameterization.residual import DepthScaledResidualMLP, mean_field_rates
from netatlas.parameterization.transfer import learning_rate_sweep, optimal_rate

Data = tuple[Tensor, Tensor]


def standardized(images: Tensor, size: int | None = None) -> Tensor:
    """Images as vectors of mean zero and unit variance, optionally averaged down to ``size`` pixels a side."""
    small = images if size is None else nn.functional.adaptive_avg_pool2d(images, size)
    flat = small.flatten(1)
    return (flat - flat.mean()) / flat.std()


def mean_and_error(values: Any) -> str:
    """``mean ± standard error`` of values over seeds, for captions."""
    array = np.asarray(values, float)
    error = array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else 0.0
    return f"{array.mean():.3f} ± {error:.3f}"


# ---------------------------------------------------------------- depth


def depth_sweep(
    train: Data,
    width: int,
    depth: int,
    log2_rates: Sequence[float],
    seeds: Sequence[int],
    *,
    exponent: float = 0.5,
    optimizer: str = "sgd",
    depth_factor: bool = True,
    layer_norm: bool = False,
    epochs: int = 2,
    **options: Any,
) -> Tensor:
    """Losses of a residual network for all rates and seeds, as :func:`learning_rate_sweep`."""
    build = partial(
        DepthScaledResidualMLP,
        train[0].shape[1],
        width,
        depth,
        int(train[1].max()) + 1,
        exponent=exponent,
        layer_norm=layer_norm,
    )
    scales = mean_field_rates(optimizer, width, depth, exponent=exponent, depth_factor=depth_factor)
    return learning_rate_sweep(
        build,
        *train,
        log2_rates=log2_rates,
        seeds=seeds,
        lr_scale=scales,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=64,
        **options,
    )


def initial_growth(depth: int, width: int, *, draws: int = 64, exponent: float = 0.5, seed: int = 0) -> Tensor:
    """Ratio of the stream's mean square after all blocks to that before, one value a drawn network (``draws``)."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(draws, 1, width, generator=generator)
    start = h.square().mean((1, 2))
    for _ in range(depth):
        w = torch.randn(draws, width, width, generator=generator)
        h = h + depth**-exponent * width**-0.5 * h.relu() @ w
    return (h.square().mean((1, 2)) / start).double()


# ---------------------------------------------------------------- width, optimizers


class WidthArm(NamedTuple):
    """A parameterization with its learning-rate rule, as one arm of a sweep.

    ``variance`` is that of the initial weights times fan-in: 2 keeps the activations' size (He), 1/3 is PyTorch's own.
    """

    rule: str
    optimizer: str = "adam"
    alignment: str = "full"
    global_rate: float | None = None
    variance: float = 2.0


@torch.no_grad()
def network(width: int, *, inputs: int = 196, classes: int = 10, variance: float = 2.0) -> MLP:
    """Four layers without biases: embedding, two hidden, readout; ``variance`` as in :class:`WidthArm`."""
    model = MLP([inputs, width, width, width, classes], bias=False)
    for value in model.parameters():
        value.mul_(math.sqrt(3 * variance))
    return model


def _prepared(width: int, base: int, arm: WidthArm, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    model = network(width, variance=arm.variance).to(dtype)
    applied = parameterize(
        model,
        network(base),
        arm.rule,  # type: ignore[arg-type]
        optimizer=arm.optimizer,
        alignment=arm.alignment,  # type: ignore[arg-type]
        global_rate=arm.global_rate,
    )
    return model, applied


def _built(width: int, base: int, arm: WidthArm, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = network(width, variance=arm.variance).to(dtype)
    # The base's random draws must not shift the model's: only its shapes are read.
    with torch.random.fork_rng(devices=[]):
        reference = network(base)
    parameterize(model, reference, arm.rule, optimizer=arm.optimizer)  # type: ignore[arg-type]
    return model


def _kinds(base: int) -> list[str]:
    # At the base width nothing has grown, so shapes tell a layer's kind only beside a wider network.
    with torch.random.fork_rng(devices=[]):
        return list(layer_kinds(network(2 * base), network(base)).values())


def width_sweep(
    train: Data,
    width: int,
    arm: WidthArm,
    log2_rates: Sequence[float],
    seeds: Sequence[int],
    *,
    base: int = 32,
    constants: dict[str, float] | None = None,
    epochs: int = 2,
    **options: Any,
) -> Tensor:
    """Losses of a four-layer network of some width for all rates and seeds.

    Args:
        train: Inputs of 196 pixels and labels.
        width: Hidden width.
        arm: Parameterization, optimizer and learning-rate rule.
        log2_rates: Rates at the base width.
        seeds: One initialisation and order of batches each.
        base: Base width.
        constants: Extra factor on the rate by kind of layer.
        epochs: Passes over the data.
        options: Further options of ``fit_many``.
    """
    _, applied = _prepared(width, base, arm)
    factors = [(constants or {}).get(kind, 1.0) for kind in _kinds(base)]
    scale = {name: v * f for (name, v), f in zip(applied.lr_scale.items(), factors)}
    return learning_rate_sweep(
        partial(_built, width, base, arm),
        *train,
        log2_rates=log2_rates,
        seeds=seeds,
        lr_scale=scale,
        optimizer=arm.optimizer,
        betas=(0.9, 0.99),
        schedule="linear",
        epochs=epochs,
        batch_size=64,
        **options,
    )


class Tuned(NamedTuple):
    """Per-layer constants chosen at the base width, and losses with them at the largest one.

    ``losses`` are at the rate best there, ``transferred`` at the rate best at the base width, ``shift`` octaves below.
    """

    constants: dict[str, float]
    position: float
    losses: Tensor
    transferred: Tensor
    shift: float


def tuned_constants(
    train: Data,
    arm: WidthArm,
    log2_rates: Sequence[float],
    tuning_seeds: Sequence[int],
    seeds: Sequence[int],
    *,
    base: int,
    largest: int,
    **options: Any,
) -> Tuned:
    """Choose each kind's constant out of quarters and fours at the base width, then train at the largest width.

    Eight settings for every arm alike: all ones, each of embedding, hidden and readout quartered or quadrupled, and a
    larger embedding with a smaller readout. At the largest width the rate is chosen again, on the tuning seeds, out of
    four positions an octave apart.
    """
    settings = [dict.fromkeys(KINDS, 1.0)]
    settings += [dict.fromkeys(KINDS, 1.0) | {kind: factor} for kind in KINDS for factor in (0.25, 4.0)]
    settings += [{"embedding": 4.0, "hidden": 1.0, "readout": 0.25}]
    tried = []
    for constants in settings:
        losses = width_sweep(train, base, arm, log2_rates, tuning_seeds, base=base, constants=constants, **options)
        best = optimal_rate(log2_rates, losses)
        tried.append((best.loss, best.position, constants))
    _, position, constants = min(tried, key=lambda t: t[0])
    shifts = (-1.0, 0.0, 1.0, 2.0)
    again = width_sweep(
        train, largest, arm, [position + s for s in shifts], tuning_seeds, base=base, constants=constants, **options
    )
    shift = shifts[int(again.mean(1).argmin())]
    end = width_sweep(
        train, largest, arm, [position, position + shift], seeds, base=base, constants=constants, **options
    )
    return Tuned(constants, position, end[1], end[0], shift)


class Equivalence(NamedTuple):
    """Largest difference of two loss curves, relative."""

    standard_ntk: float
    mup_mean_field: float


def equivalent_trajectories(
    train: Data, *, width: int = 64, base: int = 32, seeds: Sequence[int] = (0, 1)
) -> Equivalence:
    """Standard against NTK, muP against mean field: whole loss curves with Adam-atan2 in float64."""
    x, y = train[0].double(), train[1]
    curves = {}
    for rule in ("standard", "ntk", "mup", "mean_field"):
        arm = WidthArm(rule, "adam_atan2")
        _, applied = _prepared(width, base, arm)
        curves[rule] = fit_many(
            partial(_built, width, base, arm, torch.float64), x, y, seeds=seeds, epochs=1, batch_size=64,
            optimizer="adam_atan2", lr=2.0**-6, lr_scale=applied.lr_scale, betas=(0.9, 0.99),
        ).trace  # fmt: skip

    def gap(a: str, b: str) -> float:
        return float(((curves[a] - curves[b]) / curves[a]).abs().max())

    return Equivalence(gap("standard", "ntk"), gap("mup", "mean_field"))


def loss_scaling(
    train: Data, optimizer: Any, powers: Sequence[int], *, width: int = 64, base: int = 32, lr: float = 2.0**-6,
    seeds: Sequence[int] = (0,), **options: Any
) -> dict[int, Tensor]:  # fmt: skip
    """Loss curves ``[steps, S]`` (divided by the scale again) where the loss is multiplied by a power of two."""
    arm = WidthArm("mup", optimizer)
    _, applied = _prepared(width, base, arm)
    found = {}
    for power in powers:
        factor = 2.0**power

        def scaled(outputs: Tensor, targets: Tensor, factor: float = factor) -> Tensor:
            return factor * nn.functional.cross_entropy(outputs, targets)

        found[power] = (
            fit_many(
                partial(_built, width, base, arm), *train, seeds=seeds, epochs=2, batch_size=64, optimizer=optimizer,
                lr=lr, lr_scale=applied.lr_scale, betas=(0.9, 0.99), schedule="linear",
                loss=scaled, **options,
            ).trace
            / factor
        )  # fmt: skip
    return found


class Alignments(NamedTuple):
    """Alignment of updates with activations in training, by layer."""

    ratio: dict[str, np.ndarray]
    slope: dict[str, Interval]


def measured_alignment(
    train: Data, arm: WidthArm, widths: Sequence[int], seeds: Sequence[int], *, base: int, lr: float, probes: int = 256
) -> Alignments:
    r"""Log alignment ratios of the weights' change after one pass, and their exponent over widths.

    The exponent is the slope of :math:`\log(\lVert\Delta W z\rVert / \lVert\Delta W\rVert\lVert z\rVert)` in
    :math:`\log n`, which leaves constants out that the ratio at one width keeps.
    """
    ratio: dict[str, list[Tensor]] = {}
    grown: dict[str, list[Tensor]] = {}
    for width in widths:
        _, applied = _prepared(width, base, arm)
        common: dict[str, Any] = {"seeds": seeds, "batch_size": 64, "optimizer": arm.optimizer, "epochs": 1}
        build = partial(_built, width, base, arm)
        start = fit_many(build, train[0][:64], train[1][:64], lr=0.0, **common)
        end = fit_many(build, *train, lr=lr, lr_scale=applied.lr_scale, betas=(0.9, 0.99), **common)
        outputs = layer_outputs(end, train[0][:probes])
        for i, (name, kind) in enumerate(zip(end.params, _kinds(base))):
            if i == 0:
                continue
            label = f"{kind} {i}" if kind == "hidden" else kind
            z = outputs[f"layers.{i - 1}"].relu()
            alpha = alignment_exponent(end.params[name] - start.params[name], z)
            ratio.setdefault(label, []).append(alpha)
            grown.setdefault(label, []).append((alpha * math.log(width)).exp())
    return Alignments(
        {k: torch.stack(v).numpy() for k, v in ratio.items()},
        {k: width_exponent(widths, torch.stack(v)) for k, v in grown.items()},
    )


def update_exponents(
    train: Data, arms: dict[str, WidthArm], widths: Sequence[int], seeds: Sequence[int], *, base: int, steps: int,
    rates: dict[str, float], batch: int = 64,
) -> dict[str, dict[str, Interval]]:  # fmt: skip
    """Width exponent of each layer's change of output after a few steps, for every arm: the coordinate check."""
    x, y = train[0][:batch], train[1][:batch]
    found = {}
    for name, arm in arms.items():
        check = coordinate_check(
            network, widths, x, y, rule=arm.rule, base=base, optimizer=arm.optimizer, alignment=arm.alignment,  # type: ignore[arg-type]
            global_rate=arm.global_rate, lr=rates[arm.optimizer], steps=steps, seeds=seeds, loss="cross_entropy",
        )  # fmt: skip
        found[name] = check.slopes()
    return found


# ---------------------------------------------------------------- dichotomy, limits


class Changes(NamedTuple):
    """Change of features, kernel and outputs in training, ``[W, S]`` each."""

    features: Tensor
    kernel: Tensor
    outputs: Tensor


def _tanh_forward(p: dict[str, Tensor], s: list[float], x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    before, z = [], x.expand(p["0"].shape[0], *x.shape)
    inputs = []
    for i, scale in enumerate(s):
        inputs.append(z)
        before.append(scale * z @ p[str(i)].mT)
        z = torch.tanh(before[-1])
    return before[-1], inputs, before


def _tanh_kernel(p: dict[str, Tensor], s: list[float], x: Tensor) -> Tensor:
    """Tangent kernel by back-propagated signals: samples do not mix, so one backward pass of the sum serves all."""
    q = {k: v.detach().requires_grad_() for k, v in p.items()}
    out, inputs, before = _tanh_forward(q, s, x)
    deltas = torch.autograd.grad(out.sum(), before)
    terms = [a**2 * (d @ d.mT) * (z @ z.mT) for a, d, z in zip(s, deltas, inputs)]
    return torch.stack(terms).sum(0).detach()


def abc_changes(
    a: Sequence[float], b: Sequence[float], c: float, widths: Sequence[int], *, lr: float = 0.1, steps: int = 5,
    seeds: int = 5, seed: int = 0, kernels: bool = True,
) -> Changes:  # fmt: skip
    r"""Train a tanh network under an abc-parameterization on a product of signs and measure what moved.

    Sixteen points in ten dimensions, target :math:`\operatorname{sign}(x_1 x_2)`, full-batch SGD in float64.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 10, generator=generator, dtype=torch.float64)
    y = torch.sign(x[:, 0] * x[:, 1])[:, None]
    features, kernel, outputs = [], [], []
    for n in widths:
        sizes = [10] + [n] * (len(a) - 1) + [1]
        s = [float(n) ** -e for e in a]
        s[0] /= math.sqrt(10)
        p = {
            str(i): float(n) ** -b[i]
            * torch.randn(seeds, o, k, generator=torch.Generator().manual_seed(seed + 1 + i), dtype=torch.float64)
            for i, (k, o) in enumerate(zip(sizes, sizes[1:]))
        }  # fmt: skip

        def loss(q: dict[str, Tensor], step: int, g: torch.Generator, s: list[float] = s) -> Tensor:
            return (_tanh_forward(q, s, x)[0] - y).square().mean((1, 2))

        end, _ = minimize(loss, p, steps=steps, optimizer="sgd", lr=lr * float(n) ** -c)
        f0, z0, _ = _tanh_forward(p, s, x)
        f1, z1, _ = _tanh_forward(end, s, x)
        features.append((z1[-1] - z0[-1]).square().mean((1, 2)).sqrt())
        outputs.append((f1 - f0).square().mean((1, 2)).sqrt())
        if kernels:
            k0, k1 = _tanh_kernel(p, s, x), _tanh_kernel(end, s, x)
            kernel.append(torch.linalg.matrix_norm(k1 - k0) / torch.linalg.matrix_norm(k0))
    empty = torch.zeros(0)
    return Changes(torch.stack(features), torch.stack(kernel) if kernels else empty, torch.stack(outputs))


class Grid(NamedTuple):
    """Predicted r and measured exponent of the features' change over a grid of parameterizations."""

    r: np.ndarray
    measured: np.ndarray
    rank_correlation: float


def random_abc_grid(count: int, widths: Sequence[int], *, seeds: int, seed: int, at_zero: int = 8) -> Grid:
    """Random stable, non-trivial exponents of a two-hidden-layer network, ``at_zero`` of them with ``r`` zero."""
    rng = np.random.default_rng(seed)
    points: list[tuple[list[float], list[float], float]] = []
    zero = 0
    while len(points) < count:
        first, middle = rng.uniform(-1, 1, 2)
        # With r = 0 a stable readout is small at first: a + b of at least 1.
        last = rng.uniform(1.0, 1.5) if zero < at_zero else rng.uniform(0.5, 1.2)
        # The readout's rate makes the function move: 2a + c = 1.
        c = rng.uniform(-1.0, 1.5)
        a = [first, middle, (1 - c) / 2]
        if zero < at_zero:
            need = min(last, 2 * a[2] + c) + c - 1
            low = min(2 * a[0] + 1, 2 * a[1])
            a = [a[0] - (need + low) / 2, a[1] - (need + low) / 2, a[2]]
        b = [-a[0], 0.5 - a[1], last - a[2]]
        regime = abc_regime(a, b, c)
        if regime.stable and regime.nontrivial and regime.r < 2.0:
            zero += regime.r < 1e-9
            points.append((a, b, float(c)))
    slopes = [
        width_exponent(widths, abc_changes(*p, widths, seeds=seeds, seed=seed, kernels=False).features).mean
        for p in points
    ]
    r, measured = np.array([abc_regime(*p).r for p in points]), np.array(slopes)
    return Grid(r, measured, spearman(-r, measured))


def dichotomy(widths: Sequence[int], *, seeds: int, seed: int) -> dict[str, Changes]:
    """Changes under the standard, NTK and muP parameterizations of a network with two hidden layers."""
    return {rule: abc_changes(*ABC[rule](2), widths, seeds=seeds, seed=seed) for rule in ABC}


class Analogies(NamedTuple):
    """Analogy accuracy ``[W, S]``, the chosen rate of every width, and how many of them are at an end of the grid."""

    accuracy: Tensor
    rates: list[float]
    at_end: int


def analogy_curve(
    corpus: Corpus, widths: Sequence[int | None], rates: Sequence[float], seeds: Sequence[int], *, rule: str, steps: int
) -> Analogies:
    """Analogy accuracy by width, each width at its own best rate.

    The rate is the one best on the first half of the questions with the first seed, out of one grid for all; a rate at
    which training diverges answers nothing. Accuracies are of the second half.
    """
    half = len(corpus.questions) // 2

    def vectors(width: int | None, rate: float, seed: int) -> Tensor | None:
        try:
            return cbow(corpus, width, rule=rule, lr=rate, steps=steps, seed=seed)["U"]
        except ValueError as problem:
            if "finite loss" not in str(problem):
                raise
            return None

    table, chosen = [], []
    for width in widths:
        first = [vectors(width, rate, seeds[0]) for rate in rates]
        score = [0.0 if u is None else analogy_accuracy(u, corpus.questions[:half]) for u in first]
        best = int(np.argmax(score))
        found = [first[best], *(vectors(width, rates[best], s) for s in seeds[1:])]
        table.append([0.0 if u is None else analogy_accuracy(u, corpus.questions[half:]) for u in found])
        chosen.append(rates[best])
    return Analogies(torch.tensor(table), chosen, sum(r in (rates[0], rates[-1]) for r in chosen))


def few_shot(
    images: Tensor, labels: Tensor, *, seeds: Sequence[int], steps: int, inner: Sequence[float], outer: Sequence[float],
    batch: int = 16, widths: Sequence[int] = (),
) -> dict[str, Tensor]:  # fmt: skip
    """Accuracy of one-shot learning on five unseen digit classes and on the five seen ones, one value a seed.

    Meta-training uses the other five. Both rates are chosen on tasks of the training classes, for every arm alike. The
    fixed-kernel arm's features do not move, so meta-training cannot change its kernel: one inner step.
    """
    d = images.shape[1]
    arms: dict[str, tuple[int | None, int]] = {"muP limit": (None, steps), "fixed kernel (NTK, GP)": (None, 0)}
    arms |= {f"muP, n = {n}": (n, steps) for n in widths}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for s in seeds:
        order = np.random.default_rng(s).permutation(10).tolist()
        seen, unseen = order[:5], order[5:]

        drawn = [
            draw_tasks(images, labels, seen, tasks=batch, queries=3, seed=1000 * s + step) for step in range(steps)
        ]
        check = draw_tasks(images, labels, seen, tasks=50, queries=5, seed=1_000_000 + s)
        final = draw_tasks(images, labels, unseen, tasks=150, queries=5, seed=2_000_000 + s)
        for name, (width, length) in arms.items():
            options = [(i, o) for i in inner for o in (outer if length else outer[:1])]
            trained = [
                meta_train(drawn.__getitem__, width, d, 5, inner=i, lr=o, steps=length, seed=s) for i, o in options
            ]
            best = max(trained, key=lambda f: f(check))
            found[name].append(best(final))
            found.setdefault(f"{name}, seen classes", []).append(best(check))
    return {name: torch.tensor(v) for name, v in found.items()}


# ---------------------------------------------------------------- narrow networks


class Restarts(NamedTuple):
    """Uniform errors of trained restarts, on points finer than the training grid, and root-mean-square errors."""

    sup: np.ndarray
    rms: np.ndarray


def train_restarts(
    inputs: Tensor, targets: Tensor, fine: Data, *, width: int, depth: int, restarts: int, steps: int, seed: int = 0,
    power: int = 8,
) -> Restarts:  # fmt: skip
    """Train narrow networks from many starts: mean square for the first half, then a power mean near the maximum.

    ``power=2`` keeps the mean square throughout.
    """
    d, k = inputs.shape[1], targets.shape[1]
    build = partial(narrow.NarrowNetwork, d, width, k, depth)

    def high(outputs: Tensor, wanted: Tensor) -> Tensor:
        # Relative to the largest error, or small errors' powers underflow.
        error = (outputs - wanted).abs()
        largest = error.amax().detach().clamp_min(1e-12)
        return (error / largest).pow(power).mean().pow(1 / power) * largest

    common: dict[str, Any] = {
        "seeds": [seed * 1000 + i for i in range(restarts)], "batch_size": len(inputs), "optimizer": "adam",
        "clip_norm": 5.0, "epochs": steps // 2,
    }  # fmt: skip
    half = fit_many(build, inputs, targets, loss="mse", lr=3e-3, **common)
    end = fit_many(
        build, inputs, targets, loss="mse" if power == 2 else high, lr=3e-3, schedule="cosine", init=half, **common
    )
    out = end.predict(fine[0], batch_size=len(fine[0]))
    rms = (out - fine[1]).square().mean((1, 2)).sqrt()
    return Restarts(narrow.sup_error(out, fine[1]).numpy(), rms.numpy())


def curve_problem(corners: Tensor, count: int = 256) -> tuple[Tensor, Tensor, Data]:
    """A polyline to learn: training points, and points forty times finer that contain the corners."""
    t = torch.linspace(-2, 2, count)
    fine = torch.cat([torch.linspace(-2, 2, 40 * count), narrow.corner_times(corners)])
    return t[:, None], narrow.polyline(corners, t), (fine[:, None], narrow.polyline(corners, fine))


def bump_problem(count: int = 19) -> tuple[Tensor, Tensor, Data]:
    """The radial bump, the norm cut at one, on a square: a grid with the centre, and one ten times finer."""
    grids = [torch.cartesian_prod(*[torch.linspace(-1.5, 1.5, m)] * 2) for m in (count, 10 * (count - 1) + 1)]
    values = [g.norm(dim=1).clamp_max(1.0)[:, None] for g in grids]
    return grids[0], values[0], (grids[1], values[1])


def unit_square_bump(points: Tensor) -> Tensor:
    """The same bump as a function on the unit square, for the coding network."""
    return (3 * (points - 0.5)).norm(dim=1).clamp_max(1.0)[:, None]


def unit_square_pair(points: Tensor) -> Tensor:
    """Two smooth outputs on the unit square."""
    x, y = points.T
    return torch.stack([0.5 + 0.5 * torch.sin(3 * x) * torch.cos(2 * y), x * y], 1)


def coding_errors(cells: Sequence[int], *, outputs: int = 1) -> dict[str, np.ndarray]:
    """Root-mean-square and uniform error, depth and width of the coding network for finer and finer cells."""
    function = unit_square_bump if outputs == 1 else unit_square_pair
    even = torch.linspace(0, 1, 241, dtype=torch.float64)
    fine = torch.cartesian_prod(even, even)
    rows = []
    for m in cells:
        # Risers shrink with the cells' number, so that both parts of the error fall.
        net = narrow.coding_network(function, cells=m, outputs=outputs, levels=2 * m, jump=0.2 / m)
        # An even grid misses the thin risers, where the uniform error is.
        risers = (torch.arange(1, m, dtype=torch.float64)[:, None] - 0.2 / m * torch.linspace(0, 1, 41)) / m
        thin = torch.cartesian_prod(risers.flatten().double(), even[::4])
        error, worst = net(fine) - function(fine), net(thin) - function(thin)
        sup = max(float(error.abs().max()), float(worst.abs().max()))
        rows.append((float(error.square().mean().sqrt()), sup, net.depth, net.width))
    return dict(zip(("rms", "sup", "depth", "width"), np.array(rows).T))


# ---------------------------------------------------------------- recurrent networks


class Movement(NamedTuple):
    """How far training moved recurrent networks at equal training loss, one value a network."""

    weights: np.ndarray
    kernel: np.ndarray
    representation: np.ndarray
    centred: np.ndarray
    spectral: np.ndarray
    rank: np.ndarray
    loss: float
    reached: np.ndarray


def train_recurrent(
    initial: Tensor, *, seeds: Sequence[int], steps: int, lr: float = 0.01, batch: int = 32, probes: int = 20,
    every: int = 20, clip: float = 5.0,
) -> Movement:  # fmt: skip
    """Train a stack of recurrent networks on two-alternative forced choice and compare them at one training loss.

    The loss is the lowest that all networks reach, averaged over ``every`` steps; each is measured when it first gets
    there. Networks with one seed share input and output weights and all batches.

    Args:
        initial: Recurrent weights ``[M, N, N]``.
        seeds: ``M`` seeds.
        steps: SGD steps with momentum 0.9.
        lr: Learning rate.
        batch: Trials a step.
        probes: Trials on which kernels are compared.
        every: Steps between snapshots.
        clip: Largest norm of a network's gradient.
    """
    m, n, _ = initial.shape
    draws = {s: torch.Generator().manual_seed(s) for s in set(seeds)}
    heads = {}
    for s, g in draws.items():
        enter = (2 * torch.rand(n, 3, generator=g) - 1) / math.sqrt(3)
        leave = (2 * torch.rand(3, n, generator=g) - 1) / math.sqrt(n)
        heads[s] = (enter, leave)
    params = {
        "W": initial,
        "W_in": torch.stack([heads[s][0] for s in seeds]),
        "V": torch.stack([heads[s][1] for s in seeds]),
    }
    kept: list[dict[str, Tensor]] = []

    def loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        if step % every == 0:
            kept.append({k: v.detach().clone() for k, v in p.items()})
        trial = recurrent.two_alternative_forced_choice(batch, generator=generator)
        logits = torch.einsum("mtbn,mcn->mtbc", recurrent.recurrent_states(p, trial.inputs), p["V"])
        each = nn.functional.cross_entropy(
            logits.flatten(0, 2), trial.targets.expand(m, -1, -1).flatten(), reduction="none"
        )
        return each.reshape(m, -1).mean(1)

    end, trace = minimize(
        loss, params, steps=steps, optimizer="sgd", lr=lr, momentum=0.9, clip_norm=clip, seed=int(min(seeds))
    )
    kept.append(end)
    smooth = trace.reshape(-1, every, m).mean(1)
    target = float(smooth.min(0).values.max())
    when = (smooth <= target).double().argmax(0) + 1
    final = {k: torch.stack([kept[int(w)][k][i] for i, w in enumerate(when)]) for k in params}
    probe = recurrent.two_alternative_forced_choice(probes, generator=torch.Generator().manual_seed(12345)).inputs
    kernels = [recurrent.recurrent_kernel(p, probe).double() for p in (params, final)]
    last = [recurrent.recurrent_states(p, probe)[:, -1].double() for p in (params, final)]
    grams = [h @ h.mT for h in last]
    return Movement(
        torch.linalg.matrix_norm(final["W"] - initial).double().numpy(),
        recurrent.kernel_alignment(*kernels).numpy(),
        recurrent.kernel_alignment(*grams).numpy(),
        recurrent.kernel_alignment(*grams, centred=True).numpy(),
        torch.linalg.matrix_norm(initial, 2).double().numpy(),
        recurrent.effective_rank(initial.double()).numpy(),
        target,
        (when.numpy() * every),
    )


class RankStudy(NamedTuple):
    """Movement by rank: arrays ``[ranks, seeds]``."""

    ranks: tuple[int, ...]
    weights: np.ndarray
    kernel: np.ndarray
    representation: np.ndarray
    centred: np.ndarray
    spectral: np.ndarray
    loss: float
    p_weights: float


def rank_study(
    size: int, ranks: Sequence[int], seeds: Sequence[int], *, steps: int, gain: float = 1.25, match: str = "frobenius"
) -> RankStudy:
    """Low-rank initialisations of every rank and seed, trained as one stack; the p-value is Wilcoxon's, one-sided."""
    stack = [
        recurrent.low_rank_recurrent_init(
            size, r, gain=gain, match=match, generator=torch.Generator().manual_seed(7 + s)
        )
        for r in ranks
        for s in seeds
    ]
    found = train_recurrent(torch.stack(stack), seeds=list(seeds) * len(ranks), steps=steps)
    weights, kernel, representation, centred, spectral = (part.reshape(len(ranks), len(seeds)) for part in found[:5])
    p = scipy_stats.wilcoxon(weights[0], weights[-1], alternative="greater").pvalue
    return RankStudy(tuple(ranks), weights, kernel, representation, centred, spectral, found.loss, float(p))


def structure_study(size: int, seeds: Sequence[int], *, steps: int, gain: float = 1.25) -> dict[str, Movement]:
    """Block, Dale and heavy-tailed connectivity at the same Frobenius norm, trained alike."""
    kinds = ("blocks", "dale", "heavy")
    stack = [
        recurrent.structured_init(size, kind, gain=gain, generator=torch.Generator().manual_seed(7 + s))
        for kind in kinds
        for s in seeds
    ]
    found = train_recurrent(torch.stack(stack), seeds=list(seeds) * len(kinds), steps=steps)
    count = len(seeds)
    parts = {}
    for i, kind in enumerate(kinds):
        rows = slice(i * count, (i + 1) * count)
        arrays: list[Any] = [v[rows] if isinstance(v, np.ndarray) else v for v in found]
        parts[kind] = Movement(*arrays)
    return parts


class LinearTheory(NamedTuple):
    """Kernel alignment of the two-layer linear network: by rank over tasks, and rank one on and off the task.

    ``expected`` starts from random readouts, ``from_zero`` from ones at which a readout of zero arrives.
    """

    ranks: tuple[int, ...]
    expected: np.ndarray
    from_zero: np.ndarray
    aligned: float
    misaligned: float
    full: float
    rank_correlation: float
    exception: float
    closed_error: float


def linear_theory(
    norm: float, *, dimension: int = 20, tasks: int = 20, ranks: Sequence[int] = (1, 2, 5, 10, 20), seed: int = 0
) -> LinearTheory:
    """Expected kernel alignment by rank at one Frobenius norm, simulated, beside the closed forms of two cases."""
    generator = torch.Generator().manual_seed(seed)
    beta = nn.functional.normalize(torch.randn(tasks, dimension, generator=generator, dtype=torch.float64), dim=1)
    axis = torch.eye(dimension, dtype=torch.float64)

    def spectrum(rank: int) -> Tensor:
        s = torch.zeros(dimension, dtype=torch.float64)
        s[:rank] = norm / math.sqrt(rank)
        return s

    stack, wanted = torch.cat([spectrum(r).expand(tasks, -1) for r in ranks]), beta.repeat(len(ranks), 1)
    random = torch.randn(tasks, dimension, generator=generator, dtype=torch.float64).repeat(len(ranks), 1)
    expected, from_zero = (
        recurrent.linear_alignment(stack, wanted, readout=start, steps=steps, lr=lr)
        .reshape(len(ranks), tasks)
        .mean(1)
        .numpy()
        # From zero a low rank has to turn its one direction, which takes longer.
        for start, steps, lr in ((random, 2000, 0.02), (stack * wanted, 4000, 0.03))
    )
    cases = torch.stack([spectrum(1), spectrum(1), spectrum(dimension)])
    aligned, misaligned, full = recurrent.linear_alignment(
        cases, axis[[0, 1, 0]], readout=random[:3], steps=8000, lr=0.005
    ).tolist()
    closed = [recurrent.linear_alignment_closed(norm, dimension, aligned=a) for a in (True, False)]
    return LinearTheory(
        tuple(ranks), expected, from_zero, aligned, misaligned, full, spearman(np.arange(len(ranks)), expected),
        min(aligned - (full - 0.05), (full - 0.05) - misaligned),
        max(abs(aligned - closed[0]), abs(full - closed[1])),
    )  # fmt: skip
