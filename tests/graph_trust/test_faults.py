"""Every public function on broken graphs and bad values: a clear refusal, or the limit that is right there."""

import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from netatlas import graph_trust as gt
from netatlas.core.message_passing import gcn_operator

N = 6
NAN = math.nan
GEN = torch.Generator().manual_seed(0)
X = torch.rand(N, 3, generator=GEN)
Y = torch.arange(N) % 2
ALL = torch.ones(N, dtype=torch.bool)


def data(*edges, nodes=N, both=True, x=X):
    half = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    index = torch.cat([half, half.flip(0)], 1) if both else half
    return Data(x=x[:nodes], y=Y[:nodes], edge_index=index, num_nodes=nodes)


def stacked(features=3):
    torch.manual_seed(0)
    model = gt.GraphEncoder([features, 4, 3, 2], gcn_operator(RING))
    return {name: p.detach()[None] for name, p in model.named_parameters()}


RING_EDGES = [(k, (k + 1) % N) for k in range(N)]
RING = data(*RING_EDGES)
TWO_PARTS = data((0, 1), (1, 2), (3, 4))  # node 5 is alone
P = stacked()
BALLS = [np.arange(3)]

# Everything that takes a graph as its users hold it.
GRAPH = {
    "hop_distances": lambda g: gt.hop_distances(g, 2).toarray(),
    "neighbourhood_balls": lambda g: np.concatenate(gt.neighbourhood_balls(g, np.arange(3))),
    "neighbour_edges": lambda g: gt.neighbour_edges(g).numpy(),
    "distance_to_set": lambda g: gt.distance_to_set(g, torch.arange(N) == 0).numpy(),
    "negative_pairs": lambda g: gt.negative_pairs(g).numpy(),
    "graph_shift_suite": lambda g: gt.graph_shift_suite(g, {"drop": (0.0,)})[0].graph.edge_index.numpy(),
    "encoder_outputs": lambda g: gt.encoder_outputs([g], P).numpy(),
    "retrain_on_test_graphs": lambda g: gt.retrain_on_test_graphs([g], P, P, epochs=2, at_least=0).link_loss.numpy(),
}


@pytest.mark.parametrize("name", GRAPH)
def test_broken_graphs_are_refused(name):
    empty = Data(x=X[:0], edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=0)
    weighted = data((0, 1))
    weighted.edge_weight = torch.tensor([1.0, NAN])
    for graph in (empty, data((0, 1), (1, N)), data((0, -1)), weighted):
        with pytest.raises(ValueError, match="expected"):
            GRAPH[name](graph)


@pytest.mark.parametrize("name", GRAPH)
def test_unconnected_graphs_with_a_lonely_node(name):
    assert np.isfinite(GRAPH[name](TWO_PARTS)).all()


@pytest.mark.parametrize("name", GRAPH)
def test_loops_and_edges_given_twice_or_once_change_nothing(name):
    if name in ("encoder_outputs", "retrain_on_test_graphs"):
        pytest.skip("the propagation counts parallel edges and loops")
    for other in (data(*RING_EDGES, (0, 1)), data(*RING_EDGES, (2, 2)), data(*RING_EDGES, both=False)):
        np.testing.assert_array_equal(GRAPH[name](other), GRAPH[name](RING))


def test_distances_between_parts():
    assert gt.hop_distances(TWO_PARTS, 9)[[0], [3]] == 0, "what is not stored is out of reach"
    assert gt.distance_to_set(TWO_PARTS, ~ALL, 4).tolist() == [4] * N, "no set: every distance is cut off"
    assert gt.distance_to_set(TWO_PARTS, torch.arange(N) == 0, 9).tolist() == [0, 1, 2, 9, 9, 9]


def test_a_complete_graph_has_outputs_but_no_missing_pair():
    full = data(*[(i, j) for i in range(N) for j in range(i)])
    assert torch.isfinite(gt.encoder_outputs([full], P)).all()
    with pytest.raises(ValueError, match="without an edge"):
        gt.retrain_on_test_graphs([full], P, P, epochs=1, at_least=0)


def test_a_graph_without_edges_has_outputs_but_no_links_to_reconstruct():
    assert torch.isfinite(gt.encoder_outputs([data()], P)).all() and gt.negative_pairs(data()).shape == (2, 0)
    with pytest.raises(ValueError, match="with an edge"):
        gt.retrain_on_test_graphs([data()], P, P, epochs=1, at_least=0)


def test_a_calibration_set_of_nobody_or_of_one_gives_full_sets():
    weights = gt.khop_calibration_weights(gt.hop_distances(RING, 3))
    for mask in (~ALL, torch.arange(N) == 2):
        assert torch.isinf(gt.neighbourhood_quantiles(X[:, 0], weights, mask)).all()


def test_one_class_and_constant_logits():
    edges = gt.neighbour_edges(RING)
    assert torch.equal(gt.minmax_sorted(torch.ones(N, 1)), torch.zeros(N, 1))
    mask, zero = ALL[None], torch.zeros(1, N, dtype=torch.long)
    for build in (lambda: gt.GATS(1, edges), lambda: gt.CaGCN(1, gcn_operator(RING)), gt.TemperatureScaling):
        found = gt.fit_calibrator(build, torch.zeros(1, N, 1), zero, mask, mask, zero, seeds=[0], steps=3)
        assert torch.isfinite(found.temperature).all() and float(found.loss) == 0


def test_graphs_of_dense_batches_with_loops_and_lonely_nodes():
    a = torch.zeros(1, 4, 4)
    a[0, 0, 1] = a[0, 1, 0] = a[0, 2, 2] = 1  # node 3 is alone, node 2 has a loop
    assert torch.isfinite(gt.dense_operator(a)).all() and torch.isfinite(gt.DenseGIN(4)(a)).all()
    assert torch.equal(gt.sample_edges(a > 0, 1 - 1e-9), a > 0), "loops are edges"
    assert int(gt.explanation_edit_distance(a > 0, a < 0)) == 2
    assert int(gt.top_edges(a, a, torch.tensor([9])).sum()) == 3
    draws = gt.random_subgraphs(a.repeat(64, 1, 1), generator=torch.Generator().manual_seed(0))
    assert 0 < int(draws[:, 2, 2].sum()) < 64


def test_no_edges_and_one_group_have_no_gap():
    assert float(gt.edge_independence_gap(torch.zeros(6), torch.tensor([0.0, 1, 0, 1]))) == 0
    assert float(gt.edge_independence_gap(torch.ones(6), torch.zeros(4))) == 0
    profile = gt.topology_profile(torch.zeros(6), torch.ones(4, 1), torch.zeros(4), torch.zeros(4) > 0)
    assert torch.isfinite(profile).all() and not profile[1].any(), "a group of nobody"


MOTIFS = gt.motif_graphs(4, tree=6)
A, L = MOTIFS.adjacency, MOTIFS.label
torch.manual_seed(0)
GIN = gt.DenseGIN(4)
SPARSE, ONES, PAIR = gt.SparseGIN(GIN), torch.ones(2, 1), torch.tensor([[0], [1]])
DIRECTED = MOTIFS._replace(adjacency=A.triu())
HALF = MOTIFS._replace(motif=MOTIFS.motif.triu())
SOFT = MOTIFS._replace(motif=MOTIFS.motif.float())
OTHER = MOTIFS._replace(motif=MOTIFS.motif[:, :3, :3])
ONE = torch.ones(4, dtype=torch.long)
PAIRS = 6
SWITCH = torch.tensor([0.0, 1, 0, 1])
EDGES = torch.tensor([1.0, 0, 1, 0, 0, 1])


def diffusion(**changed):
    given = {"edges": EDGES[None], "attributes": torch.zeros(1, 4, 2), "sensitive": SWITCH[None]} | changed
    return gt.fit_edge_diffusion(
        lambda m: gt.EdgeDenoiser(2, 4), given["edges"], given["attributes"], given["sensitive"], seeds=[0], steps=1,
        timesteps=2,
    )  # fmt: skip


MODEL = diffusion()


def reverse(**changed):
    given = {
        "start": EDGES[None, None], "attributes": torch.zeros(1, 4, 2), "sensitive": SWITCH[None, None],
        "noise": torch.rand(1, 1, 2, PAIRS, generator=GEN),
    } | changed  # fmt: skip
    return gt.sample_edges_reverse(MODEL, *(given[k] for k in ("start", "attributes", "sensitive", "noise")))


LINKS, DENSE = torch.rand(5, generator=GEN), (torch.ones(2, 4, 4) - torch.eye(4))
SAME, TRUE = torch.tensor([True, True, False, False, True]), torch.tensor([True, False, True, False, True])
GAE = gt.fit_link_predictors(DENSE, torch.rand(2, 4, 3, generator=GEN), seeds=[0, 1], steps=1)
W = gt.khop_calibration_weights(gt.hop_distances(RING, 1))
EDGE_LIST = gt.neighbour_edges(RING)
Z, D, M = torch.randn(1, N, 2, generator=GEN), torch.zeros(1, N, dtype=torch.long), ALL[None]


def calibrator(logits=Z, labels=Y, fit=M, stop=M, distance=D, seeds=(0,)):
    return gt.fit_calibrator(gt.TemperatureScaling, logits, labels, fit, stop, distance, seeds=seeds, steps=1)


def affine(points):
    return points.sum(-1) / 3


def nan_graph():
    return data(*RING_EDGES, x=X * NAN)


BAD = {
    # counterfactuals
    "stability: NaN constant": lambda: gt.stability(affine, X, X, NAN),
    "stability: constants of other points": lambda: gt.stability(affine, X, X, torch.ones(5)),
    "relaxed_stability: flat noise": lambda: gt.relaxed_stability(affine, X, X[0]),
    "stability_deviation: NaN scale": lambda: gt.stability_deviation(affine, affine, X, X, NAN),
    "stability_tail_bound: NaN": lambda: gt.stability_tail_bound(NAN, 10, 1.0),
    "bisect_to_boundary: NaN": lambda: gt.bisect_to_boundary(affine, X, X * NAN),
    "bisect_to_boundary: NaN level": lambda: gt.bisect_to_boundary(affine, X, X, NAN),
    "closest_counterfactual: NaN": lambda: gt.closest_counterfactual(affine, X * NAN),
    "ascend: NaN": lambda: gt.ascend(affine, X * NAN, [0.5]),
    "ascend: NaN level": lambda: gt.ascend(affine, X, [NAN]),
    "nearest_stable: NaN score": lambda: gt.nearest_stable(X, X, X[:, 0] * NAN, 0.5),
    "nearest_stable: batches": lambda: gt.nearest_stable(X.expand(3, N, 3), X.expand(2, N, 3), X[:, 0].expand(2, N), 0),
    "counterfactual_validity: NaN": lambda: gt.counterfactual_validity(torch.full((2, 3), NAN)),
    "counterfactual_validity: integers": lambda: gt.counterfactual_validity(torch.ones(2, 3).long()),
    # edge diffusion
    "to_adjacency: NaN": lambda: gt.to_adjacency(EDGES * NAN, 4),
    "noised_edge_probability: NaN": lambda: gt.noised_edge_probability(EDGES * NAN, 0.5, 0.5),
    "noised_edge_probability: density": lambda: gt.noised_edge_probability(EDGES, 0.5, NAN),
    "posterior_edge_probability: NaN": lambda: gt.posterior_edge_probability(EDGES * NAN, EDGES, 0.5, 0.6, 0.5),
    "posterior_edge_probability: clean": lambda: gt.posterior_edge_probability(EDGES, 2 * EDGES, 0.5, 0.6, 0.5),
    "EdgeDenoiser: pairs": lambda: gt.EdgeDenoiser(2)(EDGES[:5], torch.zeros(4, 2), SWITCH, torch.tensor(0.5)),
    "EdgeDenoiser: attributes": lambda: gt.EdgeDenoiser(2)(EDGES, torch.zeros(4, 3), SWITCH, torch.tensor(0.5)),
    "fit_edge_diffusion: flat": lambda: diffusion(attributes=torch.zeros(4, 2)),
    "fit_edge_diffusion: graphs": lambda: diffusion(attributes=torch.zeros(2, 4, 2), sensitive=SWITCH.expand(2, 4)),
    "fit_edge_diffusion: NaN attribute": lambda: diffusion(sensitive=SWITCH[None] * NAN),
    "sample_edges_reverse: NaN start": lambda: reverse(start=EDGES[None, None] * NAN),
    "sample_edges_reverse: NaN attributes": lambda: reverse(attributes=torch.full((1, 4, 2), NAN)),
    "sample_edges_reverse: NaN noise": lambda: reverse(noise=torch.full((1, 1, 2, PAIRS), NAN)),
    "sample_edges_reverse: nodes": lambda: reverse(sensitive=torch.zeros(1, 1, 5)),
    "sample_edges_reverse: members": lambda: reverse(attributes=torch.zeros(2, 4, 2)),
    "attribute_switch: out of range": lambda: gt.attribute_switch(SWITCH, 0.5, torch.tensor([0, 1, 2, 4])),
    "attribute_switch: a node twice": lambda: gt.attribute_switch(SWITCH, 0.5, torch.tensor([0, 0, 1, 2])),
    "edge_independence_gap: NaN": lambda: gt.edge_independence_gap(EDGES * NAN, SWITCH),
    "edge_independence_gap: NaN attribute": lambda: gt.edge_independence_gap(EDGES, SWITCH * NAN),
    "assortative_sum: NaN": lambda: gt.assortative_sum(EDGES * NAN, SWITCH),
    "assortative_sum: three groups": lambda: gt.assortative_sum(EDGES, SWITCH + 1),
    "topology_profile: integer groups": lambda: gt.topology_profile(EDGES, torch.ones(4, 1), SWITCH, SWITCH.long()),
    "topology_profile: NaN": lambda: gt.topology_profile(EDGES, torch.ones(4, 1) * NAN, SWITCH, SWITCH > 0),
    "profile_distance: NaN": lambda: gt.profile_distance(torch.full((2, 3), NAN), torch.ones(2, 3)),
    "node_pairs: nobody": lambda: gt.node_pairs(0),
    "cosine_keep_probability: no step": lambda: gt.cosine_keep_probability(-1),
    "switched_sum_factor: NaN": lambda: gt.switched_sum_factor(NAN, 3, exact_count=False),
    "knee_point: NaN": lambda: gt.knee_point(torch.full((2, 2), NAN)),
    # explanations and explainers
    "motif_graphs: no node": lambda: gt.motif_graphs(1, tree=0),
    "DenseGIN: not square": lambda: GIN(A[:, :3]),
    "DenseGIN: no node": lambda: GIN(torch.zeros(2, 0, 0)),
    "fidelity: label": lambda: gt.fidelity(GIN, A, MOTIFS.motif, ONE + 1),
    "robust_fidelity: label": lambda: gt.robust_fidelity(GIN, A, MOTIFS.motif, ONE - 2),
    "robust_fidelity: NaN share": lambda: gt.robust_fidelity(GIN, A, MOTIFS.motif, ONE, NAN),
    "sample_edges: NaN": lambda: gt.sample_edges(A > 0, NAN),
    "perturbed_explanations: share": lambda: gt.perturbed_explanations(MOTIFS, 1.5, 0.0),
    "perturbed_explanations: NaN": lambda: gt.perturbed_explanations(MOTIFS, 0.0, NAN),
    "exchanged_explanations: directed": lambda: gt.exchanged_explanations(MOTIFS, HALF.motif, 1),
    "explanation_edit_distance: directed": lambda: gt.explanation_edit_distance(HALF.motif, MOTIFS.motif),
    "random_subgraphs: NaN": lambda: gt.random_subgraphs(A * NAN),
    "gradient_scores: directed": lambda: gt.gradient_scores(GIN, A.triu(), L),
    "gradient_scores: label": lambda: gt.gradient_scores(GIN, A, ONE + 1),
    "gradient_scores: integers": lambda: gt.gradient_scores(GIN, A.long(), L),
    "occlusion_scores: directed": lambda: gt.occlusion_scores(GIN, A.triu(), L),
    "occlusion_scores: label": lambda: gt.occlusion_scores(GIN, A, ONE + 1),
    "mask_scores: directed": lambda: gt.mask_scores(GIN, A.triu(), L, epochs=1),
    "mask_scores: label": lambda: gt.mask_scores(GIN, A, ONE + 1, epochs=1),
    "SparseGIN: out of range": lambda: SPARSE(ONES, 2 * PAIR, torch.zeros(2).long()),
    "SparseGIN: graphs": lambda: SPARSE(ONES, PAIR, torch.zeros(3).long()),
    "SparseGIN: NaN": lambda: SPARSE(ONES * NAN, PAIR, torch.zeros(2).long()),
    "top_edges: directed": lambda: gt.top_edges(A, A.triu(), ONE),
    "top_edges: directed scores": lambda: gt.top_edges(A.triu(), A, ONE),
    "top_edges: NaN": lambda: gt.top_edges(A * NAN, A, ONE),
    "motif_auc: NaN": lambda: gt.motif_auc(A * NAN, MOTIFS),
    "motif_auc: no graph": lambda: gt.motif_auc(A[:0], gt.MotifGraphs(A[:0], MOTIFS.motif[:0], L[:0])),
    # calibrators
    "distance_to_set: indices": lambda: gt.distance_to_set(RING, torch.arange(N)),
    "minmax_sorted: no class": lambda: gt.minmax_sorted(torch.zeros(3, 0)),
    "CaGCN: no class": lambda: gt.CaGCN(0, gcn_operator(RING)),
    "CaGCN: nodes": lambda: gt.CaGCN(2, gcn_operator(RING))(torch.zeros(4, 2), torch.zeros(4)),
    "GATS: negative node": lambda: gt.GATS(2, torch.tensor([[-1, 0], [-1, 0]])),
    "GATS: a loop twice": lambda: gt.GATS(2, torch.tensor([[0, 0, 1], [0, 0, 0]])),
    "GATS: floating edges": lambda: gt.GATS(2, EDGE_LIST.float()),
    "GATS: classes": lambda: gt.GATS(3, EDGE_LIST)(Z[0], D[0]),
    "GATS: distances": lambda: gt.GATS(2, EDGE_LIST)(Z[0], D[0, :3]),
    "TemperatureScaling: flat": lambda: gt.TemperatureScaling()(torch.ones(3), torch.zeros(3)),
    "fit_calibrator: label": lambda: calibrator(labels=Y + 1),
    "fit_calibrator: floating labels": lambda: calibrator(labels=Y.float()),
    "fit_calibrator: label count": lambda: calibrator(labels=Y[:3]),
    "fit_calibrator: nobody": lambda: calibrator(Z[:0], Y, M[:0], M[:0], D[:0], seeds=()),
    "fit_calibrator: no stopping node": lambda: calibrator(stop=~M),
    # label-free estimates
    "GraphEncoder: features": lambda: gt.GraphEncoder([3, 4, 3, 2], gcn_operator(RING))(X[:, :2]),
    "graph_shift_suite: NaN": lambda: gt.graph_shift_suite(nan_graph()),
    "graph_shift_suite: rows": lambda: gt.graph_shift_suite(Data(x=X[:4], edge_index=RING.edge_index, num_nodes=N)),
    "graph_shift_suite: NaN level": lambda: gt.graph_shift_suite(RING, {"noise": (NAN,)}),
    "encoder_outputs: NaN": lambda: gt.encoder_outputs([nan_graph()], P),
    "encoder_outputs: no features": lambda: gt.encoder_outputs([Data(edge_index=RING.edge_index, num_nodes=N)], P),
    "encoder_outputs: features": lambda: gt.encoder_outputs([RING], stacked(4)),
    "encoder_outputs: parameters": lambda: gt.encoder_outputs([RING], {"head.weight": P["head.weight"]}),
    "retrain_on_test_graphs: label": lambda: gt.retrain_on_test_graphs([RING], P, P, epochs=1, at_least=0,
                                                                       labels=Y[None] + 1),
    "retrain_on_test_graphs: label count": lambda: gt.retrain_on_test_graphs([RING], P, P, epochs=1, at_least=0,
                                                                             labels=Y[None, :3]),
    "link_reconstruction_loss: NaN": lambda: gt.link_reconstruction_loss(X * NAN, RING.edge_index, RING.edge_index),
    "link_reconstruction_loss: rows": lambda: gt.link_reconstruction_loss(X, RING.edge_index.T, RING.edge_index),
    "confidence_score: NaN": lambda: gt.confidence_score(X * NAN),
    "confidence_score: no class": lambda: gt.confidence_score(X[:, :0]),
    "entropy_score: NaN": lambda: gt.entropy_score(X * NAN),
    "entropy_score: negative": lambda: gt.entropy_score(-X),
    "average_thresholded_confidence: NaN": lambda: gt.average_thresholded_confidence(X[0], X[0] > 0, X[1] * NAN),
    "average_thresholded_confidence: soft": lambda: gt.average_thresholded_confidence(X[0], X[0], X[1]),
    # link prediction
    "dense_operator: directed": lambda: gt.dense_operator(DENSE.triu()),
    "DenseGAE: nodes": lambda: gt.DenseGAE(3)(DENSE[0], X),
    "fit_link_predictors: weights": lambda: gt.fit_link_predictors(2 * DENSE, X[:4].expand(2, 4, 3), seeds=[0, 1]),
    "fit_link_predictors: nobody": lambda: gt.fit_link_predictors(DENSE[:0], X[:4].expand(0, 4, 3), seeds=[]),
    "link_scores: directed": lambda: gt.link_scores(*GAE, DENSE.triu(), X[:4]),
    "link_scores: NaN": lambda: gt.link_scores(*GAE, DENSE, X[:4] * NAN),
    "link_scores: nodes": lambda: gt.link_scores(*GAE, DENSE, X),
    "link_scores: features": lambda: gt.link_scores(*GAE, DENSE, X[:4, :2]),
    "link_scores: predictors": lambda: gt.link_scores(*GAE, DENSE[:1].expand(3, 4, 4), X[:4]),
    "pair_auc: no pair": lambda: gt.pair_auc(LINKS[:0], TRUE[:0]),
    "pair_auc: soft": lambda: gt.pair_auc(LINKS, LINKS),
    "dyadic_fairness_gaps: integers": lambda: gt.dyadic_fairness_gaps(LINKS, SAME.long(), TRUE),
    "dyadic_fairness_gaps: no edge": lambda: gt.dyadic_fairness_gaps(LINKS, SAME, TRUE & False),
    "dyadic_fairness_gaps: NaN": lambda: gt.dyadic_fairness_gaps(LINKS * NAN, SAME, TRUE),
    # neighbourhoods
    "khop_calibration_weights: NaN": lambda: gt.khop_calibration_weights(W * NAN),
    "random_neighbourhoods: out of range": lambda: gt.random_neighbourhoods(W, np.arange(N) + 1, 0),
    "random_neighbourhoods: a node twice": lambda: gt.random_neighbourhoods(W, np.zeros(N, int), 0),
    "random_neighbourhoods: dense": lambda: gt.random_neighbourhoods(W.toarray(), np.arange(N), 0),
    "neighbourhood_quantiles: NaN": lambda: gt.neighbourhood_quantiles(X[:, 0] * NAN, W, ALL),
    "neighbourhood_quantiles: dense": lambda: gt.neighbourhood_quantiles(X[:, 0], W.toarray(), ALL),
    "neighbourhood_quantiles: indices": lambda: gt.neighbourhood_quantiles(X[:, 0], W, torch.arange(N)),
    "neighbourhood_balls: out of range": lambda: gt.neighbourhood_balls(RING, np.array([0, N])),
    "neighbourhood_balls: mask": lambda: gt.neighbourhood_balls(RING, np.ones(N, bool)),
    "neighbourhood_coverage_violation: range": lambda: gt.neighbourhood_coverage_violation(X[:2, 0], BALLS),
    "neighbourhood_coverage_violation: alpha": lambda: gt.neighbourhood_coverage_violation(X[:, 0], BALLS, 1.0),
}  # fmt: skip
# A set of explanations that is no set of undirected edges of its graphs, in every function that takes one.
EXPLAINED = {
    "perturbed_explanations": lambda g: gt.perturbed_explanations(g, 0.1, 0.1),
    "exchanged_explanations": lambda g: gt.exchanged_explanations(g, MOTIFS.motif, 1),
    "decoy_explanations": gt.decoy_explanations,
    "motif_auc": lambda g: gt.motif_auc(A, g),
}
BAD |= {
    f"{name}: {fault}": lambda call=call, graphs=graphs: call(graphs)
    for name, call in EXPLAINED.items()
    for fault, graphs in {"directed": DIRECTED, "half a motif": HALF, "soft motif": SOFT, "shape": OTHER}.items()
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


def test_no_public_function_is_left_out():
    results = {name for name in gt.__all__ if hasattr(getattr(gt, name), "_fields")} | {"CalibratorFit"}
    assert set(gt.__all__) - results == {case.split(":")[0] for case in BAD} | set(GRAPH)
