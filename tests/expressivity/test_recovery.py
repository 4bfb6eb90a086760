"""Recovery of hidden features: each step against brute force, and the whole on a grid where the answer is known."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch_geometric.data import Data

from netatlas.expressivity import (
    classical_mds,
    density_gradient,
    knn_graph,
    landmark_shortest_paths,
    neighbourhood_scale,
    orthogonal_procrustes_distance,
    recover_features,
    stationary_distribution,
    two_moons,
)


def random_digraph(seed, n=8, chance=0.4):
    return sp.csr_array((np.random.default_rng(seed).random((n, n)) < chance).astype(float))


def test_neighbours_are_the_nearest():
    points = np.random.default_rng(0).normal(size=(40, 2))
    edges = knn_graph(points, 5).edge_index.numpy()
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(40, np.inf))
    for v in range(40):
        assert set(edges[1, edges[0] == v]) == set(np.argsort(distance[v])[:5])
    same = knn_graph(np.zeros((6, 2)), 2).edge_index
    assert (same[0] != same[1]).all() and same.shape[1] == 12


@given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.15, 1.0]))
@settings(deadline=None, max_examples=15)
def test_stationary_distribution_is_the_eigenvector(seed, teleport):
    matrix = random_digraph(seed)
    found = stationary_distribution(matrix, teleport=teleport)
    dense = matrix.toarray()
    rows = dense.sum(1, keepdims=True)
    walk = np.where(rows > 0, dense / np.maximum(rows, 1), 1 / 8)
    google = (1 - teleport) * walk + teleport / 8
    np.testing.assert_allclose(found @ google, found, atol=1e-9)
    assert found.sum() == pytest.approx(1) and found.min() > 0


def test_paths_are_those_of_floyd_and_warshall():
    matrix, scale = random_digraph(3), np.random.default_rng(0).uniform(0.5, 2, 8)
    length = np.where(matrix.toarray() > 0, scale[:, None], np.inf)
    np.fill_diagonal(length, 0)
    for k in range(8):
        length = np.minimum(length, length[:, k : k + 1] + length[k : k + 1])
    found = landmark_shortest_paths(matrix, scale, np.arange(8))
    finite = np.isfinite(length)
    np.testing.assert_allclose(found[finite], length[finite])
    assert (found[~finite] == length[finite].max()).all()


def test_scaling_recovers_euclidean_points_and_procrustes_their_pose():
    points = np.random.default_rng(0).normal(size=(12, 3))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = orthogonal_procrustes_distance(classical_mds(distance, 3), points)
    assert found.distance < 1e-20
    np.testing.assert_allclose(found.aligned, points, atol=1e-9)
    turned = points @ Rotation.random(random_state=0).as_matrix() * [1, 1, 1] @ np.diag([1, 1, -1]) * 3 + 5
    assert orthogonal_procrustes_distance(turned, points, scale="fit").relative < 1e-20
    assert orthogonal_procrustes_distance(np.ones((12, 3)), points, scale="fit").relative == pytest.approx(1)
    assert orthogonal_procrustes_distance(turned, points).relative > 1


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_procrustes_is_no_worse_than_any_rotation(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 7, 2))
    best = orthogonal_procrustes_distance(a, b).distance
    for angle in np.linspace(0, 2 * math.pi, 60):
        c, s = math.cos(angle), math.sin(angle)
        for flip in (1, -1):
            moved = (a - a.mean(0)) @ np.array([[c, s], [-s * flip, c * flip]])
            assert best <= ((moved - (b - b.mean(0))) ** 2).sum(1).mean() + 1e-12


def test_the_scale_is_the_radius_where_density_varies():
    points = density_gradient(800, 0)
    graph = knn_graph(points, 27)
    distance = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 27]
    inner = ((points > 0.1) & (points < 0.9)).all(1)
    correlation = {
        kind: np.corrcoef(np.log(neighbourhood_scale(graph, 2, kind))[inner], np.log(distance)[inner])[0, 1]
        for kind in ("full", "degree")
    }
    assert correlation["full"] > 0.9 > 0.7 > correlation["degree"]
    assert (neighbourhood_scale(graph, 2, "hops") == 1).all()
    shuffled = neighbourhood_scale(graph, 2, "permuted")
    np.testing.assert_allclose(np.sort(shuffled), np.sort(neighbourhood_scale(graph, 2)))


def test_features_come_back_whatever_the_numbering():
    points = density_gradient(600, 1)
    landmarks = np.random.default_rng(0).permutation(600)[:150]
    found = recover_features(knn_graph(points, 22), 2, landmarks)
    order = np.random.default_rng(1).permutation(600)
    again = recover_features(knn_graph(points[order], 22), 2, np.argsort(order)[landmarks])
    assert orthogonal_procrustes_distance(found, points, scale="fit").relative < 0.06
    assert orthogonal_procrustes_distance(again, found[order]).relative < 1e-6


def test_generators():
    assert two_moons(50, 0).shape == (50, 2) and not np.array_equal(two_moons(50, 0), two_moons(50, 1))
    first = density_gradient(20_000, 0)[:, 0]
    assert np.histogram(first, 2, (0, 1))[0][1] / 20_000 == pytest.approx(1 / (1 + math.exp(-1.5)), abs=0.02)


def test_bad_input_is_refused():
    graph = knn_graph(np.random.default_rng(0).normal(size=(5, 2)), 2)
    for call, words in (
        (lambda: knn_graph(np.ones((1, 2)), 1), "n of at least 2"),
        (lambda: knn_graph(np.full((3, 2), np.nan), 1), "finite"),
        (lambda: knn_graph(np.ones((3, 2)), 3), "k in"),
        (lambda: stationary_distribution(graph, teleport=0.0), "teleport"),
        (lambda: stationary_distribution(graph, rounds=-1), "number of rounds"),
        (lambda: stationary_distribution(Data(edge_index=torch.zeros(2, 0).long(), num_nodes=0)), "at least one node"),
        (lambda: neighbourhood_scale(graph, 2, "all"), "kind out of"),
        (lambda: neighbourhood_scale(graph, 0), "dimension"),
        (lambda: landmark_shortest_paths(graph, np.zeros(5), np.array([0])), "positive finite"),
        (lambda: landmark_shortest_paths(graph, np.ones(4), np.array([0])), "one length a node"),
        (lambda: landmark_shortest_paths(graph, np.ones(5), np.array([7])), "landmarks in"),
        (lambda: classical_mds(np.ones((2, 3)), 1), "square"),
        (lambda: classical_mds(-np.ones((2, 2)), 1), "non-negative"),
        (lambda: classical_mds(np.ones((2, 2)), 3), "dimension in"),
        (lambda: orthogonal_procrustes_distance(np.ones((2, 2)), np.ones((3, 2))), "one shape"),
        (lambda: orthogonal_procrustes_distance(np.ones((0, 2)), np.ones((0, 2))), "at least one point"),
        (lambda: two_moons(1, 0), "at least two"),
        (lambda: density_gradient(5, 0, 0.0), "other than 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    alone = stationary_distribution(Data(edge_index=torch.zeros(2, 0).long(), num_nodes=3))
    np.testing.assert_allclose(alone, 1 / 3)
