import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data

from netatlas import data
from netatlas.core.graph import as_csr
from netatlas.embeddings import structure_experiments as sx
from netatlas.embeddings.irwe import train_irwe, walk_statistics
from netatlas.embeddings.orbit_planted import orbit_planted_graph
from netatlas.embeddings.portrait import family_portrait


def _graph(seed):
    graph = nx.connected_caveman_graph(4, 12)
    graph.add_edges_from((v, 48 + v) for v in range(0, 48, 4))
    adjacency = as_csr(graph).tocoo()
    community = torch.tensor([v // 12 for v in range(48)] + [v // 12 for v in range(0, 48, 4)])
    role = torch.tensor([int(v % 4 == 0) for v in range(48)] + [2] * 12)
    return Data(edge_index=torch.from_numpy(np.stack([adjacency.row, adjacency.col]).astype(np.int64)),
                num_nodes=60, community=community, role=role)  # fmt: skip


def test_every_method_is_there_and_scores_are_shares():
    graph = _graph(0)
    known = walk_statistics(graph, seed=0)
    trained = train_irwe([known], seeds=[0], epochs=3)
    table = family_portrait(graph, trained)
    assert len(table) == 11 and table[["community", "role"]].apply(lambda c: c.between(0, 1)).all().all()
    assert table.community["DeepWalk"] > 0.8 and table.role["PhUSION heat, CF"] > 0.8
    arms = sx.inductive_arms(trained, 0, graph, graph, known, walk_statistics(graph, buckets=known.buckets, seed=1))
    assert all(0 <= v <= 1 for v in arms.values()) and arms["role statistics"] > 0.8


def test_arms_see_the_plant_and_only_it():
    rows = sx.orbit_arms(orbit_planted_graph(160, seed=0), seed=0)
    assert rows.test["orbit PMI"] > 0.9 > 0.7 > rows.test["walk PMI"]
    null = sx.orbit_arms(orbit_planted_graph(160, classes_in_hubs=False, seed=0), seed=0)
    assert null.test.max() < 0.75


def test_walks_see_two_kinds_of_pairs_in_strongly_regular_graphs():
    kinds = [sx.pair_signatures(g) for g in data.strongly_regular_graphs(family="sr251256")]
    assert all(walks == 2 for walks, _ in kinds) and max(orbits for _, orbits in kinds) > 2


def test_patterns_follow_their_law():
    seen, own, equal = sx.pattern_test(4, walks=20_000, seed=0)
    assert seen == 15 and own > 1e-3 > equal
