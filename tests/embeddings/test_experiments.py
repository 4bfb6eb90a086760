"""The chapter's experiments at the smallest size that still has a known answer."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from netatlas.embeddings import attributed_sbm, hub_attributed_graph, ppr_exact, weighted_powerlaw_graph
from netatlas.embeddings import experiments as ex


@pytest.fixture(scope="module")
def blocks():
    graph = nx.planted_partition_graph(4, 25, 0.4, 0.02, seed=0)
    return nx.to_scipy_sparse_array(graph, dtype=float), np.repeat(np.arange(4), 25)


def test_every_exact_check_meets_its_bound():
    checks = ex.exact_checks(seed=1)
    assert (checks.deviation < checks.bound).all()


def test_transitions_pass_their_own_law_only(blocks):
    table = ex.check_transitions(blocks[0], [(0.25, 2.0), (3.0, 0.5)], steps=100_000)
    assert table["p-value"].min() > 1e-4 and table["p-value, 1/p for p"].max() < 1e-10


def test_task_dependence_and_its_choice(blocks):
    graph, y = blocks
    settings = {"a": {"p": 1, "q": 1, "window": 3}, "b": {"p": 1, "q": 1, "window": 5}}
    table = ex.task_dependence(graph, {"y": y}, {"y": 0.1}, settings, dimension=8, epochs=3)
    assert len(table) == 4 and table.test.min() > 0.6 > 0.45 > table.shuffled.max()
    assert (table.pairs > 0).all()
    frame = pd.DataFrame(
        {"seed": 0, "learner": "l", "labels": "y", "setting": ["a", "b"], "validation": [0.1, 0.2], "test": [0.9, 0.3]}
    )
    assert ex.chosen_on_validation(frame, ["a", "b"]).tolist() == [0.3]
    assert ex.chosen_on_validation(frame, ["a"]).tolist() == [0.9]


def test_links_are_found_in_blocks(blocks):
    auc = ex.link_prediction(blocks[0], dimension=16, walks_per_node=10, length=20, window=3, epochs=5, seed=0)
    assert set(auc) == {"average", "hadamard", "l1", "l2"} and max(auc.values()) > 0.7


def test_projection_bias_is_noise(blocks):
    assert ex.fastrp_bias(blocks[0], weights=(0, 1), beta=0.0, dimension=4, draws=200) < 5.5


def test_fastrp_arms_and_tuning(blocks):
    graph, y = blocks
    size = {"dimension": 32, "fraction": 0.2}
    walking = {"walks_per_node": 3, "length": 20}
    ours, theirs = ex.tune_fastrp(graph, y, **size), ex.tune_deepwalk(graph, y, **size, **walking)
    assert len(ours.trials) == len(theirs.trials) == 6
    arms = ex.fastrp_arms(graph, y, projection=ours.best, walking=theirs.best, **size, **walking)
    assert arms.loc["FastRP", "macro-F1"] > 0.7 > 0.5 > arms.loc["FastRP", "shuffled"]


def test_attributed_experiments():
    plain = attributed_sbm(blocks=3, size=30, pool=5, seed=0)
    agreement = ex.pmi_agreement(plain, plain.x.numpy(), steps=300_000, learner_steps=30_000, scales=(1, 2))
    assert agreement["counted PMI"].min() > 0.98 > agreement["counted at distance + 1"].max()
    first, second = (hub_attributed_graph(label_nodes=80, hubs_per_type=8, leaves_per_hub=6, seed=s) for s in (0, 1))
    size = {"dimension": 16, "walks_per_node": 3, "length": 20, "epochs": 1, "fraction": 0.25}
    scores = ex.scales_apart(first, first.x.numpy(), first.y.numpy(), **size)
    assert scores["MUSAE"] > 0.9 > scores["own features"]
    moved = ex.transfer(first, second, permutations=4, **size)
    assert moved["transferred"] > 0.8 > 0.6 > moved["permuted features"]


def test_pagerank_experiments():
    graph = weighted_powerlaw_graph(300, 2000, sinks=False, seed=0)
    exact = ppr_exact(graph)
    errors, z = ex.ppr_errors(graph, exact, [50, 400], alpha=0.2)
    np.testing.assert_allclose(errors["L2"], errors["L2, closed form"], rtol=0.08)
    assert abs(z.sum() / np.sqrt(len(z))) < 4
    table = ex.big_move_table(graph, exact, walks=40, alpha=0.2, etas=[1, 2], shares=[0, 0.1], pool=100)
    assert table.rounds[1] == np.ceil(table.rounds[0] / 2) and table.bound[2] < table.ratio[2] < 1
    shared = ex.pool_variance(graph, exact, walks=40, alpha=0.2, eta=4, pools=[2, 100])
    assert shared[2] > 1.3 > 1.1 > shared[100]
    times = ex.worker_times(graph, walks=20, cap=600, alpha=0.2, repeats=1)
    assert times["pipelined"][0] < times["sequential"][0] and times["pipelined"][1] <= 600
