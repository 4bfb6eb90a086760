r"""Neural fingerprints: the circular (Morgan) fingerprint of a molecule, made of layers that learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from netatlas.core.checks import require, require_finite

ELEMENTS = [
    "C",
    "N",
    "O",
    "S",
    "F",
    "Si",
    "P",
    "Cl",
    "Br",
    "Mg",
    "Na",
    "Ca",
    "Fe",
    "As",
    "Al",
    "I",
    "B",
    "V",
    "K",
    "Tl",
    "Yb",
    "Sb",
    "Sn",
    "Ag",
    "Pd",
    "Co",
    "Se",
    "Ti",
    "Zn",
    "H",
    "Li",
    "Ge",
    "Cu",
    "Au",
    "Ni",
    "Cd",
    "In",
    "Mn",
    "Zr",
    "Cr",
    "Pt",
    "Hg",
    "Pb",
]
ATOM_FEATURES, BOND_FEATURES = len(ELEMENTS) + 1 + 6 + 5 + 6 + 1, 6


def _parse(smiles: str) -> Any:
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    require(molecule is not None and molecule.GetNumAtoms() > 0, "a molecule in SMILES", repr(smiles))
    return molecule


def molecule_graph(smiles: str) -> Data:
    """A molecule as a graph with the atom and bond features of the neural fingerprint.

    Atoms, 62: element (43 kinds and *unknown*), degree 0 to 5, hydrogens 0 to 4, implicit valence 0 to 5 (each one-hot,
    larger values as the largest), aromatic. Bonds, 6: single, double, triple, aromatic, conjugated, in a ring.

    Args:
        smiles: The molecule; hydrogens stay implicit.

    Returns:
        ``x`` ``[n, 62]`` float32, ``edge_index`` ``[2, 2b]`` both directions of the bonds, ``edge_attr`` ``[2b, 6]``.

    Raises:
        ValueError: For a string that is no molecule.

    Source: duvenaud2015fingerprints.
    """
    from rdkit import Chem

    molecule = _parse(smiles)
    elements = {symbol: i for i, symbol in enumerate(ELEMENTS)}
    x = np.zeros((molecule.GetNumAtoms(), ATOM_FEATURES), dtype=np.float32)
    starts = np.cumsum([0, len(ELEMENTS) + 1, 6, 5, 6])
    for i, atom in enumerate(molecule.GetAtoms()):
        x[i, elements.get(atom.GetSymbol(), len(ELEMENTS))] = 1
        x[i, starts[1] + min(atom.GetDegree(), 5)] = 1
        x[i, starts[2] + min(atom.GetTotalNumHs(), 4)] = 1
        x[i, starts[3] + min(atom.GetValence(Chem.ValenceType.IMPLICIT), 5)] = 1
        x[i, starts[4]] = atom.GetIsAromatic()
    kinds = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC]
    pairs, bonds = [], []
    for bond in molecule.GetBonds():
        pairs.append((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        bonds.append([bond.GetBondType() == k for k in kinds] + [bond.GetIsConjugated(), bond.IsInRing()])
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    attributes = torch.tensor(bonds, dtype=torch.float32).reshape(-1, BOND_FEATURES)
    return Data(
        x=torch.from_numpy(x),
        edge_index=torch.cat([edges, edges.flip(0)], dim=1),
        edge_attr=torch.cat([attributes, attributes]),
    )


def circular_fingerprint(
    smiles: Sequence[str], *, radius: int = 2, size: int = 512, counts: bool = True, salt: int = 0
) -> Float[Tensor, "N size"]:
    """Circular (Morgan) fingerprints by RDKit, folded by a hash of one's choice.

    Args:
        smiles: Molecules.
        radius: Largest radius of the environments.
        size: Number of positions; environments whose hash falls on the same one share it.
        counts: How often each position is hit; otherwise whether it is.
        salt: 0 folds by the remainder, as RDKit does; other numbers by other hashes.

    Returns:
        float32 ``[N, size]``.

    Raises:
        ValueError: For a string that is no molecule, a negative radius or a size below 1.

    Source: duvenaud2015fingerprints.
    """
    from rdkit.Chem import rdFingerprintGenerator

    require(radius >= 0 and size >= 1, "a radius of at least 0 and a size of at least 1", (radius, size))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius)
    found = torch.zeros(len(smiles), size)
    for i, text in enumerate(smiles):
        elements = generator.GetSparseCountFingerprint(_parse(text)).GetNonzeroElements()
        names = np.fromiter(elements, dtype=np.uint64, count=len(elements))
        if salt:
            with np.errstate(over="ignore"):
                names = (names + np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15)
                names = (names ^ (names >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(20)
        places = torch.from_numpy((names % np.uint64(size)).astype(np.int64))
        found[i].index_add_(0, places, torch.tensor(list(elements.values()), dtype=torch.float32))
    return found if counts else (found > 0).float()


def continuous_tanimoto(x: Float[Tensor, "N S"], y: Float[Tensor, "M S"] | None = None) -> Float[Tensor, "N M"]:
    r"""Tanimoto distance of non-negative vectors, :math:`1 - \sum_i \min(x_i, y_i) / \sum_i \max(x_i, y_i)`.

    Args:
        x: Vectors.
        y: Others; default: ``x`` itself.

    Returns:
        Distances in [0, 1]; two zero vectors have distance 0.

    Raises:
        ValueError: For negative entries, NaN or widths that differ.

    Source: duvenaud2015fingerprints.
    """
    y = x if y is None else y
    require(x.ndim == 2 and y.ndim == 2 and x.shape[1] == y.shape[1], "two matrices of one width", (x.shape, y.shape))
    for name, value in (("x", x), ("y", y)):
        require_finite(name, value)
        require(
            value.device.type == "meta" or not bool((value < 0).any()), f"non-negative entries in {name}", "a negative"
        )
    # min + max = x + y and max - min = |x - y|, so one matrix of L1 distances gives both sums.
    apart, total = torch.cdist(x, y, p=1.0), x.sum(1)[:, None] + y.sum(1)[None, :]
    return (2 * apart / (total + apart).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1.0)


class MoleculeBatch(NamedTuple):
    """Graphs laid side by side, atoms sorted by degree so that those of one degree are a slice.

    Attributes:
        x: Atom features ``[A, F]``.
        neighbours: Neighbours of each atom, ``[A, D]``, padded by ``A``.
        bonds: Sum of the features of each atom's bonds, ``[A, B]``.
        counts: Number of atoms of each degree 0 to D.
        molecule: Molecule of each atom, ``[A]``.
        size: Number of molecules.
    """

    x: Tensor
    neighbours: Tensor
    bonds: Tensor
    counts: tuple[int, ...]
    molecule: Tensor
    size: int


def molecule_batch(graphs: Sequence[Data], max_degree: int = 6) -> MoleculeBatch:
    """Collate graphs for :class:`NeuralFingerprint`.

    Args:
        graphs: With ``x``, undirected ``edge_index``, and ``edge_attr`` on all or on none.
        max_degree: Largest degree that may occur.

    Raises:
        ValueError: For no graph, one without atoms, an index out of range, NaN features, or a larger degree.
    """
    require(len(graphs) > 0, "at least one graph", 0)
    for graph in graphs:
        n = graph.num_nodes
        require(n is not None and n > 0 and graph.x is not None, "graphs with atoms that have features x", graph)
        bad = graph.edge_index.numel() and (int(graph.edge_index.min()) < 0 or int(graph.edge_index.max()) >= n)
        require(not bad, f"node indices in [0, {n})", graph.edge_index.flatten()[:8].tolist())
    sizes = torch.tensor([g.num_nodes for g in graphs])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    x = torch.cat([g.x for g in graphs]).float()
    require_finite("x", x)
    edges = torch.cat([g.edge_index + s for g, s in zip(graphs, starts)], dim=1)
    width = {g.edge_attr.shape[1] for g in graphs if g.edge_attr is not None}
    require(len(width) <= 1, "bond features of one width", sorted(width))
    features = next(iter(width), 0)
    atoms = len(x)
    degree = torch.bincount(edges[1], minlength=atoms)
    require(int(degree.max()) <= max_degree, f"degrees of at most {max_degree}", int(degree.max()))
    order = torch.argsort(degree, stable=True)
    place = torch.argsort(order)
    edges = place[edges]
    by_receiver = torch.argsort(edges[1] * atoms + edges[0])
    edges, degree = edges[:, by_receiver], degree[order]
    slot = torch.arange(edges.shape[1]) - (degree.cumsum(0) - degree)[edges[1]]
    neighbours = torch.full((atoms, max_degree), atoms)
    neighbours[edges[1], slot] = edges[0]
    bonds = torch.zeros(atoms, features)
    if features:
        given = torch.cat([g.edge_attr if g.edge_attr is not None else torch.zeros(0, features) for g in graphs])
        require(len(given) == edges.shape[1], "features for every bond", (len(given), edges.shape[1]))
        require_finite("edge_attr", given)
        bonds.index_add_(0, edges[1], given[by_receiver].float())
    counts = tuple(torch.bincount(degree, minlength=max_degree + 1).tolist())
    molecule = torch.repeat_interleave(torch.arange(len(graphs)), sizes)[order]
    return MoleculeBatch(x[order], neighbours, bonds, counts, molecule, len(graphs))


def degree_bucketed_linear(
    values: Float[Tensor, "A F"], weight: Float[Tensor, "D F O"], counts: Sequence[int]
) -> Float[Tensor, "A O"]:
    """Rows times the matrix of their degree, for rows sorted by degree.

    Args:
        values: Rows, those of degree 0 first.
        weight: One matrix a degree; the last also serves larger degrees.
        counts: Number of rows of each degree.

    Raises:
        ValueError: For counts that do not sum to the number of rows.
    """
    require(sum(counts) == len(values), f"counts with the sum {len(values)}", tuple(counts))
    if weight.shape[0] == 1:
        return values @ weight[0]
    parts = values.split(list(counts))
    last = weight.shape[0] - 1
    return torch.cat([part @ weight[min(d, last)] for d, part in enumerate(parts)])


class NeuralFingerprint(nn.Module):
    r"""The differentiable circular fingerprint.

    .. math::
        f = \sum_{L=0}^{R} \sum_a \mathrm{softmax}(h_a^L W_{\mathrm{out}}^L + b_{\mathrm{out}}^L), \qquad
        h_a^L = \sigma\Bigl(\mathrm{norm}\bigl(h_a^{L-1} W_{\mathrm{self}}^L
        + \sum_{u \in N(a)} [h_u^{L-1}, e_{au}]\, W_{\deg a}^L + b^L\bigr)\Bigr)

    The softmax is over the S positions of the fingerprint, so that an atom writes mass 1 in every layer and the
    fingerprint of n atoms has the sum :math:`n (R + 1)`.

    Args:
        features: Width F of the atom features.
        bonds: Width of the bond features.
        radius: Number of layers R; 0 reads the atoms alone.
        width: Width of the layers.
        size: Length S of the fingerprint.
        max_degree: Largest degree with a matrix of its own.
        by_degree: Whether each degree has a matrix; otherwise all share one.
        norm: Whether to normalise over the atoms of the batch (without learned scale).
        activation: ``"relu"`` or ``"tanh"``.
        scale: Standard deviation of all initial weights; default: one over the root of the fan-in.

    Raises:
        ValueError: For sizes out of range or an unknown activation.

    Source: duvenaud2015fingerprints, Algorithm 2, with the official code's layer 0.
    """

    def __init__(
        self, features: int = ATOM_FEATURES, bonds: int = BOND_FEATURES, *, radius: int = 2, width: int = 16,
        size: int = 32, max_degree: int = 6, by_degree: bool = True, norm: bool = True,
        activation: Literal["relu", "tanh"] = "relu",
        scale: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        require(
            min(features, width, size) >= 1 and min(radius, bonds) >= 0, "sizes of at least 1", (features, width, size)
        )
        require(activation in ("relu", "tanh"), "an activation out of relu, tanh", repr(activation))
        self.radius, self.norm, self.act = radius, norm, torch.relu if activation == "relu" else torch.tanh
        widths = [features] + [width] * radius
        degrees = max_degree + 1 if by_degree else 1

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * (shape[-2] ** -0.5 if scale is None else scale))

        self.own = nn.ParameterList(weight(a, b) for a, b in zip(widths, widths[1:]))
        self.other = nn.ParameterList(weight(degrees, a + bonds, b) for a, b in zip(widths, widths[1:]))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(b)) for b in widths[1:])
        self.write = nn.ParameterList(weight(a, size) for a in widths)
        self.write_bias = nn.ParameterList(nn.Parameter(torch.zeros(size)) for _ in widths)

    def atoms(self, batch: MoleculeBatch) -> list[Float[Tensor, "A S"]]:
        """What every atom writes into the fingerprint, layer by layer."""
        h, found = batch.x.to(self.write[0].dtype), []
        for layer in range(self.radius + 1):
            if layer:
                padded = torch.cat([h, h.new_zeros(1, h.shape[1])])
                heard = torch.cat([padded[batch.neighbours].sum(1), batch.bonds.to(h.dtype)], dim=1)
                i = layer - 1
                v = h @ self.own[i] + degree_bucketed_linear(heard, self.other[i], batch.counts) + self.bias[i]
                if self.norm:
                    v = (v - v.mean(0)) * (v.var(0, correction=0) + 1e-5).rsqrt()
                h = self.act(v)
            found.append(torch.softmax(h @ self.write[layer] + self.write_bias[layer], dim=1))
        return found

    def forward(self, batch: MoleculeBatch) -> Float[Tensor, "N S"]:
        """Fingerprints of a batch of molecules."""
        total = torch.stack(self.atoms(batch)).sum(0)
        return total.new_zeros(batch.size, total.shape[1]).index_add(0, batch.molecule, total)


class FingerprintRegressor(nn.Module):
    """A neural fingerprint with a head: linear, or one hidden ReLU layer whose inputs are normalised over the batch.

    Args:
        fingerprint: Options of :class:`NeuralFingerprint`.
        hidden: Width of the hidden layer; 0 for a linear head.
        outputs: Width of the output.
    """

    def __init__(self, hidden: int = 100, outputs: int = 1, **fingerprint: Any) -> None:
        super().__init__()
        self.fingerprint = NeuralFingerprint(**fingerprint)
        size = self.fingerprint.write[0].shape[1]
        layers = (
            [nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, outputs)] if hidden else [nn.Linear(size, outputs)]
        )
        self.head = nn.Sequential(*layers)

    def forward(self, batch: MoleculeBatch) -> Float[Tensor, "N C"]:
        """Outputs of a batch of molecules."""
        return self.head(self.fingerprint(batch))
