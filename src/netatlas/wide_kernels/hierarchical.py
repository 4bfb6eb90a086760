r"""Kernels of deep convolutional networks with non-overlapping patches, and exact learning curves for random
teachers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.dual_activations import arc_cosines

Kind = Literal["ntk", "nngp"]

_BLOCK = 2**17


def circle_patches(count: int, patches: int, *, seed: int) -> Float[Tensor, "count patches 2"]:
    """Inputs of ``patches`` adjacent pairs, each pair uniform on the unit circle.

    Args:
        count: Inputs.
        patches: Patches of two coordinates.
        seed: Seed.
    """
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(count, patches, generator=generator, dtype=torch.float64) * (2 * math.pi)
    return torch.stack([angle.cos(), angle.sin()], -1)


def _unit(name: str, x: Tensor) -> None:
    require(x.ndim == 3, f"{name} of shape [n, patches, size]", tuple(x.shape))
    require_finite(name, x)
    off = (x.square().sum(-1) - 1).abs().max() if x.device.type != "meta" else 0
    require(float(off) < 1e-6, f"unit patches in {name}", f"squared norms off by {float(off):.2g}")


def hierarchical_kernel(
    x: Float[Tensor, "n patches s1"],
    y: Float[Tensor, "m patches s1"],
    filters: tuple[int, ...],
    kind: Kind = "ntk",
) -> Float[Tensor, "n m"]:
    r"""Kernel of an infinitely wide ReLU network whose filters cover ``filters[l]`` neighbours each, without overlap.

    With :math:`t` the inner products of the patches, :math:`C = N = t` and, for each hidden layer,

    .. math:: R = \overline{\kappa_1(C)}, \qquad N \leftarrow \overline{\kappa_0(C)\,N} + R, \qquad C \leftarrow R,

    the bar being the mean over the children of one parent, over all that remain at the last layer. The NNGP kernel is
    :math:`R`, the NTK is :math:`N`.

    Args:
        x: Inputs of unit patches.
        y: More inputs.
        filters: Filter sizes; the first is the patch size, their product at most the number of inputs.
        kind: ``"ntk"`` or ``"nngp"``.

    Raises:
        ValueError: For patches that are not unit vectors, or filters that do not fit.

    Source:
        cagnetta2022what (hierarchical kernels).
    """
    require(kind in ("ntk", "nngp"), "a kind out of ntk, nngp", kind)
    _unit("x", x)
    _unit("y", y)
    require(x.shape[1:] == y.shape[1:], f"y of shape [m, {x.shape[1]}, {x.shape[2]}]", tuple(y.shape))
    require(len(filters) >= 1 and filters[0] == x.shape[2], f"a first filter of size {x.shape[2]}", filters)
    units = x.shape[1]
    require(units % math.prod(filters[1:]) == 0, f"filters that divide {units} patches", filters)
    symmetric = x is y
    result = x.new_empty(len(x), len(y))
    # Rows in blocks that the cache holds; of a symmetric Gram matrix the right upper part.
    step = max(1, _BLOCK // (units * len(y)))
    for i in range(0, len(x), step):
        start = i if symmetric else 0
        result[i : i + step, start:] = _hierarchical(x[i : i + step], y[start:], filters, kind)
    return result if not symmetric else torch.triu(result) + torch.triu(result, 1).mT


def _hierarchical(x: Tensor, y: Tensor, filters: tuple[int, ...], kind: Kind) -> Tensor:
    c = (x.transpose(0, 1) @ y.permute(1, 2, 0)).clamp_(-1, 1)
    n = c.clone()
    for layer in range(len(filters)):
        group = filters[layer + 1] if layer + 1 < len(filters) else len(c)
        slope, r = arc_cosines(c)
        n.mul_(slope)
        shape = (len(c) // group, group, len(x), len(y))
        c, n = r.reshape(shape).mean(1), n.reshape(shape).mean(1)
        n += c
    return (n if kind == "ntk" else c)[0]


def dense_sphere_kernel(
    x: Float[Tensor, "n patches s1"], y: Float[Tensor, "m patches s1"], depth: int, kind: Kind = "ntk"
) -> Float[Tensor, "n m"]:
    r"""Kernel of a fully connected ReLU network of ``depth`` hidden layers on the same inputs, on one sphere, no bias.

    Args:
        x: Inputs of unit patches.
        y: More inputs.
        depth: Hidden layers.
        kind: ``"ntk"`` or ``"nngp"``.

    Raises:
        ValueError: As :func:`hierarchical_kernel`, or for no hidden layer.

    Source:
        cagnetta2022what (hierarchical kernels).
    """
    require(depth >= 1, "at least one hidden layer", depth)
    _unit("x", x)
    _unit("y", y)
    c = (x.flatten(1) @ y.flatten(1).mT).div_(x.shape[1]).clamp_(-1, 1)
    n = c.clone()
    for _ in range(depth):
        slope, c = arc_cosines(c)
        n.mul_(slope).add_(c)
    return n if kind == "ntk" else c


def teacher_average_error(
    student: Float[Tensor, "P P"],
    student_cross: Float[Tensor, "P m"],
    teachers: list[tuple[Tensor, Tensor, Tensor]],
    *,
    ridge: float = 1e-10,
) -> list[float]:
    r"""Test error of kernel regression, averaged exactly over Gaussian random teachers.

    .. math::

        \operatorname{err} = \frac{\overline{T_{tt} - 2 a_t^\top T_{xt} + a_t^\top T_{xx} a_t}}{\overline{T_{tt}}},
        \qquad a_t = S_{xx}^{-1} S_{xt}

    with :math:`S` the student's kernel and :math:`T` the teacher's covariance: no field is sampled. One factorisation
    serves all teachers.

    Args:
        student: :math:`S_{xx}`.
        student_cross: :math:`S_{xt}`.
        teachers: For each teacher :math:`T_{xx}` ``[P, P]``, :math:`T_{xt}` ``[P, m]`` and the diagonal ``[m]`` of
            :math:`T_{tt}`.
        ridge: Added to :math:`S_{xx}`, relative to its mean diagonal.

    Returns:
        For each teacher the error relative to the teacher's variance.

    Raises:
        ValueError: For a singular student's kernel.

    Source:
        cagnetta2022what (teacher and student); the closed average is derived here.
    """
    require_finite("student", student)
    matrix = student.clone()
    matrix.diagonal().add_(ridge * student.diagonal().mean())
    factor, info = torch.linalg.cholesky_ex(matrix)
    require(int(info) == 0, "a positive definite student kernel (add a ridge)", f"failure at row {int(info)}")
    a = torch.cholesky_solve(student_cross, factor)
    errors = []
    for inner, cross, own in teachers:
        square = (a * (inner @ a)).sum(0)
        errors.append(float((own - 2 * (a * cross).sum(0) + square).mean() / own.mean()))
    return errors


def effective_dimension(filters: tuple[int, ...]) -> int:
    r"""Effective dimension :math:`(s_1 - 1)\, s_2 \cdots s_\ell` of what one unit of the last layer sees.

    Args:
        filters: Filter sizes.

    Source:
        cagnetta2022what (the spectrum).
    """
    return (filters[0] - 1) * math.prod(filters[1:])


def predicted_exponent(
    student_dimension: int, teacher_dimension: int, *, student_smoothness: float = 0.5, teacher_smoothness: float = 0.5
) -> float:
    r"""Learning-curve exponent by the spectral cut: modes above the student's ``P``-th eigenvalue are learnt.

    .. math:: \beta = \frac{2\nu_T\,(2\nu_S + D)}{D\,(2\nu_S + d_T)}

    Args:
        student_dimension: :math:`D`.
        teacher_dimension: Effective dimension :math:`d_T` of the teacher.
        student_smoothness: :math:`\nu_S`, 1/2 for the NTK, 3/2 for the NNGP kernel.
        teacher_smoothness: :math:`\nu_T`.

    Source:
        cagnetta2022what (spectrum); this exponent of the ridgeless cut is derived here.
    """
    d, s = student_dimension, 2 * student_smoothness
    return 2 * teacher_smoothness * (s + d) / (d * (s + teacher_dimension))
