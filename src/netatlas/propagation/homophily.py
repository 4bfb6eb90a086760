"""Homophily, its measures and its limits: when averaging over neighbours separates classes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.stats import binom, norm

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import require_undirected


def _labels(y: Any, nodes: int) -> Int[np.ndarray, " n"]:
    y = np.asarray(y)
    require(y.ndim == 1 and len(y) == nodes, f"{nodes} labels", y.shape)
    require(np.issubdtype(y.dtype, np.integer), "integer labels", y.dtype)
    require(y.size == 0 or y.min() >= 0, "labels of at least 0", y.min() if y.size else 0)
    return y.astype(np.int64)


def _without_loops(graph: Any) -> sp.csr_array:
    matrix = as_csr(graph)
    matrix = sp.csr_array(matrix - sp.diags_array(matrix.diagonal()))
    matrix.eliminate_zeros()
    return matrix


def edge_homophily(graph: Any, y: Int[np.ndarray, " n"]) -> float:
    r"""Share of the edges that join nodes of one class; NaN for a graph without edges.

    .. math:: h = \frac{|\{(i, j) \in E : y_i = y_j\}|}{|E|}

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes; self-loops are left out, weights ignored.
        y: Labels.

    Raises:
        ValueError: For a bad graph, or labels of another number, negative or not integer.

    Source: ma2021homophily.
    """
    edges = _without_loops(graph).tocoo()
    y = _labels(y, edges.shape[0])
    return float((y[edges.row] == y[edges.col]).mean()) if edges.nnz else float("nan")


def neighbor_label_histograms(
    graph: Any, y: Int[np.ndarray, " n"], classes: int | None = None
) -> Float[np.ndarray, "n C"]:
    """How many neighbours of each class every node has.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes; self-loops are left out.
        y: Labels.
        classes: Number of classes; by default the largest label plus one.

    Raises:
        ValueError: As :func:`edge_homophily`, and for a label beyond ``classes``.

    Source: ma2021homophily.
    """
    matrix = _without_loops(graph)
    y = _labels(y, matrix.shape[0])
    count = int(y.max()) + 1 if classes is None else classes
    require(int(y.max()) < count, f"labels below {count}", int(y.max()))
    return np.asarray(matrix @ np.eye(count)[y])


def cross_class_similarity(
    graph: Any, y: Int[np.ndarray, " n"], classes: int | None = None
) -> Float[np.ndarray, "C C"]:
    r"""Cross-class neighbourhood similarity: how alike the neighbours' labels of two classes are.

    .. math:: s(c, c') = \frac{1}{|V_c||V_{c'}|} \sum_{i \in V_c} \sum_{j \in V_{c'}} \cos(d(i), d(j))

    where :math:`d(i)` is the histogram of the labels of :math:`i`'s neighbours. The cosine is bilinear in unit vectors,
    so the mean over pairs is the product of two mean vectors, and the cost is linear in the graph. Nodes without
    neighbours have no histogram and are left out; a class of which none is left has NaN.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes; self-loops are left out.
        y: Labels.
        classes: Number of classes; by default the largest label plus one.

    Raises:
        ValueError: As :func:`neighbor_label_histograms`.

    Source: ma2021homophily.
    """
    counts = neighbor_label_histograms(graph, y, classes)
    size = np.linalg.norm(counts, axis=1)
    kept = size > 0
    unit = counts[kept] / size[kept, None]
    member = np.eye(counts.shape[1])[np.asarray(y)[kept]]
    total = member.sum(0)[:, None]
    mean = np.divide(member.T @ unit, total, out=np.full((counts.shape[1],) * 2, np.nan), where=total > 0)
    return mean @ mean.T


def similarity_contrast(similarity: Float[np.ndarray, "C C"]) -> float:
    """Mean similarity of a class with itself minus that of two different classes; classes without nodes left out.

    Args:
        similarity: From :func:`cross_class_similarity`.

    Raises:
        ValueError: For fewer than two classes.

    Source: ma2021homophily.
    """
    matrix = np.asarray(similarity, dtype=float)
    require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "a square matrix", matrix.shape)
    require(len(matrix) >= 2, "at least two classes", len(matrix))
    own = np.eye(len(matrix), dtype=bool)
    return float(np.nanmean(matrix[own]) - np.nanmean(matrix[~own]))


def cyclic_targets(classes: int) -> Float[np.ndarray, "C C"]:
    """Target distributions that send half of a class's new edges to each of its two cyclic neighbours.

    Args:
        classes: Number of classes, at least 3.

    Raises:
        ValueError: For fewer than 3 classes.

    Source: ma2021homophily.
    """
    require(classes >= 3, "at least 3 classes", classes)
    step = np.roll(np.eye(classes), 1, axis=1)
    return (step + step.T) / 2


def add_targeted_edges(
    graph: Any,
    y: Int[np.ndarray, " n"],
    targets: Float[np.ndarray, "C C"],
    count: int,
    *,
    noise: float = 0.0,
    noise_over: Literal["others", "all"] = "others",
    seed: int = 0,
) -> Int[np.ndarray, "2 E"]:
    r"""Add undirected edges whose far end follows a label distribution of the near end's class.

    For every new edge :math:`i \sim U(V)`, :math:`c \sim D_{y_i}`, :math:`j \sim U(V_c)`; with probability
    :math:`\gamma` the class :math:`c` is uniform instead. Self-loops and edges that exist are drawn again, so that
    exactly ``count`` simple edges are new.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        y: Labels.
        targets: The distributions :math:`D_c`, one a row.
        count: Number of new edges :math:`K`.
        noise: The probability :math:`\gamma`.
        noise_over: Whether the uniform class is one of the ``"others"`` or any (``"all"``).
        seed: Draws the edges.

    Returns:
        ``edge_index`` with both directions of the old and new edges, sorted.

    Raises:
        ValueError: For rows that are no distributions, a class of positive probability without nodes, a probability
            outside [0, 1], a negative count, no room for so many edges, or a directed or bad graph.

    Source: ma2021homophily.
    """
    matrix = require_undirected(_without_loops(graph))
    n = matrix.shape[0]
    y = _labels(y, n)
    targets = np.asarray(targets, dtype=float)
    classes = len(targets)
    require(targets.shape == (classes, classes) and int(y.max()) < classes, "targets [C, C]", targets.shape)
    require_finite("targets", targets)
    require(bool((targets >= 0).all() and np.allclose(targets.sum(1), 1)), "rows that sum to 1", targets.sum(1))
    require(0 <= noise <= 1, "a noise in [0, 1]", noise)
    require(noise_over in ("others", "all"), "noise_over out of others, all", repr(noise_over))
    require(count >= 0, "a count of at least 0", count)
    size = np.bincount(y, minlength=classes)
    uniform = (1 - np.eye(classes)) / (classes - 1) if noise_over == "others" else np.full((classes,) * 2, 1 / classes)
    law = (1 - noise) * targets + noise * uniform
    require(bool((law[np.unique(y)][:, size == 0] == 0).all()), "nodes in every class that is a target", size.tolist())
    edges = matrix.tocoo()
    old = np.unique(np.minimum(edges.row, edges.col).astype(np.int64) * n + np.maximum(edges.row, edges.col))
    require(len(old) + count <= n * (n - 1) // 2, f"room for {count} edges", n * (n - 1) // 2 - len(old))
    rng = np.random.default_rng(seed)
    by_class, start = np.argsort(y, kind="stable"), np.concatenate([[0], np.cumsum(size)])
    cumulative = law.cumsum(1) / law.sum(1, keepdims=True)
    new: np.ndarray = np.empty(0, np.int64)
    for _ in range(1000):
        if len(new) >= count:
            break
        draws = 2 * (count - len(new)) + 16
        i = rng.integers(n, size=draws)
        c = (rng.random(draws)[:, None] >= cumulative[y[i]]).sum(1).clip(max=classes - 1)
        j = by_class[start[c] + (rng.random(draws) * size[c]).astype(np.int64)]
        keys = (np.minimum(i, j) * n + np.maximum(i, j))[i != j]
        keys = keys[~np.isin(keys, old)]
        both = np.concatenate([new, keys])
        _, first = np.unique(both, return_index=True)
        new = both[np.sort(first)][:count]
    require(len(new) == count, f"{count} new edges between the classes", len(new))
    keys = np.concatenate([old, new])
    low, high = keys // n, keys % n
    both = np.unique(np.concatenate([low * n + high, high * n + low]))
    return np.stack([both // n, both % n])


def feature_error(distance: float) -> float:
    r"""Error of the best hyperplane between two unit Gaussians, :math:`\Phi(-\lVert\mu_0 - \mu_1\rVert / 2)`.

    Args:
        distance: Distance of the means, at least 0.

    Raises:
        ValueError: For a negative distance.

    Source: ma2021homophily.
    """
    require(distance >= 0, "a distance of at least 0", distance)
    return float(norm.cdf(-distance / 2))


def aggregated_error(
    degree: int, share: float, distance: float, formula: Literal["paper", "variance", "mixture"] = "mixture"
) -> float:
    r"""Error of the same hyperplane on the mean over the neighbours, in a contextual block model of two classes.

    .. math::
        \text{paper:}\ & \Phi\Bigl(-\tfrac{|2a - 1|}{2} \sqrt D\, \Delta\Bigr) \\
        \text{variance:}\ & \Phi\Bigl(-\tfrac{|2a - 1|}{2} \Delta \sqrt{\tfrac{D}{1 + a (1 - a) \Delta^2}}\Bigr) \\
        \text{mixture:}\ & \sum_{k=0}^{D} \binom{D}{k} a^k (1 - a)^{D - k}\,
            \Phi\Bigl(-s\, \tfrac{2 k - D}{2 D} \sqrt D\, \Delta\Bigr),\quad s = \operatorname{sign}(2 a - 1)

    with degree :math:`D`, share :math:`a` of neighbours expected in a node's own class, and distance :math:`\Delta` of
    the means. The paper's form treats the mix of labels around a node as fixed; in the model it is binomial, which the
    mixture carries exactly and the second form by its variance alone. At :math:`a = 1/2` all give 1/2.

    Args:
        degree: Degree :math:`D`, at least 1.
        share: :math:`a = p / (p + q)`, in [0, 1].
        distance: :math:`\Delta`, at least 0.
        formula: ``"paper"``, ``"variance"`` or ``"mixture"``.

    Raises:
        ValueError: For a degree below 1, a share outside [0, 1], a negative distance, or an unknown formula.

    Source: ma2021homophily, Theorem 2, for the paper's form; the other two correct it.
    """
    require(formula in ("paper", "variance", "mixture"), "a formula out of paper, variance, mixture", repr(formula))
    require(degree >= 1, "a degree of at least 1", degree)
    require(0 <= share <= 1, "a share in [0, 1]", share)
    require(distance >= 0, "a distance of at least 0", distance)
    signal = abs(2 * share - 1) * distance / 2
    if formula == "paper":
        return float(norm.cdf(-signal * degree**0.5))
    if formula == "variance":
        return float(norm.cdf(-signal * (degree / (1 + share * (1 - share) * distance**2)) ** 0.5))
    if share == 0.5:
        return 0.5
    k = np.arange(degree + 1)
    sides = norm.cdf(-np.sign(share - 0.5) * (2 * k - degree) / (2 * degree) * degree**0.5 * distance)
    return float(binom.pmf(k, degree, share) @ sides)


def critical_degree(
    share: float, distance: float, formula: Literal["paper", "variance", "mixture"] = "mixture"
) -> float:
    r"""The degree from which averaging over neighbours helps.

    .. math:: D > \frac{1}{(2 a - 1)^2}\ \text{(paper)},\qquad
        D > \frac{1 + a (1 - a) \Delta^2}{(2 a - 1)^2}\ \text{(variance)}

    Args:
        share: :math:`a = p / (p + q)`, in [0, 1].
        distance: :math:`\Delta`, at least 0.
        formula: As :func:`aggregated_error`; ``"mixture"`` gives the first whole degree from which on the exact error
            is below that of the features.

    Returns:
        The degree; infinite at :math:`a = 1/2`.

    Raises:
        ValueError: As :func:`aggregated_error`.

    Source: ma2021homophily, Theorem 2.
    """
    require(formula in ("paper", "variance", "mixture"), "a formula out of paper, variance, mixture", repr(formula))
    require(0 <= share <= 1, "a share in [0, 1]", share)
    require(distance >= 0, "a distance of at least 0", distance)
    if share == 0.5:
        return float("inf")
    plain = 1 / (2 * share - 1) ** 2
    if formula == "paper":
        return plain
    corrected = plain * (1 + share * (1 - share) * distance**2)
    if formula == "variance":
        return corrected
    bar = feature_error(distance)
    # Odd and even degrees alternate by how ties fall: the first degree after the last that does not help is meant.
    worse = [d for d in range(1, int(3 * corrected) + 12) if aggregated_error(d, share, distance) >= bar]
    return float(max(worse, default=0) + 1)


def sample_aggregated_errors(
    degree: int, share: float, distance: float, nodes: int, *, fixed_mix: bool = False, seed: int = 0
) -> tuple[float, float]:
    """Monte Carlo of both errors: the hyperplane on a node's own features, and on the mean over its neighbours.

    Every node has the given degree; its neighbours' labels are drawn one by one, or with ``fixed_mix`` their mix is
    the expected one. Only the component along the difference of the means enters, the others are independent noise.

    Args:
        degree: Neighbours of every node.
        share: Probability that a neighbour has the node's class.
        distance: Distance of the class means.
        nodes: Number of nodes drawn.
        fixed_mix: Whether exactly ``share * degree`` neighbours, a whole number, have the node's class.
        seed: Draws labels and features.

    Returns:
        Shares of errors on the features and on the neighbourhood's mean.

    Raises:
        ValueError: For no nodes, a degree below 1, a share outside [0, 1], or a mix that is not whole.

    Source: ma2021homophily.
    """
    require(nodes >= 1 and degree >= 1, "at least one node and one neighbour", (nodes, degree))
    require(0 <= share <= 1, "a share in [0, 1]", share)
    rng = np.random.default_rng(seed)
    own = rng.normal(distance / 2, 1.0, nodes)
    if fixed_mix:
        same = round(share * degree)
        require(abs(same - share * degree) < 1e-9, "a whole number of neighbours in each class", share * degree)
        side = np.where(np.arange(degree) < same, 1.0, -1.0)[None, :]
    else:
        side = np.where(rng.random((nodes, degree)) < share, 1.0, -1.0)
    mean = (side * distance / 2 + rng.standard_normal((nodes, degree))).mean(1)
    orientation = 1.0 if share >= 0.5 else -1.0
    return float((own < 0).mean()), float((orientation * mean < 0).mean())
