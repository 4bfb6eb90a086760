"""The chapter's experiments: each returns what was measured, and decides nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy import stats as scipy_stats
from torch import Tensor

from netatlas.core import dual_activations as duals
from netatlas.core.empirical_ntk import empirical_ntk
from netatlas.core.infinite import (
    Activate,
    AvgPool,
    Conv,
    Dense,
    Erf,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    Relu,
    Serial,
    Tanh,
    residual,
    serial,
)
from netatlas.core.kernel_ridge import fit as ridge_fit
from netatlas.core.kernel_ridge import leave_one_out
from netatlas.core.stats import loglog_slope, paired, stderr

from . import deep_classifiers as deep
from . import edgeworth as edge
from . import hierarchical as conv
from . import scale_mixtures as mix
from .effective_theory import CLASSES, kernel_flow, residual_vertex, sample_scales
from .linearized import circle, descend, equispaced, linearized_outputs, tangent_mlp
from .pseudo_ntk import frobenius_error, gram_error, residual_regression

Members = Float[Tensor, " members"]


def mark_sizes(axis: Axes, sizes: Sequence[int]) -> None:
    """Label a logarithmic axis of sizes with the sizes themselves, and with nothing else.

    Args:
        axis: A matplotlib axis.
        sizes: The sizes.
    """
    axis.set_xticks(list(sizes), [str(size) for size in sizes])
    axis.set_xticks([], minor=True)


class Exponent(NamedTuple):
    """A fitted exponent and its standard error from the spread over seeds."""

    slope: float
    stderr: float


def exponent(sizes: Sequence[int], values: Float[Tensor, "sizes seeds"] | Sequence[Tensor]) -> Exponent:
    r"""Least-squares exponent of the mean over seeds in the size, with the error that the seeds' spread gives it.

    The slope is :math:`\sum_i c_i \log \bar v_i`; its error is
    :math:`\bigl[\sum_i (c_i s_i / \bar v_i)^2\bigr]^{1/2}` with :math:`s_i` the standard error of the mean.

    Args:
        sizes: Sizes.
        values: For each size one value a seed; numbers of seeds may differ.
    """
    x = torch.tensor(sizes, dtype=torch.float64).log()
    c = (x - x.mean()) / (x - x.mean()).square().sum()
    means = torch.stack([row.double().mean() for row in values])
    errors = torch.tensor([stderr(row) for row in values], dtype=torch.float64) / means
    return Exponent(float(c @ means.log()), float((c * errors).norm()))


# The shared kernel ---------------------------------------------------------------------------------------------------


def exact_checks(seed: int) -> dict[str, float]:
    """Largest errors of the kernels against forms that they were not computed from.

    Args:
        seed: Seeds the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    image = torch.randn(6, 2, 4, 4, generator=generator, dtype=torch.float64)
    errors = {}
    cov = (x @ x.mT / 5).mul_(0.5)
    var = cov.diagonal()
    pairs = (cov, var[:, None].expand_as(cov), var[None].expand_as(cov))
    for name, activation in (("erf", duals.Erf()), ("sin", duals.Sin()), ("tanh", duals.tanh())):
        mine = activation.dual(cov, var[:, None], var[None])[0]
        errors[f"dual of {name}: quadrature"] = float((mine - duals.gauss_hermite_dual(activation, *pairs)).abs().max())
    linear = serial(Dense(7, 1.3), Activate(duals.Identity()), Dense(1, 0.7))
    expected = 2 * (1.3 * 0.7) ** 2 * (x @ x.mT / 5)
    errors["linear network: NTK = depth × NNGP"] = float((linear.kernel(x) - expected).abs().max())
    one = serial(Conv(3, 1.2, 0.1, padding="circular"), Relu(), GlobalAvgPool(), Dense(1))
    rolled = torch.roll(image, (1, 2), (2, 3))
    errors["circular convolution, global pooling: shifts change nothing"] = float(
        (one.kernel(image, rolled) - one.kernel(image)).abs().max()
    )
    pooled = serial(Conv(3, 1.2, 0.1), Relu(), Conv(3), Relu(), GlobalAvgPool(), Dense(1))
    whole = pooled.kernel(image, get=("nngp", "ntk"))
    tiled = pooled.kernel(image, image.clone(), get=("nngp", "ntk"), tile=300)
    errors["tiles and symmetric blocks"] = max(float((a - b).abs().max()) for a, b in zip(whole, tiled))
    patches = conv.circle_patches(10, 4, seed=seed)
    net = serial(
        Conv(1, window=2, stride=2, padding="valid", w_std=1.0), Relu(),
        Conv(1, window=2, stride=2, padding="valid", w_std=2**0.5), Relu(), Flatten(), Dense(1, 2**0.5),
    )  # fmt: skip
    flat = patches.flatten(1)[:, None] * 2**0.5
    errors["hierarchical kernel: the general convolutional NNGP"] = float(
        (net.kernel(flat, get="nngp") - conv.hierarchical_kernel(patches, patches, (2, 2), "nngp")).abs().max()
    )
    finite = tangent_mlp(32, 2, 3).module((5,), seed=seed, dtype=torch.float64)
    three = [empirical_ntk(finite, x, method=m) for m in ("structured", "jacobian", "ntk_vector")]
    errors["empirical NTK: three ways"] = max(float((k - three[1]).abs().max()) for k in (three[0], three[2]))
    return errors


class Convergence(NamedTuple):
    """Relative distances ``[widths, seeds]`` of finite kernels from their limit, by network and kernel."""

    widths: list[int]
    errors: dict[str, Float[Tensor, "widths seeds"]]

    def slope(self, name: str) -> float:
        """Exponent of the root-mean-square error in the width.

        Args:
            name: A network's kernel.
        """
        return loglog_slope(self.widths, self.errors[name].square().mean(1).sqrt()).slope


def zoo(width: int) -> dict[str, tuple[Serial, tuple[int, ...]]]:
    """Small networks that use every kind of layer, with the shape of their inputs.

    Args:
        width: Units or channels.
    """
    return {
        "dense ReLU": (serial(Dense(width, 2**0.5, 0.1), Relu(), Dense(width, 2**0.5), Relu(), Dense(1)), (6,)),
        "residual erf": (serial(Dense(width), residual(Erf(), Dense(width)), Erf(), Dense(1)), (6,)),
        "layer norm tanh": (serial(Dense(width), LayerNorm(), Tanh(), Dense(1)), (6,)),
        "conv, pooled": (
            serial(Conv(width, 2**0.5), Relu(), AvgPool(2), Conv(width, 2**0.5), Relu(), GlobalAvgPool(), Dense(1)),
            (2, 4, 4),
        ),
    }  # fmt: skip


def convergence(widths: Sequence[int], seeds: Sequence[int], *, points: int = 6) -> Convergence:
    """Finite tangent kernels beside their limits, for each network of the zoo.

    Args:
        widths: Widths.
        seeds: Seeds of the networks.
        points: Inputs.
    """
    errors: dict[str, list[list[float]]] = {}
    for width in widths:
        for name, (net, shape) in zoo(width).items():
            x = torch.randn(points, *shape, generator=torch.Generator().manual_seed(0))
            limit = net.kernel(x).float()
            row = []
            for seed in seeds:
                kernel = empirical_ntk(net.module(shape, seed=seed), x, outputs="trace")
                row.append(float((kernel - limit).norm() / limit.norm()))
            errors.setdefault(name, []).append(row)
    return Convergence(list(widths), {name: torch.tensor(rows) for name, rows in errors.items()})


# Jacot, Gabriel, Hongler ---------------------------------------------------------------------------------------------


class CircleRun(NamedTuple):
    """One width on the circle: relative distances over members, and one member's kernels and outputs for the figure."""

    start: Members
    moved: Members
    distance: Members
    distance_own: Members
    loss: Members
    outputs: Float[Tensor, "members grid"]
    predicted: Float[Tensor, "members grid"]
    kernel_before: Float[Tensor, " grid"]
    kernel_after: Float[Tensor, " grid"]


def circle_task(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Grid points on the unit circle, five training points, and their targets ``x1 x2``.

    Args:
        count: Grid points.
    """
    grid = equispaced(count).float()
    train = circle(torch.tensor([-2.6, -1.4, -0.3, 0.9, 2.2], dtype=torch.float64)).float()
    return grid, train, train[:, :1] * train[:, 1:]


def initial_deviation(widths: Sequence[int], seeds: Sequence[int], *, hidden: int = 3) -> Float[Tensor, "widths seeds"]:
    """Relative Frobenius distance of the kernel at initialisation from its limit, without training.

    Args:
        widths: Widths.
        seeds: Seeds.
        hidden: Hidden layers.
    """
    grid, _, _ = circle_task()
    rows = []
    for width in widths:
        net = tangent_mlp(width, hidden)
        limit = net.kernel(grid).float()
        kernels = (empirical_ntk(net.module((2,), seed=s), grid, outputs="trace") for s in seeds)
        rows.append([float((k - limit).norm() / limit.norm()) for k in kernels])
    return torch.tensor(rows)


def circle_run(
    width: int, seeds: Sequence[int], *, steps: int = 200, hidden: int = 3, mean_field: bool = False
) -> CircleRun:
    """Train networks of one width on the circle; compare kernels and outputs with the limit.

    Args:
        width: Width.
        seeds: Seeds.
        steps: Steps of full-batch gradient descent at learning rate 1.
        hidden: Hidden layers.
        mean_field: Whether the output is divided by a further root of the width, with learning rates as many times
            larger.
    """
    grid, train, y = circle_task()
    net = tangent_mlp(width, hidden, mean_field=mean_field)
    boost = float(width) if mean_field else 1.0
    limit = tangent_mlp(width, hidden).kernel(torch.cat([grid, train])).float()
    params = net.init((2,), list(seeds))
    run = descend(net, params, train, y, learning_rate=boost, steps=steps)
    skeleton = net.module((2,), seed=0)
    both = torch.cat([grid, train])

    def kernels(state: dict[str, Tensor]) -> Tensor:
        members = ({k: v[i] for k, v in state.items()} for i in range(len(seeds)))
        return torch.stack([empirical_ntk(skeleton, both, outputs="trace", params=m) for m in members]) * boost

    before, after = kernels(params), kernels(run.params)
    start, end = net.apply(params, grid), net.apply(run.params, grid)
    g = len(grid)
    linear = {"learning_rate": 1.0, "steps": steps}
    predicted = linearized_outputs(
        limit[g:, g:].double(), limit[:g, g:].double(), y.double(), run.outputs[0].double(), start.double(), **linear
    )
    own = torch.stack(
        [
            linearized_outputs(
                k[g:, g:].double(),
                k[:g, g:].double(),
                y.double(),
                run.outputs[0, i].double(),
                start[i].double(),
                **linear,
            )
            for i, k in enumerate(before)
        ]
    )
    size = limit[:g, :g].norm()
    scale = (predicted - start).norm(dim=(1, 2)) if not mean_field else torch.ones(len(seeds))
    return CircleRun(
        (before[:, :g, :g] - limit[:g, :g]).norm(dim=(1, 2)) / size,
        (after[:, :g, :g] - before[:, :g, :g]).norm(dim=(1, 2)) / size,
        (end - predicted).norm(dim=(1, 2)) / scale,
        (end - own).norm(dim=(1, 2)) / scale,
        (run.outputs[-1] - y).square().mean((1, 2)),
        end[..., 0],
        predicted[..., 0],
        before[0, 0, :g],
        after[0, 0, :g],
    )


class Rates(NamedTuple):
    """Measured over predicted decay rates, and the predicted ones, ``[members, components]``."""

    ratio: Float[Tensor, "members components"]
    theory: Float[Tensor, "members components"]


def principal_rates(
    inputs: Float[Tensor, "n d"], width: int, seeds: Sequence[int], *, components: int = 5, own: bool = True
) -> Rates:
    r"""Measured over predicted decay rate of the error along each leading principal component of the kernel.

    The target is :math:`y = f_0 + 0.1 \sqrt N \sum_i e_i`, so that every component starts with the same error.

    Args:
        inputs: Training inputs.
        width: Width.
        seeds: Seeds.
        components: Number of components.
        own: Whether the eigenvectors are those of the network's own kernel; of the limit otherwise.
    """
    n, net = len(inputs), tangent_mlp(width, 2)
    params = net.init((inputs.shape[1],), list(seeds))
    start = net.apply(params, inputs)
    skeleton = net.module((inputs.shape[1],), seed=0)
    limit = net.kernel(inputs)
    bases, values = [], []
    for i in range(len(seeds)):
        member = {k: v[i] for k, v in params.items()}
        gram = empirical_ntk(skeleton, inputs, outputs="trace", params=member).double() if own else limit
        w, e = torch.linalg.eigh((gram + gram.mT) / 2)
        bases.append(e.flip(1)[:, :components])
        values.append(w.flip(0)[:components])
    basis, w = torch.stack(bases), torch.stack(values)
    rate = n / (2 * w[:, 0])
    theory = -torch.log(1 - rate[:, None] * w / n)
    targets = start + (0.1 * n**0.5 * basis.sum(-1, keepdim=True)).float()
    steps = int((1 / theory).max()) + 2
    run = descend(net, params, inputs, targets, learning_rate=rate.float(), steps=steps)
    error = torch.einsum("mnc,smn->smc", basis, (run.outputs - targets)[..., 0].double()).abs()
    index = (1 / theory).floor().long() + 1
    later = error.gather(0, index[None])[0]
    return Rates(torch.log(error[0] / later) / index / theory, theory)


class Definiteness(NamedTuple):
    """Smallest eigenvalue over the mean eigenvalue of limit kernels on the circle, and the rank of the quadratic
    one."""

    relu: float
    erf: float
    square_rank: int
    no_bias: float


def definiteness() -> Definiteness:
    """Positive definiteness of the limit on the circle, and the two cases that must fail to have it."""

    def smallest(net: Serial, count: int) -> float:
        w = torch.linalg.eigvalsh(net.kernel(equispaced(count)))
        return float(w[0] / w.mean())

    square = duals.Hermite(lambda x: x * x, lambda x: 2 * x, degree=2)
    relu = tangent_mlp(1, 2)
    erf = serial(Dense(1, 1.0, 0.1), Erf(), Dense(1, 1.0, 0.1), Erf(), Dense(1, 1.0, 0.1))
    quadratic = serial(Dense(1, 1.0, 0.1), Activate(square), Dense(1, 1.0, 0.1))
    w = torch.linalg.eigvalsh(quadratic.kernel(equispaced(60)))
    return Definiteness(
        smallest(relu, 60), smallest(erf, 20), int((w > 1e-10 * w[-1]).sum()), smallest(tangent_mlp(1, 1, bias=0.0), 60)
    )


# Mohamadi, Bae, Sutherland -------------------------------------------------------------------------------------------


class PseudoErrors(NamedTuple):
    """Errors ``[widths, seeds]``: Frobenius of each stand-in for the full kernel; of the pseudo-NTK also by pairs of
    points and of the largest eigenvalue; ``narrow``: Frobenius with a bottleneck before the readout."""

    frobenius: dict[str, Float[Tensor, "widths seeds"]]
    pairwise: Float[Tensor, "widths seeds"]
    top: Float[Tensor, "widths seeds"]
    narrow: Float[Tensor, "widths seeds"]


def pseudo_errors(
    inputs: Float[Tensor, "n d"],
    widths: Sequence[int],
    seeds: Sequence[int],
    narrow_widths: Sequence[int],
    narrow_seeds: Sequence[int],
    *,
    outputs: int = 10,
    neck: int = 8,
) -> PseudoErrors:
    """The pseudo-NTK, one logit and the trace average as stand-ins for the full kernel, at growing width.

    Args:
        inputs: Inputs.
        widths: Widths of both hidden layers.
        seeds: Seeds.
        narrow_widths: Body widths of the ablation.
        narrow_seeds: Its seeds.
        outputs: Logits.
        neck: Units of the bottleneck.
    """
    frobenius: dict[str, list[list[float]]] = {}
    pairwise, top, narrow = [], [], []
    for width in widths:
        rows: dict[str, list[float]] = {}
        whole = []
        for seed in seeds:
            net = tangent_mlp(width, 2, outputs, bias=0.0).module(inputs.shape[1:], seed=seed)
            full = empirical_ntk(net, inputs).double()
            whole.append(gram_error(full, full.sum((2, 3)) / outputs))
            others = {"one logit": full[..., 0, 0], "trace average": full.diagonal(dim1=2, dim2=3).mean(-1)}
            rows.setdefault("pseudo-NTK", []).append(whole[-1].frobenius)
            for kind, stand_in in others.items():
                rows.setdefault(kind, []).append(frobenius_error(full, stand_in))
        for kind, row in rows.items():
            frobenius.setdefault(kind, []).append(row)
        pairwise.append([e.pairwise for e in whole])
        top.append([e.top for e in whole])
    for width in narrow_widths:
        net = serial(
            Dense(width), Relu(), Dense(width, 2**0.5), Relu(), Dense(neck, 2**0.5), Relu(), Dense(outputs, 2**0.5)
        )
        kernels = [empirical_ntk(net.module(inputs.shape[1:], seed=s), inputs).double() for s in narrow_seeds]
        narrow.append([frobenius_error(k, k.sum((2, 3)) / outputs) for k in kernels])
    tensors = {k: torch.tensor(v) for k, v in frobenius.items()}
    return PseudoErrors(tensors, torch.tensor(pairwise), torch.tensor(top), torch.tensor(narrow))


class PseudoRegression(NamedTuple):
    """Accuracies and relative prediction differences ``[seeds]`` of full kernel, pseudo-NTK and a linear kernel."""

    full: Members
    pseudo: Members
    linear: Members
    difference: Members
    difference_linear: Members


def pseudo_regression(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], width: int, seeds: Sequence[int], *, ridge: float = 1e-6
) -> PseudoRegression:
    """Regression on the residual with the full kernel, the pseudo-NTK, and a kernel that knows no network.

    Args:
        train: Inputs and labels.
        test: Inputs and labels.
        width: Width of both hidden layers.
        seeds: Seeds.
        ridge: Relative to the mean diagonal.
    """
    (x, labels), (z, answers) = train, test
    classes = int(answers.max()) + 1
    y = torch.nn.functional.one_hot(labels, classes).double() - 1 / classes
    rows = []
    for seed in seeds:
        net = tangent_mlp(width, 2, classes, bias=0.0).module(x.shape[1:], seed=seed)
        with torch.no_grad():
            f0, g0 = net(x).double(), net(z).double()
        kernels = [(empirical_ntk(net, x).double(), empirical_ntk(net, z, x).double())]
        kernels.append(tuple(k.sum((2, 3)) / classes for k in kernels[0]))
        kernels.append((x.double() @ x.double().mT, z.double() @ x.double().mT))
        full, pseudo, linear = (residual_regression(k, c, y, f0, g0, ridge=ridge) for k, c in kernels)
        accuracy = [float((p.argmax(1) == answers).double().mean()) for p in (full, pseudo, linear)]
        size = (full - g0).norm()
        rows.append([*accuracy, float((pseudo - full).norm() / size), float((linear - full).norm() / size)])
    return PseudoRegression(*torch.tensor(rows, dtype=torch.float64).T)


def pseudo_after_training(
    inputs: Float[Tensor, "n d"],
    labels: Tensor,
    probe: Float[Tensor, "m d"],
    width: int,
    seeds: Sequence[int],
    steps: int,
) -> Float[Tensor, "2 members"]:
    """Relative Frobenius error of the pseudo-NTK before and after training with Adam.

    Args:
        inputs: Training inputs.
        labels: Their classes.
        probe: Inputs on which kernels are compared.
        width: Width.
        seeds: Seeds.
        steps: Steps of full-batch Adam, learning rate 0.1 in NTK parametrization.
    """
    classes, rows = int(labels.max()) + 1, []
    for seed in seeds:
        net = tangent_mlp(width, 2, classes, bias=0.0).module(inputs.shape[1:], seed=seed)
        errors = []
        for phase in range(2):
            if phase:
                optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
                for _ in range(steps):
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(net(inputs), labels).backward()
                    optimizer.step()
            full = empirical_ntk(net, probe).double()
            errors.append(frobenius_error(full, full.sum((2, 3)) / classes))
        rows.append(errors)
    return torch.tensor(rows).T


class PseudoTimes(NamedTuple):
    """Seconds for both kernels by number of outputs, and for both linear systems at ten outputs; they vary."""

    outputs: list[int]
    full: list[float]
    pseudo: list[float]
    solve_full: float
    solve_pseudo: float


def pseudo_times(
    inputs: Float[Tensor, "n d"], outputs: Sequence[int], *, width: int = 512, repeats: int = 3
) -> PseudoTimes:
    """Time the full kernel and the pseudo-NTK, best of a few tries, and the solves at ten outputs.

    Args:
        inputs: Inputs.
        outputs: Numbers of logits.
        width: Width.
        repeats: Tries.
    """

    def best(call, tries: int = repeats) -> float:
        seconds = []
        for _ in range(tries):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    full, pseudo, solves = [], [], (0.0, 0.0)
    for count in outputs:
        net = tangent_mlp(width, 2, count, bias=0.0).module(inputs.shape[1:], seed=0)
        full.append(best(lambda net=net: empirical_ntk(net, inputs)))
        pseudo.append(best(lambda net=net: empirical_ntk(net, inputs, outputs="sum_of_logits")))
        if count == 10:
            n = len(inputs)
            big = empirical_ntk(net, inputs).permute(0, 2, 1, 3).reshape(n * count, n * count)
            small = empirical_ntk(net, inputs, outputs="sum_of_logits")
            for gram in (big, small):
                gram.diagonal().add_(1e-3 * gram.diagonal().mean())
            right = torch.ones(n, count)
            solves = (
                best(lambda a=big, b=right: torch.cholesky_solve(b.reshape(-1, 1), torch.linalg.cholesky(a)), 1),
                best(lambda a=small, b=right: torch.cholesky_solve(b, torch.linalg.cholesky(a)), 5),
            )
    return PseudoTimes(list(outputs), full, pseudo, *solves)


# Antognini -----------------------------------------------------------------------------------------------------------

READOUTS = edge.READOUTS
PHIS = {"ReLU": torch.relu, "tanh": torch.tanh, "erf": torch.erf, "identity": lambda h: h}
ARMS = [("ReLU", "Gaussian"), ("ReLU", "uniform"), ("tanh", "Gaussian"), ("tanh", "Rademacher"), ("tanh", "uniform")]
TAIL_ARMS = [("ReLU", "skewed"), ("tanh", "skewed")]


class Corrections(NamedTuple):
    """Edgeworth coefficients ``[widths, seeds]`` for each pair of activation and readout."""

    widths: list[int]
    c4: dict[tuple[str, str], Float[Tensor, "widths seeds"]]
    c6: Float[Tensor, "widths seeds"]
    c8: Float[Tensor, "widths seeds"]

    def scaled(self, arm: tuple[str, str]) -> Float[Tensor, "widths seeds"]:
        """``N c4``, which theory says does not depend on the width.

        Args:
            arm: Activation and readout.
        """
        return self.c4[arm] * torch.tensor(self.widths)[:, None]

    def slope(self, values: Float[Tensor, "widths seeds"]) -> float:
        """Exponent of the mean coefficient in the width, from 8 units on.

        Args:
            values: Coefficients.
        """
        keep = [i for i, n in enumerate(self.widths) if n >= 8]
        return loglog_slope([self.widths[i] for i in keep], values[keep].mean(1).abs()).slope


def corrections(widths: Sequence[int], networks: int, seeds: Sequence[int]) -> Corrections:
    """Edgeworth coefficients from random hidden layers, the readout integrated out.

    Args:
        widths: Hidden units.
        networks: Hidden layers for each width and seed; all activations and readouts share them.
        seeds: Seeds.
    """
    second = {name: edge.moment(phi, 2) for name, phi in PHIS.items()}
    arms = [(phi, v) for phi in PHIS for v in ("Gaussian", "uniform", "Rademacher")]
    c4: dict[tuple[str, str], list[list[float]]] = {arm: [] for arm in arms}
    c6, c8 = [], []
    fourth = {v: edge.READOUTS[v].fourth for v in ("Gaussian", "uniform", "Rademacher")}
    for width in widths:
        rows: dict = {arm: [] for arm in arms}
        sixth, eighth = [], []
        for seed in seeds:
            h = torch.randn(networks, width, generator=torch.Generator().manual_seed(1000 * width + seed))
            for phi, function in PHIS.items():
                found = edge.conditional_coefficients(function(h), second[phi], fourth)
                for v in fourth:
                    rows[phi, v].append(float(found.c4[v].mean()))
                if phi == "ReLU":
                    sixth.append(float(found.c6.mean()))
                    eighth.append(float(found.c8.mean()))
        for arm in arms:
            c4[arm].append(rows[arm])
        c6.append(sixth)
        c8.append(eighth)
    tensors = {arm: torch.tensor(v, dtype=torch.float64) for arm, v in c4.items()}
    return Corrections(list(widths), tensors, torch.tensor(c6).double(), torch.tensor(c8).double())


class DirectCoefficients(NamedTuple):
    """Coefficients of order 3 and 4 from sampled outputs, with their standard errors, by arm and width."""

    c3: dict[tuple[str, str, int], tuple[float, float]]
    c4: dict[tuple[str, str, int], tuple[float, float]]


def direct_coefficients(
    arms: Sequence[tuple[str, str]], widths: Sequence[int], networks: int, *, seed: int, chunk: int = 100_000
) -> DirectCoefficients:
    """Edgeworth coefficients from whole sampled networks: no identity, only the definition.

    Args:
        arms: Activations and readouts.
        widths: Hidden units.
        networks: Networks for each.
        seed: Seed.
        chunk: Networks at once.
    """
    c3, c4 = {}, {}
    scale = {name: edge.moment(phi, 2) ** 0.5 for name, phi in PHIS.items()}
    for width in widths:
        generator = torch.Generator().manual_seed(seed + width)
        sums = {arm: torch.zeros(4, dtype=torch.float64) for arm in arms}
        for _ in range(networks // chunk):
            h = torch.randn(chunk, width, generator=generator)
            readout = {v: edge.READOUTS[v].draw((chunk, width), generator) for v in sorted({v for _, v in arms})}
            for phi in dict.fromkeys(phi for phi, _ in arms):
                features = PHIS[phi](h)
                for v in (v for p, v in arms if p == phi):
                    u = (features * readout[v]).sum(1).div_(width**0.5 * scale[phi]).double()
                    third, fourth = u**3 - 3 * u, u**4 - 6 * u**2 + 3
                    sums[phi, v] += torch.stack([third.sum(), (third**2).sum(), fourth.sum(), (fourth**2).sum()])
        count = networks // chunk * chunk
        for arm, total in sums.items():
            mean = total / count
            for store, first, square, factor in ((c3, mean[0], mean[1], 6), (c4, mean[2], mean[3], 24)):
                error = math.sqrt(float(square - first**2) / count)
                store[(*arm, width)] = (float(first) / factor, error / factor)
    return DirectCoefficients(c3, c4)


class Distances(NamedTuple):
    """Total variation of the exact density to the Gaussian and to the Edgeworth series, by arm ``[widths]``."""

    widths: list[int]
    gaussian: dict[tuple[str, str], list[float]]
    fourth: dict[tuple[str, str], list[float]]


def density_distances(arms: Sequence[tuple[str, str]], widths: Sequence[int]) -> Distances:
    """How far the exact output density is from the Gaussian, and from the Gaussian with its first correction.

    Args:
        arms: Activations and readouts.
        widths: Hidden units.
    """
    gaussian: dict[tuple[str, str], list[float]] = {}
    fourth: dict[tuple[str, str], list[float]] = {}
    for phi, v in arms:
        for width in widths:
            exact = edge.output_density(PHIS[phi], edge.READOUTS[v], width)
            c4 = edge.fourth_coefficient(PHIS[phi], edge.READOUTS[v].fourth, width)
            gaussian.setdefault((phi, v), []).append(edge.total_variation(exact, edge.edgeworth_density(exact.u, {})))
            fourth.setdefault((phi, v), []).append(
                edge.total_variation(exact, edge.edgeworth_density(exact.u, {4: c4}))
            )
    return Distances(list(widths), gaussian, fourth)


def trained_correction(width: int, networks: int, steps: int, *, seed: int) -> dict[str, tuple[float, float]]:
    """``N c4`` of an ensemble's output at an unseen input before and after training, with standard errors.

    Args:
        width: Hidden units.
        networks: Networks.
        steps: Steps of gradient descent on four points.
        seed: Seed.
    """
    net = serial(Dense(width, 2**0.5), Relu(), Dense(1, 2**0.5))
    generator = torch.Generator().manual_seed(seed)
    params = {
        "0.weight": torch.randn(networks, width, 2, generator=generator),
        "2.weight": torch.randn(networks, 1, width, generator=generator),
    }
    x = circle(torch.tensor([0.2, 1.5, 2.9, 4.4], dtype=torch.float64)).float()
    y = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    probe = circle(torch.tensor([0.8], dtype=torch.float64)).float()
    run = descend(net, params, x, y, learning_rate=0.5, steps=steps)
    found = {}
    for when, state in (("before", params), ("after", run.params)):
        f = net.apply(state, probe).flatten().double()
        u = (f - f.mean()) / f.std()
        he4 = (u**4 - 6 * u**2 + 3) * (width / 24)
        found[when] = (float(he4.mean()), stderr(he4))
    return found


# Roberts, Yaida, Hanin -----------------------------------------------------------------------------------------------


class Fluctuations(NamedTuple):
    """``Var(S)/E(S)^2`` ``[layers, seeds]`` for each class and width, and what theory says ``[layers]``."""

    measured: dict[tuple[str, int], Float[Tensor, "layers seeds"]]
    theory: dict[tuple[str, int], Float[Tensor, " layers"]]

    def ratios(self, kind: str, width: int) -> np.ndarray:
        """Depth over width, ``(l - 1) / n``.

        Args:
            kind: Class.
            width: Width.
        """
        return np.arange(len(self.theory[kind, width])) / width

    def slope(self, kind: str, width: int, layers: range, *, logarithm: bool) -> Float[Tensor, " seeds"]:
        """Least-squares slope in ``(l - 1)/n``, seed by seed.

        Args:
            kind: Class.
            width: Width.
            layers: Layers ``l``, counted from 1.
            logarithm: Whether of ``log(1 + Var/E^2)``.
        """
        index = torch.tensor([layer - 1 for layer in layers])
        x = index.double() / width
        y = self.measured[kind, width][index]
        y = torch.log1p(y) if logarithm else y
        centred = x - x.mean()
        return (centred @ y) / (centred @ centred)

    def worst(self, kind: str, width: int, *, ratio: float = 0.3) -> float:
        """Largest relative distance of the mean from theory for ``l >= 3`` and ``(l - 1)/n`` up to ``ratio``.

        Args:
            kind: Class.
            width: Width.
            ratio: Largest depth over width.
        """
        mean, theory = self.measured[kind, width].mean(1), self.theory[kind, width]
        keep = torch.from_numpy(self.ratios(kind, width) <= ratio + 1e-9) & (torch.arange(len(mean)) >= 2)
        return float((mean[keep] / theory[keep] - 1).abs().max())


def fluctuations(widths: Sequence[int], networks: int, seeds: Sequence[int], *, ratio: float = 0.3) -> Fluctuations:
    """Fluctuation of the kernel at criticality, of each universality class, against depth over width.

    Args:
        widths: Widths.
        networks: Networks for each seed.
        seeds: Seeds.
        ratio: Largest depth over width.
    """
    measured, theory = {}, {}
    for name, kind in CLASSES.items():
        for width in widths:
            depth = int(ratio * width + 1e-9) + 1
            rows = []
            for seed in seeds:
                generator = torch.Generator().manual_seed(1000 * width + seed)
                scales = sample_scales(kind, kind.critical, width, depth, networks, generator=generator).double()
                rows.append(scales.var(1) / scales.mean(1) ** 2)
            measured[name, width] = torch.stack(rows, 1)
            if name in ("ReLU", "linear"):
                theory[name, width] = (1 + kind.growth / width) ** torch.arange(depth, dtype=torch.float64) - 1
            else:
                flow = kernel_flow(kind, kind.critical, depth)
                theory[name, width] = flow.vertex / (width * flow.kernel**2)
    return Fluctuations(measured, theory)


class DepthRun(NamedTuple):
    """Kernels against depth for each class and multiple of the critical variance, and fitted rates."""

    kernels: dict[tuple[str, float], Float[Tensor, " L"]]
    rates: dict[tuple[str, float], float]


def criticality(depth: int, multiples: Sequence[float], *, width: int, networks: int, seed: int) -> DepthRun:
    """The kernel against depth below, at and above the critical variance: measured, ReLU and tanh.

    The rate is the slope of the kernel's logarithm a layer; above criticality tanh has a fixed point, the sampled mean
    of the last ten layers, and the rate is that of the distance to it over the first fifteen, where sampling resolves
    it.

    Args:
        depth: Layers.
        multiples: Multiples of the critical variance.
        width: Width of the sampled networks.
        networks: Networks.
        seed: Seed.
    """
    kernels, rates = {}, {}
    for name in ("ReLU", "tanh"):
        kind = CLASSES[name]
        for m in multiples:
            generator = torch.Generator().manual_seed(seed)
            variance = m * kind.critical
            sampled = sample_scales(kind, variance, width, depth, networks, generator=generator).double().mean(1)
            kernels[name, m] = sampled
            values = sampled
            stop = depth
            if name == "tanh" and m > 1:
                values, stop = (sampled - sampled[-10:].mean()).abs(), 15
            x = torch.arange(stop, dtype=torch.float64)
            y = values[:stop].log()
            rates[name, m] = float(((x - x.mean()) @ (y - y.mean())) / ((x - x.mean()) ** 2).sum())
    return DepthRun(kernels, rates)


class Learning(NamedTuple):
    """Relative change of the tangent kernel in training ``[seeds]`` for each width and depth, and fitted exponents.

    ``exponent_hidden`` is that in ``L - 1``, the number of hidden layers, in a fit of its own; ``loss`` is the largest
    that is left.
    """

    change: dict[tuple[int, int], Members]
    wide: Members
    exponent_width: float
    exponent_depth: float
    exponent_hidden: float
    interval_depth: tuple[float, float]
    loss: float


def representation_learning(
    inputs: Float[Tensor, "n d"],
    labels: Float[Tensor, " n"],
    widths: Sequence[int],
    depths: Sequence[int],
    seeds: Sequence[int],
    *,
    wide: int = 1024,
    wide_seeds: int = 16,
    steps: int = 1500,
) -> Learning:
    r"""How much training changes the tangent kernel, against width and depth, at rates that do not depend on depth.

    Args:
        inputs: A few training inputs.
        labels: Targets of +-1.
        widths: Widths ``n``.
        depths: Layers of weights ``L``.
        seeds: Seeds.
        wide: Width of the near-infinite arm at depth 2.
        wide_seeds: Its seeds.
        steps: Largest number of steps; members stop at a mean squared error of 1e-3.
    """

    def change(width: int, depth: int, members: Sequence[int]) -> tuple[Tensor, float]:
        net = serial(*[layer for _ in range(depth - 1) for layer in (Dense(width, 2**0.5), Relu())], Dense(1, 2**0.5))
        params = net.init((inputs.shape[1],), list(members))
        skeleton = net.module((inputs.shape[1],), seed=0)
        kernels = []
        for phase in range(2):
            if phase:
                top = torch.linalg.eigvalsh(kernels[0])[:, -1]
                rate = 0.5 * len(inputs) / top
                run = descend(net, params, inputs, labels[:, None], learning_rate=rate, steps=steps, stop=1e-3)
                params, loss = run.params, float((run.outputs[-1] - labels[:, None]).square().mean((1, 2)).max())
            each = ({k: v[i] for k, v in params.items()} for i in range(len(members)))
            kernels.append(torch.stack([empirical_ntk(skeleton, inputs, outputs="trace", params=p) for p in each]))
        return ((kernels[1] - kernels[0]).norm(dim=(1, 2)) / kernels[0].norm(dim=(1, 2))).double(), loss

    runs = {(n, depth): change(n, depth, seeds) for n in widths for depth in depths}
    changes = {key: value for key, (value, _) in runs.items()}
    y = torch.cat([v.log() for v in changes.values()])
    fits = {}
    for less in (0, 1):
        design = torch.tensor(
            [[1.0, math.log(n), math.log(depth - less)] for (n, depth), v in changes.items() for _ in v],
            dtype=torch.float64,
        )
        solution = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
        residual_variance = float((y - design @ solution).square().sum() / (len(y) - 3))
        errors = (residual_variance * torch.linalg.inv(design.mT @ design).diagonal()).sqrt()
        fits[less] = solution, float(scipy_stats.t.ppf(0.975, len(y) - 3) * errors[2])
    (solution, half), hidden = fits[0], float(fits[1][0][2])
    far, far_loss = change(wide, 2, seeds[:wide_seeds])
    slope = float(solution[2])
    loss = max([value for _, value in runs.values()] + [far_loss])
    return Learning(changes, far, float(solution[1]), slope, hidden, (slope - half, slope + half), loss)


def residual_fluctuations(
    keeps: Sequence[float], width: int, depth: int, networks: int, *, seed: int, reduced: bool = True
) -> dict[float, tuple[Float[Tensor, " L"], Float[Tensor, " L"]]]:
    r""":math:`V/K^2` of critical residual networks by layer, with its standard error, for each kept share.

    Args:
        keeps: Shares :math:`\gamma^2`.
        width: Width.
        depth: Layers.
        networks: Networks.
        seed: Seed.
        reduced: Whether the term of mean zero is subtracted.
    """
    found = {}
    for keep in keeps:
        generator = torch.Generator().manual_seed(seed)
        values = residual_vertex(keep, width, depth, networks, generator=generator, reduced=reduced)
        found[keep] = (values.mean(1), values.std(1) / networks**0.5)
    return found


# Radhakrishnan, Belkin, Uhler ----------------------------------------------------------------------------------------


class Taxonomy(NamedTuple):
    """Excess risks ``[counts, seeds]`` by arm, agreements with the Hilbert estimate and 1-NN, and exact references.

    On the first 1000 points: the NTK's agreement with the Hilbert estimate at depths 60 and 1000, the excess at depths
    2 and 10 with a ridge chosen by leave-one-out errors and at depth 60, and whether depth 2 is singular without one.
    """

    counts: list[int]
    excess: dict[str, Float[Tensor, "counts seeds"]]
    hilbert: Members
    ntk_60: Members
    ntk_1000: Members
    neighbour: Members
    solve: Members
    cover_hart: Members
    depth_2: Members
    depth_10: Members
    depth_60: Members
    shallow_singular: int


def classification(
    d: int, counts: Sequence[int], seeds: Sequence[int], *, test: int = 1000, shallow: int = 1000
) -> Taxonomy:
    """Deep kernels on one Dirichlet pair on the sphere of dimension ``d``: which classifier they are, and how good.

    Args:
        d: Dimension of the sphere: 1, 2 or 4.
        counts: Training sizes, nested.
        seeds: Seeds of the data.
        test: Test points.
        shallow: Training size at which depths are compared.
    """
    tables = {f"a = {m}d": deep.deep_kernel_table(deep.singular_dual(m * d), 60) for m in (0.5, 1, 2, 4)}
    tables["1-NN (ξ²)"] = deep.deep_kernel_table(deep.PowerSeries({2: 1.0}), 60)
    tangents = {
        f"ntk_{depth}": deep.deep_kernel_table(deep.singular_dual(d), depth, kind="ntk", points=5000)
        for depth in (60, 1000)
    }
    excess: dict[str, list] = {}
    rows: dict[str, list[float]] = {k: [] for k in Taxonomy._fields[2:]}
    largest, singular = max(counts), 0
    for seed in seeds:
        train = deep.dirichlet_sphere(*deep.DIRICHLET_PAIRS[d], largest, seed=seed)
        exam = deep.dirichlet_sphere(*deep.DIRICHLET_PAIRS[d], test, seed=seed + 500_000)
        xi = train.points @ exam.points.mT
        votes = {name: deep.kernel_vote(table(xi), train.labels, list(counts)) for name, table in tables.items()}
        votes["Hilbert estimate"] = deep.kernel_vote(deep.hilbert_logs(xi, d), train.labels, list(counts))
        votes["majority"] = torch.stack([torch.sign(train.labels[:n].sum()).expand(test) for n in counts])
        for name, vote in votes.items():
            excess.setdefault(name, []).append(deep.excess_risk(vote, exam.posterior))
        nearest = torch.stack([train.labels[xi[:n].argmax(0)] for n in counts])
        rows["hilbert"].append(_agreement(votes["a = 1d"], votes["Hilbert estimate"]))
        small = slice(0, min(shallow, largest))
        reference = deep.kernel_vote(deep.hilbert_logs(xi[small], d), train.labels[small])[0]
        for name, tangent in tangents.items():
            vote = deep.kernel_vote(tangent(xi[small]), train.labels[small])[0]
            rows[name].append(_agreement(vote, reference))
        rows["neighbour"].append(_agreement(votes["1-NN (ξ²)"], nearest))
        rows["cover_hart"].append(deep.cover_hart_excess(exam.posterior))
        found = _shallow_and_deep(deep.singular_dual(d), tables["a = 1d"], train, exam, xi, small)
        for name in ("depth_2", "depth_10", "depth_60", "solve"):
            rows[name].append(found[name])
        singular += int(found["singular"])
    tensors = {name: torch.stack(values, 1) for name, values in excess.items()}
    columns = {name: torch.tensor(rows[name]) for name in Taxonomy._fields[2:-1]}
    return Taxonomy(list(counts), tensors, **columns, shallow_singular=singular)


def _agreement(a: Tensor, b: Tensor) -> float:
    return float((a == b).double().mean())


def _shallow_and_deep(dual, table, train, exam, xi: Tensor, part: slice) -> dict[str, float]:
    """Depths 2 and 10 with the ridge chosen by exact leave-one-out errors, and depth 60, on the same points."""
    x, y = train.points[part], train.labels[part]
    own, ridges, found = (x @ x.mT).clamp_(max=1), [10.0**k for k in range(-6, 3)], {}
    ten = deep.deep_kernel_table(dual, 10)
    # Depth 2 not by a table: its interpolation would decide whether the Gram matrix is singular.
    pairs = {2: (dual(dual(own)), dual(dual(xi[part]))), 10: (ten(own).exp(), ten(xi[part]).exp())}
    for depth, (gram, cross) in pairs.items():
        gram.diagonal().fill_(1.0)
        if depth == 2:
            found["singular"] = float(torch.linalg.cholesky_ex(gram).info != 0)
        left = leave_one_out(gram, y[:, None], ridges)[..., 0]
        best = int(((left > 0) != (y > 0)).double().mean(1).argmin())
        vote = torch.sign(cross.mT @ ridge_fit(gram, y[:, None], ridges[best])[:, 0])
        found[f"depth_{depth}"] = float(deep.excess_risk(vote, exam.posterior))
    deep_gram = table(own).exp()
    deep_gram.diagonal().fill_(1.0)
    solved = torch.sign(table(xi[part]).exp().mT @ torch.linalg.solve(deep_gram, y))
    summed = deep.kernel_vote(table(xi[part]), y)[0]
    return found | {
        "depth_60": float(deep.excess_risk(summed, exam.posterior)),
        "solve": _agreement(solved, summed),
    }


def majority_agreement(depths: Sequence[int], seeds: Sequence[int], *, test: int = 60) -> Float[Tensor, "depths seeds"]:
    """Agreement of the deep ReLU NTK with the majority of 30 points, 18 against 12.

    Args:
        depths: Increasing depths.
        seeds: Seeds.
        test: Test points.
    """
    groups = []
    for seed in seeds:
        pool = deep.dirichlet_sphere(*deep.DIRICHLET_PAIRS[2], 400, seed=seed)
        plus, minus = ((pool.labels == s).nonzero()[:, 0] for s in (1, -1))
        index = torch.cat([plus[:12], minus[:18]])
        exam = deep.dirichlet_sphere(*deep.DIRICHLET_PAIRS[2], test, seed=seed + 500_000)
        groups.append((pool.points[index], pool.labels[index], exam.points))
    xi = torch.stack([torch.cat([x @ x.mT, x @ z.mT], 1) for x, _, z in groups]).clamp_(max=1)
    theta, k, done, rows = xi.clone(), xi.clone(), 0, []
    for depth in depths:
        for _ in range(depth - done):
            slope, k = duals.arc_cosines(k)
            theta = slope.mul_(theta).add_(k)
        done = depth
        row = []
        for value, (_, y, _) in zip(theta / (depth + 1), groups):
            gram = value[:, :30].clone()
            gram.diagonal().fill_(1.0)
            vote = torch.sign(value[:, 30:].mT @ torch.linalg.solve(gram, y))
            row.append(float((vote == -1).double().mean()))
        rows.append(row)
    return torch.tensor(rows)


def pocket(
    orders: Sequence[float], counts: Sequence[int], seeds: Sequence[int], *, test: int = 500, half_width: float = 0.06
) -> dict[float, Tensor]:
    """Balanced accuracy ``[counts, seeds]`` of deep singular kernels on the circle's pocket, against Bayes' labels.

    Args:
        orders: Orders ``a``.
        counts: Training sizes, nested.
        seeds: Seeds.
        test: Test points inside the pocket, and as many outside.
        half_width: Of the pocket, in radians.
    """
    tables = {a: deep.deep_kernel_table(deep.singular_dual(a), 60) for a in orders}
    found: dict[float, list[Tensor]] = {a: [] for a in orders}
    for seed in seeds:
        train = deep.pocket_circle(max(counts), seed=seed, half_width=half_width)
        pool = deep.pocket_circle(60 * test, seed=seed + 500_000, half_width=half_width)
        inside = (pool.posterior > 0.5).nonzero()[:test, 0]
        outside = (pool.posterior < 0.5).nonzero()[:test, 0]
        exam = pool.points[torch.cat([inside, outside])]
        for a, table in tables.items():
            logs = torch.cat([table(part @ exam.mT) for part in train.points.split(4000)])
            vote = deep.kernel_vote(logs, train.labels, list(counts))
            right = (vote[:, : len(inside)] > 0).double().mean(1) + (vote[:, len(inside) :] < 0).double().mean(1)
            found[a].append(right / 2)
    return {a: torch.stack(values, 1) for a, values in found.items()}


def regression_errors(seeds: Sequence[int], *, train: int = 300, test: int = 300) -> Float[Tensor, "2 seeds"]:
    """Mean squared errors of depth 2 and depth 60 (a = d = 2) on a smooth target, relative to its variance.

    Args:
        seeds: Seeds.
        train: Training points.
        test: Test points.
    """
    dual, rows = deep.singular_dual(2), []
    table = deep.deep_kernel_table(dual, 60)
    for seed in seeds:
        points = deep.dirichlet_sphere(*deep.DIRICHLET_PAIRS[2], train + test, seed=seed).points
        y = torch.sin(3 * points[:, :1]) + points[:, 1:2] * points[:, 2:]
        # Away from the data a deep kernel predicts 0: that shall be the mean, not a value that no point has.
        y = y - y[:train].mean()
        x, z, target, answer = points[:train], points[train:], y[:train], y[train:]
        own, cross = (x @ x.mT).clamp_(max=1), z @ x.mT
        pair = []
        for gram, rest in ((dual(dual(own)), dual(dual(cross))), (table(own).exp(), table(cross).exp())):
            gram.diagonal().fill_(1.0)
            prediction = rest @ ridge_fit(gram, target, 1e-6)
            pair.append(float((prediction - answer).square().mean() / answer.var()))
        rows.append(pair)
    return torch.tensor(rows).T


# Lee, Yun, Yang, Lee -------------------------------------------------------------------------------------------------


class PriorTests(NamedTuple):
    """p-values of Kolmogorov-Smirnov tests and, for each width, the distance of the output from its t limit."""

    values: dict[str, float]
    distance: dict[int, float]


def mixture_inputs() -> Float[Tensor, "6 6"]:
    """Kernel of the first preactivations of six fixed points on a sphere in ten dimensions: five to train on, one
    apart."""
    x = torch.randn(6, 10, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    return x @ x.mT


def _limit_features(first: Tensor) -> Tensor:
    """The limit of :func:`sample_relu_features`' kernels."""
    relu, k = duals.relu(), first
    for _ in range(2):
        var = k.diagonal()
        exact = relu.diagonal(var)[0]
        k = relu.dual(k, var[:, None], var[None], False)[0] * 2
        k.diagonal().copy_(2 * exact)
    return k


def prior_tests(width: int, networks: int, trend: Sequence[int], *, seed: int) -> PriorTests:
    """Outputs of random networks with a shared last-layer scale against the t-process, and the arms that must fail.

    Args:
        width: Width of the tests.
        networks: Networks.
        trend: Further widths, for the distance alone.
        seed: Seed.
    """
    first, m = mixture_inputs(), 5
    limit = _limit_features(first)[:m, :m]
    inverse = torch.linalg.inv(limit)
    values, distance = {}, {}
    for n in (*trend, width):
        generator = torch.Generator().manual_seed(seed + n)
        gram = torch.cat(
            [
                mix.sample_relu_features(first[:m, :m], n, min(1000, networks), generator=generator)
                for _ in range(max(1, networks // 1000))
            ]
        )
        noise = torch.randn(len(gram), m, generator=generator, dtype=torch.float64)
        scales = mix.inverse_gamma(len(gram), 2.0, 2.0, generator=generator).sqrt()
        own = limit[0, 0].sqrt()
        output = gram[:, 0, 0].sqrt() * noise[:, 0]
        distance[n] = float(scipy_stats.kstest((output * scales / own).numpy(), scipy_stats.t(4).cdf).statistic)
        if n == width:
            f = (torch.linalg.cholesky(gram) @ noise[..., None])[..., 0]
            mixed = f * scales[:, None]
            radial = ((mixed @ inverse) * mixed).sum(1) / m
            values = {
                "mixed scale against t": _ks(mixed[:, 0] / own, scipy_stats.t(4)),
                "mixed scale, radius against F": _ks(radial, scipy_stats.f(m, 4)),
                "mixed scale against the Gaussian of equal variance": _ks(
                    mixed[:, 0] / (2**0.5 * own), scipy_stats.norm
                ),
                "fixed scale against t": _ks(f[:, 0] / own, scipy_stats.t(4)),
                "fixed scale against the Gaussian": _ks(f[:, 0] / own, scipy_stats.norm),
            }
    return PriorTests(values, distance)


def _ks(sample: Tensor, law) -> float:
    return float(scipy_stats.kstest(sample.numpy(), law.cdf).pvalue)


def trained_tests(
    width: int, networks: int, times: Sequence[float], *, seed: int, rate: float = 0.1
) -> dict[float, tuple[float, float]]:
    r"""p-values of the residual after last-layer gradient descent: against t, and against the Gaussian of equal
    variance.

    With the last layer trained alone, gradient descent on its weights is exactly :math:`f \leftarrow f - \eta
    K_n(\cdot, X)(f(X) - y)`
    with the network's own feature kernel :math:`K_n`.

    Args:
        width: Width.
        networks: Networks.
        times: Training times.
        seed: Seed.
        rate: Step size.
    """
    first = mixture_inputs()
    limit = _limit_features(first)
    generator = torch.Generator().manual_seed(seed)
    gram = torch.cat([mix.sample_relu_features(first, width, 500, generator=generator) for _ in range(networks // 500)])
    noise = torch.randn(len(gram), 6, generator=generator, dtype=torch.float64)
    scales = mix.inverse_gamma(len(gram), 2.0, 2.0, generator=generator)
    f = (torch.linalg.cholesky(gram) @ noise[..., None])[..., 0] * scales.sqrt()[:, None]
    y = torch.tensor([1.0, -1.0, 0.5, -0.5, 1.0], dtype=torch.float64)
    w, e = torch.linalg.eigh(limit[:5, :5])
    found, done = {}, 0
    for time_ in times:
        steps = round(time_ / rate)
        for _ in range(steps - done):
            f = f - rate * (gram[:, :, :5] @ (f[:, :5] - y)[..., None])[..., 0]
        done = steps
        map_ = limit[5, :5] @ e @ torch.diag((1 - (1 - rate * w) ** steps) / w) @ e.mT
        mean = map_ @ y
        variance = limit[5, 5] - 2 * map_ @ limit[:5, 5] + map_ @ limit[:5, :5] @ map_
        residual_ = (f[:, 5] - mean) / variance.sqrt()
        found[time_] = (_ks(residual_, scipy_stats.t(4)), _ks(residual_ / 2**0.5, scipy_stats.norm))
    return found


class Regression(NamedTuple):
    """Test NLL ``[sizes, splits]`` of both processes, in and out of distribution."""

    sizes: list[int]
    gaussian: dict[str, Float[Tensor, "sizes splits"]]
    student: dict[str, Float[Tensor, "sizes splits"]]

    def gain(self, where: str, index: int):
        """Gaussian minus Student NLL over splits, paired: positive where the t-process is better.

        Args:
            where: ``"in"`` or ``"out"``.
            index: Index of the training size.
        """
        return paired(self.gaussian[where][index], self.student[where][index])


def process_regression(
    features: Float[Tensor, "n d"],
    targets: Float[Tensor, " n"],
    sizes: Sequence[int],
    splits: int,
    *,
    seed: int,
    column: int = 2,
    tests: int = 100,
) -> Regression:
    """Gaussian and t-processes with one kernel grid, on a table whose largest values of a column are never trained on.

    Kernel, noise and scale are chosen by marginal likelihood: the Gaussian's scale in closed form, the t's ``b`` on a
    grid with ``a = 2``.

    Args:
        features: Standardised features.
        targets: Standardised targets.
        sizes: Training sizes.
        splits: Random splits.
        seed: Seed.
        column: The column that defines the shift: its top 15 % are out of distribution.
        tests: In-distribution test points.
    """
    shifted = features[:, column] > torch.quantile(features[:, column], 0.85)
    inner, outer = (~shifted).nonzero()[:, 0], shifted.nonzero()[:, 0]
    kernels = []
    for w_std in (1.0, 2**0.5, 2.0):
        for b_std in (0.1, 1.0):
            hidden = [layer for _ in range(4) for layer in (Dense(1, w_std, b_std), Relu())]
            gram = serial(*hidden, Dense(1)).kernel(features, get="nngp")
            kernels.append(gram / gram.diagonal().mean())
    noises = (0.01, 0.1, 0.3, 1.0)
    scales = [2.0**k for k in range(-8, 9)]
    results: dict[str, list] = {key: [] for key in ("gin", "gout", "tin", "tout")}
    for size in sizes:
        rows: dict[str, list] = {key: [] for key in results}
        for split in range(splits):
            order = inner[torch.randperm(len(inner), generator=torch.Generator().manual_seed(seed + split))]
            fit, exam = order[:size], {"in": order[size : size + tests], "out": outer}
            y = targets[fit]
            grams = torch.stack([k[fit][:, fit] for k in kernels])
            noisy = grams[:, None] + torch.tensor(noises, dtype=torch.float64)[:, None, None] * torch.eye(size).double()
            factor = torch.linalg.cholesky(noisy)
            half = torch.linalg.solve_triangular(factor, y.expand(*noisy.shape[:2], size)[..., None], upper=False)
            beta, log_det = half.square().sum((-2, -1)), mix.log_determinant(factor)
            s2 = beta / size
            gauss = mix.gaussian_logpdf_from_quadratic(beta / s2, size, log_det + size * s2.log())
            b = torch.tensor(scales, dtype=torch.float64)[:, None, None]
            student = mix.t_logpdf_from_quadratic(beta / (b / 2), size, 4.0, log_det + size * (b / 2).log())
            for name, score in (("g", gauss[None]), ("t", student)):
                place = int(score.argmax())
                which, rest = divmod(place, score[0].numel())
                kernel, noise = divmod(rest, len(noises))
                scale = float(s2[kernel, noise]) if name == "g" else scales[which]
                for where, index in exam.items():
                    k = kernels[kernel]
                    own = k.diagonal()[index] + noises[noise]
                    shape = math.inf if name == "g" else 2.0
                    found = mix.process_posterior(
                        noisy[kernel, noise], k[index][:, fit], own, y, shape=shape, scale=scale
                    )
                    rows[name + where].append(float(-found.logpdf(targets[index]).mean()))
        for key, values in rows.items():
            results[key].append(values)
    tensors = {key: torch.tensor(value) for key, value in results.items()}
    return Regression(
        list(sizes), {"in": tensors["gin"], "out": tensors["gout"]}, {"in": tensors["tin"], "out": tensors["tout"]}
    )


def synthetic_gains(sizes: Sequence[int], draws: int, *, seed: int) -> dict[str, Float[Tensor, "sizes draws"]]:
    """NLL under the Gaussian minus NLL under the t of equal covariance, true parameters, on t and on Gaussian draws.

    Args:
        sizes: Lengths of the observed vector.
        draws: Draws.
        seed: Seed.
    """
    found: dict[str, list[Tensor]] = {"t draws": [], "Gaussian draws": []}
    for size in sizes:
        generator = torch.Generator().manual_seed(seed + size)
        x = torch.randn(size, 5, generator=generator, dtype=torch.float64)
        gram = serial(Dense(1, 1.0, 0.3), Relu(), Dense(1)).kernel(x, get="nngp") + 0.1 * torch.eye(size).double()
        factor = torch.linalg.cholesky(gram)
        log_det = mix.log_determinant(factor)
        for name in found:
            noise = torch.randn(draws, size, generator=generator, dtype=torch.float64)
            s2 = mix.inverse_gamma(draws, 2.0, 2.0, generator=generator) if name == "t draws" else 2 * torch.ones(draws)
            y = (noise * s2.sqrt()[:, None]) @ factor.mT
            quadratic = torch.linalg.solve_triangular(factor, y.mT, upper=False).square().sum(0)
            gauss = mix.gaussian_logpdf_from_quadratic(quadratic / 2, size, log_det + size * math.log(2))
            student = mix.t_logpdf_from_quadratic(quadratic, size, 4.0, log_det)
            found[name].append(student - gauss)
    return {name: torch.stack(values) for name, values in found.items()}


def t_to_gaussian(dfs: Sequence[float]) -> list[float]:
    """Distance of the t's log density from the Gaussian's at one vector, for growing degrees of freedom.

    Args:
        dfs: Degrees of freedom.
    """
    y = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)
    quadratic, zero = y @ y, torch.zeros(())
    limit = mix.gaussian_logpdf_from_quadratic(quadratic, 4, zero)
    return [abs(float(mix.t_logpdf_from_quadratic(quadratic, 4, df, zero) - limit)) for df in dfs]


class Classification(NamedTuple):
    """NLL, accuracy and calibration error ``[seeds]`` of both sparse processes, by test set; the negative bounds that
    they minimise, at the end."""

    nll: dict[tuple[str, str], Members]
    accuracy: dict[tuple[str, str], Members]
    ece: dict[tuple[str, str], Members]
    bound: dict[str, Members]


def process_classification(
    train: tuple[Tensor, Tensor],
    tests: dict[str, tuple[Tensor, Tensor]],
    seeds: Sequence[int],
    *,
    inducing: int = 60,
    steps: int = 800,
    samples: int = 8,
) -> Classification:
    r"""Sparse variational classification by a Gaussian and by a t-process, one kernel and one learned scale each.

    Both are optimised alike. Steps are taken in whitened means, :math:`m = L w` with :math:`K_{II} = L L^\top`: the
    same family of posteriors, reached in far fewer steps.

    Args:
        train: Inputs ``[N, d]`` and labels.
        tests: Test sets by name.
        seeds: Seeds of the inducing points and of the Monte Carlo samples; they run at once.
        inducing: Inducing points.
        steps: Steps of Adam, the learning rate falling from 0.2 to 0 as a cosine.
        samples: Monte Carlo samples of the likelihood.
    """
    x, labels = train
    classes = int(labels.max()) + 1
    hidden = [layer for _ in range(4) for layer in (Dense(1, 2**0.5, 0.1), Relu())]
    net = serial(*hidden, Dense(1))
    seats = [torch.randperm(len(x), generator=torch.Generator().manual_seed(s))[:inducing] for s in seeds]
    parts = {"train": train, **tests}
    maps, rest, factor, log_det = _sparse_maps(net, x, seats, {k: v[0] for k, v in parts.items()})
    precision = torch.cholesky_inverse(factor)
    results: dict[str, dict] = {"nll": {}, "accuracy": {}, "ece": {}, "bound": {}}
    for model in ("Gaussian", "Student"):
        generator = torch.Generator().manual_seed(int(seeds[0]) + 17)
        mean = torch.zeros(len(seeds), classes, inducing, dtype=torch.float64)
        free = {
            "mean": mean,
            "log_variance": mean - 2.0,
            "scale": torch.zeros(len(seeds), dtype=torch.float64),
            "q": torch.zeros(len(seeds), 2, dtype=torch.float64) + math.log(2.0),
        }
        for value in free.values():
            value.requires_grad_()
        optimizer = torch.optim.Adam(free.values(), lr=0.2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            now = free | {"mean": free["mean"] @ factor.mT}
            logits = _sparse_logits(model, now, maps["train"], rest["train"], samples, generator)
            logs = logits.log_softmax(-2)
            index = labels.expand(*logs.shape[:2], 1, -1)
            likelihood = logs.gather(2, index).mean(0).sum((-2, -1))
            bounds = _sparse_kl(model, now, precision, log_det) - likelihood
            bounds.sum().backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            results["bound"][model] = bounds.detach()
            now = free | {"mean": free["mean"] @ factor.mT}
            for name, (_, answers) in tests.items():
                logits = _sparse_logits(model, now, maps[name], rest[name], 200, generator)
                probability = logits.softmax(-2).mean(0)
                right = probability.gather(1, answers.expand(len(seeds), 1, -1))[:, 0]
                top, choice = probability.max(1)
                hit = (choice == answers).double()
                results["nll"][model, name] = -right.log().mean(1)
                results["accuracy"][model, name] = hit.mean(1)
                results["ece"][model, name] = torch.stack([_calibration(t, h) for t, h in zip(top, hit)])
    return Classification(**results)


def _sparse_maps(net: Serial, x: Tensor, seats: list[Tensor], sets: dict[str, Tensor]):
    """For each seed and set the map ``A`` [S, n, I] and the remaining variance ``B`` [S, n]; K's factor and log|K|."""
    every = torch.cat(list(sets.values()))
    whole = net.kernel(torch.cat([x, every]), get="nngp")
    whole = whole / whole.diagonal().mean()
    gram = torch.stack([whole[s][:, s] for s in seats]) + 1e-4 * torch.eye(len(seats[0])).double()
    factor = torch.linalg.cholesky(gram)
    precision = torch.cholesky_inverse(factor)
    maps, rest, start = {}, {}, len(x)
    for name, part in sets.items():
        rows = slice(start, start + len(part))
        start += len(part)
        cross = torch.stack([whole[rows][:, s] for s in seats])
        maps[name] = cross @ precision
        rest[name] = (whole.diagonal()[rows] - (maps[name] * cross).sum(-1)).clamp_min(1e-6)
    return maps, rest, factor, mix.log_determinant(factor)


def _sparse_logits(model: str, free: dict, a: Tensor, b: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Samples of the logits, ``[samples, seeds, classes, n]``."""
    mean = free["mean"] @ a.mT
    inner = torch.einsum("sni,sci->scn", a.square(), free["log_variance"].exp())
    noise = torch.randn(samples, *mean.shape, generator=generator, dtype=torch.float64)
    if model == "Gaussian":
        return mean + noise * (inner + free["scale"].exp()[:, None, None] * b[:, None]).sqrt()
    aq, bq = free["q"].exp().unbind(-1)
    # One chi-square for each sample, shared by the classes of a point: the classes have one scale.
    shape = aq.detach()[None, :, None].expand(samples, -1, b.shape[-1]).contiguous()
    gamma = _reparametrized_gamma(shape, aq, generator)
    spread = (bq[None, :, None] / gamma)[:, :, None] * (inner + b[:, None])
    return mean + noise * spread.sqrt()


def _reparametrized_gamma(shape: Tensor, parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma draws through which gradients reach the shape parameter."""
    with torch.no_grad():
        drawn = torch._standard_gamma(shape, generator=generator)
        slope = torch._standard_gamma_grad(shape, drawn)
    wide = parameter[None, :, None].expand_as(drawn)
    return drawn + slope * (wide - wide.detach())


def _sparse_kl(model: str, free: dict, precision: Tensor, log_det: Tensor) -> Tensor:
    if model == "Student":
        two = torch.full_like(free["scale"], 2.0)
        prior_scale = two * free["scale"].exp()
        q = tuple(free["q"].exp().unbind(-1))
        return torch.stack(
            [
                mix.variational_kl(m, v, p, d, (q[0][i], q[1][i]), (two[i], prior_scale[i]))
                for i, (m, v, p, d) in enumerate(zip(free["mean"], free["log_variance"], precision, log_det))
            ]
        )
    scale = free["scale"].exp()
    classes, inducing = free["mean"].shape[-2:]
    spread = (free["log_variance"].exp() * precision.diagonal(dim1=1, dim2=2)[:, None]).sum((1, 2)) / scale
    quadratic = ((free["mean"] @ precision) * free["mean"]).sum((1, 2)) / scale
    volume = classes * (log_det + inducing * scale.log() - inducing) - free["log_variance"].sum((1, 2))
    return (volume + spread + quadratic) / 2


def _calibration(confidence: Tensor, hit: Tensor, bins: int = 10) -> Tensor:
    """Expected calibration error with equal bins."""
    place = (confidence * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(2, bins, dtype=torch.float64)
    sums[0].index_add_(0, place, confidence)
    sums[1].index_add_(0, place, hit)
    return (sums[0] - sums[1]).abs().sum() / len(hit)


def rotated(images: Float[Tensor, "n 1 h w"], low: float, high: float, *, seed: int) -> Float[Tensor, "n 1 h w"]:
    """Images turned by random angles, half of them one way and half the other.

    Args:
        images: Images.
        low: Smallest angle in degrees.
        high: Largest angle.
        seed: Seed.
    """
    generator = torch.Generator().manual_seed(seed)
    angle = torch.empty(len(images)).uniform_(low, high, generator=generator).deg2rad()
    angle = torch.where(torch.arange(len(images)) % 2 == 0, angle, -angle)
    zero = torch.zeros_like(angle)
    rows = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1).reshape(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(rows, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


# Cagnetta, Favero, Wyart ---------------------------------------------------------------------------------------------


class LearningCurves(NamedTuple):
    """Errors ``[counts, seeds]`` for each pair of student and teacher."""

    counts: list[int]
    errors: dict[tuple[str, str], Float[Tensor, "counts seeds"]]

    def slopes(self, student: str, teacher: str, *, start: int = 128) -> Float[Tensor, " seeds"]:
        """Exponents of the decay, seed by seed, positive.

        Args:
            student: Student.
            teacher: Teacher.
            start: Smallest training size of the fit.
        """
        keep = [i for i, n in enumerate(self.counts) if n >= start]
        x = [self.counts[i] for i in keep]
        columns = self.errors[student, teacher][keep].T
        return torch.tensor([-loglog_slope(x, column).slope for column in columns], dtype=torch.float64)

    def last_step(self, student: str, teacher: str) -> float:
        """The exponent between the two largest training sizes, of the mean error.

        Args:
            student: Student.
            teacher: Teacher.
        """
        before, after = self.errors[student, teacher].mean(1)[-2:]
        return float((before / after).log()) / math.log(self.counts[-1] / self.counts[-2])


def exponent_table(rows: dict[str, tuple[LearningCurves, str, tuple[int, ...], float]]) -> dict[str, dict[str, float]]:
    """Fitted exponents, those of the last doubling of the training set alone, and the asymptotic theory.

    Args:
        rows: By name the curves, the student, the teacher's filters, and the exponent of theory.
    """
    return {
        name: {
            "fitted": float(curves.slopes(student, str(teacher)).mean()),
            "last doubling": curves.last_step(student, str(teacher)),
            "theory": theory,
        }
        for name, (curves, student, teacher, theory) in rows.items()
    }


def learning_curves(
    patches: int,
    student: tuple[int, ...],
    teachers: Sequence[tuple[int, ...]],
    counts: Sequence[int],
    seeds: Sequence[int],
    *,
    tests: int = 250,
    dense: bool = True,
) -> LearningCurves:
    """Exact average test errors of convolutional and fully connected students for random teachers.

    A teacher of filters ``(2,)`` is a sum of functions of one patch, each; its kernel is the mean over patches.

    Args:
        patches: Patches of two coordinates.
        student: Filters of the student.
        teachers: Filters of the teachers.
        counts: Training sizes, nested.
        seeds: Seeds of the inputs.
        tests: Test points.
        dense: Whether a fully connected student of the same depth runs on the same data.
    """
    errors: dict[tuple[str, str], list[list[float]]] = {}
    for seed in seeds:
        x = conv.circle_patches(max(counts) + tests, patches, seed=seed)
        fields = {str(t): _centred(conv.hierarchical_kernel(x, x, t)) for t in teachers}
        students = {"convolutional": conv.hierarchical_kernel(x, x, student)}
        if dense:
            students["fully connected"] = conv.dense_sphere_kernel(x, x, len(student))
        for name, gram in students.items():
            rows: dict[str, list[float]] = {t: [] for t in fields}
            for count in counts:
                a, b = slice(0, count), slice(max(counts), None)
                pieces = [(f[a, a], f[a, b], f[b, b].diagonal()) for f in fields.values()]
                for t, error in zip(fields, conv.teacher_average_error(gram[a, a], gram[a, b], pieces)):
                    rows[t].append(error)
            for t, values in rows.items():
                errors.setdefault((name, t), []).append(values)
    return LearningCurves(list(counts), {key: torch.tensor(v, dtype=torch.float64).T for key, v in errors.items()})


def _centred(field: Tensor) -> Tensor:
    """A teacher's covariance without its constant mode, estimated by the mean over pairs of different points."""
    n = len(field)
    return field - (field.sum() - field.diagonal().sum()) / (n * (n - 1))


def spectrum(count: int, patches: int, filters: tuple[int, ...], *, seed: int) -> Float[Tensor, " count"]:
    """Eigenvalues of a hierarchical kernel's Gram matrix, largest first, divided by the number of points.

    Args:
        count: Points.
        patches: Patches.
        filters: Filters.
        seed: Seed.
    """
    x = conv.circle_patches(count, patches, seed=seed)
    return torch.linalg.eigvalsh(conv.hierarchical_kernel(x, x, filters)).flip(0) / count


def rank_slope(values: Float[Tensor, " n"], low: int, high: int) -> float:
    """Exponent of the eigenvalues' decay with rank.

    Args:
        values: Eigenvalues, largest first.
        low: First rank.
        high: Last rank.
    """
    ranks = np.unique(np.geomspace(low, high, 60).round().astype(int))
    return loglog_slope(ranks, values[torch.from_numpy(ranks) - 1]).slope
