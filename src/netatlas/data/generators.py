"""Random graphs and samples with known ground truth, each a pure function of its parameters and its seed.

Graphs are undirected, simple, and returned as :class:`torch_geometric.data.Data` whose ``edge_index`` [2, 2E] (int64)
lists both directions of each edge, sorted by row, then column. Sampling costs time and memory of order nodes plus
edges, never of node pairs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch_geometric.data import Data

__all__ = [
    "HOUSE_ROLES",
    "GaussianMixture",
    "SparseRegression",
    "contextual_sbm",
    "degree_corrected_sbm",
    "gaussian_mixture",
    "hierarchical_sbm",
    "rings_of_houses",
    "sparse_regression",
    "spirals",
    "stochastic_block_model",
]

HOUSE_ROLES = ("ring", "ring anchor", "wall", "floor", "anchored floor", "roof")
"""Names of the ``role`` labels of :func:`rings_of_houses`, in label order."""

# Above this density a block is sampled by one coin per pair: its edges are then as many as its pairs, up to a constant.
_DENSE = 0.3


class SparseRegression(NamedTuple):
    """A linear regression with few relevant features: design [N, D], targets [N], true coefficients [D]."""

    x: torch.Tensor
    y: torch.Tensor
    coefficients: torch.Tensor


class GaussianMixture(NamedTuple):
    """A sample of a mixture of Gaussians: points [N, D], component labels [N], component means [K, D]."""

    x: torch.Tensor
    y: torch.Tensor
    means: torch.Tensor


def _integer(value, name: str, low: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: expected an integer >= {low}, got {value!r}") from None
    if value < low:
        raise ValueError(f"{name}: expected an integer >= {low}, got {value}")
    return value


def _number(value, name: str, low: float, high: float = math.inf, *, open_low: bool = False) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number, got {value!r}") from None
    if not (low < value if open_low else low <= value) or not value <= high:
        raise ValueError(f"{name}: expected a number in {'(' if open_low else '['}{low}, {high}], got {value}")
    return value


def _sizes(sizes) -> np.ndarray:
    given = np.asarray(sizes)
    if given.ndim != 1 or given.size == 0 or not np.issubdtype(given.dtype, np.integer) or given.min() < 1:
        raise ValueError(f"sizes: expected a non-empty sequence of positive integers, got {sizes!r}")
    return given.astype(np.int64)


def _graph(pairs: np.ndarray, nodes: int, **attributes) -> Data:
    import torch
    from torch_geometric.data import Data

    both = np.concatenate([pairs, pairs[::-1]], axis=1)
    both = both[:, np.argsort(both[0] * nodes + both[1], kind="stable")]
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in attributes.items()}
    return Data(edge_index=torch.from_numpy(np.ascontiguousarray(both)), num_nodes=nodes, **tensors)


def _pairs_of_block(start_a: int, size_a: int, start_b: int, size_b: int) -> np.ndarray:
    if start_a == start_b:
        return np.stack(np.triu_indices(size_a, 1)) + start_a
    return np.stack([np.repeat(np.arange(size_a), size_b) + start_a, np.tile(np.arange(size_b), size_a) + start_b])


def _sample_block_pairs(sizes: np.ndarray, probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Edges i < j of the block model, [2, E]: a binomial count per block pair, then that many distinct pairs."""
    nodes, blocks = int(sizes.sum()), len(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    a, b = np.triu_indices(blocks)
    possible = np.where(a == b, sizes[a] * (sizes[a] - 1) // 2, sizes[a] * sizes[b])
    chance = probabilities[a, b]
    dense = chance > _DENSE
    parts = []
    for index in np.flatnonzero(dense):
        pairs = _pairs_of_block(starts[a[index]], sizes[a[index]], starts[b[index]], sizes[b[index]])
        parts.append(pairs[:, rng.random(pairs.shape[1]) < chance[index]])
    a, b = a[~dense], b[~dense]
    missing = rng.binomial(possible[~dense], chance[~dense])
    wanted = missing.copy()
    keys = owners = np.empty(0, dtype=np.int64)
    # A round draws exactly as many pairs as are missing and keeps the distinct ones. Which set results depends on the
    # labels of the pairs in no way, so every set of the wanted size is equally likely.
    while missing.any():
        block = np.repeat(np.arange(len(a)), missing)
        size_a, size_b, same = sizes[a[block]], sizes[b[block]], a[block] == b[block]
        i = rng.integers(0, size_a)
        j = rng.integers(0, np.where(same, size_b - 1, size_b))
        j += same & (j >= i)
        i, j = i + starts[a[block]], j + starts[b[block]]
        drawn = np.minimum(i, j) * nodes + np.maximum(i, j)
        keys, first = np.unique(np.concatenate([keys, drawn]), return_index=True)
        owners = np.concatenate([owners, block])[first]
        missing = wanted - np.bincount(owners, minlength=len(a))
    parts.append(np.stack([keys // nodes, keys % nodes]))
    return np.concatenate(parts, axis=1)


def stochastic_block_model(sizes: Sequence[int], probabilities, seed: int = 0) -> Data:
    r"""Sample the stochastic block model: each pair is an edge on its own, with a probability set by its two blocks.

    .. math:: \Pr(A_{ij} = 1) = P_{y_i y_j}, \qquad i < j.

    Args:
        sizes: nodes of each block, K positive integers.
        probabilities: symmetric [K, K], entries in [0, 1].
        seed: seed of the generator.

    Returns:
        Graph with ``y`` [N] int64, the block of each node; nodes are ordered by block.

    Raises:
        ValueError: sizes not positive integers; probabilities not [K, K], not symmetric, or outside [0, 1].

    Source: Holland, Laskey and Leinhardt (1983), Stochastic blockmodels: first steps.
    """
    counts = _sizes(sizes)
    matrix = np.asarray(probabilities, dtype=np.float64)
    if matrix.shape != (len(counts), len(counts)):
        raise ValueError(
            f"probabilities: expected shape {(len(counts), len(counts))} for {len(counts)} sizes, got {matrix.shape}"
        )
    if not ((matrix >= 0) & (matrix <= 1)).all():
        raise ValueError(f"probabilities: expected entries in [0, 1], got {matrix.tolist()}")
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-12):
        raise ValueError("probabilities: expected a symmetric matrix")
    pairs = _sample_block_pairs(counts, matrix, np.random.default_rng(seed))
    return _graph(pairs, int(counts.sum()), y=np.repeat(np.arange(len(counts)), counts))


def _power_law(count: int, exponent: float, largest: float, rng: np.random.Generator) -> np.ndarray:
    """Draws of the density proportional to x^-exponent on [1, largest], by inversion."""
    uniform = rng.random(count)
    if math.isinf(exponent):
        return np.ones(count)
    power = 1 - exponent
    return (1 - uniform * (1 - largest**power)) ** (1 / power)


def degree_corrected_sbm(
    sizes: Sequence[int], mean_degree: float, mixing: float, exponent: float = 2.5, seed: int = 0
) -> Data:
    r"""Sample the degree-corrected block model with power-law degree propensities.

    .. math:: \Pr(A_{ij} = 1) = 1 - e^{-\lambda_{ij}}, \quad
        \lambda_{ij} = \theta_i \theta_j\, \omega\,(1 \text{ if } y_i = y_j \text{ else } \mu),

    with :math:`\theta` drawn from the density :math:`x^{-\gamma}` on :math:`[1, \sqrt{n}]`, scaled to mean 1 in every
    block, and :math:`\omega` set so that :math:`\sum_{i \ne j} \lambda_{ij} / n` is ``mean_degree``. That is the
    multigraph of Poisson edge counts with parallel edges merged, so hubs make the mean degree of the simple graph a
    little smaller than asked.

    Args:
        sizes: nodes of each block.
        mean_degree: mean degree of the multigraph, > 0.
        mixing: ratio :math:`\mu` of the rates between and inside blocks, p_out / p_in, in [0, 1] for assortative
            graphs; > 1 allowed.
        exponent: :math:`\gamma` > 1; ``inf`` for equal propensities.
        seed: seed of the generator.

    Returns:
        Graph with ``y`` [N] int64 and ``propensity`` [N] float64 (:math:`\theta`).

    Raises:
        ValueError: a parameter out of its range, or no pair of nodes that could be an edge.

    Source: Karrer and Newman (2011), arXiv:1008.3926, eq. 2.
    """
    counts = _sizes(sizes)
    mean_degree = _number(mean_degree, "mean_degree", 0, open_low=True)
    mixing = _number(mixing, "mixing", 0, 1e12)
    exponent = _number(exponent, "exponent", 1, open_low=True)
    if not math.isfinite(mean_degree):
        raise ValueError("mean_degree: expected a finite number, got inf")
    rng = np.random.default_rng(seed)
    nodes, blocks = int(counts.sum()), len(counts)
    y = np.repeat(np.arange(blocks), counts)
    theta = _power_law(nodes, exponent, max(math.sqrt(nodes), 2.0), rng)
    theta *= (counts / np.bincount(y, theta))[y]
    mass = counts.astype(np.float64)
    inside = (mass**2).sum() - (theta**2).sum()
    between = mass.sum() ** 2 - (mass**2).sum()
    weight = inside + mixing * between
    if weight <= 1e-9:
        raise ValueError(f"sizes {counts.tolist()} and mixing {mixing} leave no pair of nodes that could be an edge")
    rate = mean_degree * nodes / weight
    a, b = np.triu_indices(blocks)
    expected = rate * np.where(a == b, 0.5, mixing) * mass[a] * mass[b]
    block = np.repeat(np.arange(len(a)), rng.poisson(expected))
    ends = np.cumsum(theta)
    starts = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def endpoint(owner):
        drawn = np.searchsorted(ends, starts[owner] + rng.random(len(owner)) * mass[owner], side="right")
        return np.clip(drawn, first[owner], first[owner] + counts[owner] - 1)

    i, j = endpoint(a[block]), endpoint(b[block])
    keys = np.unique((np.minimum(i, j) * nodes + np.maximum(i, j))[i != j])
    return _graph(np.stack([keys // nodes, keys % nodes]), nodes, y=y, propensity=theta)


def hierarchical_sbm(
    macro: int, micro: int, size: int, probabilities: Sequence[float] = (0.3, 0.05, 0.005), seed: int = 0
) -> Data:
    r"""Sample a block model of two levels: micro-communities inside macro-communities.

    .. math:: \Pr(A_{ij} = 1) = p_\text{micro},\; p_\text{macro} \text{ or } p_\text{out}

    as the pair shares its micro-community, only its macro-community, or neither.

    Args:
        macro: number of macro-communities.
        micro: micro-communities in each of them.
        size: nodes in each micro-community.
        probabilities: (p_micro, p_macro, p_out), each in [0, 1].
        seed: seed of the generator.

    Returns:
        Graph with ``micro`` [N], ``macro`` [N] and ``y`` (equal to ``micro``), int64; N = macro * micro * size.

    Raises:
        ValueError: counts below 1, or not three probabilities in [0, 1].
    """
    macro, micro, size = _integer(macro, "macro", 1), _integer(micro, "micro", 1), _integer(size, "size", 1)
    levels = np.asarray(probabilities, dtype=np.float64)
    if levels.shape != (3,) or not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"probabilities: expected (p_micro, p_macro, p_out) in [0, 1], got {probabilities!r}")
    parent = np.repeat(np.arange(macro), micro)
    matrix = np.where(parent[:, None] == parent[None, :], levels[1], levels[2])
    np.fill_diagonal(matrix, levels[0])
    sizes = np.full(macro * micro, size, dtype=np.int64)
    pairs = _sample_block_pairs(sizes, matrix, np.random.default_rng(seed))
    block = np.repeat(np.arange(macro * micro), size)
    return _graph(pairs, macro * micro * size, y=block, micro=block, macro=parent[block])


def contextual_sbm(
    sizes: Sequence[int], mean_degree: float, mixing: float, features: int, signal: float, seed: int = 0
) -> Data:
    r"""Sample the contextual block model: nodes carry Gaussian features centred on the mean of their block.

    .. math:: x_i = s\, u_{y_i} + z_i, \qquad z_i \sim \mathcal N(0, I_F), \quad \|u_k\| = 1,

    where the directions :math:`u_k` are random, and orthogonal if there are at least as many features as blocks.
    Edges follow :func:`stochastic_block_model` with p_out = ``mixing`` * p_in, p_in set by the expected mean degree.

    Args:
        sizes: nodes of each block.
        mean_degree: expected mean degree, > 0.
        mixing: p_out / p_in >= 0; below 1 homophilous, above 1 heterophilous.
        features: number of features F.
        signal: length s >= 0 of the block means, in units of the noise's standard deviation.
        seed: seed of the generator.

    Returns:
        Graph with ``x`` [N, F] float32, ``y`` [N] int64 and ``means`` [K, F] float32 (the true block means
        :math:`s\,u_k`).

    Raises:
        ValueError: a parameter out of its range, or a mean degree that needs a probability above 1.

    Source: Deshpande, Montanari, Mossel and Sen (2018), arXiv:1807.08479, here for K blocks.
    """
    counts = _sizes(sizes)
    mean_degree = _number(mean_degree, "mean_degree", 0, open_low=True)
    mixing = _number(mixing, "mixing", 0, 1e12)
    features = _integer(features, "features", 1)
    signal = _number(signal, "signal", 0, 1e12)
    nodes, blocks = int(counts.sum()), len(counts)
    mass = counts.astype(np.float64)
    inside = (mass * (mass - 1)).sum()
    between = nodes**2 - (mass**2).sum()
    weight = inside + mixing * between
    p_in = mean_degree * nodes / weight if weight else math.inf
    if p_in > 1 or p_in * mixing > 1:
        raise ValueError(
            f"mean_degree {mean_degree} with mixing {mixing} needs p_in {p_in:.3g} and p_out {p_in * mixing:.3g}: "
            "expected both at most 1"
        )
    rng = np.random.default_rng(seed)
    matrix = np.full((blocks, blocks), p_in * mixing)
    np.fill_diagonal(matrix, p_in)
    pairs = _sample_block_pairs(counts, matrix, rng)
    directions = rng.standard_normal((blocks, features))
    if blocks <= features:
        directions = np.linalg.qr(directions.T)[0].T
    means = signal * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    y = np.repeat(np.arange(blocks), counts)
    x = rng.standard_normal((nodes, features), dtype=np.float32)
    x += means[y].astype(np.float32)
    return _graph(pairs, nodes, x=x, y=y, means=means.astype(np.float32))


def _community_of_houses(houses: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges [2, E] and roles of one community: its ring first, then the five nodes a, b, c, d, e of every house."""
    ring = np.arange(2 * houses)
    a, b, c, d, e = 2 * houses + 5 * np.arange(houses) + np.arange(5)[:, None]
    heads = np.concatenate([ring, ring, a, b, c, d, a, b, c])
    around = len(ring)
    tails = np.concatenate([(ring + 1) % around, (ring + 2) % around, b, c, d, a, e, e, ring[::2]])
    roles = np.concatenate([ring % 2 == 0, np.tile([2, 2, 4, 3, 5], houses)]).astype(np.int64)
    return np.stack([np.minimum(heads, tails), np.maximum(heads, tails)]), roles


def rings_of_houses(
    communities: int = 5, houses: int = 6, noise: float = 0.03, bridges_noise: float = 0.0, seed: int = 0
) -> Data:
    """Build communities of rings that carry houses: a graph that has both positions (communities) and roles.

    A community is a ring of ``2 * houses`` nodes, tied to their first and second neighbours; every second ring node
    (an anchor) carries a house: a square a-b-c-d with a roof e on a and b, and c tied to the anchor. Neighbouring
    communities of a cycle are joined by one edge, between the same two ring nodes everywhere; neither is an anchor.
    Noise edges join pairs that are not yet adjacent, uniformly. Without noise, the rotation that takes every
    community to the next is an automorphism: node ``v`` goes to ``(v + N / communities) mod N``.

    Args:
        communities: number of communities, >= 1 (a single one has no joining edge).
        houses: houses in each of them, >= 3.
        noise: random edges added inside each community, as a fraction of its edges before noise.
        bridges_noise: random edges added between communities, as a fraction of all edges before noise.
        seed: seed of the generator; without effect if both noises are 0.

    Returns:
        Graph of N = 7 * houses * communities nodes (210 by default) with ``community`` [N] and ``role`` [N] (an index
        into :data:`HOUSE_ROLES`), int64. The walls, the most frequent role, are 2/7 of the nodes.

    Raises:
        ValueError: a parameter out of its range, or more noise edges than there are free pairs.

    Source: zhu2021phusion, the kind of planted graph of its experiments, in the construction stated above.
    """
    communities, houses = _integer(communities, "communities", 1), _integer(houses, "houses", 3)
    noise, bridges_noise = _number(noise, "noise", 0, 1e6), _number(bridges_noise, "bridges_noise", 0, 1e6)
    rng = np.random.default_rng(seed)
    one, roles = _community_of_houses(houses)
    size = len(roles)
    nodes = communities * size
    offsets = size * np.arange(communities)
    parts = [(one[:, None, :] + offsets[:, None]).reshape(2, -1)]
    if communities > 1:
        # Two ring nodes half-way round, neither an anchor, so that the joining edges use up no role of a house.
        parts.append(np.stack([offsets + 1, (offsets + size) % nodes + 1 + 2 * (houses // 2)]))
    clean = np.concatenate(parts, axis=1)

    extra = round(noise * one.shape[1])
    pairs = np.stack(np.triu_indices(size, 1))
    free = pairs[:, ~np.isin(pairs[0] * size + pairs[1], one[0] * size + one[1])]
    if extra > free.shape[1]:
        raise ValueError(f"noise {noise} asks for {extra} edges in a community with {free.shape[1]} free pairs")
    if extra:
        chosen = np.argsort(rng.random((communities, free.shape[1])), axis=1)[:, :extra]
        parts.append((free[:, chosen] + offsets[:, None]).reshape(2, -1))

    extra = round(bridges_noise * clean.shape[1])
    space = size * size * (communities * (communities - 1) // 2) - (communities if communities > 1 else 0)
    if extra > space // 2:
        raise ValueError(
            f"bridges_noise {bridges_noise} asks for {extra} edges: expected at most half of {space} free pairs"
        )
    taken = np.minimum(*clean) * nodes + np.maximum(*clean)
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < extra:
        i, j = rng.integers(0, nodes, size=(2, extra - len(keys)))
        drawn = np.minimum(i, j) * nodes + np.maximum(i, j)
        drawn = drawn[(i // size != j // size) & ~np.isin(drawn, taken)]
        keys = np.unique(np.concatenate([keys, drawn]))
    parts.append(np.stack([keys // nodes, keys % nodes]))
    return _graph(
        np.concatenate(parts, axis=1),
        nodes,
        community=np.repeat(np.arange(communities), size),
        role=np.tile(roles, communities),
    )


def sparse_regression(
    samples: int,
    features: int,
    nonzero: int,
    *,
    noise: float = 0.1,
    correlation: float = 0.0,
    magnitude: float = 1.0,
    seed: int = 0,
) -> SparseRegression:
    r"""Sample a sparse linear regression: Gaussian design, few coefficients of equal size and random sign.

    .. math:: y = X w + \sigma \varepsilon, \qquad X_{n\cdot} \sim \mathcal N(0, \Sigma), \quad
        \Sigma_{ij} = \rho^{|i - j|}, \quad \|w\|_0 = k.

    Args:
        samples: number of rows N.
        features: number of columns D.
        nonzero: number k of nonzero coefficients, at most D; their places are uniform.
        noise: standard deviation :math:`\sigma` of the targets' noise, >= 0.
        correlation: :math:`\rho` of neighbouring features, in (-1, 1); every feature has unit variance.
        magnitude: absolute value of the nonzero coefficients, > 0.
        seed: seed of the generator.

    Returns:
        ``x`` [N, D], ``y`` [N] and ``coefficients`` [D], float32.

    Raises:
        ValueError: a parameter out of its range.
    """
    import torch

    samples, features = _integer(samples, "samples", 1), _integer(features, "features", 1)
    nonzero = _integer(nonzero, "nonzero", 0)
    if nonzero > features:
        raise ValueError(f"nonzero: expected at most {features} (features), got {nonzero}")
    noise = _number(noise, "noise", 0, 1e12)
    magnitude = _number(magnitude, "magnitude", 0, 1e12, open_low=True)
    correlation = _number(correlation, "correlation", -1, 1, open_low=True)
    if correlation == 1:
        raise ValueError("correlation: expected a number in (-1, 1), got 1.0")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, features))
    if correlation:
        from scipy.signal import lfilter

        # The autoregression x_j = rho x_{j-1} + sqrt(1 - rho^2) z_j has the wanted covariance if x_0 has unit variance.
        x[:, 1:] *= math.sqrt(1 - correlation**2)
        x = lfilter([1.0], [1.0, -correlation], x, axis=1)
    coefficients = np.zeros(features)
    support = rng.choice(features, nonzero, replace=False)
    coefficients[support] = magnitude * rng.choice([-1.0, 1.0], nonzero)
    y = x @ coefficients + noise * rng.standard_normal(samples)
    return SparseRegression(*(torch.from_numpy(value.astype(np.float32)) for value in (x, y, coefficients)))


def spirals(
    samples: int = 400, classes: int = 2, *, turns: float = 1.5, noise: float = 0.04, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Sample interleaved Archimedean spirals, a class each.

    .. math:: x = t \,(\cos \phi, \sin \phi) + \sigma \varepsilon, \qquad
        \phi = 2 \pi (\text{turns}\, t + k / K), \quad t = \sqrt u,

    with u uniform on [0, 1], so that points spread nearly evenly along an arm. The outer radius is 1.

    Args:
        samples: number of points N; sample n belongs to class n mod K.
        classes: number of arms K.
        turns: full turns of an arm, > 0 (1.5 is an angle of 3 pi).
        noise: standard deviation of both coordinates, in units of the outer radius.
        seed: seed of the generator.

    Returns:
        Points [N, 2] float32 and labels [N] int64.

    Raises:
        ValueError: a parameter out of its range.
    """
    import torch

    samples, classes = _integer(samples, "samples", 1), _integer(classes, "classes", 1)
    turns, noise = _number(turns, "turns", 0, 1e6, open_low=True), _number(noise, "noise", 0, 1e6)
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    t = np.sqrt(rng.random(samples))
    angle = 2 * np.pi * (turns * t + labels / classes)
    x = t[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + noise * rng.standard_normal((samples, 2))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)


def gaussian_mixture(
    samples: int,
    components: int = 3,
    features: int = 2,
    *,
    separation: float = 4.0,
    scale: float = 1.0,
    weights: Sequence[float] | None = None,
    means=None,
    seed: int = 0,
) -> GaussianMixture:
    r"""Sample a mixture of spherical Gaussians.

    .. math:: p(x) = \sum_k \pi_k\, \mathcal N(x; m_k, \sigma^2 I).

    Args:
        samples: number of points N.
        components: number of components K; ignored if ``means`` is given.
        features: dimension D; ignored if ``means`` is given.
        separation: random means have independent coordinates of variance ``separation**2 / (2 D)``, so that the root
            mean square distance of two of them is ``separation`` (same units as ``scale``).
        scale: standard deviation :math:`\sigma` of every coordinate, > 0.
        weights: :math:`\pi` [K], non-negative, with positive sum (normalised here); uniform if None.
        means: means [K, D] to use instead of random ones.
        seed: seed of the generator.

    Returns:
        ``x`` [N, D] float32, ``y`` [N] int64 and ``means`` [K, D] float32.

    Raises:
        ValueError: a parameter out of its range or of the wrong shape.
    """
    import torch

    samples = _integer(samples, "samples", 1)
    scale, separation = _number(scale, "scale", 0, 1e12, open_low=True), _number(separation, "separation", 0, 1e12)
    rng = np.random.default_rng(seed)
    if means is None:
        components, features = _integer(components, "components", 1), _integer(features, "features", 1)
        means = separation / math.sqrt(2 * features) * rng.standard_normal((components, features))
    means = np.asarray(means, dtype=np.float64)
    if means.ndim != 2 or means.size == 0 or not np.isfinite(means).all():
        raise ValueError(f"means: expected finite [components, features], got shape {means.shape}")
    share = np.ones(len(means)) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != (len(means),) or not np.isfinite(share).all() or (share < 0).any() or share.sum() <= 0:
        raise ValueError(f"weights: expected {len(means)} non-negative numbers with positive sum, got {weights!r}")
    labels = rng.choice(len(means), samples, p=share / share.sum())
    x = means[labels] + scale * rng.standard_normal((samples, means.shape[1]))
    return GaussianMixture(
        torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels), torch.from_numpy(means.astype(np.float32))
    )
