"""The chapter's experiments on graphs: exact checks, data sets under refinement, stars, polynomials, the portrait."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn

from netatlas.core.graph_invariants import (
    ContractionProgram,
    colour_histogram,
    colour_refinement,
    folklore_refinement,
    homomorphism_counts,
    marked_graph,
    subgraph_counts,
)
from netatlas.core.train import fit_many, minimize, stack_members
from netatlas.expressivity.aggregation import (
    IntegerStarGNN,
    StarGNN,
    exact_share_product,
    extrapolate_to_zero,
    polynomial_order,
    ratio_by_relu_steps,
)
from netatlas.expressivity.dense import DenseGNN, UnionGIN, node_features, pack_graphs
from netatlas.expressivity.fingerprints import NeuralFingerprint, molecule_batch
from netatlas.expressivity.matrix_functions import MatrixFunctionNetwork
from netatlas.expressivity.polynomials import (
    PPGN,
    basis_outputs,
    contraction_reducible,
    enumerate_marked_graphs,
    missing_polynomials,
    polynomial_features,
)
from netatlas.expressivity.pooling import GeneralizedNormAggregation
from netatlas.expressivity.wl import accuracy_bound, identifiability, isomorphism_classes


def strongly_regular_pair() -> tuple[nx.Graph, nx.Graph]:
    """The 4 x 4 rook's graph and the Shrikhande graph, both srg(16, 6, 2, 2)."""
    rook = nx.line_graph(nx.complete_bipartite_graph(4, 4))
    cells = list(itertools.product(range(4), repeat=2))
    steps = [(0, 1), (1, 0), (1, 1)]
    shrikhande = nx.Graph((c, ((c[0] + a) % 4, (c[1] + b) % 4)) for c in cells for a, b in steps)
    return nx.convert_node_labels_to_integers(rook), nx.convert_node_labels_to_integers(shrikhande)


def exact_checks() -> dict[str, float]:
    """Kernels whose answer is known; every value is a deviation that must be 0."""
    atlas = [g for g in nx.graph_atlas_g() if len(g) == 6]
    rook, shrikhande = strongly_regular_pair()
    refined = colour_refinement(atlas)
    some = atlas[60:90]
    triangles = subgraph_counts([nx.complete_graph(3)], some)[:, 0]
    walks = homomorphism_counts([nx.cycle_graph(k) for k in (4, 5)], some)
    spectra = [np.linalg.eigvalsh(nx.to_numpy_array(g)) for g in some]
    pair = [folklore_refinement([rook, shrikhande], k).classes() for k in (2, 3)]
    cliques = homomorphism_counts([nx.complete_graph(4)], [rook, shrikhande])[:, 0]
    matrix = torch.randn(1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = marked_graph(nx.complete_graph(4), (0, 1))
    spelled = torch.einsum("zab,zac,zad,zbc,zbd,zcd->zab", *[matrix] * 6)
    return {
        "six-node graphs: 102, 152, 152 classes after 1, 2, 3 rounds": float(
            sum(abs(len(set(refined.classes(t))) - c) for t, c in ((1, 102), (2, 152), (3, 152)))
        ),
        "rook and Shrikhande: one class for 2-FWL, two for 3-FWL": float(
            (len(set(pair[0])) != 1) + (len(set(pair[1])) != 2)
        ),
        "rook and Shrikhande: 192 and 0 homomorphisms of the 4-clique": float(
            (cliques - torch.tensor([192.0, 0.0])).abs().max()
        ),
        "triangles against networkx": max(
            abs(float(t) - sum(nx.triangles(g).values()) / 3) for t, g in zip(triangles, some)
        ),
        "closed walks against powers of the spectrum": max(
            abs(float(w[i]) - float((s**k).sum())) for w, s in zip(walks, spectra) for i, k in enumerate((4, 5))
        ),
        "tensor-network program against the sum over all indices": float(
            (ContractionProgram([graph])(matrix)[0] - spelled).abs().max()
        ),
    }


class SetUnderRefinement(NamedTuple):
    """What colour refinement sees of a labelled set of graphs.

    Attributes:
        graphs: Number of graphs.
        kinds: Number of isomorphism classes.
        identified: Identifiability after each of the asked rounds.
        bound: Accuracy bound after each of them.
        perfect: Accuracy bound of isomorphism classes, which no model passes.
    """

    graphs: int
    kinds: int
    identified: list[float]
    bound: list[float]
    perfect: float


ROUNDS = (0, 1, 2, 3, None)


def refine_set(graphs: Sequence[Any], labels: Sequence[int], *, node_labels: bool = True) -> SetUnderRefinement:
    """Identifiability and accuracy bound of a data set after 0, 1, 2, 3 and all rounds of colour refinement.

    Args:
        graphs: Graphs.
        labels: One a graph.
        node_labels: Whether to use the node features.
    """
    refined = colour_refinement(graphs, node_labels=node_labels)
    kinds = isomorphism_classes(graphs, refined, node_labels=node_labels)
    classes = [refined.classes(t) for t in ROUNDS]
    labels = np.asarray(labels)
    return SetUnderRefinement(
        len(classes[0]),
        int(kinds.max()) + 1,
        [identifiability(c, kinds).share for c in classes],
        [accuracy_bound(c, labels) for c in classes],
        accuracy_bound(kinds, labels),
    )


def atlas_identifiability(sizes: Sequence[int] = (5, 6, 7)) -> dict[int, list[float]]:
    """Identifiability of all graphs of a size, without features, after the rounds of ``ROUNDS``."""
    atlas = nx.graph_atlas_g()
    found = {}
    for n in sizes:
        some = [g for g in atlas if len(g) == n]
        refined = colour_refinement(some)
        found[n] = [identifiability(refined.classes(t), np.arange(len(some))).share for t in ROUNDS]
    return found


def regular_graphs(count: int, seed: int) -> tuple[list[nx.Graph], np.ndarray]:
    """Random 3-regular graphs of 10, 12 and 14 nodes with random labels: what colour refinement cannot tell apart."""
    rng = np.random.default_rng(seed)
    graphs = [nx.random_regular_graph(3, (10, 12, 14)[i % 3], seed=int(rng.integers(1 << 31))) for i in range(count)]
    return graphs, rng.integers(0, 2, count)


class FittedNetworks(NamedTuple):
    """Training accuracies of networks beside the bounds of what they may see.

    Attributes:
        accuracy: Training accuracy of each network, one a seed.
        bound: Bound by colour refinement after as many rounds as the network has layers.
        bag: Bound without message passing.
        perfect: Bound by isomorphism.
    """

    accuracy: dict[str, np.ndarray]
    bound: float
    bag: float
    perfect: float


def fit_to_bound(
    graphs: Sequence[Any], labels: np.ndarray, *, seeds: Sequence[int], steps: int, convs: Sequence[str] = ("gin",),
    rates: Sequence[float] = (3e-3, 1e-2), others: bool = True, width: int = 16,
) -> FittedNetworks:  # fmt: skip
    """Fit networks of three layers, a network on the colour histogram and a bag of features to training labels.

    Full-batch Adam on a cosine schedule; the step size is the better of two by training accuracy on the first seed.

    Args:
        graphs: Graphs, with features or without.
        labels: Labels 0, 1, ...
        seeds: One a run.
        steps: Number of steps.
        convs: Kinds of convolution.
        rates: Step sizes to choose from.
        others: Whether to fit the WL network and the bag of features as well.
        width: Width of the layers.
    """
    packed = pack_graphs(graphs)
    features = packed.shape[2] - packed.shape[1] - 1
    target = torch.as_tensor(np.asarray(labels))
    classes = int(target.max()) + 1
    refined = colour_refinement(graphs, rounds=3)
    histogram = torch.from_numpy(colour_histogram(refined).toarray()).float()
    histogram = histogram / histogram.norm(dim=1, keepdim=True) * histogram.shape[1] ** 0.5 / 8
    columns = histogram.shape[1]
    arms: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        conv.upper(): (lambda conv=conv: DenseGNN(features, classes, conv=conv, width=width), packed) for conv in convs
    }
    if others:
        arms["bag of features"] = (
            lambda: nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, classes)),
            packed[:, :, -features:].sum(1),
        )
        arms["WL network"] = (
            lambda: nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, classes)),
            histogram,
        )
    accuracy = {}
    for name, (build, inputs) in arms.items():
        if name == "GIN":
            train = functools.partial(_fit_union, graphs, build, target, steps)
        else:
            train = functools.partial(_fit_whole, build, inputs, target, steps)
        tried = train([seeds[0]] * len(rates), list(rates))
        best = int(tried.argmax())
        rest = train(list(seeds[1:]), [rates[best]] * len(seeds[1:])) if len(seeds) > 1 else tried[:0]
        accuracy[name] = np.concatenate([tried[best : best + 1], rest])
    kinds = isomorphism_classes(graphs)
    bounds = [accuracy_bound(c, labels) for c in (refined.classes(), refined.classes(0), kinds)]
    return FittedNetworks(accuracy, *bounds)


def _fit_whole(
    build: Callable[[], nn.Module], inputs: Tensor, target: Tensor, steps: int, seeds: list[int], rates: list[float]
) -> np.ndarray:
    """Training accuracies after full-batch Adam."""
    fitted = fit_many(
        build,
        inputs,
        target,
        seeds=seeds,
        lr=rates,
        epochs=steps,
        batch_size=len(target),
        optimizer="adam",
        schedule="cosine",
    )
    return fitted.accuracy(inputs, target).numpy()


def _fit_union(
    graphs: Sequence[Any], build: Callable[[], nn.Module], target: Tensor, steps: int, seeds: list[int],
    rates: list[float],
) -> np.ndarray:  # fmt: skip
    """The same for GIN, on the disjoint union of the graphs."""
    models, x = [], node_features(graphs)
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(UnionGIN(graphs, build()))  # type: ignore[arg-type]
    skeleton, (params, _) = models[0], stack_members(models)
    outputs = torch.func.vmap(lambda p: torch.func.functional_call(skeleton, p, (x,)))

    def loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        return nn.functional.cross_entropy(outputs(p).mT, target.expand(len(seeds), -1), reduction="none").mean(1)

    trained, _ = minimize(loss, params, steps=steps, lr=rates, schedule="cosine")
    with torch.no_grad():
        return (outputs(trained).argmax(-1) == target).double().mean(1).numpy()


class StarObstruction(NamedTuple):
    """Exact checks on stars.

    Attributes:
        share_error: Largest deviation of the ReLU steps from the rounded share, over all pairs tried.
        share_bound: Largest distance of the rounded share from the share, times the number of steps.
        not_polynomial: Sum networks whose far values are no polynomial of the stated degree.
        sum_depends: Sum networks whose polynomial, at n = 0, depends on the leaves' value.
        mean_depends: Mean networks of the same weights whose does.
        networks: Number of networks of each kind.
        product_error: Largest relative error of the exact product of sum and mean.
    """

    share_error: float
    share_bound: float
    not_polynomial: int
    sum_depends: int
    mean_depends: int
    networks: int
    product_error: float


def star_obstruction(networks: int, seed: int, far: int = 10**9) -> StarObstruction:
    """Check the exact statements on sum networks: what they do on finite and cannot do on unbounded domains.

    Args:
        networks: Random networks for each number of layers, 1 to 4.
        seed: Seeds the networks and random counts.
        far: Where no ReLU switches any more.
    """
    rng = np.random.default_rng(seed)
    small = np.array([(a, n - a) for n in range(1, 201) for a in range(n + 1)])
    pairs = torch.from_numpy(np.concatenate([small, rng.integers(1, 10**6, (20_000, 2))])).double()
    error = bound = 0.0
    for steps in (10, 50):
        found = ratio_by_relu_steps(pairs[:, 0], pairs[:, 1], steps)
        floor = torch.div(steps * pairs[:, 0], pairs.sum(1), rounding_mode="floor") / steps
        error = max(error, float((found - floor).abs().max()))
        bound = max(bound, float((pairs[:, 0] / pairs.sum(1) - found).max()) * steps)
    broken, depends = 0, {"sum": 0, "mean": 0}
    for layers, k in itertools.product((1, 2, 3, 4), range(networks)):
        order = 2 + (layers + 1) // 2
        for kind in depends:
            net = IntegerStarGNN(layers, aggregation=kind, seed=int(seed * 1000 + 10 * k + layers))
            count = [far + i for i in range(order + 3)]
            ends = {extrapolate_to_zero(net(count, [c] * len(count)), far) for c in (far, far + 7, far + 30)}
            depends[kind] += len(ends) > 1
            if kind == "sum":
                broken += polynomial_order(net(count, [far + 2 * i for i in range(len(count))])) > order
    product = exact_share_product(pairs[:, 0], pairs[:, 1])
    truth = pairs[:, 0].square() / pairs.sum(1)
    relative = float(((product - truth).abs() / truth.clamp_min(1e-12)).max())
    return StarObstruction(error, bound, broken, depends["sum"], depends["mean"], 4 * networks, relative)


GROWTH = (1, 2, 4, 10)


class StarTraining(NamedTuple):
    """Errors of trained star networks at growing sizes.

    Attributes:
        errors: For each arm the mean relative error at the sizes of ``GROWTH``, ``[sizes, seeds]``.
        additive: For the arms of the finite domain the mean additive error, ``[sizes, seeds]``.
        rates: The step size of each arm.
    """

    errors: dict[str, np.ndarray]
    additive: dict[str, np.ndarray]
    rates: dict[str, float]


def _star_inputs(points: Tensor, coloured: bool) -> Tensor:
    one, zero = torch.ones(len(points)), torch.zeros(len(points))
    if coloured:
        a, b = points.unbind(1)
        return torch.stack([zero, zero, a, one, one, b, one, zero], 1)
    n, c = points.unbind(1)
    return torch.stack([one, zero, n, one, c], 1)


def train_stars(
    seeds: Sequence[int],
    steps: int,
    rates: Sequence[float] = (1e-3, 3e-3),
    *,
    batch_size: int = 32,
    all_arms: bool = False,
) -> StarTraining:
    """Train star networks on small stars and test them on larger ones.

    Uniform stars (n leaves of value c): the target is c, or n c; with n fixed at 8 only c grows. Coloured stars
    (a ones, b zeros): the target is a^2 / (a + b), after three layers. The step size is chosen by the error in range.

    Args:
        seeds: One a run.
        steps: Number of steps.
        rates: Step sizes to choose from.
        batch_size: Stars a step.
        all_arms: Whether to train a sum over the root of the degree and (sum, mean) on coloured stars as well.
    """
    axis = torch.arange(1.0, 17.0)
    grid = torch.cartesian_prod(axis, axis)
    fixed = torch.stack([torch.full((16,), 8.0), axis], 1).repeat(16, 1)
    uniform = {"sum": ("sum",), "mean": ("mean",), "sum and mean": ("sum", "mean")}
    uniform |= {"sum over root of degree": ("sqrt",)} if all_arms else {}
    arms = {name: (kinds, grid, lambda p: p[:, 1], False) for name, kinds in uniform.items()}
    arms["sum, n fixed"] = (("sum",), fixed, lambda p: p[:, 1], False)
    arms["sum, target n c"] = (("sum",), grid, lambda p: p[:, 0] * p[:, 1], False)
    arms["mean, target n c"] = (("mean",), grid, lambda p: p[:, 0] * p[:, 1], False)
    arms["coloured: sum"] = (("sum",), grid, lambda p: p[:, 0].square() / p.sum(1), True)
    if all_arms:
        arms["coloured: sum and mean"] = (("sum", "mean"), grid, lambda p: p[:, 0].square() / p.sum(1), True)
    # Networks of one shape train at once, whichever power of the count their aggregation divides by.
    together: dict[tuple[int, bool], list[str]] = {}
    for name, (kinds, _, _, coloured) in arms.items():
        together.setdefault((len(kinds), coloured), []).append(name)
    errors, additive, chosen = {}, {}, {}
    per_arm = len(rates) * len(seeds)
    for (_, coloured), names in together.items():
        shape = {"layers": 3, "hidden": 1, "width": 16} if coloured else {"layers": 2, "hidden": 2, "width": 32}
        order = iter([arms[name][0] for name in names for _ in range(per_arm)])
        truth = torch.stack([arms[name][2](arms[name][1]) for name in names])
        # Relative errors of uniform stars, additive ones (over the mean) of coloured stars.
        weight = truth.mean(1, keepdim=True).expand_as(truth) if coloured else truth
        inputs = torch.stack([_star_inputs(arms[name][1], coloured) for name in names])
        fitted = fit_many(
            lambda order=order, shape=shape: StarGNN(next(order), features=2, **shape),
            inputs.repeat_interleave(per_arm, 0), torch.stack([truth, weight], 2).repeat_interleave(per_arm, 0),
            seeds=list(seeds) * len(rates) * len(names), lr=[r for r in rates for _ in seeds] * len(names),
            epochs=max(1, steps * batch_size // inputs.shape[1]), batch_size=batch_size, per_member_data=True,
            optimizer="adam", schedule="cosine", loss=lambda o, t: ((o - t[:, 0]) / t[:, 1]).square().mean(),
        )  # fmt: skip
        for i, name in enumerate(names):
            points, target = arms[name][1:3]
            own, gaps = fitted[range(i * per_arm, (i + 1) * per_arm)], []
            for k in GROWTH:
                larger = points * torch.tensor([1.0, k]) if name == "sum, n fixed" else points * k
                aim = target(larger)
                gaps.append((own.predict(_star_inputs(larger, coloured)) - aim).abs() / (1.0 if coloured else aim))
            means = torch.stack(gaps).mean(-1).reshape(len(GROWTH), len(rates), len(seeds)).numpy()
            best = int(means[0].mean(1).argmin())
            (additive if coloured else errors)[name] = means[:, best]
            chosen[name] = rates[best]
    errors = {name: errors[name] for name in arms if name in errors}
    return StarTraining(errors, additive, chosen)


class PolynomialCounts(NamedTuple):
    """How many polynomials there are, and how many are out of reach.

    Attributes:
        listed: Marked graphs with 1 to 6 edges.
        beyond_ppgn: Of them, not contractible by PPGN.
        beyond_mpnn: Of them, not contractible by message passing.
        ranks: Dimension of the span on random matrices, by (degree, outputs), beside the number of polynomials.
    """

    listed: list[int]
    beyond_ppgn: list[int]
    beyond_mpnn: list[int]
    ranks: dict[tuple[int, str], tuple[int, int]]


def count_polynomials(seed: int) -> PolynomialCounts:
    """Enumerate polynomials up to degree 6 and check that those to degree 2 are a basis, on random matrices."""
    graphs = [enumerate_marked_graphs(d) for d in range(1, 7)]
    beyond = [[sum(not contraction_reducible(g, a) for g in some) for some in graphs] for a in ("ppgn", "mpnn")]
    matrices = torch.randn(20, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ranks = {}
    for degree, outputs in itertools.product((1, 2), ("graph", "node", "matrix")):
        table = basis_outputs(matrices, degree, outputs)
        ranks[degree, outputs] = (int(torch.linalg.matrix_rank(table)), table.shape[1])
    return PolynomialCounts([len(g) for g in graphs], beyond[0], beyond[1], ranks)


class CliquesOnRegular(NamedTuple):
    """Learning on strongly regular graphs.

    Attributes:
        kinds: Number of different clique counts in the family.
        spread: Largest relative spread of an untrained network's outputs over the family, for each arm.
        score: R^2 on test graphs of the network with the degree-5 polynomial, one a seed.
        variance_score: The same for the variance over nodes of their clique counts.
        permuted: R^2 with permuted targets.
    """

    kinds: int
    spread: dict[str, np.ndarray]
    score: np.ndarray
    variance_score: np.ndarray
    permuted: np.ndarray


class _WithPairs(nn.Module):
    """PPGN++ on packed graphs with one channel of pair features appended."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = PPGN(1, 1, width=width, blocks=1, depth=1, extra=1, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-2]
        return self.net(x[..., : n + 2], x[..., n + 2 :, None])[..., 0]


def cliques_on_regular(graphs: Sequence[Any], seeds: Sequence[int], epochs: int) -> CliquesOnRegular:
    """Predict numbers of 4-cliques on strongly regular graphs, where PPGN++ is constant whatever its weights.

    Args:
        graphs: Graphs of one family.
        seeds: One a run; they also split the family.
        epochs: Passes over the training graphs.
    """
    packed = pack_graphs(graphs)
    n = packed.shape[1]
    adjacency, double = packed[:, :, :n].double(), packed.double()
    beyond = _missing()
    within = [g for g in enumerate_marked_graphs(5) if contraction_reducible(g)]
    picked = [within[i] for i in np.random.default_rng(seeds[0]).permutation(len(within))[:12]]
    degree_five = [g for g in beyond if len(g.edges) == 5]
    pairs = {
        "PPGN++": None,
        "12 random polynomials within reach": polynomial_features(adjacency, picked),
        "the polynomial of degree 5": polynomial_features(adjacency, degree_five),
    }
    spread = {}
    for name, extra in pairs.items():
        outs = []
        for seed in range(5):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = PPGN(1, 1, width=4, blocks=2, depth=1, extra=0 if extra is None else extra.shape[-1]).double()
            with torch.no_grad():
                out = net(double, extra)[:, 0]
            outs.append(float((out.max() - out.min()) / out.abs().max()))
        spread[name] = np.array(outs)
    m = pairs["the polynomial of degree 5"][..., 0]  # type: ignore[index]
    at_nodes = (adjacency * m).sum(2)
    cliques = homomorphism_counts([nx.complete_graph(4)], graphs)[:, 0]
    targets = torch.stack([cliques, at_nodes.var(1)])
    targets = ((targets - targets.mean(1, keepdim=True)) / targets.std(1, keepdim=True).clamp_min(1e-9)).float()
    channel = ((m - m.mean()) / m.std().clamp_min(1e-9)).float()
    inputs = torch.cat([packed, channel], 2)
    order = torch.stack([torch.randperm(len(graphs), generator=torch.Generator().manual_seed(s)) for s in seeds])
    cut = max(1, 2 * len(graphs) // 3)
    others = [torch.randperm(len(graphs), generator=torch.Generator().manual_seed(1000 + s)) for s in seeds]
    shuffled = torch.stack([targets[0][o] for o in others])
    aims = torch.cat([targets[0].expand(len(seeds), -1), targets[1].expand(len(seeds), -1), shuffled])
    rows = order.repeat(3, 1)
    picked_aims = aims.gather(1, rows)
    fitted = fit_many(
        lambda: _WithPairs(8), inputs[rows[:, :cut]], picked_aims[:, :cut], seeds=list(seeds) * 3, epochs=epochs,
        batch_size=20, optimizer="adam", lr=1e-2, schedule="cosine", loss="mse", per_member_data=True,
    )  # fmt: skip
    guess = fitted.predict(inputs[rows[:, cut:]], per_member_data=True)
    aim = picked_aims[:, cut:]
    spare = aim.var(1, correction=0).clamp_min(1e-6)
    score = (1 - (guess - aim).square().mean(1) / spare).double().numpy().reshape(3, -1)
    return CliquesOnRegular(len(cliques.unique()), spread, score[0], score[1], score[2])


def residual_counts(count: int, seed: int) -> tuple[list[nx.Graph], Tensor]:
    """Random graphs of 8 to 12 nodes with their triangles and 4-cycles, what nodes and edges explain regressed out.

    Args:
        count: Number of graphs, half of them uniform and half by preferential attachment.
        seed: Seeds the graphs.

    Returns:
        The graphs, and standardised residuals ``[count, 2]``.
    """
    rng = np.random.default_rng(seed)
    graphs = []
    for i in range(count):
        n, own = int(rng.integers(8, 13)), int(rng.integers(1 << 31))
        graphs.append(nx.gnp_random_graph(n, 0.4, seed=own) if i % 2 else nx.barabasi_albert_graph(n, 3, seed=own))
    counts = subgraph_counts([nx.cycle_graph(3), nx.cycle_graph(4)], graphs)
    n = torch.tensor([float(len(g)) for g in graphs]).double()
    e = torch.tensor([float(g.number_of_edges()) for g in graphs]).double()
    basis = torch.stack([torch.ones_like(n), n, e, n * e, n * n, e * e], 1)
    basis = basis / basis.norm(dim=0)
    rest = counts - basis @ torch.linalg.lstsq(basis, counts).solution
    return graphs, ((rest - rest.mean(0)) / rest.std(0)).float()


def learn_counts(
    seeds: Sequence[int], count: int, epochs: int, rates: Sequence[float] = (3e-3, 1e-2), *, draw: int = 0,
    models: Sequence[str] = ("GIN", "PPGN", "PPGN++"),
) -> dict[str, np.ndarray]:  # fmt: skip
    """R^2 on test graphs of GIN, PPGN and PPGN++ on residual counts of triangles and 4-cycles.

    Args:
        seeds: One a run.
        count: Number of graphs; half train, a quarter chooses the step size, a quarter tests.
        epochs: Passes over the training graphs.
        rates: Step sizes to choose from.
        draw: Seeds the graphs.
        models: Which models to train.

    Returns:
        For each model ``[2, seeds]``: triangles and 4-cycles.
    """
    graphs, targets = residual_counts(count, draw)
    packed = pack_graphs(graphs)
    arms = {
        "GIN": lambda: DenseGNN(1, 2, width=16, layers=3, head=[16]),
        "PPGN": lambda: PPGN(1, 2, transpose=False, norm=True),
        "PPGN++": lambda: PPGN(1, 2, norm=True),
    }
    a, b = count // 2, 3 * count // 4
    found = {}
    for name, build in ((name, arms[name]) for name in models):
        fitted = fit_many(
            build, packed[:a], targets[:a], seeds=list(seeds) * len(rates), lr=[r for r in rates for _ in seeds],
            epochs=epochs, batch_size=25, optimizer="adam", schedule="cosine", loss="mse",
        )  # fmt: skip
        scores = []
        for part in (slice(a, b), slice(b, count)):
            error = (fitted.predict(packed[part]) - targets[part]).square().mean(1)
            scores.append((1 - error / targets[part].var(0, correction=0)).reshape(len(rates), len(seeds), 2))
        best = int(scores[0].mean((1, 2)).argmax())
        found[name] = scores[1][best].double().numpy().T
    return found


THEORY = {
    "colour refinement (1-WL)": "none",
    "GIN": "none",
    "GCN": "none",
    "neural fingerprint": "none",
    "generalised norm pooling": "none",
    "matrix function network": "within 2-FWL",
    "PPGN++": "within 2-FWL",
    "PPGN++ and 12 polynomials": "beyond 2-FWL",
    "2-FWL": "2-FWL",
    "homomorphism counts": "beyond 2-FWL",
    "3-FWL": "beyond 2-FWL",
}
PATTERNS = tuple(
    [nx.path_graph(k) for k in (2, 3, 4)] + [nx.cycle_graph(k) for k in (3, 4, 5, 6)] + [nx.complete_graph(4)]
)


class GNPNetwork(nn.Module):
    """GIN whose readout is a generalised norm pooling of the nodes' positive states."""

    def __init__(self, features: int, outputs: int, width: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.body = DenseGNN(features, outputs, width=width, layers=layers, norm=False)
        self.pool = GeneralizedNormAggregation(width, p=1.5, q=0.5)
        self.read = nn.Linear(width, outputs)

    def forward(self, packed: Tensor) -> Tensor:
        """Outputs of packed graphs."""
        n = packed.shape[-2]
        adjacency, mask, h = packed[..., :n], packed[..., n], packed[..., n + 1 :]
        for conv in self.body.convs:
            h = torch.relu(conv(adjacency, mask, h))
        return self.read(self.pool.pool(h, mask))


class Separation(NamedTuple):
    """Pairs of graphs told apart.

    Attributes:
        count: Pairs told apart, by model and category.
        tried: Pairs that were tried, likewise.
        pairs: Pairs of each category that were drawn.
        outside: Pairs told apart that theory says cannot be.
        false: Pairs of a graph and a renumbered copy told apart.
    """

    count: dict[str, dict[str, int]]
    tried: dict[str, dict[str, int]]
    pairs: dict[str, int]
    outside: dict[str, int]
    false: dict[str, int]


def separate_pairs(
    categories: Mapping[str, Sequence[tuple[Any, Any]]], *, each: Mapping[str, int] | None = None, largest_triple: int,
    copies: int, seed: int, tolerance: float = 1e-9,
) -> Separation:  # fmt: skip
    """Tell pairs of graphs apart by refinements, counts, and networks with random weights in double precision.

    A network separates a pair if its outputs differ by more than ``tolerance`` relative to their size for either of two
    draws of weights. Control: the first pairs' first graphs beside renumbered copies of themselves.

    Args:
        categories: Pairs by category.
        each: At most so many pairs of a category, drawn at random; default, and for categories not named: all.
        largest_triple: Leave out pairs of more nodes for 3-FWL.
        copies: Number of renumbered copies for each category.
        seed: Seeds the draw of pairs, weights and numberings.
        tolerance: What counts as different.
    """
    count: dict[str, dict[str, int]] = {name: {} for name in THEORY}
    tried: dict[str, dict[str, int]] = {name: {} for name in THEORY}
    outside, false, drawn = dict.fromkeys(THEORY, 0), dict.fromkeys(THEORY, 0), {}
    for category, pairs in categories.items():
        rng = np.random.default_rng(seed)
        picked = rng.permutation(len(pairs))[: (each or {}).get(category, len(pairs))]
        chosen = [pairs[i] for i in sorted(picked)]
        drawn[category] = len(chosen)
        twins = [(p[0], _renumbered(p[0], rng)) for p in chosen[:copies]]
        told = _tell_apart([*chosen, *twins], seed, tolerance, largest_triple)
        for name, kind in THEORY.items():
            own, copied = told[name][: len(chosen)], told[name][len(chosen) :]
            count[name][category], tried[name][category] = int((own == 1).sum()), int((own >= 0).sum())
            forbidden = (kind == "none") | ((kind == "within 2-FWL") & (told["2-FWL"][: len(chosen)] == 0))
            outside[name] += int(((own == 1) & forbidden).sum())
            false[name] += int((copied == 1).sum())
    return Separation(count, tried, drawn, outside, false)


def _renumbered(graph: Any, rng: np.random.Generator) -> Any:
    place = torch.from_numpy(rng.permutation(graph.num_nodes))
    copy = graph.clone()
    copy.edge_index = place[graph.edge_index]
    return copy


@functools.lru_cache(maxsize=4)
def _networks(seed: int) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found: dict[str, nn.Module] = {
            "GIN": DenseGNN(1, 4, width=16, layers=4, norm=False),
            "GCN": DenseGNN(1, 4, conv="gcn", width=16, layers=4, norm=False),
            "generalised norm pooling": GNPNetwork(1, 4),
            "matrix function network": MatrixFunctionNetwork(1, 4, layers=1, channels=1, poles=4),
            "PPGN++": PPGN(1, 4, width=8, blocks=3, depth=1),
            "PPGN++ and 12 polynomials": PPGN(1, 4, width=8, blocks=1, depth=1, extra=12),
        }
        return {name: net.double().eval() for name, net in found.items()}


def _apart(values: Tensor, tolerance: float) -> np.ndarray:
    """Whether the two rows of each pair differ by more than a share of their largest entry."""
    first, second = values.unflatten(0, (-1, 2)).unbind(1)
    size = torch.maximum(first.abs(), second.abs()).amax(1).clamp_min(1e-12)
    return ((first - second).abs().amax(1) > tolerance * size).numpy()


@torch.no_grad()
def _tell_apart(
    pairs: Sequence[tuple[Any, Any]], seed: int, tolerance: float, largest_triple: int
) -> dict[str, np.ndarray]:
    """For each model 1 where it tells a pair apart, 0 where not, -1 where it was not run; equal sizes as one batch."""
    told = {name: np.zeros(len(pairs), dtype=int) for name in THEORY}
    sizes = np.array([max(g.num_nodes for g in pair) for pair in pairs])
    for n in np.unique(sizes):
        rows = np.flatnonzero(sizes == n)
        graphs = [g for i in rows for g in pairs[i]]
        for name, refined in (
            ("colour refinement (1-WL)", colour_refinement(graphs)),
            ("2-FWL", folklore_refinement(graphs, 2)),
        ):
            first, second = refined.classes().reshape(-1, 2).T
            told[name][rows] = first != second
        for i in rows:
            if n > largest_triple:
                told["3-FWL"][i] = -1
            else:
                told["3-FWL"][i] = len(set(folklore_refinement(pairs[i], 3, until_apart=True).classes())) - 1
        told["homomorphism counts"][rows] = _apart(homomorphism_counts(PATTERNS, graphs), 0.0)
        packed = pack_graphs(graphs).double()
        polynomials = polynomial_features(packed[:, :, :n], _missing())
        degree = max(1, int(packed[:, :, :n].sum(2).max()))
        batch = _degree_batch(graphs, degree)
        for draw in range(2):
            outputs = {
                name: net(packed, polynomials) if name.endswith("polynomials") else net(packed)
                for name, net in _networks(seed + draw).items()
            }
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + draw)
                fingerprint = NeuralFingerprint(
                    1, 0, radius=3, width=8, size=16, max_degree=degree, norm=False, activation="tanh"
                ).double()
            outputs["neural fingerprint"] = fingerprint(batch)
            for name, out in outputs.items():
                told[name][rows] |= _apart(out, tolerance)
    return told


@functools.lru_cache(maxsize=1)
def _missing() -> tuple[Any, ...]:
    return tuple(missing_polynomials())


def _degree_batch(graphs: Sequence[Any], largest: int) -> Any:
    from torch_geometric.data import Data

    plain = [Data(x=torch.ones(g.num_nodes, 1), edge_index=g.edge_index, num_nodes=g.num_nodes) for g in graphs]
    return molecule_batch(plain, max_degree=largest)


class ModelScore(NamedTuple):
    """One model of the portrait.

    Attributes:
        accuracy: Test accuracy, one a fold.
        seconds: Seconds to compute its outputs for the whole set, a time that differs from run to run.
    """

    accuracy: np.ndarray
    seconds: float


def portrait_scores(
    graphs: Sequence[Any], labels: Sequence[int], seed: int, *, folds: int, epochs: int
) -> dict[str, ModelScore]:
    """Test accuracy and cost of all models on one labelled set of graphs, each with its better step size or penalty.

    A tenth of the training part chooses between two step sizes (networks) or five penalties (ridge on invariants).
    ``"larger class"`` always answers with the class that is larger in the training part.

    Args:
        graphs: Graphs with node features.
        labels: Labels 0, 1, ...
        seed: Seeds folds and weights.
        folds: Number of folds, out of ten.
        epochs: Passes over the training part.
    """
    import time

    packed, target = pack_graphs(graphs), torch.as_tensor(np.asarray(labels))
    features, classes = packed.shape[2] - packed.shape[1] - 1, int(target.max()) + 1
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))
    parts = [(torch.cat([order[: k * len(order) // 10], order[(k + 1) * len(order) // 10 :]]),
              order[k * len(order) // 10 : (k + 1) * len(order) // 10]) for k in range(folds)]  # fmt: skip
    guess = [float((target[b] == target[a].bincount().argmax()).double().mean()) for a, b in parts]
    found = {"larger class": ModelScore(np.array(guess), 0.0)}
    arms: dict[str, Callable[[], nn.Module]] = {
        "bag of features": lambda: DenseGNN(features, classes, layers=0, head=[32]),
        "GIN": lambda: DenseGNN(features, classes, width=16, norm=False, head=[32]),
        "GCN": lambda: DenseGNN(features, classes, conv="gcn", width=16, norm=False, head=[32]),
        "generalised norm pooling": lambda: GNPNetwork(features, classes),
        "matrix function network": lambda: MatrixFunctionNetwork(features, classes, channels=1, poles=2),
        "PPGN++": lambda: PPGN(features, classes, width=8, blocks=2, depth=1),
    }
    for name, build in arms.items():
        scores = []
        rates = (3e-3, 1e-2)
        cut = [len(a) * 9 // 10 for a, _ in parts]
        size = min(cut)
        rows = torch.stack([a[:size] for a, _ in parts]).repeat_interleave(len(rates), 0)
        fitted = fit_many(
            build, packed[rows], target[rows], seeds=[seed + k for k in range(folds) for _ in rates],
            lr=list(rates) * folds, epochs=epochs, batch_size=8, optimizer="adam", schedule="cosine",
            per_member_data=True, clip_norm=5.0,
        )  # fmt: skip
        for k, (a, b) in enumerate(parts):
            own = fitted[range(k * len(rates), (k + 1) * len(rates))]
            best = int(own.accuracy(packed[a[size:]], target[a[size:]]).argmax())
            scores.append(float(own.accuracy(packed[b], target[b])[best]))
        member = fitted.member(0)
        start = time.perf_counter()
        with torch.no_grad():
            member(packed)
        found[name] = ModelScore(np.array(scores), time.perf_counter() - start)
    invariants: dict[str, Callable[[], Tensor]] = {
        "WL histogram, ridge": lambda: torch.from_numpy(
            colour_histogram(colour_refinement(graphs, rounds=3)).toarray()
        ),
        "homomorphism counts, ridge": lambda: torch.cat(
            [homomorphism_counts(PATTERNS, graphs).log1p(), packed[:, :, packed.shape[1] + 1 :].sum(1).double()], 1
        ),
    }
    for name, compute in invariants.items():
        start = time.perf_counter()
        table = compute()
        seconds = time.perf_counter() - start
        found[name] = ModelScore(np.array([_ridge_accuracy(table, target, a, b) for a, b in parts]), seconds)
    return found


def _ridge_accuracy(table: Tensor, target: Tensor, train: Tensor, test: Tensor) -> float:
    """Test accuracy of ridge regression on one-hot labels, the penalty chosen on a tenth of the training part."""
    onehot = nn.functional.one_hot(target).double()
    scale = table[train].std(0) + 1e-9 if table.shape[1] < 100 else torch.ones(table.shape[1]).double()
    z = (table - table[train].mean(0)) / scale

    def predict(fit: Tensor, to: Tensor, penalty: float) -> Tensor:
        gram = z[fit] @ z[fit].T
        ridge = penalty * gram.diagonal().mean() * torch.eye(len(fit)).double()
        return z[to] @ (z[fit].T @ torch.linalg.solve(gram + ridge, onehot[fit] - onehot[fit].mean(0))) + onehot[
            fit
        ].mean(0)

    cut = len(train) * 9 // 10
    scores = {}
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        guess = predict(train[:cut], train[cut:], penalty)
        scores[penalty] = float((guess.argmax(1) == target[train[cut:]]).double().mean())
    best = max(scores, key=lambda p: (scores[p], p))
    return float((predict(train, test, best).argmax(1) == target[test]).double().mean())
