r"""Dual activations: what an activation does to the covariance of two jointly Gaussian pre-activations.

For :math:`(u, v) \sim \mathcal N(0, \Sigma)` with variances :math:`q_1, q_2` and covariance :math:`k` an activation
:math:`\phi` has the dual :math:`\mathbb E\,\phi(u)\phi(v)` and the derivative's dual
:math:`\mathbb E\,\phi'(u)\phi'(v)`. They are all that the infinite-width kernels need to know of :math:`\phi`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import roots_hermitenorm
from torch import Tensor

from netatlas.core.checks import require, require_finite

Elementwise = Callable[[Tensor], Tensor]
Pair = tuple[Tensor, Tensor | None]

# Correlations this close to one are one within rounding: the angle that they stand for is below 6e-8.
_SNAP = 8


@functools.lru_cache(maxsize=16)
def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = roots_hermitenorm(count)
    return nodes, weights / weights.sum()


def hermite_nodes(count: int, *, like: Tensor | None = None) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    r"""Nodes and weights of Gauss-Hermite quadrature for a standard Gaussian.

    .. math:: \mathbb E\, g(z) \approx \sum_{i=1}^{m} w_i\, g(z_i), \qquad z \sim \mathcal N(0, 1)

    Exact for polynomials of degree below :math:`2m`.

    Args:
        count: The number :math:`m` of nodes, at least 1.
        like: A tensor whose device and dtype the result takes; float64 on the CPU without it.

    Raises:
        ValueError: For fewer than one node.
    """
    require(count >= 1, "at least one node", count)
    target = torch.empty(0, dtype=torch.float64) if like is None else like
    z, w = (torch.from_numpy(part.copy()) for part in _nodes(count))
    return z.to(target.device, target.dtype), w.to(target.device, target.dtype)


def gaussian_mean(
    function: Elementwise, variance: Float[Tensor, " *shape"] | float, *, nodes: int = 200
) -> Float[Tensor, " *shape"]:
    r"""Mean of a function of one Gaussian variable, :math:`\mathbb E\, g(\sqrt q\, z)`, by Gauss-Hermite quadrature.

    Args:
        function: Elementwise :math:`g`.
        variance: Variances :math:`q \ge 0`.
        nodes: Nodes of the quadrature.

    Raises:
        ValueError: For a negative or NaN variance.
    """
    q = torch.as_tensor(variance, dtype=torch.float64) if not isinstance(variance, Tensor) else variance
    require_finite("variance", q)
    require(q.device.type == "meta" or bool((q >= 0).all()), "variances of at least 0", q)
    z, w = hermite_nodes(nodes, like=q)
    return function(q.sqrt()[..., None] * z) @ w


def hermite_coefficients(
    function: Elementwise, variance: Float[Tensor, " *shape"] | float, degree: int, *, nodes: int = 200
) -> Float[Tensor, "*shape degree1"]:
    r"""Coefficients of a function in normalised probabilists' Hermite polynomials.

    .. math:: a_k(q) = \mathbb E\bigl[\phi(\sqrt q\, z)\, h_k(z)\bigr], \qquad h_k = He_k / \sqrt{k!}

    Args:
        function: Elementwise :math:`\phi`.
        variance: Variances :math:`q \ge 0`.
        degree: Largest :math:`k`, at least 0 and below ``nodes``.
        nodes: Nodes of the quadrature.

    Returns:
        The coefficients for :math:`k = 0, \dots,` ``degree`` on a new last axis.

    Raises:
        ValueError: For a degree out of range or a bad variance.
    """
    require(0 <= degree < nodes, f"a degree from 0 to {nodes - 1}", degree)
    q = torch.as_tensor(variance, dtype=torch.float64) if not isinstance(variance, Tensor) else variance
    require_finite("variance", q)
    require(q.device.type == "meta" or bool((q >= 0).all()), "variances of at least 0", q)
    z, w = hermite_nodes(nodes, like=q)
    return (function(q.sqrt()[..., None] * z) * w) @ _hermite_table(nodes, degree, z)


def _hermite_table(nodes: int, degree: int, like: Tensor) -> Tensor:
    """Normalised Hermite polynomials at the nodes, ``[nodes, degree + 1]``."""
    return torch.from_numpy(_hermite_numpy(nodes, degree)).to(like.device, like.dtype)


@functools.lru_cache(maxsize=16)
def _hermite_numpy(nodes: int, degree: int) -> np.ndarray:
    z = _nodes(nodes)[0]
    rows = [np.ones_like(z), z]
    for k in range(1, degree):
        rows.append((z * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1))
    return np.stack(rows[: degree + 1], 1)


def _correlation(cov: Tensor, root1: Tensor, root2: Tensor) -> Tensor:
    """Correlations in [-1, 1]; where a variance is zero the correlation is taken as zero."""
    tiny = torch.finfo(cov.dtype).tiny
    inverse1, inverse2 = (torch.where(r > tiny, 1 / r.clamp_min(tiny), 0) for r in (root1, root2))
    c = (cov * inverse1).mul_(inverse2).clamp_(-1, 1)
    edge = 1 - _SNAP * torch.finfo(cov.dtype).eps
    return c.masked_fill_(c > edge, 1.0)


def arc_cosines(
    correlation: Float[Tensor, " *shape"],
) -> tuple[Float[Tensor, " *shape"], Float[Tensor, " *shape"]]:
    r"""Normalised arc-cosine kernels of order 0 and 1 of a correlation, both 1 at correlation 1.

    .. math::

        \kappa_0(c) = \frac{\pi - \arccos c}{\pi}, \qquad
        \kappa_1(c) = \frac{\sqrt{1 - c^2} + (\pi - \arccos c)\, c}{\pi}

    Args:
        correlation: Correlations; values beyond :math:`\pm 1` by rounding are clamped.
    """
    c = correlation.clamp(-1, 1)
    angle = torch.acos(c).neg_().add_(math.pi).mul_(1 / math.pi)
    sine = c.add(1).mul_(1 - c).sqrt_().mul_(1 / math.pi)
    return angle, sine.addcmul_(angle, c)


def arc_cosine(correlation: Float[Tensor, " *shape"], order: int) -> Float[Tensor, " *shape"]:
    r"""One of the normalised arc-cosine kernels of :func:`arc_cosines`.

    Args:
        correlation: Correlations.
        order: 0 or 1.

    Raises:
        ValueError: For another order, or NaN.
    """
    require(order in (0, 1), "an order out of 0, 1", order)
    require_finite("correlation", correlation)
    return arc_cosines(correlation)[order]


class Activation:
    r"""An activation together with its dual.

    Attributes:
        name: What it is called.
    """

    name = "activation"

    def __call__(self, x: Tensor) -> Tensor:
        """The activation itself, elementwise."""
        raise NotImplementedError

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        r"""Duals :math:`\mathbb E\,\phi(u)\phi(v)` and, if asked for, :math:`\mathbb E\,\phi'(u)\phi'(v)`.

        Args:
            cov: Covariances :math:`k`.
            var1: Variances :math:`q_1` of the first variable, broadcastable to ``cov``.
            var2: Variances :math:`q_2` of the second variable, broadcastable to ``cov``.
            derivative: Whether the derivative's dual is wanted; ``None`` stands in its place if not.
        """
        raise NotImplementedError

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        r"""Second moments :math:`\mathbb E\,\phi(u)^2` and :math:`\mathbb E\,\phi'(u)^2`, without rounding in the
        correlation.

        Args:
            var: Variances :math:`q`.
            derivative: Whether the derivative's moment is wanted.
        """
        raise NotImplementedError


class Identity(Activation):
    r"""The linear activation :math:`\phi(x) = x`, with duals :math:`k` and 1."""

    name = "identity"

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        return cov.clone(), torch.ones_like(cov) if derivative else None

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        return var.clone(), torch.ones_like(var) if derivative else None


class ABReLU(Activation):
    r"""The ReLU family :math:`\phi(x) = a \min(x, 0) + b \max(x, 0)`: ReLU, leaky ReLU, absolute value, linear.

    With the correlation :math:`c = \cos\theta` and :math:`s = (b - a)^2`,

    .. math::

        \mathbb E\,\phi\phi = s \sqrt{q_1 q_2}\; \frac{\sin\theta + (\pi - \theta)\cos\theta}{2\pi} + a b\, k,
        \qquad
        \mathbb E\,\phi'\phi' = s\, \frac{\pi - \theta}{2\pi} + a b .

    Args:
        a: Slope for negative inputs.
        b: Slope for positive inputs.

    Raises:
        ValueError: For slopes that are NaN or infinite.
    """

    def __init__(self, a: float = 0.0, b: float = 1.0) -> None:
        require(math.isfinite(a) and math.isfinite(b), "finite slopes", (a, b))
        self.a, self.b = float(a), float(b)
        self.name = f"abrelu({a:g}, {b:g})" if (a, b) != (0, 1) else "relu"

    def __call__(self, x: Tensor) -> Tensor:
        if (self.a, self.b) == (0.0, 1.0):
            return torch.relu(x)
        return self.a * x.clamp(max=0) + self.b * x.clamp(min=0)

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        root1, root2 = var1.sqrt(), var2.sqrt()
        factor = (self.b - self.a) ** 2 / (2 * math.pi)
        c = _correlation(cov, root1, root2)
        angle = torch.acos(c).neg_().add_(math.pi)
        sine = c.add(1).mul_(1 - c).sqrt_()
        mean = sine.addcmul_(angle, c).mul_(root1).mul_(root2 * factor)
        if self.a * self.b:
            mean.add_(cov, alpha=self.a * self.b)
        if not derivative:
            return mean, None
        slope = angle.mul_(factor)
        return mean, slope.add_(self.a * self.b) if self.a * self.b else slope

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        half = (self.a**2 + self.b**2) / 2
        return var * half, torch.full_like(var, half) if derivative else None


class RectifiedSquare(Activation):
    r"""The squared ReLU :math:`\phi(x) = \max(x, 0)^2`, arc-cosine kernel of order 2.

    .. math::

        \mathbb E\,\phi\phi = q_1 q_2\, \frac{3\sin\theta\cos\theta + (\pi - \theta)(1 + 2\cos^2\theta)}{2\pi}, \qquad
        \mathbb E\,\phi'\phi' = 4 \sqrt{q_1 q_2}\; \frac{\sin\theta + (\pi - \theta)\cos\theta}{2\pi}
    """

    name = "rectified square"

    def __call__(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        root1, root2 = var1.sqrt(), var2.sqrt()
        c = _correlation(cov, root1, root2)
        angle = torch.acos(c).neg_().add_(math.pi)
        sine = c.add(1).mul_(1 - c).sqrt_()
        mean = (3 * sine * c).addcmul_(angle, 1 + 2 * c * c).mul_(var1 / (2 * math.pi)).mul_(var2)
        slope = sine.addcmul_(angle, c).mul_(root1).mul_(root2 * (2 / math.pi)) if derivative else None
        return mean, slope

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        return 1.5 * var * var, 2 * var if derivative else None


class Erf(Activation):
    r"""The error function :math:`\phi(x) = \operatorname{erf}(x)`.

    .. math::

        \mathbb E\,\phi\phi = \frac2\pi \arcsin\frac{2k}{\sqrt{(1 + 2q_1)(1 + 2q_2)}}, \qquad
        \mathbb E\,\phi'\phi' = \frac4\pi \bigl((1 + 2q_1)(1 + 2q_2) - 4k^2\bigr)^{-1/2}
    """

    name = "erf"

    def __call__(self, x: Tensor) -> Tensor:
        return torch.erf(x)

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        wide1, wide2 = 1 + 2 * var1, 1 + 2 * var2
        ratio = (cov * (2 * wide1.rsqrt())).mul_(wide2.rsqrt()).clamp_(-1, 1)
        slope = None
        if derivative:
            # (1 - r)(1 + r) keeps the digits that 1 - r^2 would lose.
            slope = ratio.add(1).mul_(1 - ratio).rsqrt_().mul_(wide1.rsqrt() * (4 / math.pi)).mul_(wide2.rsqrt())
        return ratio.asin_().mul_(2 / math.pi), slope

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        mean = torch.asin(2 * var / (1 + 2 * var)) * (2 / math.pi)
        return mean, (1 + 4 * var).rsqrt() * (4 / math.pi) if derivative else None


class Sin(Activation):
    r"""The sine :math:`\phi(x) = \sin x`.

    .. math::

        \mathbb E\,\phi\phi = e^{-(q_1 + q_2)/2} \sinh k, \qquad \mathbb E\,\phi'\phi' = e^{-(q_1 + q_2)/2} \cosh k
    """

    name = "sin"

    def __call__(self, x: Tensor) -> Tensor:
        return torch.sin(x)

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        # sinh and cosh of the difference in exponents: no overflow, whatever the variances.
        middle = (var1 + var2) / 2
        up, down = torch.exp(cov - middle), torch.exp(-cov - middle)
        tilt = torch.exp(-cov.abs() - middle) * torch.expm1(2 * cov.abs()) / 2
        near = cov.abs() < 1
        return torch.where(near, torch.sign(cov) * tilt, (up - down) / 2), (up + down) / 2 if derivative else None

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        return -torch.expm1(-2 * var) / 2, (1 + torch.exp(-2 * var)) / 2 if derivative else None


class Hermite(Activation):
    r"""Any activation, by its Hermite expansion at each variance.

    .. math::

        \mathbb E\,\phi(u)\phi(v) = \sum_{k=0}^{K} a_k(q_1)\, a_k(q_2)\, c^k, \qquad
        \mathbb E\,\phi'(u)\phi'(v) = \sum_{k=1}^{K} \frac{k\, a_k(q_1)\, a_k(q_2)\, c^{k-1}}{\sqrt{q_1 q_2}}

    with :func:`hermite_coefficients` :math:`a_k` and the correlation :math:`c`. Second moments come from quadrature,
    not
    from the truncated sum. The expansion converges fast for smooth activations; kinks need a closed form.

    Args:
        function: Elementwise :math:`\phi`.
        slope: Its derivative; by automatic differentiation without it.
        degree: The largest :math:`K`.
        nodes: Nodes of the quadrature, more than ``degree``.
        name: What it is called.

    Raises:
        ValueError: For a degree out of range.
    """

    def __init__(
        self,
        function: Elementwise,
        slope: Elementwise | None = None,
        *,
        degree: int = 60,
        nodes: int = 200,
        name: str = "hermite",
    ) -> None:
        require(1 <= degree < nodes, f"a degree from 1 to {nodes - 1}", degree)
        self.function, self.degree, self.nodes, self.name = function, degree, nodes, name
        self.slope = slope or _slope(function)

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def dual(self, cov: Tensor, var1: Tensor, var2: Tensor, derivative: bool = True) -> Pair:
        tiny = torch.finfo(cov.dtype).tiny
        first = hermite_coefficients(self.function, var1, self.degree, nodes=self.nodes)
        second = hermite_coefficients(self.function, var2, self.degree, nodes=self.nodes)
        root1, root2 = var1.sqrt(), var2.sqrt()
        c = _correlation(cov, root1, root2)
        mean = first[..., self.degree] * second[..., self.degree] + torch.zeros_like(c)
        slope = self.degree * mean if derivative else None
        for k in range(self.degree - 1, -1, -1):
            mean = mean.mul_(c).addcmul_(first[..., k], second[..., k])
            if slope is not None and k:
                slope.mul_(c).addcmul_(k * first[..., k], second[..., k])
        if slope is None:
            return mean, None
        if cov.device.type != "meta" and not bool((var1 > tiny).all() and (var2 > tiny).all()):
            return mean, self._slope_dual(cov, var1, var2)
        return mean, slope.div_(root1).div_(root2)

    def _slope_dual(self, cov: Tensor, var1: Tensor, var2: Tensor) -> Tensor:
        """The expansion of the derivative itself: slower, but right at variance zero."""
        return Hermite(self.slope, degree=self.degree, nodes=self.nodes).dual(cov, var1, var2, False)[0]

    def diagonal(self, var: Tensor, derivative: bool = True) -> Pair:
        mean = gaussian_mean(lambda x: self.function(x) ** 2, var, nodes=self.nodes)
        return mean, gaussian_mean(lambda x: self.slope(x) ** 2, var, nodes=self.nodes) if derivative else None


def _slope(function: Elementwise) -> Elementwise:
    """The derivative of an elementwise function."""

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            return torch.autograd.grad(function(point).sum(), point)[0]

    return slope


def gauss_hermite_dual(
    function: Elementwise,
    cov: Float[Tensor, " *shape"],
    var1: Float[Tensor, " *shape"],
    var2: Float[Tensor, " *shape"],
    *,
    nodes: int = 100,
) -> Float[Tensor, " *shape"]:
    r"""The dual of any function by two-dimensional Gauss-Hermite quadrature, the check on every other form.

    .. math::

        \mathbb E\,\phi(u)\phi(v) \approx \sum_{ij} w_i w_j\,
        \phi(\sqrt{q_1}\, z_i)\; \phi\bigl(\sqrt{q_2}\, (c\, z_i + \sqrt{1 - c^2}\, z_j)\bigr)

    Args:
        function: Elementwise :math:`\phi`.
        cov: Covariances :math:`k`.
        var1: Variances :math:`q_1`.
        var2: Variances :math:`q_2`.
        nodes: Nodes along each of the two axes; memory grows with their square.

    Raises:
        ValueError: For NaN or infinite entries.
    """
    for name, values in (("cov", cov), ("var1", var1), ("var2", var2)):
        require_finite(name, values)
    z, w = hermite_nodes(nodes, like=cov)
    root1, root2 = (torch.broadcast_to(v, cov.shape).sqrt() for v in (var1, var2))
    c = _correlation(cov, root1, root2)
    first = function(root1[..., None] * z)
    along = (root2 * c)[..., None, None] * z[:, None]
    across = (root2 * ((1 - c) * (1 + c)).sqrt())[..., None, None] * z
    return ((function(along + across) @ w) * first) @ w


def relu() -> Activation:
    """The ReLU."""
    return ABReLU(0.0, 1.0)


def tanh() -> Activation:
    """The hyperbolic tangent, by its Hermite expansion."""
    return Hermite(torch.tanh, lambda x: 1 - torch.tanh(x) ** 2, degree=100, nodes=300, name="tanh")


def gelu() -> Activation:
    r"""The GELU :math:`x\,\Phi(x)`, by its Hermite expansion."""

    def slope(x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(x / 2**0.5)) + x * torch.exp(-(x**2) / 2) / (2 * math.pi) ** 0.5

    return Hermite(torch.nn.functional.gelu, slope, name="gelu")
