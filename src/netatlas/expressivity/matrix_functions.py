r"""Matrix functions as layers: resolvents at learned poles, exact by eigenvectors, by solves, and by sparse factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.expressivity.aggregation import SkipMLP
from netatlas.expressivity.dense import unpack_graphs

Method = Literal["eigh", "solve", "sparse"]


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _check_operator(operator: Tensor, poles: Tensor) -> None:
    square = operator.ndim >= 2 and operator.shape[-1] == operator.shape[-2] and operator.shape[-1] > 0
    require(square, "matrices of shape [..., n, n] with n of at least 1", tuple(operator.shape))
    require(operator.is_floating_point(), "real matrices of a floating-point type", operator.dtype)
    require(poles.ndim == 1 and len(poles) > 0, "at least one pole in a vector", tuple(poles.shape))
    require_finite("operator", operator)


def resolvent_diagonal(
    operator: Float[Tensor, "*B n n"] | sp.sparray, poles: Complex[Tensor, " P"], *, method: Method = "eigh"
) -> Complex[Tensor, "*B P n"]:
    r"""Diagonal of the resolvent of a real symmetric matrix at several poles.

    .. math:: R_{ii}(z) = \bigl[(z I - H)^{-1}\bigr]_{ii} = \sum_k \frac{U_{ik}^2}{z - \lambda_k}

    Args:
        operator: Symmetric matrices; a SciPy sparse matrix for ``"sparse"``.
        poles: Points off the spectrum.
        method: ``"eigh"`` by eigenvectors (cheapest for many poles; gradients reach the poles, not the matrix),
            ``"solve"`` by one LU factorisation a pole (gradients reach both), ``"sparse"`` by a sparse LU
            factorisation a pole (one matrix, no gradients; memory for one block of columns of the inverse).

    Returns:
        Complex diagonals.

    Raises:
        ValueError: For a matrix that is not square, symmetric or finite, no pole, a pole on the spectrum, an unknown
            method, or a sparse matrix with another method.

    Source: batatia2023mfn.
    """
    require(method in ("eigh", "solve", "sparse"), "a method out of eigh, solve, sparse", repr(method))
    require(
        sp.issparse(operator) == (method == "sparse"), "a sparse matrix with the method sparse, and only there", method
    )
    if isinstance(operator, Tensor):
        _check_operator(operator, poles)
        if operator.device.type != "meta":
            require(bool(torch.allclose(operator, operator.mT)), "symmetric matrices", "an asymmetric one")
        poles = poles.to(_complex(operator.dtype))
        if method == "eigh":
            values, vectors = torch.linalg.eigh(operator.detach())
            weights = 1 / (poles[:, None] - values[..., None, :])
            found = weights @ vectors.square().mT.to(weights.dtype)
        else:
            shifted = _shifted(operator, poles)
            found = torch.linalg.inv(shifted).diagonal(dim1=-2, dim2=-1)
        if found.device.type != "meta":
            require(bool(torch.isfinite(found.abs()).all()), "poles off the spectrum", "one that is an eigenvalue")
        return found
    return _sparse_diagonal(sp.csc_array(operator), poles)


def _shifted(operator: Tensor, poles: Tensor) -> Tensor:
    eye = torch.eye(operator.shape[-1], dtype=poles.dtype, device=operator.device)
    return poles[:, None, None] * eye - operator[..., None, :, :]


def _sparse_diagonal(matrix: sp.csc_array, poles: Tensor, block: int = 256) -> Tensor:
    n = matrix.shape[0]
    require(matrix.shape == (n, n) and n > 0, "a square sparse matrix of at least one row", matrix.shape)
    require_finite("operator", matrix.data)
    require(
        abs(matrix - matrix.T).max() <= 1e-12 * max(1.0, abs(matrix).max()), "a symmetric matrix", "an asymmetric one"
    )
    found = np.empty((len(poles), n), dtype=np.complex128)
    for p, z in enumerate(poles.tolist()):
        factor = spla.splu(sp.csc_matrix(z * sp.eye_array(n) - matrix))
        for start in range(0, n, block):
            stop = min(n, start + block)
            columns = np.zeros((n, stop - start), dtype=np.complex128)
            columns[np.arange(start, stop), np.arange(stop - start)] = 1
            found[p, start:stop] = factor.solve(columns)[np.arange(start, stop), np.arange(stop - start)]
    return torch.from_numpy(found)


def chain_resolvent_diagonal(
    blocks: Float[Tensor, "*B m k k"], couplings: Float[Tensor, "*B m-1 k k"], poles: Complex[Tensor, " P"]
) -> Complex[Tensor, "*B P m k k"]:
    r"""Diagonal blocks of the resolvent of a block tridiagonal matrix, in time linear in the length of the chain.

    .. math:: L_i = z - H_i - T_{i-1}^\top L_{i-1}^{-1} T_{i-1}, \quad R_i = z - H_i - T_i R_{i+1}^{-1} T_i^\top, \quad
        [(z - H)^{-1}]_{ii} = \bigl(L_i + R_i - (z - H_i)\bigr)^{-1}

    Args:
        blocks: Symmetric diagonal blocks :math:`H_i`.
        couplings: Blocks :math:`T_i` above the diagonal, from i to i + 1.
        poles: Points off the spectra of all leading and trailing parts, such as points off the real axis.

    Raises:
        ValueError: For shapes that do not fit, NaN, or no pole.

    Source: batatia2023mfn (selected inversion).
    """
    shape = blocks.shape
    require(len(shape) >= 3 and shape[-1] == shape[-2], "blocks of shape [..., m, k, k]", tuple(shape))
    wanted = (*shape[:-3], shape[-3] - 1, *shape[-2:])
    require(tuple(couplings.shape) == wanted, f"couplings of shape {wanted}", tuple(couplings.shape))
    require(poles.ndim == 1 and len(poles) > 0, "at least one pole in a vector", tuple(poles.shape))
    require_finite("blocks", blocks)
    require_finite("couplings", couplings)
    dtype = _complex(blocks.dtype)
    own = _shifted(blocks, poles.to(dtype)).movedim(-3, -4)
    links = couplings.to(dtype).unsqueeze(-4).expand(*own.shape[:-3], -1, -1, -1)
    left, right = [own[..., 0, :, :]], [own[..., -1, :, :]]
    for i in range(1, shape[-3]):
        before, after = links[..., i - 1, :, :], links[..., -i, :, :]
        left.append(own[..., i, :, :] - before.mT @ torch.linalg.solve(left[-1], before))
        right.append(own[..., -i - 1, :, :] - after @ torch.linalg.solve(right[-1], after.mT))
    both = torch.stack(left, -3) + torch.stack(right[::-1], -3) - own
    return torch.linalg.inv(both)


def contour_poles(
    function: Callable[[Tensor], Tensor], radius: float, count: int, centre: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Poles and weights of an analytic function by the trapezoidal rule on a circle.

    .. math:: f(H) = \frac{1}{2 \pi i} \oint f(z) (z - H)^{-1} dz \approx \sum_{s=1}^{P} w_s (z_s - H)^{-1}, \qquad
        z_s = c + r e^{2 \pi i (s - 1/2) / P}, \quad w_s = \frac{z_s - c}{P} f(z_s)

    The error falls like :math:`(\rho / r)^P` for a spectrum within :math:`\rho` of the centre.

    Args:
        function: Analytic on and within the circle.
        radius: Radius of the circle, larger than that of the spectrum.
        count: Number of poles P.
        centre: Centre of the circle.

    Returns:
        Poles and weights, complex128 ``[P]``.

    Raises:
        ValueError: For a radius that is not positive or fewer than one pole.

    Source: batatia2023mfn.
    """
    require(radius > 0 and math.isfinite(radius), "a positive finite radius", radius)
    require(count >= 1, "at least one pole", count)
    angles = 2 * math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    arm = radius * torch.complex(angles.cos(), angles.sin())
    return centre + arm, arm * function(centre + arm) / count


def matrix_function_by_poles(
    operator: Float[Tensor, "*B n n"], poles: Complex[Tensor, " P"], weights: Complex[Tensor, " P"]
) -> Complex[Tensor, "*B n n"]:
    r"""Rational function of a matrix, :math:`\sum_s w_s (z_s I - H)^{-1}`.

    Args:
        operator: Square matrices.
        poles: Points off the spectrum.
        weights: One a pole.

    Raises:
        ValueError: For matrices that are not square or not finite, or weights of another number.

    Source: batatia2023mfn.
    """
    _check_operator(operator, poles)
    require(poles.shape == weights.shape, "as many weights as poles", (tuple(poles.shape), tuple(weights.shape)))
    dtype = _complex(operator.dtype)
    inverse = torch.linalg.inv(_shifted(operator, poles.to(dtype)))
    return (weights.to(dtype)[:, None, None] * inverse).sum(-3)


class MatrixFunctionLayer(nn.Module):
    r"""A layer that applies learned matrix functions to learned operators with the sparsity of the graph.

    .. math:: H_{c,ij} = A_{ij}\, \phi_c(s_i \odot s_j), \quad H_{c,ii} = \psi_c(s_i), \qquad
        h_i' = W \,\bigl\Vert_{c,p} \bigl[\mathrm{Re}\,R^c_{ii}(z_{cp}), \mathrm{Im}\,R^c_{ii}(z_{cp})\bigr], \quad
        z_{cp} = x_{cp} + i e^{b_{cp}}

    with :math:`R^c(z) = (z - H_c)^{-1}` and :math:`s` a linear map of the node features. :math:`H_c` is symmetric,
    so its spectrum is real and the poles, which stay above the real axis, cannot meet it.

    Args:
        features: Width of the node features.
        outputs: Width of the output.
        channels: Number of operators C.
        poles: Number of poles P of each.
        width: Width of the states that make the operators.

    Raises:
        ValueError: For sizes below 1.

    Source: batatia2023mfn.
    """

    def __init__(self, features: int, outputs: int, *, channels: int = 2, poles: int = 8, width: int = 8) -> None:
        super().__init__()
        sizes = (features, outputs, channels, poles, width)
        require(min(sizes) >= 1, "sizes of at least 1", sizes)
        self.state = nn.Linear(features, width)
        self.edge, self.site = SkipMLP(width, width, channels), SkipMLP(width, width, channels)
        heights = torch.linspace(math.log(0.1), math.log(4.0), poles) if poles > 1 else torch.zeros(1)
        self.real = nn.Parameter(torch.zeros(channels, poles))
        self.height = nn.Parameter(heights.repeat(channels, 1))
        self.out = nn.Linear(2 * channels * poles, outputs)

    def operators(self, adjacency: Tensor, mask: Tensor, h: Tensor) -> Float[Tensor, "G C n n"]:
        """The learned symmetric operators."""
        s = self.state(h)
        hopping = self.edge(s[..., :, None, :] * s[..., None, :, :]).movedim(-1, -3)
        link = torch.maximum(adjacency, adjacency.mT).unsqueeze(-3)
        return hopping * link + torch.diag_embed((self.site(s) * mask[..., None]).mT)

    def forward(
        self, adjacency: Float[Tensor, "G n n"], mask: Float[Tensor, "G n"], h: Float[Tensor, "G n F"]
    ) -> Tensor:
        """New node features ``[G, n, outputs]``, zero on padding."""
        operators = self.operators(adjacency, mask, h)
        poles = torch.complex(self.real, self.height.exp())
        eye = torch.eye(operators.shape[-1], dtype=poles.dtype, device=operators.device)
        shifted = poles[..., None, None] * eye - operators[..., None, :, :]
        diagonal = torch.linalg.inv(shifted).diagonal(dim1=-2, dim2=-1)
        features = torch.cat([diagonal.real, diagonal.imag], dim=-2).flatten(-3, -2).mT
        return self.out(features) * mask[..., None]


class MatrixFunctionNetwork(nn.Module):
    """One or more :class:`MatrixFunctionLayer` on packed graphs, the sum over nodes, and a head with a ReLU layer.

    Args:
        features: Width of the node features.
        outputs: Width of the output.
        layers: Number of layers.
        width: Width of the node states.
        options: Options of :class:`MatrixFunctionLayer`.
    """

    def __init__(self, features: int, outputs: int, *, layers: int = 1, width: int = 16, **options: Any) -> None:
        super().__init__()
        require(layers >= 1, "at least one layer", layers)
        widths = [features] + [width] * layers
        self.layers = nn.ModuleList(MatrixFunctionLayer(a, b, **options) for a, b in zip(widths, widths[1:]))
        self.node = nn.Linear(width, width)
        self.head = nn.Linear(width + features, outputs)

    def forward(self, packed: Float[Tensor, "G n w"]) -> Float[Tensor, "G C"]:
        """Outputs of packed graphs."""
        adjacency, mask, h = unpack_graphs(packed)
        first = h.sum(-2)
        for layer in self.layers:
            h = torch.relu(layer(adjacency, mask, h))
        return self.head(torch.cat([first, (torch.relu(self.node(h)) * mask[..., None]).sum(-2)], -1))


class Cumulenes(NamedTuple):
    """Chains of atoms with two p orbitals each between two end orbitals.

    Attributes:
        operator: Hueckel matrices ``[N, n, n]`` float64, padded by zeros.
        atoms: Number m of inner atoms, ``[N]``.
        ends: Directions of the end orbitals, ``[N, 2, 2]``.
        hopping: Couplings along the chain, ``[N, M + 1]``, zero on padding.
        energy: Energy of the filled orbitals, ``[N]``.
    """

    operator: Tensor
    atoms: Tensor
    ends: Tensor
    hopping: Tensor
    energy: Tensor


def hueckel_cumulenes(atoms: Tensor, angle: Tensor, turn: Tensor, hopping: Tensor) -> Cumulenes:
    r"""Hueckel matrices of cumulenes and their exact energies.

    Inner neighbours couple by :math:`t_i I_2`, an end orbital by :math:`t\,d` along its direction :math:`d`. The
    graph is bipartite without site energies, so that half filling gives

    .. math:: E = 2 \sum_{k \le m + 1} \lambda_k = -\operatorname{tr}|H|.

    Args:
        atoms: Numbers m of inner atoms, at least 1, ``[N]``.
        angle: Angles between the two end directions, radians, ``[N]``.
        turn: Directions of the left ends, radians, ``[N]``.
        hopping: Couplings, ``[N, M + 1]`` for at most M inner atoms; the first m + 1 of a row are used.

    Raises:
        ValueError: For fewer than one atom, NaN, or too few couplings.

    Source: batatia2023mfn (the model is ours).
    """
    require(bool((atoms >= 1).all()), "at least one inner atom", int(atoms.min()))
    longest = hopping.shape[1] - 1
    require(int(atoms.max()) <= longest, f"couplings for {int(atoms.max())} atoms", hopping.shape[1])
    require_finite("hopping", hopping)
    require_finite("angle", angle)
    count, index = len(atoms), torch.arange(len(atoms))
    used = torch.arange(longest + 1) <= atoms[:, None]
    hopping = torch.where(used, hopping, 0.0)
    ends = torch.stack([torch.stack([v.cos(), v.sin()], 1) for v in (turn, turn + angle)], 1)
    n = 2 * longest + 2
    operator = torch.zeros(count, n, n, dtype=torch.float64)
    # Orbital 0 is the left end, 1 + 2 i + o orbital o of atom i, 1 + 2 m the right end.
    for o in range(2):
        operator[:, 0, 1 + o] = hopping[:, 0] * ends[:, 0, o]
        for i in range(longest - 1):
            inner = torch.where(i + 1 < atoms, hopping[:, i + 1], 0.0)
            operator[:, 1 + 2 * i + o, 3 + 2 * i + o] = inner
        operator[index, 2 * atoms - 1 + o, 2 * atoms + 1] = hopping[index, atoms] * ends[:, 1, o]
    operator = operator + operator.mT
    energy = -torch.linalg.eigvalsh(operator).abs().sum(1)
    return Cumulenes(operator, atoms, ends, hopping, energy)


def path_energy(orbitals: int) -> float:
    r"""Sum of absolute eigenvalues of a path of k orbitals with coupling 1, :math:`\sum_j |2 \cos(\pi j / (k + 1))|`.

    Raises:
        ValueError: For a negative number of orbitals.
    """
    require(orbitals >= 0, "a non-negative number of orbitals", orbitals)
    return float(sum(abs(2 * math.cos(math.pi * j / (orbitals + 1))) for j in range(1, orbitals + 1)))


def resolvent_traces(
    spectrum: Float[Tensor, "N n"], poles: Complex[Tensor, " P"], sizes: Tensor
) -> Float[Tensor, "N F"]:
    r"""Real and imaginary parts of :math:`\operatorname{tr}(z - H)^{-1} = \sum_k 1/(z - \lambda_k)`, padding removed.

    Args:
        spectrum: Eigenvalues, those of padding zero.
        poles: Points off the spectrum.
        sizes: Number of eigenvalues that are no padding, ``[N]``.

    Returns:
        ``[N, 2P]``.
    """
    extra = (spectrum.shape[1] - sizes)[:, None]
    trace = (1 / (poles - spectrum[..., None])).sum(1) - extra / poles
    return torch.cat([trace.real, trace.imag], dim=1)


class EquivariantMPNN2D(nn.Module):
    r"""Message passing along chains with scalar and vector channels, invariant to rotations and reflections.

    Each layer hears the neighbours' scalars and vectors times the couplings, mixes vectors by scalar gates, and feeds
    their inner products into the scalars; the output is the sum over atoms.

    Args:
        layers: Number of layers.
        width: Number of scalar and of vector channels.

    Raises:
        ValueError: For no layers.

    Source: batatia2023mfn (the local baseline).
    """

    def __init__(self, layers: int, width: int = 16) -> None:
        super().__init__()
        require(layers >= 1 and width >= 1, "at least one layer and a width of at least 1", (layers, width))
        self.enter, self.lift = nn.Linear(2, width), nn.Parameter(torch.randn(width))
        self.update = nn.ModuleList(SkipMLP(5 * width, width, 3 * width) for _ in range(layers))
        self.mix = nn.ParameterList(nn.Parameter(torch.randn(2, width, width) * width**-0.5) for _ in range(layers))
        self.read = SkipMLP(width, width, 1)

    def forward(self, chains: Float[Tensor, "N A 6"]) -> Float[Tensor, " N"]:
        """Energies.

        Args:
            chains: For each atom of the chain, ends included: whether it is an end, whether it is inner, its direction
                (zero if inner), and the couplings to the previous and to the next atom; rows of zeros are padding.
        """
        kind, direction, back, ahead = chains[..., :2], chains[..., 2:4], chains[..., 4:5], chains[..., 5:6]
        mask = kind.sum(-1, keepdim=True)
        s = self.enter(kind) * mask
        v = direction[..., None, :] * self.lift[:, None]
        for update, mix in zip(self.update, self.mix):
            heard = back * _shift(s, 1) + ahead * _shift(s, -1)
            arrows = back[..., None] * _shift(v, 1) + ahead[..., None] * _shift(v, -1)
            products = [(v * v).sum(-1), (v * arrows).sum(-1), (arrows * arrows).sum(-1)]
            new = update(torch.cat([s, heard, *products], -1)) * mask
            step, keep, take = new.chunk(3, dim=-1)
            mixed = torch.einsum("...cd,ce->...ed", v, mix[0]) * keep[..., None]
            v = v + mixed + torch.einsum("...cd,ce->...ed", arrows, mix[1]) * take[..., None]
            # Vectors of bounded length keep deep networks trainable, and a radial factor keeps them equivariant.
            v = v / (1 + (v * v).sum((-1, -2), keepdim=True)).sqrt()
            s = s + torch.tanh(step) * mask
        return (self.read(s) * mask).sum((-1, -2))


def _shift(x: Tensor, by: int) -> Tensor:
    """Values of the atoms before (1) or after (-1) along the second axis, zero at the ends."""
    axis = 1 if x.ndim in (3, 4) else 0
    pad = torch.zeros_like(x.narrow(axis, 0, 1))
    inner = x.narrow(axis, 0, x.shape[axis] - 1) if by == 1 else x.narrow(axis, 1, x.shape[axis] - 1)
    return torch.cat([pad, inner] if by == 1 else [inner, pad], dim=axis)


def chain_features(cumulenes: Cumulenes) -> Float[Tensor, "N A 6"]:
    """Cumulenes as the input of :class:`EquivariantMPNN2D`, float32."""
    count, longest = len(cumulenes.atoms), cumulenes.hopping.shape[1] - 1
    place, m = torch.arange(longest + 2), cumulenes.atoms[:, None]
    left, right = (place == 0).expand(count, -1), place == m + 1
    inner = (place >= 1) & (place <= m)
    direction = left[..., None] * cumulenes.ends[:, :1] + right[..., None] * cumulenes.ends[:, 1:]
    zero = torch.zeros(count, 1, dtype=cumulenes.hopping.dtype)
    back, ahead = torch.cat([zero, cumulenes.hopping], 1), torch.cat([cumulenes.hopping, zero], 1)
    columns = [(left | right).double(), inner.double(), *direction.unbind(-1), back, ahead]
    return torch.stack(columns, -1).float()
