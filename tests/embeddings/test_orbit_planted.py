import numpy as np
import pytest

from netatlas.core.graph import as_csr
from netatlas.embeddings.graphlets import Orbits, orbit_adjacency
from netatlas.embeddings.orbit_planted import orbit_planted_graph


@pytest.mark.parametrize("own", [True, False])
def test_degrees_and_sizes(own):
    graph = orbit_planted_graph(80, classes_in_hubs=own, seed=1)
    degree = np.asarray(as_csr(graph).sum(1)).ravel()
    assert graph.num_nodes == 240 and (degree[:80] == 5).all()
    assert (degree[80:120] == 4).all() and (degree[120:] == 2).all()
    assert (graph.y[:80].bincount() == 40).all() and (graph.y[80:] == -1).all()


def test_two_steps_balance_the_classes_and_stars_split_them():
    graph = orbit_planted_graph(160, seed=0)
    adjacency, y = as_csr(graph).toarray(), graph.y.numpy()
    step = adjacency / adjacency.sum(1, keepdims=True)
    two = (step @ step)[:160, :160]
    np.fill_diagonal(two, 0)
    same = y[:160, None] == y[None, :160]
    assert np.allclose((two * same).sum(1), 0.3) and np.allclose((two * ~same).sum(1), 0.3)
    stars = orbit_adjacency(graph)[Orbits(6, 6, 2)].toarray()[:160, :160]
    assert stars[~same].sum() == 0 < stars[same].sum()
    null = orbit_planted_graph(160, classes_in_hubs=False, seed=0)
    assert orbit_adjacency(null)[Orbits(6, 6, 2)].toarray()[:160, :160][~same].sum() > 0


def test_refusals():
    for size in (0, 12, 100):
        with pytest.raises(ValueError, match="multiple of 8"):
            orbit_planted_graph(size)
    with pytest.raises(ValueError, match="hub"):
        orbit_planted_graph(hubs=0)
