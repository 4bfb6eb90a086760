"""Node proximities: dense matrices that say how near two nodes are, each in its own sense, and filters on them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr

Matrix = Float[Tensor, "n n"]


def _dense(graph: Any, device: str | torch.device, dtype: torch.dtype) -> Matrix:
    adjacency = torch.from_numpy(as_csr(graph).toarray())
    require(
        bool(torch.equal(adjacency, adjacency.T)), "an undirected graph (a symmetric adjacency matrix)", "asymmetric"
    )
    return adjacency.to(device=device, dtype=dtype)


def _inverse(degree: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return torch.where(degree > 0, 1.0 / degree.clamp_min(torch.finfo(degree.dtype).tiny), 0.0)


def _laplacian(adjacency: Matrix) -> Matrix:
    return torch.diag(adjacency.sum(1)) - adjacency


def proximity_rwtm(
    graph: Any, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n n"]:
    r"""Random-walk transition matrix, :math:`M = P = D^{-1} A`.

    Args:
        graph: undirected, anything that ``netatlas.core.graph.as_csr`` reads, n nodes.
        device, dtype: of the result.

    Returns:
        ``[n, n]``; row i is the distribution of a walk's next node; rows of isolated nodes are zero.

    Raises:
        ValueError: for a bad or directed graph.

    Source: ``zhu2021phusion``, table of proximities (RWTM).
    """
    adjacency = _dense(graph, device, dtype)
    return _inverse(adjacency.sum(1))[:, None] * adjacency


def proximity_a2(
    graph: Any, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n n"]:
    r"""Number of walks of two steps, :math:`M = A^2`.

    Args:
        graph, device, dtype: as in :func:`proximity_rwtm`.

    Raises:
        ValueError: for a bad or directed graph.

    Source: ``zhu2021phusion``, table of proximities.
    """
    adjacency = _dense(graph, device, dtype)
    return adjacency @ adjacency


def proximity_ppmi(
    graph: Any,
    *,
    window: int = 10,
    negatives: float = 1.0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "n n"]:
    r"""Co-occurrence on walks over its value by chance, the matrix under NetMF's logarithm.

    .. math:: M = \frac{\mathrm{vol}(G)}{b\, T} \Big(\sum_{r=1}^{T} P^r\Big) D^{-1}, \qquad P = D^{-1} A

    Args:
        graph, device, dtype: as in :func:`proximity_rwtm`.
        window: T, the largest distance on the walk.
        negatives: b.

    Raises:
        ValueError: for a bad or directed graph, a window below 1, or b not positive.

    Source: ``zhu2021phusion``, table of proximities (PPMI, after Qiu et al., 2018).
    """
    require(window >= 1, "a window of at least 1", window)
    require(negatives > 0, "a positive number of negatives", negatives)
    adjacency = _dense(graph, device, dtype)
    degree = adjacency.sum(1)
    inverse = _inverse(degree)
    step = inverse[:, None] * adjacency
    # Horner's rule: the sum of T powers for T - 1 products.
    total = step
    for _ in range(window - 1):
        total = step + step @ total
    return total * (degree.sum() / (negatives * window)) * inverse


def proximity_ppr(
    graph: Any, *, beta: float = 0.85, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n n"]:
    r"""Personalised PageRank, :math:`M = (1 - \beta)\,(I - \beta P)^{-1}`; row i is the distribution of source i.

    Args:
        graph, device, dtype: as in :func:`proximity_rwtm`.
        beta: probability of going on, in (0, 1).

    Raises:
        ValueError: for a bad or directed graph, or beta outside (0, 1).

    Source: ``zhu2021phusion``, table of proximities (PPR).
    """
    require(0 < beta < 1, "beta in (0, 1)", beta)
    step = proximity_rwtm(graph, device=device, dtype=dtype)
    eye = torch.eye(len(step), device=step.device, dtype=dtype)
    return torch.linalg.solve(eye - beta * step, (1 - beta) * eye)


def proximity_heat(
    graph: Any, *, scale: float = 1.0, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n n"]:
    r"""Heat kernel, :math:`M = e^{-s L}` with :math:`L = D - A`; rows sum to one.

    Args:
        graph, device, dtype: as in :func:`proximity_rwtm`.
        scale: s, the time of diffusion, positive.

    Raises:
        ValueError: for a bad or directed graph, or s not positive.

    Source: ``zhu2021phusion``, table of proximities (heat kernel).
    """
    require(scale > 0, "a positive scale", scale)
    return torch.linalg.matrix_exp(-scale * _laplacian(_dense(graph, device, dtype)))


def proximity_fabp(
    graph: Any,
    *,
    homophily: float | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "n n"]:
    r"""Fast belief propagation, the linearised spread of a belief under homophily h.

    .. math::
        M = (I + a D - c A)^{-1}, \qquad a = \frac{4 h^2}{1 - 4 h^2}, \quad c = \frac{2 h}{1 - 4 h^2}

    Args:
        graph, device, dtype: as in :func:`proximity_rwtm`.
        homophily: h in (0, 1/2); by default :math:`1 / (2 + 2 \max_i d_i)`.

    Raises:
        ValueError: for a bad or directed graph, h outside (0, 1/2), or h at which the series of
            :math:`cA - aD` does not converge (spectral radius of one or more).

    Source: ``zhu2021phusion``, table of proximities (FaBP, after Koutra et al., 2011).
    """
    adjacency = _dense(graph, device, dtype)
    degree = adjacency.sum(1)
    h = 1.0 / (2.0 + 2.0 * float(degree.max())) if homophily is None else float(homophily)
    require(0 < h < 0.5, "homophily in (0, 1/2)", h)
    a, c = 4 * h * h / (1 - 4 * h * h), 2 * h / (1 - 4 * h * h)
    step = c * adjacency - a * torch.diag(degree)
    radius = float(torch.linalg.eigvalsh(step).abs().max())
    require(radius < 1, "homophily small enough for convergence (spectral radius of cA - aD below 1)", radius)
    return torch.linalg.inv(torch.eye(len(step), device=step.device, dtype=dtype) - step)


def proximity_laplacian_pinv(
    graph: Any, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n n"]:
    r"""Pseudo-inverse of the Laplacian, :math:`M = L^{+}`, whose entries are centred commute times.

    Args:
        graph, device, dtype: as in :func:`proximity_rwtm`.

    Raises:
        ValueError: for a bad or directed graph.

    Source: ``zhu2021phusion``, table of proximities.
    """
    return torch.linalg.pinv(_laplacian(_dense(graph, device, dtype)), hermitian=True)


#: The seven proximities by the names used in figures.
PROXIMITIES = {
    "PPMI": proximity_ppmi,
    "PPR": proximity_ppr,
    "heat": proximity_heat,
    "FaBP": proximity_fabp,
    "Laplacian pinv": proximity_laplacian_pinv,
    "A squared": proximity_a2,
    "RWTM": proximity_rwtm,
}


def relative_proximity(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    r"""A non-negative proximity over its value under independence, so that one means "as near as by chance".

    .. math:: \tilde M_{ij} = \frac{M_{ij} \sum_{ab} M_{ab}}{\sum_b M_{ib} \sum_a M_{aj}}

    The PPMI proximity already has this form up to its window; the others need it before a logarithm, because all
    their entries are at most about one.

    Args:
        matrix: non-negative ``[n, n]``; rows and columns that sum to zero stay zero.

    Raises:
        ValueError: for a matrix that is not square, not finite, or has entries below zero by more than rounding.

    Source: ``zhu2021phusion`` (the scale at which its log filter is NetMF's).
    """
    _check(matrix)
    if matrix.device.type != "meta":
        scale = float(matrix.abs().max())
        least = float(matrix.min())
        require(least >= -1e-9 * scale, "a non-negative matrix", least)
    matrix = matrix.clamp_min(0.0)
    expected = matrix.sum(1, keepdim=True) * matrix.sum(0, keepdim=True) / matrix.sum()
    return torch.where(expected > 0, matrix / expected.clamp_min(torch.finfo(matrix.dtype).tiny), 0.0)


def log_filter(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    r"""Logarithmic filter, :math:`\sigma(M) = \log \max(M, 1)`, entry by entry.

    Args:
        matrix: ``[n, n]``.

    Raises:
        ValueError: for a matrix that is not square or not finite.

    Source: ``zhu2021phusion``, the filter sigma.
    """
    _check(matrix)
    return matrix.clamp_min(1.0).log()


def _check(matrix: Tensor) -> None:
    require(
        matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and len(matrix) > 0,
        "a non-empty square matrix",
        f"shape {tuple(matrix.shape)}",
    )
    require_finite("matrix", matrix)
