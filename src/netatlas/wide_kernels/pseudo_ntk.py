r"""The sum-of-logits kernel beside the full tangent kernel: errors of Gram matrices and of predictions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


class GramError(NamedTuple):
    """Relative errors of an ``[n, n]`` kernel as a stand-in for an ``[n, n, O, O]`` one.

    ``frobenius`` is over the whole Gram matrix, ``pairwise`` the mean over pairs of points, ``top`` that of the largest
    eigenvalue.
    """

    frobenius: float
    pairwise: float
    top: float


def largest_eigenvalue(matrix: Float[Tensor, "n n"], *, iterations: int = 50) -> float:
    r"""Largest eigenvalue of a positive semi-definite matrix by power iteration with a Rayleigh quotient.

    Args:
        matrix: Symmetric, positive semi-definite.
        iterations: Steps.

    Raises:
        ValueError: For a matrix that is not square, or NaN.
    """
    require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "a square matrix", tuple(matrix.shape))
    require_finite("matrix", matrix)
    # A fixed start that is orthogonal to nothing in particular.
    vector = torch.cos(torch.arange(len(matrix), dtype=matrix.dtype, device=matrix.device)) + 1.1
    for _ in range(iterations):
        vector = matrix @ (vector / vector.norm().clamp_min(torch.finfo(matrix.dtype).tiny))
    unit = vector / vector.norm().clamp_min(torch.finfo(matrix.dtype).tiny)
    return float(unit @ (matrix @ unit))


def flat_gram(kernel: Float[Tensor, "n m O O"]) -> Float[Tensor, "nO mO"]:
    """The full kernel as one matrix, outputs of a point side by side.

    Args:
        kernel: ``[n, m, O, O]``.
    """
    require(kernel.ndim == 4 and kernel.shape[2] == kernel.shape[3], "a kernel [n, m, O, O]", tuple(kernel.shape))
    n, m, o, _ = kernel.shape
    return kernel.permute(0, 2, 1, 3).reshape(n * o, m * o)


def frobenius_error(full: Float[Tensor, "n n O O"], scalar: Float[Tensor, "n n"]) -> float:
    r"""Relative Frobenius error of :math:`\Theta \approx \hat\Theta \otimes I_O` over the whole Gram matrix.

    Args:
        full: The kernel of all outputs.
        scalar: The kernel that stands for it.

    Raises:
        ValueError: For shapes that do not fit.

    Source:
        mohamadi2022pntk (convergence in Frobenius norm).
    """
    return float(_gap(full, scalar).norm() / full.norm())


def _gap(full: Tensor, scalar: Tensor) -> Tensor:
    require(full.ndim == 4 and scalar.shape == full.shape[:2], f"a scalar kernel {tuple(full.shape[:2])}", scalar.shape)
    gap = full.clone()
    gap.diagonal(dim1=2, dim2=3).sub_(scalar[..., None])
    return gap


def gram_error(full: Float[Tensor, "n n O O"], scalar: Float[Tensor, "n n"]) -> GramError:
    r"""Errors of the approximation :math:`\Theta \approx \hat\Theta \otimes I_O`.

    .. math::

        \frac{\lVert \Theta - \hat\Theta \otimes I_O \rVert_F}{\lVert \Theta \rVert_F}, \qquad
        \frac{|\lambda_{\max}(\Theta) - \lambda_{\max}(\hat\Theta)|}{\lambda_{\max}(\Theta)}

    Args:
        full: The kernel of all outputs.
        scalar: The kernel that stands for it.

    Raises:
        ValueError: For shapes that do not fit.

    Source:
        mohamadi2022pntk (convergence of norm and top eigenvalue).
    """
    gap = _gap(full, scalar)
    size = full.square().sum((2, 3)).sqrt()
    top = largest_eigenvalue(flat_gram(full))
    return GramError(
        float(gap.norm() / full.norm()),
        float((gap.square().sum((2, 3)).sqrt() / size).mean()),
        abs(top - largest_eigenvalue(scalar)) / top,
    )


def residual_regression(
    train: Float[Tensor, "n n"] | Float[Tensor, "n n O O"],
    cross: Float[Tensor, "m n"] | Float[Tensor, "m n O O"],
    targets: Float[Tensor, "n O"],
    start_train: Float[Tensor, "n O"],
    start_test: Float[Tensor, "m O"],
    *,
    ridge: float = 0.0,
) -> Float[Tensor, "m O"]:
    r"""Kernel regression on what the network has yet to learn: the linearised network after training.

    .. math:: f(x) = f_0(x) + \Theta(x, X)\,(\Theta(X, X) + \lambda \bar\Theta I)^{-1} (y - f_0(X))

    with :math:`\bar\Theta` the mean of the diagonal. A kernel ``[n, n]`` is used for every output alike, with one
    factorisation of an ``n``-matrix; a kernel ``[n, n, O, O]`` couples outputs, in an ``nO``-matrix.

    Args:
        train: Kernel among the training points.
        cross: Kernel of test against training points.
        targets: Targets.
        start_train: The network at initialisation on the training points.
        start_test: The same on the test points.
        ridge: :math:`\lambda`, relative to the mean diagonal.

    Raises:
        ValueError: For shapes that do not fit, a negative ridge, or a Gram matrix that is singular.

    Source:
        mohamadi2022pntk (regression with the pseudo-NTK).
    """
    require(ridge >= 0, "a ridge of at least 0", ridge)
    require(targets.shape == start_train.shape, f"targets {tuple(start_train.shape)}", tuple(targets.shape))
    for name, values in (("train", train), ("cross", cross), ("targets", targets)):
        require_finite(name, values)
    n, o = targets.shape
    residual = targets - start_train
    if train.ndim == 4:
        matrix, right, rows = flat_gram(train), residual.reshape(n * o, 1), flat_gram(cross)
    else:
        matrix, right, rows = train.clone(), residual, cross
    require(len(matrix) == len(right), f"a Gram matrix for {n} points", tuple(train.shape))
    matrix.diagonal().add_(ridge * matrix.diagonal().mean())
    factor, info = torch.linalg.cholesky_ex(matrix)
    require(int(info) == 0, "a positive definite Gram matrix (add a ridge)", f"failure at row {int(info)}")
    return start_test + (rows @ torch.cholesky_solve(right, factor)).reshape(-1, o)
