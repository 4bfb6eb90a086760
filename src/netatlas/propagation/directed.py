"""Directed graphs: models that keep the direction of edges, their undirected twins, and when to use which."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data

from netatlas.core.checks import require
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import directed_adjacency, magnetic_laplacian, require_undirected, symmetrized
from netatlas.core.message_passing import SparseOperator


def cyclic_flow_graph(
    classes: int,
    nodes: int,
    forward: float,
    *,
    mean_degree: float = 10.0,
    features: int = 8,
    signal: float = 0.5,
    seed: int = 0,
) -> Data:
    r"""A block model in which direction may carry the class: edges run around a cycle of classes.

    Edges join nodes of one class or of cyclically neighbouring classes, all with one probability. Between classes
    :math:`c` and :math:`c + 1` an edge points forward with probability :math:`\beta`; inside a class either way with
    probability 1/2. At :math:`\beta = 1/2` direction is independent of the classes.

    Args:
        classes: Number of classes, at least 3.
        nodes: Number of nodes, shared out equally.
        forward: :math:`\beta`, in [0, 1].
        mean_degree: Expected number of edges of a node, both directions counted.
        features: Number of features.
        signal: Standard deviation of the class means; the noise has 1.
        seed: Draws the graph.

    Returns:
        ``edge_index`` with one direction of each edge, ``x``, ``y``.

    Raises:
        ValueError: For fewer than 3 classes, a probability outside [0, 1], or a degree that does not fit.

    Source: sun2024directed (our test of its claim).
    """
    require(classes >= 3 and nodes >= 2 * classes, "3 classes or more of 2 nodes or more", (classes, nodes))
    require(0 <= forward <= 1, "a probability in [0, 1]", forward)
    rng = np.random.default_rng(seed)
    y = np.arange(nodes) % classes
    chance = mean_degree / (3 * nodes / classes)
    require(0 < chance <= 1, "a mean degree between 0 and that of all admitted pairs", mean_degree)
    u, v = np.triu_indices(nodes, 1)
    step = (y[v] - y[u]) % classes
    kept = np.isin(step, (0, 1, classes - 1)) & (rng.random(len(u)) < chance)
    u, v, step = u[kept], v[kept], step[kept]
    along = rng.random(len(u)) < np.select([step == 1, step == classes - 1], [forward, 1 - forward], 0.5)
    edges = np.where(along, np.stack([u, v]), np.stack([v, u]))
    edges = edges[:, np.lexsort(edges[::-1])]
    means = signal * rng.standard_normal((classes, features))
    x = means[y] + rng.standard_normal((nodes, features))
    return Data(
        x=torch.from_numpy(x).float(), y=torch.from_numpy(y), edge_index=torch.from_numpy(edges), num_nodes=nodes
    )


def shuffled_directions(graph: Any, *, seed: int = 0) -> sp.csr_array:
    """The same edges with each direction drawn anew; pairs joined both ways stay so.

    Args:
        graph: Directed; any graph that :func:`netatlas.core.graph.as_csr` takes. Weights are ignored.
        seed: Draws the directions.

    Raises:
        ValueError: For a bad graph.

    Source: sun2024directed (a control).
    """
    matrix = as_csr(graph)
    pattern = sp.csr_array((matrix > 0).astype(float))
    both = sp.csr_array(pattern.multiply(pattern.T))
    single = sp.coo_array(pattern - both)
    single.eliminate_zeros()
    turn = np.random.default_rng(seed).random(single.nnz) < 0.5
    row, column = np.where(turn, single.col, single.row), np.where(turn, single.row, single.col)
    return as_csr(sp.csr_array((np.ones(len(row)), (row, column)), shape=matrix.shape) + both)


class DirectedGCN(nn.Module):
    r"""Message passing with weights of their own for out-neighbours, in-neighbours and the node itself.

    .. math:: x \leftarrow \sigma\bigl(\alpha\, S_{\text{in}} (x W_{\text{in}} + b_{\text{in}})
        + (1 - \alpha)\, S_{\text{out}} (x W_{\text{out}} + b_{\text{out}}) + x W_{\text{self}} + b\bigr)

    Args:
        widths: Features, hidden widths, classes.
        out: Operator that gathers from out-neighbours.
        into: Operator that gathers from in-neighbours; the twin without direction has one operator in both places.
        balance: :math:`\alpha`.
        dropout: Share of entries dropped before every layer.

    Raises:
        ValueError: For fewer than two widths, or a balance outside [0, 1].

    Source: sun2024directed (a survey), after Dir-GNN, arXiv:2305.10498.
    """

    def __init__(
        self,
        widths: list[int],
        out: SparseOperator,
        into: SparseOperator,
        *,
        balance: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(len(widths) >= 2 and min(widths) >= 1, "two or more widths of at least 1", widths)
        require(0 <= balance <= 1, "a balance in [0, 1]", balance)
        self.out, self.into, self.balance, self.dropout = out, into, balance, dropout
        self.layers = nn.ModuleList(nn.Linear(a, 3 * b) for a, b in zip(widths, widths[1:]))
        for layer in self.layers:
            for block in layer.weight.data.chunk(3):
                nn.init.xavier_uniform_(block)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Logits of every node."""
        for depth, layer in enumerate(self.layers):
            x = nn.functional.dropout(x, self.dropout, self.training)
            own, out, into = layer(x).chunk(3, -1)
            x = own + (1 - self.balance) * self.out(out) + self.balance * self.into(into)
            if depth + 1 < len(self.layers):
                x = torch.relu(x)
        return x


class MagNet(nn.Module):
    r"""Spectral convolution with the magnetic Laplacian, first order, complex features.

    .. math:: X \leftarrow \sigma\bigl(X W_0 + b_0 + (L^{(q)} - I) (X W_1 + b_1)\bigr), \qquad
        \text{logits} = [\operatorname{Re} X \,\Vert\, \operatorname{Im} X]\, W + c

    where :math:`\sigma` keeps an entry if its real part is not negative. :math:`L^{(q)} - I` is the Laplacian with its
    spectrum moved to [-1, 1].

    Args:
        widths: Features, hidden widths, classes.
        operator: :math:`L^{(q)} - I` as a complex operator, from :func:`magnetic_operator`.
        dropout: Share of entries dropped before the last layer.

    Raises:
        ValueError: For fewer than three widths.

    Source: sun2024directed (a survey), after MagNet, arXiv:2102.11391.
    """

    def __init__(self, widths: list[int], operator: SparseOperator, *, dropout: float = 0.0) -> None:
        super().__init__()
        require(len(widths) >= 3 and min(widths) >= 1, "three or more widths of at least 1", widths)
        self.operator, self.dropout = operator, dropout
        self.layers = nn.ModuleList(nn.Linear(a, 2 * b) for a, b in zip(widths, widths[1:-1]))
        self.head = nn.Linear(2 * widths[-2], widths[-1])

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Logits of every node."""
        real, imaginary = x, torch.zeros_like(x)
        for layer in self.layers:
            own_r, far_r = layer(real).chunk(2, -1)
            own_i, far_i = (imaginary @ layer.weight.T).chunk(2, -1)
            moved = self.operator(torch.complex(far_r, far_i))
            real, imaginary = own_r + moved.real, own_i + moved.imag
            open_ = (real >= 0).to(real.dtype)
            real, imaginary = real * open_, imaginary * open_
        both = torch.cat([real, imaginary], -1)
        return self.head(nn.functional.dropout(both, self.dropout, self.training))


def magnetic_operator(graph: Any, charge: float = 0.25) -> SparseOperator:
    r"""The operator :math:`L^{(q)} - I` of :class:`MagNet`.

    Args:
        graph: Directed; any graph that :func:`netatlas.core.graph.as_csr` takes.
        charge: :math:`q`; 0 forgets direction.

    Raises:
        ValueError: As :func:`netatlas.core.graph_operators.magnetic_laplacian`.

    Source: sun2024directed (a survey), after MagNet, arXiv:2102.11391.
    """
    matrix = magnetic_laplacian(graph, charge)
    return SparseOperator(sp.csr_array(matrix - sp.eye_array(matrix.shape[0], dtype=complex)))


def direction_operators(graph: Any, *, directed: bool = True) -> tuple[SparseOperator, SparseOperator]:
    """Operators from out- and in-neighbours for :class:`DirectedGCN`, or for its twin without direction.

    Args:
        graph: Directed; any graph that :func:`netatlas.core.graph.as_csr` takes.
        directed: Whether to keep direction; else both are the symmetrised graph's.

    Raises:
        ValueError: For a bad graph.

    Source: sun2024directed.
    """
    matrix = as_csr(graph) if directed else symmetrized(graph)
    step = directed_adjacency(matrix)
    return SparseOperator(step), SparseOperator(step.T)


class TwoHopGCN(nn.Module):
    r"""Message passing along four patterns of two directed hops beside the node itself.

    .. math:: x \leftarrow \sigma\Bigl(x W_0 + b_0 + \tfrac14 \sum_{P} S_P (x W_P + b_P)\Bigr), \qquad
        P \in \{A A,\ A A^\top,\ A^\top A,\ A^\top A^\top\}

    with normalised one-hop operators; the twin without direction has the symmetrised graph's in all places.

    Args:
        widths: Features, hidden widths, classes.
        out: Operator that gathers from out-neighbours.
        into: Operator that gathers from in-neighbours.

    Raises:
        ValueError: For fewer than two widths.

    Source: sun2024directed (a survey): two-order proximities.
    """

    def __init__(self, widths: list[int], out: SparseOperator, into: SparseOperator) -> None:
        super().__init__()
        require(len(widths) >= 2 and min(widths) >= 1, "two or more widths of at least 1", widths)
        self.out, self.into = out, into
        self.layers = nn.ModuleList(nn.Linear(a, 5 * b) for a, b in zip(widths, widths[1:]))
        for layer in self.layers:
            for block in layer.weight.data.chunk(5):
                nn.init.xavier_uniform_(block)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Logits of every node."""
        for depth, layer in enumerate(self.layers):
            own, oo, oi, io, ii = layer(x).chunk(5, -1)
            x = own + 0.25 * (self.out(self.out(oo) + self.into(oi)) + self.into(self.out(io) + self.into(ii)))
            if depth + 1 < len(self.layers):
                x = torch.relu(x)
        return x


class DirectionScore(NamedTuple):
    """What a graph's labels say about its direction.

    Attributes:
        scores: Cross-validated fit of the training labels, by operator.
        advantage: Best score of a directed operator minus the best of an undirected one.
        use_direction: Whether the advantage exceeds the threshold.
    """

    scores: dict[str, float]
    advantage: float
    use_direction: bool


def direction_score(
    graph: Any,
    y: Int[Tensor, " n"],
    train: Bool[Tensor, " n"],
    *,
    threshold: float = 0.02,
    folds: int = 5,
    ridge: float = 1.0,
    seed: int = 0,
) -> DirectionScore:
    r"""Decide from training labels alone whether to keep the direction of edges.

    For each group of operators :math:`M`, the labels of training nodes are predicted by ridge regression from those
    of *other* training nodes that they reach, :math:`z_i = \sum_j M_{ij}\, \mathbf 1_{y_j}` over training
    :math:`j \ne i` outside of :math:`i`'s fold. The score is the explained variance over the held-out folds,
    :math:`1 - \sum \lVert Y - \hat Y \rVert^2 / \sum \lVert Y - \bar Y \rVert^2`. Undirected groups are
    :math:`[A_u]` and :math:`[A_u, A_u A_u]`; directed ones :math:`[A, A^\top]`, and that pair with
    :math:`[A A, A^\top A^\top]` or with :math:`[A A^\top, A^\top A]`, all with rows that sum to one.

    Args:
        graph: Directed; any graph that :func:`netatlas.core.graph.as_csr` takes.
        y: Labels.
        train: Training nodes; no other label is read.
        threshold: Advantage from which direction is used.
        folds: Folds of the cross-validation.
        ridge: Ridge penalty.
        seed: Draws the folds.

    Raises:
        ValueError: For fewer training nodes than folds, fewer than two folds or one class.

    Source: sun2024directed asks for such a statistic; this one is ours, in the spirit of AMUD.
    """
    matrix = sp.csr_array((as_csr(graph) > 0).astype(float))
    labels, chosen = np.asarray(y), np.flatnonzero(np.asarray(train))
    require(len(labels) == matrix.shape[0], f"{matrix.shape[0]} labels", len(labels))
    require(folds >= 2 and len(chosen) >= folds, f"at least {folds} training nodes in two folds or more", len(chosen))
    classes = np.unique(labels[chosen])
    require(len(classes) >= 2, "at least two classes among the training nodes", len(classes))
    undirected = symmetrized(matrix)
    out, into, both = (normalized_adjacency(m, "row") for m in (matrix, matrix.T, undirected))
    groups = {
        "undirected, one hop": [both],
        "undirected, two hops": [both, both @ both],
        "out and in": [out, into],
        "out-out and in-in": [out, into, out @ out, into @ into],
        "out-in and in-out": [out, into, out @ into, into @ out],
    }
    target = (labels[chosen, None] == classes).astype(float)
    fold = np.random.default_rng(seed).permutation(len(chosen)) % folds
    scores = {}
    for name, operators in groups.items():
        blocks = [m[chosen][:, chosen] for m in operators]
        # A node must not see its own label, nor through another node those of its fold.
        blocks = [sp.csr_array(b - sp.diags_array(b.diagonal())) for b in blocks]
        error = total = 0.0
        for k in range(folds):
            held = fold == k
            shown = target * ~held[:, None]
            z = np.concatenate([b @ shown for b in blocks] + [np.ones((len(chosen), 1))], axis=1)
            gram = z[~held].T @ z[~held] + ridge * np.diag(np.r_[np.ones(z.shape[1] - 1), 1e-9])
            guess = z[held] @ np.linalg.solve(gram, z[~held].T @ target[~held])
            error += np.square(target[held] - guess).sum()
            total += np.square(target[held] - target[~held].mean(0)).sum()
        scores[name] = float(1 - error / total)
    flat = max(v for k, v in scores.items() if k.startswith("undirected"))
    advantage = max(v for k, v in scores.items() if not k.startswith("undirected")) - flat
    return DirectionScore(scores, advantage, advantage > threshold)


def randomly_oriented(graph: Any, *, seed: int = 0) -> sp.csr_array:
    """An undirected graph whose edges each get one random direction: a graph on which direction means nothing.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        seed: Draws the directions.

    Raises:
        ValueError: For a directed or bad graph.

    Source: sun2024directed (a control).
    """
    upper = sp.triu(require_undirected(as_csr(graph)), 1).tocoo()
    turn = np.random.default_rng(seed).random(upper.nnz) < 0.5
    row, column = np.where(turn, upper.col, upper.row), np.where(turn, upper.row, upper.col)
    return as_csr(sp.csr_array((np.ones(upper.nnz), (row, column)), shape=upper.shape))
