r"""The four regimes of scaling: limited by variance or by resolution, in data or in parameters.

Where a resource is *variance-limited*, the loss approaches its limit like one over the resource, whatever the data.
Where it is *resolution-limited*, the exponent is set by the dimension of the data and by how smooth kernel and target
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import cKDTree
from scipy.special import roots_gegenbauer
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.eigenlearning import test_risk
from netatlas.core.infinite import Dense, Relu, Serial, serial

ReluWeights = tuple[Float[Tensor, "units n"], Float[Tensor, " units"]]


def sphere(count: int, dim: int, generator: torch.Generator) -> Float[Tensor, "count n"]:
    r"""Points uniform on the sphere :math:`S^d` of radius :math:`\sqrt{d + 1}` in :math:`n = d + 1` dimensions.

    Args:
        count: Number of points.
        dim: The manifold's dimension :math:`d \ge 1`.
        generator: Source of randomness.

    Raises:
        ValueError: For no points or a dimension below 1.
    """
    require(count >= 1 and dim >= 1, "at least one point and one dimension", (count, dim))
    points = torch.randn(count, dim + 1, generator=generator, dtype=torch.float64)
    return points / points.norm(dim=1, keepdim=True) * (dim + 1) ** 0.5


def relu_teacher(units: int, ambient: int, generator: torch.Generator) -> ReluWeights:
    r"""Weights of :math:`f(x) = m^{-1/2} \sum_{i \le m} a_i\, \mathrm{relu}(w_i \cdot x / \sqrt n)`, all Gaussian.

    Args:
        units: Hidden units :math:`m`.
        ambient: Dimension :math:`n` of the inputs.
        generator: Source of randomness.
    """
    hidden = torch.randn(units, ambient, generator=generator, dtype=torch.float64)
    return hidden, torch.randn(units, generator=generator, dtype=torch.float64) / units**0.5


def relu_features(inputs: Float[Tensor, "*b N n"], hidden: Float[Tensor, "*b F n"]) -> Float[Tensor, "*b N F"]:
    r"""Random features :math:`\mathrm{relu}(w_i \cdot x/\sqrt n)`, not divided by their number.

    Args:
        inputs: Points.
        hidden: Weight vectors.
    """
    return (inputs @ hidden.mT / inputs.shape[-1] ** 0.5).relu_()


def relu_targets(
    points: Float[Tensor, "N n"], units: int, teachers: int, generator: torch.Generator
) -> Float[Tensor, "N teachers"]:
    """Values of independent random ReLU teachers, one a column.

    Args:
        points: Points.
        units: Hidden units of each.
        teachers: How many.
        generator: Source of randomness.
    """
    drawn = [relu_teacher(units, points.shape[1], generator) for _ in range(teachers)]
    hidden, outer = (torch.stack(part) for part in zip(*drawn))
    return (relu_features(points, hidden) @ outer[..., None])[..., 0].mT


def arc_cosine_network() -> Serial:
    """The network whose covariance is the kernel of :func:`relu_features` (singular like distance cubed)."""
    return serial(Dense(1), Relu(), Dense(1))


class NestedFit(NamedTuple):
    """Predictions from growing subsets.

    Attributes:
        sizes: Examples (or features) used.
        predictions: ``[sizes, targets' columns, tests]``.
    """

    sizes: list[int]
    predictions: Float[Tensor, "sizes C T"]


def nested_kernel_regression(
    gram: Float[Tensor, "N N"],
    cross: Float[Tensor, "T N"],
    targets: Float[Tensor, "N C"],
    sizes: Sequence[int],
    *,
    ridge: float = 1e-10,
) -> NestedFit:
    r"""Kernel ridge regression on the first :math:`D` examples for every :math:`D` at the price of the largest.

    The leading block of a Cholesky factor is the factor of the leading block. With :math:`A = L^{-1} K_{X,x}` and
    :math:`B = L^{-1} y`, the prediction from the first :math:`D` examples is a partial sum:

    .. math:: f_D(x) = \sum_{i \le D} A_{ix}\, B_i .

    Args:
        gram: Kernel between examples.
        cross: Kernel between tests and examples.
        targets: Targets, one column an output.
        sizes: Increasing subset sizes, at most ``N``.
        ridge: Added to the diagonal, as a share of its mean.

    Raises:
        ValueError: For shapes that do not fit, NaN, sizes that do not increase, or a matrix that is not positive
            definite even with the ridge (duplicated points need a larger one).
    """
    count = len(gram)
    require(gram.ndim == 2 and gram.shape == (count, count), "a square Gram matrix", tuple(gram.shape))
    require(cross.ndim == 2 and cross.shape[1] == count, f"cross kernel of shape [T, {count}]", tuple(cross.shape))
    require(targets.ndim == 2 and len(targets) == count, f"targets of shape [{count}, C]", tuple(targets.shape))
    for name, values in (("gram", gram), ("cross", cross), ("targets", targets)):
        require_finite(name, values)
    wanted = list(sizes)
    require(
        len(wanted) > 0 and wanted == sorted(set(wanted)) and wanted[0] >= 1 and wanted[-1] <= count,
        f"increasing sizes in 1..{count}",
        wanted,
    )
    shifted = gram + ridge * gram.diagonal().mean() * torch.eye(count, dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    require(int(failed.max()) == 0, "a positive definite Gram matrix (raise the ridge)", f"pivot {int(failed.max())}")
    solved = torch.linalg.solve_triangular(factor, torch.cat([cross.mT, targets], 1), upper=False)
    left, right = solved[:, : len(cross)], solved[:, len(cross) :]
    parts, start = [], 0
    for stop in wanted:
        parts.append(right[start:stop].mT @ left[start:stop])
        start = stop
    return NestedFit(wanted, torch.stack(parts).cumsum(0))


def nested_feature_regression(
    features: Float[Tensor, "N F"],
    test_features: Float[Tensor, "T F"],
    targets: Float[Tensor, "N C"],
    sizes: Sequence[int],
    *,
    ridge: float = 1e-10,
) -> NestedFit:
    r"""Ridge regression on the first :math:`F` features for every :math:`F`, by one factorization.

    Args:
        features: Features of the examples.
        test_features: Features of the tests.
        targets: Targets.
        sizes: Increasing numbers of features.
        ridge: As in :func:`nested_kernel_regression`.

    Raises:
        ValueError: As :func:`nested_kernel_regression`.
    """
    require(features.ndim == 2 and len(targets) == len(features), "targets, one an example", tuple(targets.shape))
    return nested_kernel_regression(features.mT @ features, test_features, features.mT @ targets, sizes, ridge=ridge)


def population_moments(
    hidden: Float[Tensor, "F n"], teacher: ReluWeights
) -> tuple[Float[Tensor, "F F"], Float[Tensor, " F"], float]:
    r"""Exact second moments of ReLU features and a ReLU teacher over the sphere.

    A Gaussian vector is a point of the sphere of radius :math:`\sqrt n` times an independent length of mean square 1,
    so that both have the same moments of homogeneous functions of first order:
    :math:`\mathbb E\,\mathrm{relu}(w\cdot x)\,\mathrm{relu}(w'\cdot x)/n` is the arc-cosine kernel of the weights.

    Args:
        hidden: Weight vectors of the features.
        teacher: The teacher's hidden weights and output weights.

    Returns:
        :math:`\mathbb E\,\phi\phi^\top`, :math:`\mathbb E\,\phi f` and :math:`\mathbb E f^2`.
    """
    inner, outer = teacher
    net = arc_cosine_network()
    cross = net.kernel(hidden, inner, "nngp") @ outer
    return net.kernel(hidden, get="nngp"), cross, float(outer @ net.kernel(inner, get="nngp") @ outer)


def data_variance_excess(
    features: int, sizes: Sequence[int], *, dim: int, units: int, draws: int, seed: int
) -> Float[Tensor, "draws sizes"]:
    r"""Excess of least squares on :math:`F` fixed random features over its limit of unlimited data.

    .. math:: L(D) - L(\infty) = (w_D - w_\infty)^\top G\, (w_D - w_\infty), \qquad G = \mathbb E\,\phi\phi^\top

    Limit and excess use the population's exact moments, so that no test set adds noise. Every draw has features, a
    teacher and examples of its own.

    Args:
        features: Number of features :math:`F`.
        sizes: Numbers of examples, each above :math:`F + 1`.
        dim: Dimension of the sphere.
        units: Hidden units of the teacher.
        draws: Independent draws.
        seed: Seeds them.

    Raises:
        ValueError: For a size that does not exceed ``features + 1``.

    Source:
        bahri2021explaining, section on variance-limited scaling; the exact moments are ours.
    """
    require(min(sizes) > features + 1, f"more than {features + 1} examples", min(sizes))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        hidden = torch.randn(features, dim + 1, generator=generator, dtype=torch.float64)
        teacher = relu_teacher(units, dim + 1, generator)
        gram, cross, _ = population_moments(hidden, teacher)
        limit = torch.linalg.solve(gram, cross)
        inputs = sphere(max(sizes), dim, generator)
        phi = relu_features(inputs, hidden)
        targets = relu_features(inputs, teacher[0]) @ teacher[1]
        row = []
        for size in sizes:
            gap = torch.linalg.lstsq(phi[:size], targets[:size, None]).solution[:, 0] - limit
            row.append(gap @ gram @ gap)
        found.append(torch.stack(row))
    return torch.stack(found)


def feature_variance_excess(
    samples: int, sizes: Sequence[int], *, dim: int, units: int, ridge: float, draws: int, tests: int, seed: int
) -> Float[Tensor, "draws sizes"]:
    r"""Excess of random-feature ridge regression over its kernel limit, on :math:`D` fixed examples.

    With :math:`\hat K = K + \Delta` the loss changes to first order by a term linear in :math:`\Delta`. Its mean is
    exactly zero, and its scatter :math:`F^{-1/2}` would hide the mean :math:`F^{-1}`. It is known in closed form and
    subtracted:

    .. math:: \delta f = \Delta_{x,X}\,\alpha - k_{x,X} (K + \lambda)^{-1} \Delta_{X,X}\,\alpha, \qquad
        \delta L = 2\,\mathbb E_x (f - y)\,\delta f .

    Args:
        samples: Number of examples :math:`D`.
        sizes: Numbers of features.
        dim: Dimension of the sphere.
        units: Hidden units of the teacher.
        ridge: Ridge :math:`\lambda`, the same for all widths.
        draws: Independent draws of the features.
        tests: Test points on which the loss is measured.
        seed: Seeds everything.

    Source:
        bahri2021explaining, section on variance-limited scaling; the control variate is ours.
    """
    require(samples >= 1 and min(sizes) >= 1 and ridge > 0, "samples and features of at least 1, ridge > 0", ridge)
    generator = torch.Generator().manual_seed(seed)
    inputs, test = sphere(samples, dim, generator), sphere(tests, dim, generator)
    teacher = relu_teacher(units, dim + 1, generator)
    targets = relu_features(inputs, teacher[0]) @ teacher[1]
    truth = relu_features(test, teacher[0]) @ teacher[1]
    net, eye = arc_cosine_network(), ridge * torch.eye(samples, dtype=torch.float64)
    gram, cross = net.kernel(inputs, get="nngp"), net.kernel(test, inputs, "nngp")
    dual = torch.linalg.solve(gram + eye, targets)
    back = torch.linalg.solve(gram + eye, cross.mT).mT
    error = cross @ dual - truth
    found = []
    for size in sizes:
        rows = []
        for part in torch.arange(draws).split(max(1, 2_000_000 // (size * (samples + tests)))):
            hidden = torch.randn(len(part), size, dim + 1, generator=generator, dtype=torch.float64)
            phi, phi_test = relu_features(inputs, hidden), relu_features(test, hidden)
            own, other = phi @ phi.mT / size, phi_test @ phi.mT / size
            got = (other @ torch.linalg.solve(own + eye, targets.expand(len(part), -1))[..., None])[..., 0]
            linear = (other - cross) @ dual - ((own - gram) @ dual) @ back.mT
            excess = ((got - truth) ** 2).mean(-1) - (error**2).mean() - 2 * (error * linear).mean(-1)
            rows.append(excess)
        found.append(torch.cat(rows))
    return torch.stack(found, 1)


def kernel_learning_curve(
    net: Serial,
    sizes: Sequence[int],
    *,
    dim: int,
    teacher: str,
    draws: int,
    tests: int,
    seed: int,
    units: int = 64,
    teachers: int = 1,
    noise_dimensions: int = 0,
    noise: float = 0.0,
) -> Float[Tensor, "draws sizes"]:
    r"""Test loss of kernel interpolation on growing subsets of the sphere, for one of three kinds of teacher.

    A teacher is one more column of the triangular solve. So each draw of points can average over many of them, and the
    scatter between teachers, by far the largest, is nearly gone.

    Args:
        net: The network whose tangent kernel (or covariance, for :func:`arc_cosine_network`) interpolates.
        sizes: Numbers of examples.
        dim: The manifold's dimension.
        teacher: ``"relu"``, a random ReLU network of one hidden layer; ``"process"``, a draw from the Gaussian process
            of the tangent kernel itself; ``"smooth"``, the product of two linear functions; ``"relu nngp"``, the first
            with the network's covariance instead of its tangent kernel.
        draws: Independent draws of points and teacher.
        tests: Test points.
        seed: Seeds them.
        units: Hidden units of the ReLU teacher.
        teachers: Independent teachers of each draw, whose losses are averaged.
        noise_dimensions: Ambient dimensions into which the inputs are thickened, unseen by the teacher.
        noise: Standard deviation of the inputs there.

    Raises:
        ValueError: For an unknown kind of teacher, no teacher, or as :func:`nested_kernel_regression`.
    """
    require(teachers >= 1, "at least one teacher", teachers)
    require(
        teacher in ("relu", "relu nngp", "process", "smooth"),
        "a teacher out of relu, relu nngp, process, smooth",
        teacher,
    )
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        count = max(sizes)
        points = sphere(count + tests, dim, generator)
        seen = points
        if noise_dimensions:
            extra = torch.randn(len(points), noise_dimensions, generator=generator, dtype=torch.float64)
            seen = torch.cat([points, noise * extra], 1)
        kernel = net.kernel(seen, get="nngp" if teacher == "relu nngp" else "ntk")
        if teacher == "process":
            jitter = 1e-12 * kernel.diagonal().mean() * torch.eye(len(seen), dtype=torch.float64)
            white = torch.randn(len(seen), teachers, generator=generator, dtype=torch.float64)
            values = torch.linalg.cholesky(kernel + jitter) @ white
        elif teacher == "smooth":
            directions = torch.randn(2, teachers, dim + 1, generator=generator, dtype=torch.float64)
            values = (points @ directions.mT / (dim + 1) ** 0.5).prod(0)
        else:
            values = relu_targets(points, units, teachers, generator)
        fit = nested_kernel_regression(
            kernel[:count, :count], kernel[count:, :count], values[:count], sizes, ridge=1e-12
        )
        found.append(((fit.predictions - values[count:].mT) ** 2).mean((-2, -1)))
    return torch.stack(found)


def feature_learning_curve(
    sizes: Sequence[int],
    *,
    dim: int,
    samples: int,
    draws: int,
    tests: int,
    seed: int,
    units: int = 64,
    teachers: int = 1,
) -> Float[Tensor, "draws sizes"]:
    r"""Test loss of regression on a growing number of random ReLU features, with far more examples than features.

    Args:
        sizes: Numbers of features.
        dim: The manifold's dimension.
        samples: Examples, ten times the largest number of features or more.
        draws: Independent draws.
        tests: Test points.
        seed: Seeds them.
        units: Hidden units of the ReLU teacher.
        teachers: As in :func:`kernel_learning_curve`.

    Raises:
        ValueError: For fewer examples than ten times the features, or no teacher.
    """
    require(teachers >= 1, "at least one teacher", teachers)
    require(samples >= 10 * max(sizes), f"at least {10 * max(sizes)} examples", samples)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        points = sphere(samples + tests, dim, generator)
        values = relu_targets(points, units, teachers, generator)
        hidden = torch.randn(max(sizes), dim + 1, generator=generator, dtype=torch.float64)
        phi = relu_features(points, hidden)
        fit = nested_feature_regression(phi[:samples], phi[samples:], values[:samples], sizes, ridge=1e-13)
        found.append(((fit.predictions - values[samples:].mT) ** 2).mean((-2, -1)))
    return torch.stack(found)


def interpolation_losses(
    sizes: Sequence[int], *, dim: int, tests: int, seed: int, margin: float = 0.15
) -> dict[str, Float[np.ndarray, " sizes"]]:
    r"""Squared error of piecewise-linear and nearest-neighbour interpolation of a smooth function on the cube.

    The target is :math:`\sum_i \sin(2\pi x_i + i)`. Tests keep a margin from the hull, where simplices are slivers.

    Args:
        sizes: Numbers of uniform points, at least :math:`d + 2`.
        dim: Dimension of the cube, 2 or more.
        tests: Test points in ``[margin, 1 - margin]``.
        seed: Seeds the points.
        margin: The margin.

    Returns:
        Losses under ``"piecewise linear"`` (predicted slope :math:`-4/d`) and ``"nearest neighbour"`` (:math:`-2/d`).

    Raises:
        ValueError: For a dimension below 2, too few points, or a margin outside [0, .5).

    Source:
        bahri2021explaining, resolution-limited scaling; interpolation by SciPy's Delaunay triangulation.
    """
    require(dim >= 2 and min(sizes) >= dim + 2, f"dimension 2 or more and {dim + 2} points", (dim, min(sizes)))
    require(0 <= margin < 0.5, "a margin in [0, .5)", margin)
    generator = np.random.default_rng(seed)
    test = margin + (1 - 2 * margin) * generator.random((tests, dim))

    def target(x: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * x + np.arange(dim)).sum(1)

    linear, nearest = [], []
    for size in sizes:
        points = generator.random((size, dim))
        values, truth = target(points), target(test)
        guess = LinearNDInterpolator(points, values)(test)
        inside = np.isfinite(guess)
        linear.append(np.mean((guess[inside] - truth[inside]) ** 2))
        nearest.append(np.mean((values[cKDTree(points).query(test)[1]] - truth) ** 2))
    return {"piecewise linear": np.array(linear), "nearest neighbour": np.array(nearest)}


def two_nn_dimension(points: Float[np.ndarray, "N n"]) -> float:
    r"""Intrinsic dimension from the ratio :math:`\mu = r_2/r_1` of distances to the two nearest neighbours.

    .. math:: \hat d = \frac{N}{\sum_i \ln \mu_i}

    Args:
        points: At least three points; duplicates are dropped.

    Raises:
        ValueError: For fewer than three distinct points, or NaN.

    Source:
        Facco et al., Scientific Reports 7, 12140 (2017); the maximum-likelihood form.
    """
    array = np.asarray(points, dtype=np.float64)
    require(array.ndim == 2, "points of shape [N, n]", array.shape)
    require_finite("points", array)
    array = np.unique(array, axis=0)
    require(len(array) >= 3, "at least three distinct points", len(array))
    distance, _ = cKDTree(array).query(array, k=3)
    return float(len(array) / np.log(distance[:, 2] / distance[:, 1]).sum())


def spectrum_tail(gram: Float[Tensor, "N N"]) -> Float[np.ndarray, " N"]:
    r"""Sums of the eigenvalues of :math:`K/N` from each rank on, :math:`\sum_{i > D} \lambda_i` at index :math:`D`.

    With :math:`\lambda_i \sim i^{-(1+\alpha)}` the sum falls like :math:`D^{-\alpha}`; multiplicities do not matter.

    Args:
        gram: Symmetric positive semi-definite kernel matrix.

    Raises:
        ValueError: For a matrix that is not square, or NaN.
    """
    require(gram.ndim == 2 and gram.shape[0] == gram.shape[1], "a square Gram matrix", tuple(gram.shape))
    require_finite("gram", gram)
    values = torch.linalg.eigvalsh(gram / len(gram)).flip(0).clamp_min(0).numpy()
    return np.cumsum(values[::-1])[::-1].copy()


class SphereSpectrum(NamedTuple):
    """A kernel's eigenvalues on the sphere, degree by degree.

    Attributes:
        eigenvalues: Of the degrees 0, 1, 2, ...
        multiplicities: Dimensions of the spaces of spherical harmonics.
        trace: Sum of all eigenvalues, those of higher degrees included.
    """

    eigenvalues: Float[np.ndarray, " degrees"]
    multiplicities: Float[np.ndarray, " degrees"]
    trace: float


def sphere_spectrum(
    net: Serial, dim: int, rank: int, *, get: Literal["ntk", "nngp"] = "ntk", nodes: int = 4000
) -> SphereSpectrum:
    r"""Exact eigenvalues of a kernel on the sphere, by the Funk-Hecke formula, up to a rank at least.

    .. math:: \lambda_\ell = \frac{\int_{-1}^1 \kappa(t)\, P_\ell(t)\, (1-t^2)^{(d-2)/2}\, dt}{\int_{-1}^1
        (1-t^2)^{(d-2)/2}\, dt}

    with Gegenbauer polynomials normalised to :math:`P_\ell(1) = 1`. Values below the quadrature error become zero.

    Args:
        net: A network whose kernel depends on angles alone on the sphere of radius :math:`\sqrt{d+1}`.
        dim: The sphere's dimension :math:`d \ge 2`.
        rank: Degrees are added until their multiplicities sum to this at least.
        get: ``"ntk"`` or ``"nngp"``.
        nodes: Nodes of the Gauss-Gegenbauer quadrature.

    Raises:
        ValueError: For a dimension below 2 or a rank below 1.
    """
    require(dim >= 2 and rank >= 1, "a dimension of at least 2 and a rank of at least 1", (dim, rank))
    order = (dim - 1) / 2
    t, weight = roots_gegenbauer(nodes, order)
    points = torch.zeros(nodes + 1, dim + 1, dtype=torch.float64)
    points[:nodes, 0], points[:nodes, 1] = torch.from_numpy(t), torch.from_numpy(np.sqrt(1 - t**2))
    points[nodes, 0] = 1.0
    kernel = net.kernel(points * (dim + 1) ** 0.5, points[-1:] * (dim + 1) ** 0.5, get)[:, 0].numpy()
    weight = weight / weight.sum()
    before, now = np.ones_like(t), t
    values, counts, degree = [], [], 0
    while sum(counts) < rank:
        counts.append(comb(dim + degree, degree) - (comb(dim + degree - 2, degree - 2) if degree >= 2 else 0))
        value = float(weight @ (kernel[:-1] * before))
        values.append(value if value > 1e-14 * kernel[-1] else 0.0)
        # Recurrence of the normalised Gegenbauer polynomials, stable for every degree.
        degree += 1
        before, now = now, ((2 * degree + 2 * order) * t * now - degree * before) / (degree + 2 * order)
    return SphereSpectrum(np.array(values), np.array(counts, dtype=np.float64), float(kernel[-1]))


def sphere_spectrum_tail(
    net: Serial, dim: int, ranks: Sequence[int], *, get: Literal["ntk", "nngp"] = "ntk"
) -> Float[np.ndarray, " ranks"]:
    r"""Exact eigenvalue sums beyond given ranks, :math:`\sum_{i > D} \lambda_i = \kappa(1) - \sum_{i \le D} \lambda_i`.

    Args:
        net, dim, get: As in :func:`sphere_spectrum`.
        ranks: Ranks :math:`D`; eigenvalues are sorted.

    Raises:
        ValueError: As :func:`sphere_spectrum`.
    """
    found = sphere_spectrum(net, dim, 2 * max(ranks), get=get)
    order = np.argsort(-found.eigenvalues, kind="stable")
    values = np.repeat(found.eigenvalues[order], found.multiplicities[order].astype(int))
    return found.trace - np.cumsum(values)[np.asarray(ranks) - 1]


def process_learning_curve(net: Serial, dim: int, sizes: Sequence[int]) -> Float[np.ndarray, " sizes"]:
    r"""Expected loss of kernel interpolation of a draw from the kernel's own Gaussian process, by eigenlearning.

    The target's power in each eigenspace is the eigenvalue times its multiplicity. Degrees beyond those computed are
    not learned: their kernel acts as a ridge and their power as noise.

    Args:
        net, dim: As in :func:`sphere_spectrum`.
        sizes: Numbers of examples.

    Raises:
        ValueError: As :func:`sphere_spectrum`.
    """
    found = sphere_spectrum(net, dim, 20 * max(sizes))
    kept = found.eigenvalues > 0
    values, counts = (torch.from_numpy(a[kept]) for a in (found.eigenvalues, found.multiplicities))
    rest = max(found.trace - float(values @ counts), 0.0)
    n = torch.tensor(sizes, dtype=torch.float64)
    return test_risk(values, counts, values * counts, n, rest, noise=rest).numpy()
