"""Node-feature corpora and the closed form that their embeddings factorise."""

import numpy as np
import pytest
from scipy.optimize import minimize

from netatlas.embeddings import (
    attributed_embedding,
    attributed_sbm,
    empirical_pmi,
    fit_nodes,
    hub_attributed_graph,
    musae,
    node_feature_counts,
    node_feature_pmi,
    pmi_factors,
    stationary_starts,
    uniform_walks,
)


@pytest.fixture(scope="module")
def graph():
    return attributed_sbm(blocks=3, size=30, pool=5, seed=0)


@pytest.fixture(scope="module")
def walks(graph):
    return uniform_walks(graph, starts=stationary_starts(graph, 4000, seed=0), length=60, seed=0)


def test_counts_against_brute_force():
    walks, features = np.array([[0, 1, 2, 0], [2, 1, -1, -1]]), np.array([[1, 0], [1, 1], [0, 1]])
    expected = np.zeros((3, 2))
    for v, u in [(0, 2), (1, 0)]:
        expected[v] += features[u]
        expected[u] += features[v]
    assert (node_feature_counts(walks, features, 2) == expected).all()


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_corpus_converges_to_the_closed_form(graph, walks, scale):
    counts = node_feature_counts(walks, graph.x.numpy(), scale)
    often = counts > 200
    found, form = empirical_pmi(counts)[often], node_feature_pmi(graph, graph.x.numpy(), (scale,))[often]
    assert often.sum() > 200
    np.testing.assert_allclose(found, form, atol=0.2)
    assert np.corrcoef(found, form)[0, 1] > 0.99


def test_closed_form_is_the_papers_for_equal_numbers_of_features(graph):
    from netatlas.core.graph import as_csr

    a, f = as_csr(graph).toarray(), graph.x.numpy().astype(float)
    degree = a.sum(axis=1)
    p = np.divide(a, degree[:, None], out=np.zeros_like(a), where=degree[:, None] > 0)
    with np.errstate(divide="ignore"):
        expected = np.log(degree.sum() * (p @ p @ f) / (degree @ f))
    reached = degree > 0
    np.testing.assert_allclose(node_feature_pmi(graph, f, (2,))[reached], expected[reached], atol=1e-10)


def test_blocks_are_separate_fits(graph, walks):
    few, x = walks[:200], graph.x.numpy()
    fit = musae(few, x, scales=(1, 2), dimension=8, ego=True, seed=0)
    assert fit.nodes.shape == (90, 24) and [h.shape for h in fit.features] == [(15, 8)] * 3
    alone = musae(few, x, scales=(2,), dimension=8, seed=2)
    assert (alone.nodes == fit.nodes[:, 16:]).all()
    assert attributed_embedding(few, x, scales=(1, 2), dimension=16).nodes.shape == (90, 16)


def test_fixed_feature_vectors_reproduce_the_geometry(graph, walks):
    x = graph.x.numpy()
    fit = musae(walks, x, scales=(1,), dimension=8, seed=0)
    again = musae(walks, x, scales=(1,), dimension=8, fixed=fit.features, seed=9)
    assert (again.features[0] == fit.features[0]).all()
    score = (fit.nodes @ fit.features[0].T).ravel(), (again.nodes @ fit.features[0].T).ravel()
    assert np.corrcoef(*score)[0, 1] > 0.95


def test_fixed_features_have_an_exact_fit():
    rng = np.random.default_rng(0)
    counts, h = rng.poisson(20, size=(3, 4)).astype(float), rng.normal(size=(4, 2))
    fitted = fit_nodes(counts, h, negatives=2, ns_exponent=0.5, penalty=0.3)
    noise = counts.sum(axis=0) ** 0.5
    noise /= noise.sum()

    def loss(g, row):
        score = h @ g
        positive = row * np.logaddexp(0, -score)
        return (positive + 2 * row.sum() * noise * np.logaddexp(0, score)).sum() + 0.15 * g @ g

    for g, row in zip(fitted, counts):
        np.testing.assert_allclose(g, minimize(loss, np.zeros(2), args=(row,), tol=1e-12).x, atol=1e-4)


def test_exact_fit_agrees_with_the_learner(graph, walks):
    x = graph.x.numpy()
    fit = musae(walks, x, scales=(1,), dimension=8, epochs=3, min_learning_rate=1e-4, seed=0)
    exact = fit_nodes(node_feature_counts(walks, x, 1), fit.features[0])
    assert np.corrcoef((exact @ fit.features[0].T).ravel(), (fit.nodes @ fit.features[0].T).ravel())[0, 1] > 0.95


def test_factors_rebuild_a_low_rank_part(graph):
    found = pmi_factors(graph, graph.x.numpy(), scales=(1, 2), dimension=4)
    assert found.shape == (90, 4) and np.isfinite(found).all()


def test_hub_design_is_balanced():
    data = hub_attributed_graph(label_nodes=80, hubs_per_type=8, leaves_per_hub=5, seed=1)
    degree = np.bincount(data.edge_index[0].numpy(), minlength=data.num_nodes)
    y, x = data.y.numpy(), data.x.numpy()
    assert (np.bincount(y[:80]) == 20).all() and (y[80:] == -1).all()
    assert (degree[:80] == 4).all() and (degree[80:112] == 5 + 10).all() and (degree[112:] == 1).all()
    assert (x.sum(axis=1) == 4).all()
    neighbours = [data.edge_index[1, data.edge_index[0] == v].numpy() for v in range(80)]
    pool_of_hubs = np.array([x[hubs][:, 8:].sum() > 0 for hubs in neighbours])
    assert (pool_of_hubs == y[:80] // 2).all()
    assert ((x[:80, 8:].sum(axis=1) > 0) == y[:80] % 2).all()


def test_attributed_sbm_features_come_from_the_pools():
    data = attributed_sbm(seed=3)
    x, y = data.x.numpy(), data.y.numpy()
    own = x[np.arange(300)[:, None], y[:, None] * 10 + np.arange(10)].sum(axis=1)
    assert (own == 3).all() and (x.sum(axis=1) == 4).all()
    edge = data.edge_index.numpy()
    assert 8 < edge.shape[1] / 300 < 12 and (y[edge[0]] == y[edge[1]]).mean() > 0.6


def test_refusals(graph, walks):
    x = graph.x.numpy()
    for bad in (
        lambda: musae(walks, x, scales=()),
        lambda: musae(walks, x, scales=(1, 2), fixed=(np.ones((15, 32)),)),
        lambda: fit_nodes(np.ones((2, 3)), np.ones((2, 2))),
        lambda: fit_nodes(-np.ones((2, 3)), np.ones((3, 2))),
        lambda: fit_nodes(np.ones((2, 3)), np.ones((3, 2)), penalty=0),
        lambda: node_feature_counts(walks, x, 0),
        lambda: node_feature_counts(walks, x, 60),
        lambda: empirical_pmi(np.zeros((2, 2))),
        lambda: node_feature_pmi(graph, x[:4], (1,)),
        lambda: node_feature_pmi(graph, x, (0,)),
        lambda: hub_attributed_graph(label_nodes=41),
        lambda: hub_attributed_graph(features_per_node=9),
        lambda: attributed_sbm(own=5),
        lambda: attributed_sbm(mean_degree=500),
    ):
        with pytest.raises(ValueError):
            bad()
