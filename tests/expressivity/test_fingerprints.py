"""Fingerprints against RDKit, a loop over atoms, and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from torch_geometric.data import Data

from netatlas.expressivity import (
    FingerprintRegressor,
    NeuralFingerprint,
    circular_fingerprint,
    continuous_tanimoto,
    degree_bucketed_linear,
    molecule_batch,
    molecule_graph,
)

SMILES = ["CCO", "c1ccccc1O", "CC(=O)NC", "C", "C1CC1C#N", "OC(=O)c1ccccc1OC(C)=O"]


def test_features_are_one_hot_and_tell_what_they_should():
    graph = molecule_graph("C=CC(=O)Nc1ccccc1")
    x, bonds = graph.x, graph.edge_attr
    assert x.shape[1] == 62 and bonds.shape[1] == 6
    assert torch.equal(x[:, :44].sum(1), torch.ones(len(x))) and torch.equal(
        x[:, 44:50].argmax(1), torch.bincount(graph.edge_index[1])
    )
    assert x[:, -1].sum() == 6 and bonds[:, 3].sum() == 12
    ethanol = molecule_graph("CCO")
    assert ethanol.x[:, 50:55].argmax(1).tolist() == [3, 2, 1]
    assert molecule_graph("[U]").x[0, 43] == 1
    assert molecule_graph("C").edge_index.shape == (2, 0)


def test_circular_fingerprints_are_rdkits():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=256)
    ours = circular_fingerprint(SMILES, radius=2, size=256)
    for row, text in zip(ours, SMILES):
        theirs = np.zeros(256)
        DataStructs.ConvertToNumpyArray(generator.GetCountFingerprint(Chem.MolFromSmiles(text)), theirs)
        assert np.array_equal(row.numpy(), theirs)
    bits = circular_fingerprint(SMILES, radius=2, size=256, counts=False)
    assert torch.equal(bits, (ours > 0).float())
    other = circular_fingerprint(SMILES, radius=2, size=256, salt=5)
    assert torch.equal(other.sum(1), ours.sum(1)) and not torch.equal(other, ours)


def test_tanimoto_is_its_definition():
    x, y = torch.rand(5, 7, dtype=torch.float64), torch.rand(4, 7, dtype=torch.float64)
    low, high = (f(x[:, None], y[None]).sum(-1) for f in (torch.minimum, torch.maximum))
    torch.testing.assert_close(continuous_tanimoto(x, y), 1 - low / high)
    assert continuous_tanimoto(torch.zeros(2, 3)).eq(0).all()
    assert continuous_tanimoto(torch.eye(2)).tolist() == [[0, 1], [1, 0]]


def by_loop(net, graph):
    h, total = graph.x.double(), 0
    for layer in range(net.radius + 1):
        if layer:
            new = []
            for a in range(len(h)):
                heard = torch.zeros(h.shape[1] + 6, dtype=torch.float64)
                incoming = (graph.edge_index[1] == a).nonzero().flatten()
                for e in incoming:
                    heard = heard + torch.cat([h[graph.edge_index[0, e]], graph.edge_attr[e].double()])
                degree = len(incoming)
                new.append(h[a] @ net.own[layer - 1] + heard @ net.other[layer - 1][degree] + net.bias[layer - 1])
            h = torch.tanh(torch.stack(new))
        total = total + torch.softmax(h @ net.write[layer] + net.write_bias[layer], 1).sum(0)
    return total


def test_neural_fingerprint_is_the_loop_over_atoms():
    torch.manual_seed(0)
    net = NeuralFingerprint(radius=2, width=4, size=5, norm=False, activation="tanh").double()
    graphs = [molecule_graph(s) for s in SMILES]
    found = net(molecule_batch(graphs))
    for row, graph in zip(found, graphs):
        torch.testing.assert_close(row, by_loop(net, graph))
    mass = torch.tensor([3.0 * g.num_nodes for g in graphs], dtype=torch.float64)
    torch.testing.assert_close(found.sum(1), mass)


@given(st.permutations(range(9)), st.booleans())
@settings(deadline=None, max_examples=15)
def test_the_numbering_of_atoms_does_not_matter(order, norm):
    torch.manual_seed(1)
    net = FingerprintRegressor(8, radius=3, width=5, size=6, norm=norm).double()
    molecule = Chem.MolFromSmiles("CC(=O)Nc1ccco1")
    other = Chem.MolToSmiles(Chem.RenumberAtoms(molecule, list(order)), canonical=False)
    out = [net(molecule_batch([molecule_graph(s), molecule_graph("CCO")])) for s in (Chem.MolToSmiles(molecule), other)]
    torch.testing.assert_close(out[0], out[1])


def test_small_weights_count_atoms_and_large_weights_hash():
    graphs = [molecule_graph(s) for s in SMILES]
    batch, sizes = molecule_batch(graphs), torch.tensor([[float(g.num_nodes)] for g in graphs])
    torch.manual_seed(0)
    small = NeuralFingerprint(radius=2, size=64, norm=False, activation="tanh", scale=1e-4)(batch)
    torch.testing.assert_close(continuous_tanimoto(small), continuous_tanimoto(sizes), atol=1e-3, rtol=0)
    large = NeuralFingerprint(radius=2, size=64, norm=False, activation="tanh", scale=1e3)(batch)
    assert ((large - large.round()).abs() < 1e-3).float().mean() > 0.95


def test_buckets_and_sharing():
    rows, weight = torch.randn(6, 3), torch.randn(3, 3, 2)
    found = degree_bucketed_linear(rows, weight, [1, 2, 2, 1])
    by_hand = torch.stack([r @ weight[d] for r, d in zip(rows, [0, 1, 1, 2, 2, 2])])
    torch.testing.assert_close(found, by_hand)
    shared = NeuralFingerprint(by_degree=False, radius=1)
    assert shared.other[0].shape[0] == 1 and torch.isfinite(shared(molecule_batch([molecule_graph("CCO")]))).all()


def test_graphs_without_bond_features_and_isolated_atoms():
    plain = Data(x=torch.eye(2), edge_index=torch.tensor([[0, 1], [1, 0]]))
    alone = Data(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0, dtype=torch.int64))
    net = NeuralFingerprint(2, 0, radius=1, size=3)
    torch.testing.assert_close(net(molecule_batch([plain, alone])).sum(1), torch.tensor([4.0, 2.0]))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="molecule in SMILES"):
        molecule_graph("not a molecule")
    with pytest.raises(ValueError, match="molecule in SMILES"):
        circular_fingerprint([""])
    with pytest.raises(ValueError, match="radius"):
        circular_fingerprint(["C"], radius=-1)
    with pytest.raises(ValueError, match="non-negative entries"):
        continuous_tanimoto(-torch.ones(1, 2))
    with pytest.raises(ValueError, match="one width"):
        continuous_tanimoto(torch.ones(1, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least one graph"):
        molecule_batch([])
    with pytest.raises(ValueError, match="have features"):
        molecule_batch([Data(edge_index=torch.zeros(2, 0, dtype=torch.int64), num_nodes=1)])
    with pytest.raises(ValueError, match="node indices"):
        molecule_batch([Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [2]]))])
    with pytest.raises(ValueError, match="finite"):
        molecule_batch([Data(x=torch.full((1, 1), float("nan")), edge_index=torch.zeros(2, 0, dtype=torch.int64))])
    star = torch.stack([torch.arange(1, 9), torch.zeros(8, dtype=torch.int64)])
    with pytest.raises(ValueError, match="degrees of at most"):
        molecule_batch([Data(x=torch.ones(9, 1), edge_index=torch.cat([star, star.flip(0)], 1))])
    with pytest.raises(ValueError, match="counts with the sum"):
        degree_bucketed_linear(torch.ones(2, 3), torch.ones(2, 3, 1), [1, 0])
    with pytest.raises(ValueError, match="activation"):
        NeuralFingerprint(activation="gelu")
