"""Experiments on polynomial regression beside equally tuned networks, and on the collinearity of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from netatlas.core.stats import paired
from netatlas.core.train import Params, minimize
from netatlas.random_features import polynomial as po


class Task(NamedTuple):
    """Inputs ``[N, p]``, targets ``[N]`` (float: regression, long: classes)."""

    inputs: Tensor
    targets: Tensor


def synthetic_tasks(count: int, *, seed: int) -> dict[str, Task]:
    """An additive target with interactions, a sine of a projection, and a parity of three bits out of ten.

    Args:
        count: Examples of each.
        seed: Seeds them.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=g, dtype=torch.float64)
    noise = 0.1 * torch.randn(count, generator=g, dtype=torch.float64)
    additive = x[:, 0] + x[:, 1] * x[:, 2] - 0.5 * x[:, 3] ** 2 + noise
    wave = torch.sin(3 * x.sum(1) / 5**0.5) + noise
    bits = torch.randint(0, 2, (count, 10), generator=g).double()
    parity = (bits[:, :3].sum(1) % 2).long()
    return {
        "additive, degree 2": Task(x, additive),
        "sine of a projection": Task(x, wave),
        "parity of three bits": Task(bits, parity),
    }


def splits_of(task: Task, count: int, *, seed: int, most: int = 1000) -> list[tuple[Task, Task, Task]]:
    """Random splits into 70 % training, 15 % validation, 15 % test.

    Args:
        task: The data.
        count: Splits.
        seed: Seeds them.
        most: Examples used at most.
    """
    found = []
    for s in range(count):
        order = torch.randperm(len(task.inputs), generator=torch.Generator().manual_seed(seed + s))[:most]
        a, b = int(0.7 * len(order)), int(0.85 * len(order))
        found.append(tuple(Task(task.inputs[i].double(), task.targets[i]) for i in (order[:a], order[a:b], order[b:])))
    return found  # type: ignore[return-value]


def _columns(targets: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(targets, classes).double() if classes else targets.double()


def _error(predicted: Tensor, targets: Tensor, classes: int) -> float:
    """Mean absolute error, or the share of wrong classes."""
    if classes:
        return float((predicted.argmax(-1) != targets).double().mean())
    return float((predicted - targets).abs().mean())


POLYNOMIALS = {
    "degree 1": {"degree": 1},
    "degree 2": {"degree": 2},
    "degree 2, ridge": {"degree": 2, "ridge": "loo"},
    "degree 3, ridge": {"degree": 3, "ridge": "loo"},
}


class PolynomialRuns(NamedTuple):
    """Test errors ``[splits]`` of the tuned polynomial, of every setting, and which settings were chosen."""

    tuned: Tensor
    settings: dict[str, Tensor]
    unregularized: Tensor
    chosen: list[str]
    linear: Tensor
    at_least_two: Tensor
    terms: dict[str, int]


def polynomial_runs(
    splits: Sequence[tuple[Task, Task, Task]], *, settings: Mapping[str, dict] = POLYNOMIALS, most_terms: int = 3000
) -> PolynomialRuns:
    """Polynomial regressions of every setting, the best chosen on validation data.

    Inputs of more than ten columns are reduced to the principal components that hold nine tenths of the variance, as
    the package does.

    Args:
        splits: From :func:`splits_of`.
        settings: Named settings; each tried once.
        most_terms: Settings with more monomials are left out.
    """
    classes = int(max(t.targets.max() for t in splits[0])) + 1 if not splits[0][0].targets.is_floating_point() else 0
    names = list(settings)
    valid, test = torch.full((len(splits), len(names)), math.inf), torch.full((len(splits), len(names)), math.nan)
    terms: dict[str, int] = {}
    for s, (train, check, unseen) in enumerate(splits):
        pca = 0.9 if train.inputs.shape[1] > 10 else None
        for j, name in enumerate(names):
            options = settings[name]
            components = train.inputs.shape[1] if pca is None else _components(train.inputs, pca)
            if math.comb(components + options["degree"], options["degree"]) > most_terms:
                continue
            model = po.PolynomialRegression(pca=pca, **options).fit(train.inputs, _columns(train.targets, classes))
            both = model.predict(torch.cat([check.inputs, unseen.inputs]))
            valid[s, j] = _error(both[: len(check.inputs)], check.targets, classes)
            test[s, j] = _error(both[len(check.inputs) :], unseen.targets, classes)
            terms[name] = model.terms
    best = valid.argmin(1)
    rows = torch.arange(len(splits))
    higher = [j for j, name in enumerate(names) if settings[name]["degree"] > 1]
    plain = [j for j, name in enumerate(names) if "ridge" not in settings[name]]
    forced = torch.tensor(higher)[valid[:, higher].argmin(1)]
    bare = torch.tensor(plain)[valid[:, plain].argmin(1)]
    return PolynomialRuns(
        test[rows, best].double(),
        {n: test[:, j].double() for j, n in enumerate(names)},
        test[rows, bare].double(),
        [names[j] for j in best.tolist()],
        test[:, names.index("degree 1")].double(),
        test[rows, forced].double(),
        terms,
    )


def _components(inputs: Tensor, share: float) -> int:
    z = (inputs - inputs.mean(0)) / inputs.std(0, correction=0).clamp_min(1e-12)
    power = torch.linalg.svdvals(z) ** 2
    return int((power.cumsum(0) / power.sum() < share - 1e-12).sum()) + 1


def network_runs(
    splits: Sequence[tuple[Task, Task, Task]],
    *,
    depths: Sequence[int] = (1, 2),
    decays: Sequence[float] = (1e-4, 1e-2),
    width: int = 64,
    steps: int = 300,
    batch: int = 64,
    every: int = 20,
    seed: int = 0,
) -> Tensor:
    """Test errors ``[splits]`` of ReLU networks whose depth, weight decay and stopping time are chosen on validation
    data.

    All splits and decays of a depth are trained in one batch.

    Args:
        splits: From :func:`splits_of`.
        depths, decays: The settings.
        width: Units a layer.
        steps, batch: Of Adam.
        every: Steps between looks at the validation data.
        seed: Seeds weights and batches.
    """
    regression = splits[0][0].targets.is_floating_point()
    classes = 0 if regression else int(max(t.targets.max() for t in splits[0])) + 1
    x, y, vx, vy, tx, ty = _stacked(splits, regression)
    members, p = len(splits), x.shape[2]
    out_units = classes or 1
    best_valid, best_test = torch.full((members,), math.inf), torch.full((members,), math.nan)
    g = torch.Generator().manual_seed(seed)
    repeat = len(decays)
    wide = [v.repeat(repeat, 1, 1) for v in (x, vx, tx)]
    for depth in depths:
        sizes = [p] + [width] * depth + [out_units]
        params: Params = {}
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            params[f"w{i}"] = ((2 / a) ** 0.5 * torch.randn(members, a, b, generator=g)).repeat(repeat, 1, 1)
            params[f"b{i}"] = torch.zeros(members * repeat, 1, b)
        seen: list[tuple[Tensor, Tensor]] = []

        def forward(q: Params, z: Tensor, layers: int = depth) -> Tensor:
            for i in range(layers + 1):
                z = torch.baddbmm(q[f"b{i}"], z, q[f"w{i}"])
                z = torch.relu(z) if i < layers else z
            return z

        def loss(q: Params, step: int, generator: torch.Generator, forward=forward, seen=seen) -> Tensor:
            if step % every == 0 and step:
                with torch.no_grad():
                    seen.append(
                        (
                            _member_loss(forward(q, wide[1]), vy, repeat, regression),
                            _member_error(forward(q, wide[2]), ty, repeat, regression),
                        )
                    )
            index = torch.randint(x.shape[1], (min(batch, x.shape[1]),), generator=generator)
            z, t = forward(q, wide[0][:, index]), y[:, index].repeat(repeat, *[1] * (y.ndim - 1))
            if regression:
                return (z[..., 0] - t).square().mean(1)
            return torch.nn.functional.cross_entropy(z.mT, t, reduction="none").mean(1)

        decay = torch.tensor(decays).repeat_interleave(members)
        minimize(loss, params, steps=steps + 1, optimizer="adamw", lr=5e-3, weight_decay=decay, seed=seed)
        for valid, test in seen:
            for v, t in zip(valid.reshape(repeat, members), test.reshape(repeat, members)):
                better = v < best_valid
                best_valid, best_test = torch.where(better, v, best_valid), torch.where(better, t, best_test)
    if regression:
        best_test = best_test * torch.tensor([float(s[0].targets.std()) for s in splits])
    return best_test.double()


def _stacked(splits, regression):
    parts = []
    for train, check, unseen in splits:
        mean, spread = train.inputs.mean(0), train.inputs.std(0, correction=0)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        row = []
        for part in (train, check, unseen):
            target = part.targets
            if regression:
                target = ((target - train.targets.mean()) / train.targets.std()).float()
            row += [((part.inputs - mean) / spread).float(), target]
        parts.append(row)
    return [torch.stack(column) for column in zip(*parts)]


def _member_loss(out: Tensor, target: Tensor, repeat: int, regression: bool) -> Tensor:
    """What early stopping looks at: on a few validation rows the share of errors has many ties."""
    wanted = target.repeat(repeat, *[1] * (target.ndim - 1))
    if regression:
        return (out[..., 0] - wanted).abs().mean(1)
    return torch.nn.functional.cross_entropy(out.mT, wanted, reduction="none").mean(1)


def _member_error(out: Tensor, target: Tensor, repeat: int, regression: bool) -> Tensor:
    wanted = target.repeat(repeat, *[1] * (target.ndim - 1))
    if regression:
        return (out[..., 0] - wanted).abs().mean(1)
    return (out.argmax(-1) != wanted).float().mean(1)


class Contest(NamedTuple):
    """Errors of both methods on every set, and where polynomials were put to the test."""

    table: pd.DataFrame
    networks: dict[str, Tensor]
    polynomials: dict[str, Tensor]
    passes: dict[str, bool]
    tested: dict[str, bool]


def contest(
    tasks: Mapping[str, Task], *, splits: int, seed: int, few: tuple[str, ...] = ("digits",), **options
) -> Contest:
    """Polynomial regression and networks with equal numbers of settings, on the same splits.

    Args:
        tasks: Named data sets.
        splits: Splits of each.
        seed: Seeds them.
        few: Large sets that get five splits at most.
        options: Of :func:`network_runs`.
    """
    rows, nets, polys, passes, tested = {}, {}, {}, {}, {}
    for name, task in tasks.items():
        parts = splits_of(task, min(splits, 5) if name in few else splits, seed=seed)
        poly, net = polynomial_runs(parts), network_runs(parts, seed=seed, **options)
        gap, over_linear = paired(poly.tuned, net), [paired(poly.linear, a) for a in (poly.at_least_two, net)]
        passes[name] = gap.mean <= gap.stderr
        tested[name] = any(d.mean > 2 * d.stderr for d in over_linear)
        nets[name], polys[name] = net, poly.tuned
        chosen = max(set(poly.chosen), key=lambda c: (poly.chosen.count(c), c))
        rows[name] = {
            "linear": float(poly.linear.mean()),
            "polynomial, no ridge": float(poly.unregularized.mean()),
            "polynomial": float(poly.tuned.mean()),
            "degree ≥ 2 forced": float(poly.at_least_two.mean()),
            "network": float(net.mean()),
            "polynomial − network": f"{gap.mean:+.3g} ± {gap.stderr:.2g}",
            "chosen most": chosen,
            "splits": len(parts),
        }
    return Contest(pd.DataFrame(rows).T, nets, polys, passes, tested)


def extrapolation(task: Task, *, splits: int, seed: int) -> pd.DataFrame:
    """Errors of polynomials by degree within the training points' 95 % leverage and beyond it.

    Args:
        task: A regression.
        splits: Splits.
        seed: Seeds them.
    """
    rows = []
    for train, check, unseen in splits_of(task, splits, seed=seed):
        new = Task(torch.cat([check.inputs, unseen.inputs]), torch.cat([check.targets, unseen.targets]))
        for degree in (1, 2, 3):
            for ridge in (0.0, "loo"):
                model = po.PolynomialRegression(degree, ridge=ridge).fit(train.inputs, train.targets.double())
                inside = po.inside_region(
                    model.leverage(new.inputs, train.inputs), model.leverage(train.inputs, train.inputs)
                )
                error = (model.predict(new.inputs) - new.targets).abs()
                for where, mask in (("inside", inside), ("outside", ~inside)):
                    rows.append(
                        {
                            "degree": degree,
                            "ridge": "none" if ridge == 0 else "leave-one-out",
                            "where": where,
                            "error": float(error[mask].mean()),
                        }
                    )
    return pd.DataFrame(rows).groupby(["degree", "ridge", "where"]).error.mean().unstack("where")


class Exactness(NamedTuple):
    """Relative residuals on fresh inputs of monomials up to the network's degree, and one degree less."""

    enough: float
    too_few: float


def quadratic_exactness(*, inputs: int = 4, layers: int = 2, count: int = 500, seed: int) -> Exactness:
    """Whether a network with the activation of degree two is a polynomial of degree ``2 ** layers``.

    Args:
        inputs: Dimension.
        layers: Hidden layers.
        count: Points to fit, and fresh points.
        seed: Seeds them.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * count, inputs, generator=g, dtype=torch.float64)
    y = po.quadratic_network(x, [8] * layers + [1], generator=g)
    found = []
    for degree in (2**layers, 2**layers - 1):
        columns = po.polynomial_features(x, degree)
        beta = torch.linalg.lstsq(columns[:count], y[:count], driver="gelsd").solution
        found.append(float((columns[count:] @ beta - y[count:]).norm() / y[count:].norm()))
    return Exactness(*found)


class Collinearity(NamedTuple):
    """Geometric-mean inflation factors ``[nets, layers]`` by data set, activation and whether trained."""

    factors: dict[tuple[str, str, str], Tensor]
    table: pd.DataFrame


def layer_collinearity(
    tasks: Mapping[str, Task], *, width: int, layers: int, nets: int, steps: int, seed: int
) -> Collinearity:
    """Variance inflation factors of the hidden layers of small networks, trained and untrained, with and without a
    nonlinearity.

    Args:
        tasks: Named data sets.
        width: Units a layer.
        layers: Hidden layers.
        nets: Networks of each kind.
        steps: Adam steps.
        seed: Seeds them.
    """
    functions = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda z: z}
    found, rows = {}, {}
    for name, task in tasks.items():
        x = task.inputs.double()
        x = (x - x.mean(0)) / x.std(0).clamp_min(1e-9)
        if x.shape[1] > 30:
            x = x @ torch.linalg.svd(x, full_matrices=False)[2][:30].T
            x = x / x.std(0)
        x = x.float()
        regression = task.targets.is_floating_point()
        y = ((task.targets - task.targets.mean()) / task.targets.std()).float() if regression else task.targets
        outputs = 1 if regression else int(y.max()) + 1
        for activation, f in functions.items():
            g = torch.Generator().manual_seed(seed)
            sizes = [x.shape[1]] + [width] * layers + [outputs]
            start = {}
            for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
                start[f"w{i}"] = a**-0.5 * torch.randn(nets, a, b, generator=g)
                start[f"b{i}"] = torch.zeros(nets, 1, b)

            def run(q: Params, z: Tensor, f=f) -> list[Tensor]:
                hidden = [z.expand(nets, *z.shape)]
                for i in range(layers + 1):
                    z = torch.baddbmm(q[f"b{i}"], hidden[-1], q[f"w{i}"])
                    hidden.append(f(z) if i < layers else z)
                return hidden[1:]

            def loss(q: Params, step: int, generator: torch.Generator, run=run, x=x, y=y, flat=regression) -> Tensor:
                index = torch.randint(len(x), (64,), generator=generator)
                z = run(q, x[index])[-1]
                if flat:
                    return (z[..., 0] - y[index]).square().mean(1)
                return torch.nn.functional.cross_entropy(z.mT, y[index].expand(nets, -1), reduction="none").mean(1)

            trained, _ = minimize(loss, start, steps=steps, lr=5e-3, seed=seed)
            for state, params in (("untrained", start), ("trained", trained)):
                with torch.no_grad():
                    hidden = run(params, x)[:-1]
                logs = torch.stack([po.variance_inflation_factors(h.double()).log().nanmean(-1) for h in hidden], 1)
                found[name, activation, state] = logs.exp()
                rows[name, activation, state] = {f"layer {i + 1}": float(v) for i, v in enumerate(logs.mean(0).exp())}
    table = pd.DataFrame(rows).T
    table.index = [" · ".join(key) for key in rows]
    return Collinearity(found, table)


class GrowthOfCollinearity(NamedTuple):
    """How many nonlinear trained nets more than double, and by how much their log growth exceeds the identity nets'."""

    doubled: Tensor
    excess: dict[str, tuple[float, float]]


def collinearity_growth(found: Collinearity) -> GrowthOfCollinearity:
    """Growth of the factors from the first to the last hidden layer.

    Args:
        found: From :func:`layer_collinearity`.
    """
    ratio = {key: (value[:, -1] / value[:, 0]).log() for key, value in found.factors.items()}
    doubled = torch.cat(
        [(v > math.log(2)).double() for (_, f, state), v in ratio.items() if f != "identity" and state == "trained"]
    )
    excess = {}
    for name in dict.fromkeys(key[0] for key in ratio):
        curved = torch.cat([ratio[name, f, "trained"] for f in ("tanh", "relu")])
        flat = ratio[name, "identity", "trained"]
        error = math.sqrt(float(curved.var()) / len(curved) + float(flat.var()) / len(flat))
        excess[name] = (float(curved.mean() - flat.mean()), error)
    return GrowthOfCollinearity(doubled, excess)


def gaussian_inflation(*, count: int, columns: int, draws: int, seed: int) -> tuple[float, float, float]:
    """Mean inflation factor of iid Gaussian columns, its standard error, and the exact mean.

    Args:
        count: Observations.
        columns: Columns.
        draws: Draws.
        seed: Seeds them.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(draws, count, columns, generator=g, dtype=torch.float64)
    means = po.variance_inflation_factors(x).mean(1).numpy()
    return float(means.mean()), float(np.std(means, ddof=1) / draws**0.5), (count - 2) / (count - columns - 1)
