"""Resolvents and matrix functions against closed forms, dense inverses and mpmath."""

import math

import mpmath
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.expressivity import (
    EquivariantMPNN2D,
    MatrixFunctionLayer,
    MatrixFunctionNetwork,
    chain_features,
    chain_resolvent_diagonal,
    contour_poles,
    hueckel_cumulenes,
    matrix_function_by_poles,
    pack_graphs,
    path_energy,
    resolvent_diagonal,
    resolvent_traces,
)

POLES = torch.tensor([1j, 0.2 + 0.7j, -1.5 + 0.1j, 3.0 + 0j], dtype=torch.complex128)


def symmetric(n, seed=0):
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (a + a.T) / (4 * n**0.5)


@given(st.integers(1, 12), st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_three_ways_to_one_diagonal(n, seed):
    h = symmetric(n, seed)
    inverse = torch.linalg.inv(POLES[:, None, None] * torch.eye(n) - h).diagonal(dim1=1, dim2=2)
    for found in (
        resolvent_diagonal(h, POLES),
        resolvent_diagonal(h, POLES, method="solve"),
        resolvent_diagonal(sp.csr_array(h.numpy()), POLES, method="sparse"),
    ):
        torch.testing.assert_close(found, inverse, rtol=1e-11, atol=1e-11)


def test_resolvent_of_a_path_in_high_precision():
    n = 9
    h = torch.from_numpy(nx.to_numpy_array(nx.path_graph(n)))
    mpmath.mp.dps = 40
    for z in (1j, 0.3 + 0.2j):
        found = resolvent_diagonal(h, torch.tensor([z], dtype=torch.complex128))[0]
        # The chain's determinants are Chebyshev polynomials of the second kind.
        u = [mpmath.chebyu(k, mpmath.mpc(z) / 2) for k in range(n + 1)]
        exact = [complex(u[i] * u[n - 1 - i] / u[n]) for i in range(n)]
        np.testing.assert_allclose(found.numpy(), exact, rtol=1e-12)


def test_decay_follows_combes_and_thomas():
    h = torch.from_numpy(nx.to_numpy_array(nx.path_graph(60)))
    for z in (1j, 0.2j, 2.5 + 0j):
        row = torch.linalg.inv(z * torch.eye(60, dtype=torch.complex128) - h)[20, 20:41].abs().log()
        slope = np.polyfit(np.arange(21), row.numpy(), 1)[0]
        root = np.sqrt(complex(z) ** 2 / 4 - 1)
        rate = math.log(max(abs(z / 2 + root), abs(z / 2 - root)))
        assert slope == pytest.approx(-rate, rel=0.02)


def test_the_chain_recursion_is_the_dense_inverse_and_batches():
    m, k = 6, 2
    blocks = torch.stack([torch.stack([symmetric(k, 10 * b + i) for i in range(m)]) for b in range(3)])
    links = torch.randn(3, m - 1, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2
    found = chain_resolvent_diagonal(blocks, links, POLES[:3])
    assert found.shape == (3, 3, m, k, k)
    for b in range(3):
        dense = torch.block_diag(*blocks[b])
        for i in range(m - 1):
            dense[k * i : k * i + k, k * i + k : k * i + 2 * k] = links[b, i]
            dense[k * i + k : k * i + 2 * k, k * i : k * i + k] = links[b, i].T
        for p, z in enumerate(POLES[:3]):
            inverse = torch.linalg.inv(z * torch.eye(m * k) - dense)
            for i in range(m):
                torch.testing.assert_close(found[b, p, i], inverse[k * i : k * i + k, k * i : k * i + k])


def test_the_exponential_by_poles_on_a_circle():
    h = symmetric(8)
    radius = float(torch.linalg.eigvalsh(h).abs().max())
    found = matrix_function_by_poles(h, *contour_poles(torch.exp, 4 * radius, 32))
    assert (found.real - torch.matrix_exp(h)).abs().max() < 1e-8 and found.imag.abs().max() < 1e-8
    tight = matrix_function_by_poles(h, *contour_poles(torch.exp, 1.01 * radius, 32))
    assert (tight.real - torch.matrix_exp(h)).abs().max() > 1e-3


def test_gradients_reach_poles_and_matrix():
    h = symmetric(4).requires_grad_()
    poles = POLES[:2].clone().requires_grad_()

    def through(a, z):
        return torch.view_as_real(resolvent_diagonal((a + a.T) / 2, z, method="solve"))

    assert torch.autograd.gradcheck(through, (h, poles))
    assert torch.autograd.gradcheck(lambda z: torch.view_as_real(resolvent_diagonal(symmetric(4), z)), (poles,))


def chains(atoms, angle, turn=0.4, hopping=1.0, longest=8):
    count = len(atoms)
    fill = torch.full((count,), 1.0, dtype=torch.float64)
    couplings = -hopping * torch.ones(count, longest + 1, dtype=torch.float64)
    return hueckel_cumulenes(torch.tensor(atoms), angle * fill, turn * fill, couplings)


def test_energies_are_the_closed_forms():
    sizes = list(range(1, 9))
    straight, crossed = chains(sizes, 0.0).energy, chains(sizes, math.pi / 2).energy
    for m, e0, e90 in zip(sizes, straight, crossed):
        assert e0.item() == pytest.approx(-(path_energy(m + 2) + path_energy(m)), abs=1e-10)
        assert e90.item() == pytest.approx(-2 * path_energy(m + 1), abs=1e-10)
    one = chains([3], 0.7)
    levels = torch.linalg.eigvalsh(one.operator[0, :8, :8])
    assert one.energy.item() == pytest.approx(2 * levels[:4].sum().item(), abs=1e-10)
    assert not chains([3], 0.7).operator[0, 8:].any()


@given(st.floats(0, 3), st.floats(0, 6), st.integers(1, 8))
@settings(deadline=None, max_examples=15)
def test_turning_the_molecule_changes_nothing(angle, turn, atoms):
    here, there = chains([atoms], angle), chains([atoms], angle, turn)
    assert here.energy.item() == pytest.approx(there.energy.item(), abs=1e-10)
    torch.manual_seed(0)
    net = EquivariantMPNN2D(3, 4)
    torch.testing.assert_close(net(chain_features(here)), net(chain_features(there)), rtol=1e-4, atol=1e-5)
    spectra = [torch.linalg.eigvalsh(c.operator) for c in (here, there)]
    sizes = torch.tensor([2 * atoms + 2])
    torch.testing.assert_close(*(resolvent_traces(s, POLES[:2], sizes) for s in spectra))


def test_padding_is_no_part_of_traces_and_networks():
    short, padded = chains([3], 0.5, longest=3), chains([3], 0.5, longest=8)
    torch.manual_seed(0)
    net = EquivariantMPNN2D(2, 4)
    torch.testing.assert_close(net(chain_features(short)), net(chain_features(padded)))
    traces = [
        resolvent_traces(torch.linalg.eigvalsh(c.operator), POLES[:2], torch.tensor([8])) for c in (short, padded)
    ]
    torch.testing.assert_close(*traces)


def test_layer_has_the_graphs_sparsity_and_learns():
    torch.manual_seed(0)
    layer = MatrixFunctionLayer(2, 3, channels=2, poles=3).double()
    packed = pack_graphs([nx.path_graph(5), nx.cycle_graph(3)]).double()
    adjacency, mask = packed[:, :, :5], packed[:, :, 5]
    h = torch.randn(2, 5, 2, dtype=torch.float64) * mask[..., None]
    operators = layer.operators(adjacency, mask, h)
    torch.testing.assert_close(operators, operators.mT)
    off = operators * (1 - torch.eye(5))
    assert not off[(adjacency == 0)[:, None].expand_as(off)].any()
    layer(adjacency, mask, h).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
    with torch.device("meta"):
        assert MatrixFunctionNetwork(2, 3)(torch.empty(4, 6, 9)).shape == (4, 3)


def test_bad_input_is_refused():
    h = symmetric(3)
    one = torch.ones(1, dtype=torch.float64)
    for bad, words in (
        (torch.ones(2, 3, dtype=torch.float64), "shape"),
        (torch.full((2, 2), math.nan), "finite"),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]]), "symmetric"),
        (torch.ones(2, 2, dtype=torch.int64), "floating-point"),
    ):
        with pytest.raises(ValueError, match=words):
            resolvent_diagonal(bad, POLES)
    with pytest.raises(ValueError, match="at least one pole"):
        resolvent_diagonal(h, POLES[:0])
    with pytest.raises(ValueError, match="off the spectrum"):
        resolvent_diagonal(torch.zeros(2, 2), torch.zeros(1))
    with pytest.raises(ValueError, match="method out of"):
        resolvent_diagonal(h, POLES, method="qr")
    with pytest.raises(ValueError, match="sparse matrix with"):
        resolvent_diagonal(h, POLES, method="sparse")
    with pytest.raises(ValueError, match="a symmetric matrix"):
        resolvent_diagonal(sp.csr_array(np.triu(np.ones((3, 3)))), POLES, method="sparse")
    with pytest.raises(ValueError, match="blocks of shape"):
        chain_resolvent_diagonal(torch.ones(2, 3), torch.ones(1, 3), POLES)
    with pytest.raises(ValueError, match="couplings of shape"):
        chain_resolvent_diagonal(torch.ones(4, 2, 2), torch.ones(4, 2, 2), POLES)
    with pytest.raises(ValueError, match="radius"):
        contour_poles(torch.exp, 0.0, 4)
    with pytest.raises(ValueError, match="at least one pole"):
        contour_poles(torch.exp, 1.0, 0)
    with pytest.raises(ValueError, match="as many weights"):
        matrix_function_by_poles(h, POLES, POLES[:1])
    with pytest.raises(ValueError, match="at least one inner atom"):
        hueckel_cumulenes(torch.tensor([0]), one, one, torch.ones(1, 3))
    with pytest.raises(ValueError, match="couplings for"):
        hueckel_cumulenes(torch.tensor([4]), one, one, torch.ones(1, 3))
    with pytest.raises(ValueError, match="orbitals"):
        path_energy(-1)
    with pytest.raises(ValueError, match="at least one layer"):
        EquivariantMPNN2D(0)
    with pytest.raises(ValueError, match="at least one layer"):
        MatrixFunctionNetwork(2, 2, layers=0)
    with pytest.raises(ValueError, match="sizes of at least 1"):
        MatrixFunctionLayer(2, 2, poles=0)
