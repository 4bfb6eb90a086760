r"""Networks whose last layer shares one random scale: Student-t processes in place of Gaussian ones.

:math:`\sigma^2 \sim \mathrm{InvGamma}(a, b)` is drawn once a network and multiplies the variance of all last-layer
weights; as
width grows, :math:`f \mid \sigma^2 \sim \mathcal{GP}(0, \sigma^2 K)` and :math:`f` is a t-process with :math:`2a`
degrees of
freedom and scale :math:`\frac ba K`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


def _cholesky(matrix: Tensor) -> Tensor:
    require(matrix.shape[-1] == matrix.shape[-2], "square scale matrices", tuple(matrix.shape))
    require_finite("scale", matrix)
    factor, info = torch.linalg.cholesky_ex(matrix)
    require(not bool(info.any()), "a positive definite scale matrix", "a singular or indefinite one")
    return factor


def multivariate_t_logpdf(
    y: Float[Tensor, "*batch n"], df: float, scale: Float[Tensor, "*batch n n"]
) -> Float[Tensor, " *batch"]:
    r"""Log density of a centred multivariate t.

    .. math::

        \log\Gamma\tfrac{\nu+n}2 - \log\Gamma\tfrac\nu2 - \tfrac n2\log(\nu\pi) - \tfrac12\log|\Sigma|
        - \tfrac{\nu+n}2 \log\bigl(1 + \tfrac1\nu y^\top\Sigma^{-1}y\bigr)

    Args:
        y: Points.
        df: Degrees of freedom :math:`\nu > 0`.
        scale: Scale matrices :math:`\Sigma`; the covariance is :math:`\frac{\nu}{\nu-2}\Sigma`.

    Raises:
        ValueError: For degrees of freedom that are not positive, or a scale matrix that is not positive definite.

    Source:
        lee2021scale (the limit with a random last-layer scale).
    """
    factor = _cholesky(scale)
    solved = torch.linalg.solve_triangular(factor, y[..., None], upper=False)[..., 0]
    return t_logpdf_from_quadratic(solved.square().sum(-1), y.shape[-1], df, log_determinant(factor))


def log_determinant(factor: Float[Tensor, "*batch n n"]) -> Float[Tensor, " *batch"]:
    """Log determinant of a matrix from its Cholesky factor.

    Args:
        factor: Lower triangular.
    """
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def t_logpdf_from_quadratic(
    quadratic: Float[Tensor, " *batch"], n: int, df: float, log_det: Float[Tensor, " *batch"]
) -> Float[Tensor, " *batch"]:
    r"""The same density from :math:`y^\top\Sigma^{-1}y` and :math:`\log|\Sigma|`.

    Args:
        quadratic: :math:`y^\top\Sigma^{-1}y`.
        n: Dimension.
        df: Degrees of freedom.
        log_det: :math:`\log|\Sigma|`.

    Raises:
        ValueError: For degrees of freedom that are not positive.
    """
    require(df > 0, "positive degrees of freedom", df)
    constant = math.lgamma((df + n) / 2) - math.lgamma(df / 2) - n / 2 * math.log(df * math.pi)
    return constant - log_det / 2 - (df + n) / 2 * torch.log1p(quadratic / df)


def gaussian_logpdf_from_quadratic(
    quadratic: Float[Tensor, " *batch"], n: int, log_det: Float[Tensor, " *batch"]
) -> Float[Tensor, " *batch"]:
    """Log density of a centred Gaussian from its quadratic form and log determinant.

    Args:
        quadratic: Quadratic form.
        n: Dimension.
        log_det: Log determinant of the covariance.
    """
    return -(quadratic + log_det + n * math.log(2 * math.pi)) / 2


class Posterior(NamedTuple):
    """Predictions at test points: mean, squared scale, and degrees of freedom (infinite for a Gaussian process)."""

    mean: Float[Tensor, " m"]
    squared_scale: Float[Tensor, " m"]
    df: float

    def logpdf(self, y: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Log density of each target under its prediction.

        Args:
            y: Targets.
        """
        squares = (y - self.mean).square() / self.squared_scale
        logs = self.squared_scale.log()
        if math.isinf(self.df):
            return gaussian_logpdf_from_quadratic(squares, 1, logs)
        return t_logpdf_from_quadratic(squares, 1, self.df, logs)


def process_posterior(
    gram: Float[Tensor, "n n"],
    cross: Float[Tensor, "m n"],
    own: Float[Tensor, " m"],
    y: Float[Tensor, " n"],
    *,
    shape: float = math.inf,
    scale: float = 1.0,
) -> Posterior:
    r"""Posterior of a Gaussian or Student-t process, the noise inside the mixture.

    With :math:`C` the noisy Gram matrix and :math:`\beta = y^\top C^{-1} y`: the mean is :math:`k^\top C^{-1} y` for
    both. The
    t-process with :math:`\mathrm{InvGamma}(a, b)` has :math:`2a + n` degrees of freedom and squared scale

    .. math:: \frac{2b + \beta}{2a + n}\,(k_{xx} - k^\top C^{-1} k),

    the Gaussian process the fixed :math:`\sigma^2 (k_{xx} - k^\top C^{-1}k)`.

    Args:
        gram: :math:`C`.
        cross: Kernel of test against training points.
        own: Kernel (and noise) of each test point with itself.
        y: Targets.
        shape: :math:`a`; infinite for the Gaussian process.
        scale: :math:`b`, or :math:`\sigma^2` for the Gaussian process.

    Raises:
        ValueError: For a Gram matrix that is not positive definite, or a shape or scale that is not positive.

    Source:
        lee2021scale (the inverse gamma case).
    """
    require(shape > 0 and scale > 0, "a positive shape and scale", (shape, scale))
    factor = _cholesky(gram)
    half = torch.linalg.solve_triangular(factor, torch.cat([y[:, None], cross.mT], 1), upper=False)
    target, rows = half[:, 0], half[:, 1:]
    reduced = (own - rows.square().sum(0)).clamp_min(1e-12)
    mean = rows.mT @ target
    if math.isinf(shape):
        return Posterior(mean, scale * reduced, math.inf)
    n = len(y)
    return Posterior(mean, (2 * scale + float(target @ target)) / (2 * shape + n) * reduced, 2 * shape + n)


def inverse_gamma(count: int, shape: float, scale: float, *, generator: torch.Generator) -> Float[Tensor, " count"]:
    r"""Draws of :math:`\mathrm{InvGamma}(a, b)`, mean :math:`b/(a - 1)`.

    Args:
        count: How many.
        shape: :math:`a > 0`.
        scale: :math:`b > 0`.
        generator: Source of randomness.
    """
    require(shape > 0 and scale > 0, "a positive shape and scale", (shape, scale))
    return scale / torch._standard_gamma(torch.full((count,), shape, dtype=torch.float64), generator=generator)


def sample_relu_features(
    first: Float[Tensor, "m m"], width: int, networks: int, *, generator: torch.Generator
) -> Float[Tensor, "networks m m"]:
    r"""Last-layer feature kernels of random ReLU networks with two hidden layers, without a weight matrix.

    Given the :math:`m \times m` kernel :math:`G` of a layer its units are independent :math:`\mathcal N(0, G)` over
    the inputs, so
    that ``width * m`` normals a layer give exactly the law of the network. Gains are :math:`\sqrt 2`, without biases.

    Args:
        first: Kernel of the first preactivations.
        width: Units of both layers.
        networks: Networks.
        generator: Source of randomness.

    Returns:
        :math:`\frac2n \Phi\Phi^\top` of each network: the kernel of the output for unit last-layer variance.

    Raises:
        ValueError: For a first kernel that is not positive definite.

    Source:
        lee2021scale (the limit); the sampler is exact at every width.
    """
    root = _cholesky(first).float()
    z = torch.randn(networks, width, len(first), generator=generator) @ root.mT
    for layer in range(2):
        features = torch.relu_(z)
        gram = (features.mT @ features).mul_(2 / width)
        if layer == 1:
            break
        # A jitter for networks so narrow that two inputs switch the same units off.
        jitter = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        gram = gram + jitter[:, None, None] * torch.eye(len(first))
        factor = torch.linalg.cholesky(gram)
        z = torch.randn(networks, width, len(first), generator=generator) @ factor.mT
    return gram.double()


def variational_kl(
    mean: Float[Tensor, "*batch C I"],
    log_variance: Float[Tensor, "*batch C I"],
    precision: Float[Tensor, "I I"],
    log_det: Tensor,
    q: tuple[Tensor, Tensor],
    prior: tuple[Tensor, Tensor],
) -> Float[Tensor, " *batch"]:
    r"""Divergence of :math:`q(u, \sigma^2) = \mathcal N(m_c, \sigma^2 S_c)\,\mathrm{IG}(a_q, b_q)` from the prior
    with :math:`K_{II}`.

    .. math::

        \tfrac12\sum_c\bigl[\log|K| - \log|S_c| - I + \operatorname{tr}(K^{-1}S_c)
        + \tfrac{a_q}{b_q} m_c^\top K^{-1} m_c\bigr]
        + a\log\tfrac{b_q}{b} - \log\tfrac{\Gamma(a_q)}{\Gamma(a)} + (a_q - a)\,\psi(a_q) + (b - b_q)\tfrac{a_q}{b_q}

    Args:
        mean: :math:`m_c`.
        log_variance: Logarithm of the diagonal of :math:`S_c`.
        precision: :math:`K_{II}^{-1}`.
        log_det: :math:`\log|K_{II}|`.
        q: :math:`a_q, b_q`.
        prior: :math:`a, b`.

    Source:
        lee2021scale, appendix (variational inference).
    """
    (aq, bq), (a, b) = q, prior
    spread = (log_variance.exp() * precision.diagonal()).sum((-2, -1))
    classes, inducing = mean.shape[-2:]
    quadratic = ((mean @ precision) * mean).sum((-2, -1)) * (aq / bq)
    gaussian = classes * (log_det - inducing) - log_variance.sum((-2, -1)) + spread + quadratic
    scale = a * torch.log(bq / b) - torch.lgamma(aq) + torch.lgamma(a) + (aq - a) * torch.digamma(aq)
    return gaussian / 2 + scale + (b - bq) * aq / bq
