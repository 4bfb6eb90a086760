"""The trust kernels beside the packages and loops that a user would pick instead."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch_geometric
import torchmetrics
from harness import ROOT, compare, grow, timed
from torch_geometric.explain import Explainer, Explanation, GNNExplainer
from torch_geometric.explain.metric import fidelity as pyg_fidelity
from torchmetrics.functional.classification import multiclass_calibration_error

from netatlas.core.calibration import expected_calibration_error, fit_temperature
from netatlas.core.conformal import adaptive_scores, conformal_quantile, label_scores, prediction_sets
from netatlas.graph_trust import (
    GATS,
    DenseGIN,
    fidelity,
    hop_distances,
    khop_calibration_weights,
    motif_graphs,
    neighbour_edges,
    neighbourhood_quantiles,
    relaxed_stability,
)

PEERS = ROOT / ".bench-venv" / "graph_trust"


def _close(rtol=1e-4, atol=1e-5):
    def agree(a, b):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=rtol, atol=atol)

    return agree


def _calibration():
    generator = torch.Generator().manual_seed(0)
    models, n, classes = 50, 10_000, 10
    logits = 2 * torch.randn(models, n, classes, generator=generator)
    labels = torch.randint(0, classes, (n,), generator=generator)
    p = logits.softmax(-1)
    counts = (5, 10, 15, 20, 25, 50, 100, 200, 500)
    work = f"{models} models, {n} examples, {classes} classes, {len(counts)} bin counts"

    def ours():
        confidence, guess = p.max(-1)
        right = (guess == labels).float()
        return torch.stack([expected_calibration_error(confidence, right, m) for m in counts])

    def metrics():
        return torch.tensor(
            [
                [multiclass_calibration_error(q, labels, classes, n_bins=m, validate_args=False) for q in p]
                for m in counts
            ]
        )

    rows = [
        compare("expected_calibration_error", work, "torchmetrics, a call a model", torchmetrics.__version__,
                lambda: timed(ours), lambda: timed(metrics), _close(1e-3, 1e-5), 5)
    ]  # fmt: skip
    if (PEERS / "netcal").exists():
        sys.path.append(str(PEERS))
        from netcal.metrics import ECE

        few, y = p[:10].double().numpy(), labels.numpy()

        def netcal():
            return [[ECE(m).measure(q, y) for q in few] for m in counts]

        def same():
            confidence, guess = p[:10].double().max(-1)
            right = (guess == labels).double()
            return torch.stack([expected_calibration_error(confidence, right, m) for m in counts])

        rows.append(
            compare("expected_calibration_error", work.replace("50 models", "10 models"), "netcal, a call a model",
                    _version("netcal"), lambda: timed(same), lambda: timed(netcal), _close(1e-3, 1e-3), 3)
        )  # fmt: skip

    # Ten temperatures of one set of answers: members differ by a factor that the fit must undo.
    few_logits = logits[0] * torch.linspace(0.5, 2.0, 10)[:, None, None]
    drawn = torch.multinomial((logits[0] / 1.7).softmax(-1), 1, generator=generator)[:, 0]

    def lbfgs():
        found = []
        for z in few_logits:
            log_t = torch.zeros((), requires_grad=True)
            optimizer = torch.optim.LBFGS([log_t], lr=0.1, max_iter=100, line_search_fn="strong_wolfe")

            def closure(z=z, log_t=log_t, optimizer=optimizer):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(z / log_t.exp(), drawn)
                loss.backward()
                return loss

            optimizer.step(closure)
            found.append(float(log_t.detach().exp()))
        return found

    rows.append(
        compare("fit_temperature", "10 models, 10000 examples, 10 classes", "torch.optim.LBFGS, a model at a time",
                torch.__version__, lambda: timed(lambda: fit_temperature(few_logits, drawn, steps=20)),
                lambda: timed(lbfgs), _close(1e-2, 0), 5)
    )  # fmt: skip
    return rows


def _version(package):
    return next(p.name.split("-")[1].removesuffix(".dist") for p in Path(PEERS).glob(f"{package}-*.dist-info"))


def _conformal():
    if not (PEERS / "mapie").exists():
        return []
    sys.path.append(str(PEERS))
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    rng = np.random.default_rng(0)
    n, classes = 20_000, 10
    p = rng.dirichlet(np.ones(classes), 2 * n)
    y = (p.cumsum(1) > rng.random((2 * n, 1))).argmax(1)

    class Known(ClassifierMixin, BaseEstimator):
        """Features are the probabilities themselves."""

        classes_ = np.arange(classes)

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(1)

        def __sklearn_is_fitted__(self):
            return True

    def theirs():
        model = SplitConformalClassifier(Known(), confidence_level=0.9, conformity_score="lac", prefit=True)
        model.conformalize(p[:n], y[:n])
        return model.predict_set(p[n:])[1][..., 0].sum(1)

    q, labels = torch.from_numpy(p), torch.from_numpy(y)

    def ours():
        scores = 1 - q
        bound = conformal_quantile(label_scores(scores[:n], labels[:n]))
        return prediction_sets(scores[n:], bound).sum(1)

    return [
        compare("conformal_quantile", f"threshold sets, {n} calibration and {n} test rows, {classes} classes", "MAPIE",
                _version("mapie"), lambda: timed(ours), lambda: timed(theirs), _close(0, 0), 5)
    ]  # fmt: skip


def _naps_graph(n):
    rng = np.random.default_rng(0)
    edges = rng.integers(0, n, (2, 3 * n))
    graph = sp.csr_array((np.ones(3 * n), edges), (n, n))
    scores = torch.from_numpy(rng.random(n))
    return graph + graph.T, scores, torch.from_numpy(rng.random(n) < 0.5)


def _naps():
    n = 20_000
    graph, scores, calibration = _naps_graph(n)
    step = sp.csr_array(graph != 0)

    def ours():
        weights = khop_calibration_weights(hop_distances(graph, 2))
        return neighbourhood_quantiles(scores, weights, calibration)

    def loop():
        found, values, kept = np.full(n, np.inf), scores.numpy(), calibration.numpy()
        for v in range(n):
            near = step.indices[step.indptr[v] : step.indptr[v + 1]]
            ball = set(near.tolist())
            for w in near:
                ball.update(step.indices[step.indptr[w] : step.indptr[w + 1]].tolist())
            ball.discard(v)
            own = np.sort(values[[w for w in ball if kept[w]]])
            rank = int(np.ceil(0.9 * (len(own) + 1) - 1e-9))
            if rank <= len(own):
                found[v] = own[rank - 1]
        return found

    return [
        compare("neighbourhood_quantiles", f"{n} nodes, {3 * n} edges, two hops with distances", "a loop over nodes",
                np.__version__, lambda: timed(ours), lambda: timed(loop), _close(0, 0), 3)
    ]  # fmt: skip


class _PyGModel(torch.nn.Module):
    """The dense classifier behind an edge mask, as PyG's explainers call a model."""

    def __init__(self, model, n):
        super().__init__()
        self.model, self.n = model, n

    def forward(self, x, edge_index, edge_weight=None):
        a = torch.zeros(self.n, self.n)
        a[edge_index[0], edge_index[1]] = 1.0 if edge_weight is None else edge_weight
        return self.model(a[None])


def _fidelity():
    graphs = motif_graphs(200)
    torch.manual_seed(0)
    model = DenseGIN(32).eval()
    guess = model(graphs.adjacency).argmax(-1)
    wrapped = _PyGModel(model, 25)
    explainer = Explainer(
        wrapped, GNNExplainer(epochs=1), explanation_type="model", edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "graph", "return_type": "raw"},
    )  # fmt: skip

    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mask = None

        def forward(self, x, edge_index):
            return wrapped(x, edge_index, self.mask)

    def theirs():
        found = []
        inner = Masked()
        explainer.model = inner
        explainer.get_masked_prediction = lambda x, e, node_mask=None, edge_mask=None, **_: _with(
            inner, x, e, edge_mask
        )
        for a, m, y in zip(graphs.adjacency, graphs.motif, guess):
            edge_index = a.nonzero().T
            mask = m[edge_index[0], edge_index[1]].float()
            explanation = Explanation(x=torch.ones(25, 1), edge_index=edge_index, edge_mask=mask,
                                      prediction=wrapped(None, edge_index), target=y[None])  # fmt: skip
            explanation._model_args = []
            found.append(pyg_fidelity(explainer, explanation))
        return np.mean(found, 0)

    def ours():
        # PyG counts changed predictions; the same pair from the same forward passes, by the sign of the margin.
        with torch.no_grad():
            edges = graphs.adjacency
            plus = model(edges * ~graphs.motif).argmax(-1) != guess
            minus = model(edges * graphs.motif).argmax(-1) != guess
            fidelity(model, edges, graphs.motif, guess)
        return float(plus.float().mean()), float(minus.float().mean())

    return [
        compare("fidelity", "200 graphs of 25 nodes, probability and accuracy", "PyG's fidelity, a call a graph",
                torch_geometric.__version__, lambda: timed(ours), lambda: timed(theirs), _close(0, 1e-6), 5)
    ]  # fmt: skip


def _with(inner, x, edge_index, mask):
    inner.mask = mask
    with torch.no_grad():
        found = inner(x, edge_index)
    inner.mask = None
    return found


def _stability():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(30, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(),
                              torch.nn.Linear(32, 1))  # fmt: skip
    points, noise = torch.rand(20, 30), torch.randn(1000, 30)

    def probability(x):
        return net(x)[..., 0].sigmoid()

    def ours():
        x = points.clone().requires_grad_(True)
        return torch.autograd.grad(relaxed_stability(probability, x, noise).sum(), x)[0]

    def loop():
        rows = []
        for point in points:
            x = point.clone().requires_grad_(True)
            here, total = probability(x), 0.0
            for e in noise:
                near = probability(x + 0.1 * e)
                total = total + near - (here - near).abs()
            rows.append(torch.autograd.grad(total / len(noise), x)[0])
        return torch.stack(rows)

    return [
        compare("relaxed_stability", "gradient at 20 points, 1000 draws, 30 features", "a loop over points and draws",
                torch.__version__, lambda: timed(ours), lambda: timed(loop), _close(1e-3, 1e-5), 3)
    ]  # fmt: skip


def rows(_):
    """Comparisons of this file."""
    return _calibration() + _conformal() + _naps() + _fidelity() + _stability()


def growth():
    """Time against size."""

    def quantiles(n):
        graph, scores, calibration = _naps_graph(int(n))
        return lambda: neighbourhood_quantiles(scores, khop_calibration_weights(hop_distances(graph, 2)), calibration)

    def temperatures(n):
        graph = _naps_graph(int(n))[0]
        torch.manual_seed(0)
        model = GATS(7, neighbour_edges(graph))
        prepared = model.prepare(torch.randn(int(n), 7))
        distance = torch.full((int(n),), 2)
        return lambda: model(prepared, distance).sum().backward()

    def scores(n):
        p = torch.rand(int(n), 10, generator=torch.Generator().manual_seed(0)).softmax(-1)
        return lambda: adaptive_scores(p)

    sizes = [1e4, 3e4, 1e5]
    return [
        grow("neighbourhood_quantiles", "nodes (6 neighbours each)", sizes, quantiles, 2),
        grow("GATS step", "nodes (6 neighbours each)", sizes, temperatures, 2),
        grow("adaptive_scores", "rows", sizes, scores),
    ]
