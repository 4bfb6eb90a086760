"""Experiments on scalable neural network kernels: unbiasedness, equal parameters, adapters, bundling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core import kernel_ridge
from netatlas.core.stats import stderr
from netatlas.core.train import Params, minimize
from netatlas.random_features import feature_maps as fm

Split = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


class Unbiasedness(NamedTuple):
    """One row a cell: bias in standard errors, mean squared error, and for the sine its closed form."""

    cells: pd.DataFrame
    largest_bias: float
    slopes: dict[str, float]
    closed_form_distance: float


def unbiasedness(sizes: list[int], draws: int, *, dim: int = 16, seed: int = 0) -> Unbiasedness:
    """Estimates of activations from universal features against exact values, over sizes, products and kinds of
    directions.

    Args:
        sizes: Numbers of features.
        draws: Draws of the features; a third of them at the largest size.
        dim: Dimension of the inputs.
        seed: Seeds everything.
    """
    g = torch.Generator().manual_seed(seed)
    x, w = torch.nn.functional.normalize(torch.randn(2, dim, generator=g, dtype=torch.float64), dim=1)
    rows = []
    for m in sizes:
        count = draws if m < max(sizes) else max(draws // 3, 30)
        for orthogonal in (False, True):
            directions = fm.gaussian_directions(m, dim, generator=g, orthogonal=orthogonal, draws=(count,))
            for activation in ("sin", "cos", "gaussian"):
                frequencies = fm.activation_frequencies(activation, m, generator=g, draws=(count,))
                for product in (0.5, 1.0, 2.0):
                    rows.append(
                        {"activation": activation, "m": m, "orthogonal": orthogonal, "product": product}
                        | _cell(x * product**0.5, w * product**0.5, activation, frequencies, directions)
                    )
    cells = pd.DataFrame(rows)
    iid = cells[~cells.orthogonal]
    trusted = iid[(iid["product"] <= 1) & (iid.activation != "gaussian")]
    slopes = {
        f"{kind}, |x||w| = {p:g}": _slope(part.m.to_numpy(), part.mse.to_numpy())
        for (kind, p), part in trusted.groupby(["activation", "product"])
    }
    sines = trusted[trusted.activation == "sin"]
    distance = ((sines.m * sines.mse / sines.closed_form - 1).abs() / sines.mse_error).max()
    return Unbiasedness(cells, float(cells.bias_in_errors.abs().max()), slopes, float(distance))


def _slope(x, y) -> float:
    lx, ly = torch.tensor(x).double().log(), torch.tensor(y).log()
    lx = lx - lx.mean()
    return float((lx * (ly - ly.mean())).sum() / lx.square().sum())


def _cell(x: Tensor, w: Tensor, activation: str, frequencies: fm.Frequencies, directions: Tensor) -> dict[str, float]:
    phi = fm.universal_input_features(x[None], frequencies, directions)
    psi = fm.universal_parameter_features(w[None], frequencies, directions)
    estimate = (phi * psi).sum(-1).real[:, 0]
    z = x @ w
    exact = {"sin": z.sin(), "cos": z.cos(), "gaussian": torch.exp(-z.square() / 2)}[activation]
    error = estimate - exact
    square = error.square()
    a, b = float(x @ x), float(w @ w)
    form = (math.exp(a + b + 2 * float(z)) - math.cos(a + b + 4 * float(z))) / 2 - math.sin(float(z)) ** 2
    return {
        "bias_in_errors": float(error.mean() / (error.std() / len(error) ** 0.5)),
        "mse": float(square.mean()),
        "mse_error": float(square.std() / square.mean() / len(square) ** 0.5),
        "closed_form": form if activation == "sin" else math.nan,
    }


def split_digits(images: Tensor, labels: Tensor, sizes: tuple[int, int, int], *, seed: int) -> Split:
    """Training, validation and test part of a shuffled set, inputs flattened, centred and scaled by the training part.

    Args:
        images: N images.
        labels: Their classes.
        sizes: Numbers of examples.
        seed: Orders the set.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = images.flatten(1)[order]
    y = labels[order]
    x = (x - x[: sizes[0]].mean(0)) / x[: sizes[0]].std()
    edges = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
    return tuple((x[a:b], y[a:b]) for a, b in zip(edges, edges[1:]))  # type: ignore[return-value]


class Trained(NamedTuple):
    """Test accuracy ``[seeds]`` at the chosen rate, the rate, whether it ends the grid, the layer's parameters."""

    accuracy: Tensor
    rate: float
    at_end: bool
    parameters: int


Forward = Callable[[Params, Tensor], Tensor]


def _train(
    forward: Forward,
    start: Params,
    split: Split,
    rates: list[float],
    seeds: int,
    steps: int,
    seed: int,
    count: int,
    batch: int | None = 64,
    decay: float = 0.0,
) -> tuple[Trained, Params]:
    """All rates and seeds of an arm at once; members are rates x seeds, so that seeds of a rate lie together."""
    (x, y), (vx, vy), (tx, ty) = split
    members = len(rates) * seeds
    lr = torch.tensor(rates).repeat_interleave(seeds)
    params = {k: v.repeat(len(rates), *[1] * (v.ndim - 1)) for k, v in start.items()}

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(y), (batch,), generator=generator) if batch else slice(None)
        logits = forward(p, x[index])
        target = y[index].expand(members, -1)
        return torch.nn.functional.cross_entropy(logits.mT, target, reduction="none").mean(1)

    params, _ = minimize(
        loss, params, steps=steps, lr=lr.to(x.device), seed=seed, weight_decay=decay, optimizer="adamw"
    )
    with torch.no_grad():
        valid = (forward(params, vx).argmax(-1) == vy).double().mean(1).reshape(len(rates), seeds).mean(1)
        test = (forward(params, tx).argmax(-1) == ty).double().mean(1).reshape(len(rates), seeds)
    best = int(valid.argmax())
    chosen = {k: v.unflatten(0, (len(rates), seeds))[best] for k, v in params.items()}
    return Trained(test[best].cpu(), rates[best], best in (0, len(rates) - 1), count), chosen


def _normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, generator=generator)).to(torch.float32)


def from_scratch(
    split: Split, *, width: int, features: int, rates: list[float], seeds: int, steps: int, seed: int
) -> dict[str, Trained]:
    """One hidden layer: a dense one, ReLU features, and controls with the features' number of trainable parameters.

    Args:
        split: Training, validation, test.
        width: Units of the layer, :math:`l`.
        features: :math:`m`.
        rates: Learning rates to choose from on validation data.
        seeds: Initialisations.
        steps: Adam steps.
        seed: Seeds everything.
    """
    g = torch.Generator().manual_seed(seed)
    d, classes = split[0][0].shape[1], int(split[0][1].max()) + 1
    rank = max(1, round(width * features / (width + d)))
    narrow = max(1, round(width * features / d))
    fixed = _normal(g, seeds, d, features, scale=d**-0.5).repeat(len(rates), 1, 1)

    def out(p: Params, hidden: Tensor) -> Tensor:
        return torch.baddbmm(p["bias"][:, None], hidden, p["out"])

    def head(units: int) -> Params:
        return {"out": _normal(g, seeds, units, classes, scale=units**-0.5), "bias": torch.zeros(seeds, classes)}

    arms: dict[str, tuple[Forward, Params, int]] = {
        "dense layer": (
            lambda p, x: out(p, torch.relu(x @ p["w"])),
            {"w": _normal(g, seeds, d, width, scale=(2 / d) ** 0.5)} | head(width),
            d * width,
        ),
        "ReLU features (SNNK)": (
            lambda p, x: out(p, torch.relu(x @ fixed) @ p["w"] / features**0.5),
            {"w": _normal(g, seeds, features, width)} | head(width),
            features * width,
        ),
        "fixed projection, then ReLU": (
            lambda p, x: out(p, torch.relu(x @ fixed @ p["w"])),
            {"w": _normal(g, seeds, features, width, scale=(2 / features) ** 0.5)} | head(width),
            features * width,
        ),
        "low rank": (
            lambda p, x: out(p, torch.relu(x @ p["u"] @ p["w"])),
            {
                "u": _normal(g, seeds, d, rank, scale=d**-0.5),
                "w": _normal(g, seeds, rank, width, scale=(2 / rank) ** 0.5),
            }
            | head(width),
            rank * (d + width),
        ),
        "narrower dense layer": (
            lambda p, x: out(p, torch.relu(x @ p["w"])),
            {"w": _normal(g, seeds, d, narrow, scale=(2 / d) ** 0.5)} | head(narrow),
            d * narrow,
        ),
    }
    return {
        name: _train(f, start, split, rates, seeds, steps, seed, count)[0] for name, (f, start, count) in arms.items()
    }


def shifted_half(
    images: Tensor, labels: Tensor, sizes: tuple[int, int, int, int], *, seed: int
) -> tuple[tuple[Tensor, Tensor], Split]:
    """The lower half of the classes, upright, to pre-train on; the upper half, turned by 90 degrees, split into
    adaptation, validation and test.

    Args:
        images: ``[N, C, H, W]``.
        labels: Their classes; the upper half is numbered from 0 again.
        sizes: Pre-training, adaptation, validation and test examples.
        seed: Orders the set.
    """
    half = (int(labels.max()) + 1) // 2
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    known, new = order[labels[order] < half][: sizes[0]], order[labels[order] >= half][: sum(sizes[1:])]
    mean, scale = images[known].mean(0), images[known].std()
    upright = ((images[known] - mean) / scale).flatten(1)
    moved = ((torch.rot90(images[new], 1, (2, 3)) - mean) / scale).flatten(1)
    edges = [0, sizes[1], sizes[1] + sizes[2], sum(sizes[1:])]
    parts = tuple((moved[a:b], labels[new][a:b] - half) for a, b in zip(edges, edges[1:]))
    return (upright, labels[known]), parts  # type: ignore[return-value]


def adapters(
    pretraining: tuple[Tensor, Tensor],
    split: Split,
    *,
    hidden: int,
    bottleneck: int,
    rates: list[float],
    seeds: int,
    steps: int,
    seed: int,
) -> dict[str, Trained]:
    """Adapters on a frozen network with two hidden layers: what may be trained is the branch after each layer and a
    new head.

    Args:
        pretraining: The data of the frozen network.
        split: Adaptation, validation and test data, shifted.
        hidden: Width of both hidden layers.
        bottleneck: Rank of the large bottleneck adapter; the SNNK adapter has a fifth of its parameters.
        rates: Learning rates to choose from on validation data.
        seeds: Networks.
        steps: Adam steps of the adaptation.
        seed: Seeds everything.
    """
    g = torch.Generator().manual_seed(seed)
    d, classes = split[0][0].shape[1], int(split[0][1].max()) + 1
    start = {
        "a": _normal(g, seeds, d, hidden, scale=(2 / d) ** 0.5),
        "b": _normal(g, seeds, hidden, hidden, scale=(2 / hidden) ** 0.5),
        "out": _normal(g, seeds, hidden, int(pretraining[1].max()) + 1, scale=hidden**-0.5),
    }
    same = (pretraining, pretraining, pretraining)
    _, base = _train(
        lambda p, x: torch.relu(torch.relu(x @ p["a"]) @ p["b"]) @ p["out"], start, same, [3e-3], seeds, 200, seed, 0
    )
    # The first layer is frozen and before every adapter: it is computed once.
    first = [(torch.relu(x @ base["a"]), y) for x, y in split]
    second = base["b"]
    small = max(1, bottleneck // 5)
    few, many = max(1, 2 * bottleneck // 5), 2 * bottleneck

    def expanded(value: Tensor, members: int) -> Tensor:
        return value.repeat(members // len(value), *[1] * (value.ndim - 1))

    def network(branch: Callable[[Params, Tensor, int], Tensor]) -> Forward:
        def forward(p: Params, h: Tensor) -> Tensor:
            members = len(p["head"])
            h = expanded(h, members)
            h = h + branch(p, h, 0)
            h = torch.relu(h @ expanded(second, members))
            h = h + branch(p, h, 1)
            return torch.baddbmm(p["bias"][:, None], h, p["head"])

        return forward

    def head() -> Params:
        return {"head": torch.zeros(seeds, hidden, classes), "bias": torch.zeros(seeds, classes)}

    def bottleneck_arm(rank: int) -> tuple[Forward, Params, int]:
        params = {f"v{i}": _normal(g, seeds, hidden, rank, scale=hidden**-0.5) for i in (0, 1)}
        params |= {f"u{i}": torch.zeros(seeds, rank, hidden) for i in (0, 1)}
        return network(lambda p, h, i: torch.relu(h @ p[f"v{i}"]) @ p[f"u{i}"]), params | head(), 4 * hidden * rank

    def feature_arm(m: int) -> tuple[Forward, Params, int]:
        # Inputs scaled by the root of their number, as in every arm; otherwise one rate cannot serve branch and head.
        fixed = [_normal(g, seeds, hidden, m, scale=hidden**-0.5) for _ in (0, 1)]
        params = {f"u{i}": torch.zeros(seeds, m, hidden) for i in (0, 1)}
        branch = lambda p, h, i: torch.relu(h @ expanded(fixed[i], len(h))) @ p[f"u{i}"]  # noqa: E731
        return network(branch), params | head(), 2 * hidden * m

    def projection_arm(m: int) -> tuple[Forward, Params, int]:
        fixed = [_normal(g, seeds, hidden, m, scale=hidden**-0.5) for _ in (0, 1)]
        # A zero start would stay zero behind a ReLU.
        params = {f"u{i}": _normal(g, seeds, m, hidden, scale=0.01) for i in (0, 1)}
        branch = lambda p, h, i: torch.relu(h @ expanded(fixed[i], len(h)) @ p[f"u{i}"])  # noqa: E731
        return network(branch), params | head(), 2 * hidden * m

    arms = {
        "linear probe": (network(lambda p, h, i: torch.zeros((), device=h.device)), head(), 0),
        f"bottleneck, r = {bottleneck}": bottleneck_arm(bottleneck),
        f"bottleneck, r = {small}": bottleneck_arm(small),
        f"SNNK, m = {few}": feature_arm(few),
        f"SNNK, m = {many}": feature_arm(many),
        f"fixed projection, m = {few}": projection_arm(few),
    }
    found = {}
    for name, (forward, params, count) in arms.items():
        found[name] = _train_hidden(forward, params, first, rates, seeds, steps, seed, count)
    return found


def _train_hidden(forward, params, parts, rates, seeds, steps, seed, count) -> Trained:
    """As :func:`_train`, on hidden layers ``[seeds, N, d]`` and a hundred examples a step."""
    (h, y), (vh, vy), (th, ty) = parts
    members = len(rates) * seeds
    lr = torch.tensor(rates).repeat_interleave(seeds)
    stacked = {k: v.repeat(len(rates), *[1] * (v.ndim - 1)) for k, v in params.items()}

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        index = torch.randperm(len(y), generator=generator)[:100]
        logits = forward(p, h[:, index])
        return torch.nn.functional.cross_entropy(logits.mT, y[index].expand(members, -1), reduction="none").mean(1)

    stacked, _ = minimize(loss, stacked, steps=steps, lr=lr.to(h.device), seed=seed)
    with torch.no_grad():
        valid = (forward(stacked, vh).argmax(-1) == vy).double().mean(1).reshape(len(rates), seeds).mean(1)
        test = (forward(stacked, th).argmax(-1) == ty).double().mean(1).reshape(len(rates), seeds)
    best = int(valid.argmax())
    return Trained(test[best].cpu(), rates[best], best in (0, len(rates) - 1), count)


class Bundling(NamedTuple):
    """Output errors and accuracies ``[seeds]`` of a trained network after its first layer became a feature product."""

    before: Tensor
    row_norm: float
    errors: dict[str, dict[int, Tensor]]
    after: dict[str, dict[int, Tensor]]
    refitted: dict[str, dict[int, Tensor]]
    fully_bundled: Tensor
    objectives: tuple[float, float]


def bundling(split: Split, *, width: int, sizes: list[int], seeds: int, steps: int, seed: int) -> Bundling:
    """Replace the first layer of trained two-layer networks by features and merge it with the second.

    Args:
        split: Training, validation, test; inputs are scaled to unit length here.
        width: Hidden units.
        sizes: Numbers of features.
        seeds: Networks.
        steps: Adam steps.
        seed: Seeds everything.
    """
    unit = tuple((torch.nn.functional.normalize(x, dim=1), y) for x, y in split)
    (x, y), (vx, vy), (tx, ty) = unit
    g = torch.Generator().manual_seed(seed)
    d, classes = x.shape[1], int(y.max()) + 1
    activations = {"sin": torch.sin, "relu": torch.relu}
    nets, before, errors, after, refit = {}, {}, {}, {}, {}
    for kind, function in activations.items():
        start = {
            "w": _normal(g, seeds, d, width, scale=d**-0.5),
            "out": _normal(g, seeds, width, classes, scale=width**-0.5),
        }
        trained, nets[kind] = _train(
            lambda p, z, f=function: f(z @ p["w"]) @ p["out"], start, unit, [1e-2], seeds, steps, seed, 0, decay=1.0
        )
        before[kind] = trained.accuracy
        errors[kind], after[kind], refit[kind] = {}, {}, {}
    one_hot = torch.nn.functional.one_hot(y, classes).double()
    one_hot = one_hot - one_hot.mean(0)
    xd, vd, td = x.double(), vx.double(), tx.double()
    closed, objectives = [], (0.0, 0.0)
    for kind, function in activations.items():
        for m in sizes:
            rows = []
            for s in range(seeds):
                w, second = nets[kind]["w"][s].T.double(), nets[kind]["out"][s].T.double()
                directions = fm.gaussian_directions(m, d, generator=g, orthogonal=True)
                # The largest is not refitted, and needs its features at test points alone.
                places = (xd, vd, td) if m <= 1024 else (td,)
                if kind == "sin":
                    t = fm.activation_frequencies("sin", m, generator=g)
                    phi = [fm.real_features(fm.universal_input_features(z, t, directions)) for z in places]
                    merged = fm.bundle(fm.universal_parameter_features(w, t, directions), second)
                else:
                    phi = [fm.arc_cosine_features(z, directions) for z in places]
                    merged = fm.bundle(fm.arc_cosine_features(w, directions), second)
                exact = function(td @ w.T) @ second.T
                output = phi[-1] @ merged.T
                error = (output - exact).norm() / exact.norm()
                test = _refit(phi, one_hot, vy, ty) if m <= 1024 else math.nan
                rows.append((float(error), float((output.argmax(1) == ty).double().mean()), test))
                if kind == "sin" and m == sizes[-2] and s == 0:
                    objectives = _objectives(phi[0], one_hot, 1e-2 * len(y), seed)
            columns = torch.tensor(rows, dtype=torch.float64).T
            errors[kind][m], after[kind][m], refit[kind][m] = columns
    closed = refit["sin"][sizes[-2]]
    norm = float(nets["sin"]["w"].norm(dim=1).mean())
    return Bundling(before["sin"], norm, errors, after, refit, closed, objectives)


def _refit(phi: list[Tensor], targets: Tensor, valid: Tensor, answers: Tensor) -> float:
    """Test accuracy of the closed form, its ridge chosen on validation data."""
    gram = phi[0] @ phi[0].T
    ridges = torch.tensor([1e-4, 1e-3, 1e-2, 1e-1, 1.0], dtype=gram.dtype) * float(gram.diagonal().mean())
    _, out = kernel_ridge.ridge_path(gram, targets, torch.cat(phi[1:]) @ phi[0].T, ridges)
    right = out.argmax(-1) == torch.cat([valid, answers])
    best = int(right[:, : len(valid)].double().mean(1).argmax())
    return float(right[best, len(valid) :].double().mean())


def _objectives(phi: Tensor, targets: Tensor, ridge: float, seed: int) -> tuple[float, float]:
    """The ridge objective of the closed form and of many gradient steps on the same features."""

    def objective(matrix: Tensor) -> Tensor:
        return (phi @ matrix.T - targets).square().sum() + ridge * matrix.square().sum()

    exact = objective(fm.closed_form(phi, targets, ridge))
    start = {"b": torch.zeros(targets.shape[1], phi.shape[1], dtype=phi.dtype)}
    found, _ = minimize(lambda p, s, g: objective(p["b"]), start, steps=100, lr=1e-2, seed=seed)
    return float(exact), float(objective(found["b"]))


class Parity(NamedTuple):
    """Accuracy differences ``[seeds]`` by set, sets where an adapter matters, and lower ends of paired differences.

    Attributes:
        counted: Sets on which the large bottleneck beats the probe by 0.02 and two standard errors.
        short: SNNK adapter minus large bottleneck.
        smaller: Small bottleneck minus large bottleneck.
        over_probe: Least SNNK adapter minus probe, less two standard errors.
        from_dense: From scratch, ReLU features minus dense layer.
        from_projection: From scratch, ReLU features minus fixed projection.
        over_projection: Least of these, less two standard errors.
    """

    counted: list[str]
    short: dict[str, Tensor]
    smaller: dict[str, Tensor]
    over_probe: float
    from_dense: dict[str, Tensor]
    from_projection: dict[str, Tensor]
    over_projection: float


def parity(
    adapted: dict[str, dict[str, Trained]], scratch: dict[str, dict[str, Trained]], *, few: str, large: str, small: str
) -> Parity:
    """What a fifth of the parameters costs, set by set.

    Args:
        adapted: From :func:`adapters`, by set.
        scratch: From :func:`from_scratch`, by set.
        few, large, small: Names of the SNNK adapter and of both bottlenecks.
    """

    def minus(arms: dict[str, Trained], a: str, b: str) -> Tensor:
        return arms[a].accuracy - arms[b].accuracy

    def least(values: dict[str, Tensor]) -> float:
        return min(float(v.mean()) - 2 * stderr(v) for v in values.values())

    counted = []
    for name, arms in adapted.items():
        gain = minus(arms, large, "linear probe")
        if float(gain.mean()) > max(0.02, 2 * stderr(gain)):
            counted.append(name)
    probed = {name: minus(arms, few, "linear probe") for name, arms in adapted.items()}
    projected = {
        name: minus(arms, "ReLU features (SNNK)", "fixed projection, then ReLU") for name, arms in scratch.items()
    }
    return Parity(
        counted,
        {name: minus(arms, few, large) for name, arms in adapted.items()},
        {name: minus(arms, small, large) for name, arms in adapted.items()},
        least(probed),
        {name: minus(arms, "ReLU features (SNNK)", "dense layer") for name, arms in scratch.items()},
        projected,
        least(projected),
    )


def accuracy_table(found: dict[str, dict[str, dict[str, Trained]]]) -> pd.DataFrame:
    """Test accuracies with the trainable parameters of the layer in brackets; a star marks a rate at the grid's end.

    Args:
        found: By setting, set and arm.
    """
    rows: dict[str, dict[str, str]] = {}
    for setting, sets in found.items():
        for name, arms in sets.items():
            for arm, run in arms.items():
                star = "*" if run.at_end else ""
                text = f"{float(run.accuracy.mean()):.3f}{star} ({run.parameters})"
                rows.setdefault(arm, {})[f"{name}, {setting}"] = text
    return pd.DataFrame(rows).T.fillna("–")
