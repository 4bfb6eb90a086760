r"""Closed-form test risk of kernel ridge and random-feature regression, from spectrum and target coefficients.

A kernel with eigenvalues :math:`\lambda_i` under unit-norm eigenfunctions, a target
:math:`f = \sum_i v_i \phi_i`, label noise of variance :math:`\sigma^2`, :math:`n` samples, :math:`k` random features
and a ridge :math:`\delta` that is
added to the unnormalised Gram matrix. Everything follows from one number :math:`\gamma \ge 0` with

.. math::

    z(\gamma) = \sum_i \frac{\lambda_i}{\lambda_i + \gamma}, \qquad
    \gamma\,\bigl(n - z(\gamma)\bigr)\Bigl(1 - \frac{z(\gamma)}{k}\Bigr) = \delta ,

to which the published pair of equations for :math:`(\kappa, \gamma)` reduces: :math:`\kappa = \gamma\,(1 - z/k)`.
A batch of cells :math:`(n, k, \delta)` is solved at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite, require_same_device

Number = float | Sequence[float] | Tensor


class EigenSolution(NamedTuple):
    """The implicit regularisations of a cell and the two sums over learnabilities that the risk needs."""

    kappa: Float[Tensor, "*cells"]
    gamma: Float[Tensor, "*cells"]
    learned: Float[Tensor, "*cells"]
    squared: Float[Tensor, "*cells"]


class Risk(NamedTuple):
    """Expected test and training error (label noise included in both), with the solution they come from."""

    test: Float[Tensor, "*cells"]
    train: Float[Tensor, "*cells"]
    solution: EigenSolution


def _spectrum(eigenvalues: Tensor, multiplicities: Tensor | None) -> tuple[Tensor, Tensor]:
    require(eigenvalues.is_floating_point(), "eigenvalues of floating-point numbers", eigenvalues.dtype)
    require(eigenvalues.ndim == 1 and len(eigenvalues) > 0, "eigenvalues [M], M >= 1", tuple(eigenvalues.shape))
    require_finite("eigenvalues", eigenvalues)
    if multiplicities is None:
        multiplicities = torch.ones_like(eigenvalues)
    multiplicities = torch.as_tensor(multiplicities).to(eigenvalues)
    require(
        multiplicities.shape == eigenvalues.shape, f"{len(eigenvalues)} multiplicities", tuple(multiplicities.shape)
    )
    require_finite("multiplicities", multiplicities)
    if eigenvalues.device.type != "meta":
        require(bool((eigenvalues >= 0).all()), "eigenvalues of at least 0", float(eigenvalues.min()))
        require(bool((eigenvalues * multiplicities).sum() > 0), "a positive eigenvalue", "none")
        require(bool((multiplicities >= 0).all()), "multiplicities of at least 0", float(multiplicities.min()))
    return eigenvalues, multiplicities


def _cells(like: Tensor, n: Number, ridge: Number, features: Number) -> tuple[Tensor, Tensor, Tensor]:
    given = (torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (n, ridge, features))
    samples, delta, count = torch.broadcast_tensors(*given)
    require_finite("n", samples)
    require_finite("ridge", delta)
    if like.device.type != "meta":
        require(bool((samples > 0).all()), "a positive number of samples", samples.min().item())
        require(bool((delta >= 0).all()), "a ridge of at least 0", delta.min().item())
        require(bool((count > 0).all()), "a positive number of features", count.min().item())
    return samples, delta, count


def _sums(eigenvalues: Tensor, counts: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    share = _shares(eigenvalues, gamma)
    return share @ counts, share.square_() @ counts


def _shares(eigenvalues: Tensor, gamma: Tensor) -> Tensor:
    # A mode of eigenvalue 0 is never learned, also where gamma is 0.
    tiny = torch.finfo(eigenvalues.dtype).tiny
    return eigenvalues / (eigenvalues + gamma[..., None]).clamp_min_(tiny)


def solve(
    eigenvalues: Float[Tensor, " M"],
    multiplicities: Float[Tensor, " M"] | None,
    n: Number,
    ridge: Number,
    features: Number = math.inf,
) -> EigenSolution:
    r"""Implicit regularisation: the root of :math:`\gamma\,(n - z)(1 - z/k) = \delta` with :math:`z < \min(n, k)`.

    The left side increases from 0 on that branch, so a Newton iteration in :math:`\log\gamma` inside a bracket finds
    the one root.

    Args:
        eigenvalues: The kernel's eigenvalues, non-negative.
        multiplicities: How often each occurs (degenerate modes), or None.
        n: Numbers of samples.
        ridge: Ridges; 0 gives the ridgeless limit.
        features: Numbers of random features; infinity is the kernel itself.

    Returns:
        :math:`\kappa`, :math:`\gamma`, :math:`z = \sum \mathcal L_i` and :math:`q = \sum \mathcal L_i^2` of the
        broadcast cells. Without ridge and with no
        more modes than samples and features, :math:`\gamma = 0`.

    Raises:
        ValueError: For negative or missing eigenvalues, NaN, numbers of samples or features that are not positive.

    Source:
        simon2023more (implicit regularisations; here one equation for two).
    """
    lam, counts = _spectrum(eigenvalues, multiplicities)
    n, ridge, features = _cells(lam, n, ridge, features)
    positive = lam > 0
    modes, trace = (counts * positive).sum(), (counts * lam).sum()
    small = torch.minimum(n, features)
    smallest = torch.where(positive & (counts > 0), lam, torch.full_like(lam, math.inf)).min()
    few = (modes <= small) & (ridge == 0)
    tiny = torch.finfo(lam.dtype).tiny
    low = torch.maximum(ridge / n, smallest * (modes / small - 1).clamp_min(0)).clamp_min(tiny).log()
    high = torch.maximum(2 * trace / small, 4 * ridge / n).log() + 1e-3
    low = torch.minimum(low - 1e-3, high - 1e-3)
    where = (low + high) / 2
    step = high - low
    for _ in range(200):
        gamma = where.exp()
        z, q = _sums(lam, counts, gamma)
        a, b = n - z, 1 - z / features
        inside = z < small
        value = torch.where(inside, gamma * a * b - ridge, -torch.ones_like(z))
        slope = gamma * a * b + gamma * (z - q) * (b + a / features)
        low, high = torch.where(value < 0, where, low), torch.where(value < 0, high, where)
        newton = where - value / slope
        middle = (low + high) / 2
        good = inside & (newton >= low) & (newton <= high) & ((newton - where).abs() <= step / 2)
        following = torch.where(good, newton, middle)
        step = (following - where).abs()
        where = following
        if lam.device.type == "meta" or bool((step <= 4 * torch.finfo(lam.dtype).eps * where.abs().clamp_min(1)).all()):
            break
    gamma = torch.where(few, torch.zeros_like(where), where.exp())
    z, q = _sums(lam, counts, gamma)
    # Of two forms of kappa, the one without a difference of nearly equal numbers.
    kappa = torch.where(
        n <= features, gamma * (1 - z / features), ridge / torch.where(n > z, n - z, torch.ones_like(n))
    )
    return EigenSolution(kappa, gamma, z, q)


def learnability(
    eigenvalues: Float[Tensor, " M"],
    multiplicities: Float[Tensor, " M"] | None,
    n: Number,
    ridge: Number,
    features: Number = math.inf,
) -> Float[Tensor, "*cells M"]:
    r"""Share of each eigenmode that is learned, :math:`\mathcal L_i = \lambda_i / (\lambda_i + \gamma) \in [0, 1]`.

    Args:
        eigenvalues, multiplicities, n, ridge, features: As in :func:`solve`.

    Returns:
        Learnabilities, modes last; without ridge and with ``n`` below the number of modes they sum to ``n``.

    Raises:
        ValueError: As :func:`solve`.

    Source:
        simon2023more (learnabilities).
    """
    gamma = solve(eigenvalues, multiplicities, n, ridge, features).gamma
    return _shares(eigenvalues, gamma)


def risk(
    eigenvalues: Float[Tensor, " M"],
    multiplicities: Float[Tensor, " M"] | None,
    coefficients: Float[Tensor, " M"],
    n: Number,
    ridge: Number,
    *,
    noise: Number = 0.0,
    features: Number = math.inf,
) -> Risk:
    r"""Expected test and training error of kernel ridge or random-feature regression.

    .. math::

        \mathcal E = \frac{1}{1 - \frac{q\,(k - 2z) + z^2}{n\,(k - q)}}
        \Bigl(\sum_i \Bigl[1 - \mathcal L_i - \frac{\kappa \lambda_i}{(\lambda_i + \gamma)^2}\frac{k}{k - q}\Bigr]
        v_i^2 + \sigma^2\Bigr),
        \qquad \mathcal E_{\text{train}} = \Bigl(\frac{\delta}{n \kappa}\Bigr)^2 \mathcal E

    At :math:`k = \infty` this is :math:`\frac{n}{n - q}\bigl(\sum_i (1 - \mathcal L_i)^2 v_i^2 + \sigma^2\bigr)`.

    Args:
        eigenvalues: The kernel's eigenvalues.
        multiplicities: Their multiplicities, or None.
        coefficients: Power :math:`v_i^2` of the target in each eigenspace (summed over a degenerate one).
        n: Numbers of samples.
        ridge: Ridges.
        noise: Variances :math:`\sigma^2` of the labels' noise.
        features: Numbers of random features; infinity is the kernel.

    Returns:
        Test and training error with the label noise counted in both. At ``features == n`` without ridge the test
        error is infinite.

    Raises:
        ValueError: As :func:`solve`; coefficients of another shape or below 0; negative noise.

    Source:
        simon2023more (expected test and training error).
    """
    lam, counts = _spectrum(eigenvalues, multiplicities)
    require_same_device([("eigenvalues", eigenvalues), ("coefficients", coefficients)])
    require(coefficients.shape == lam.shape, f"{len(lam)} coefficients", tuple(coefficients.shape))
    require_finite("coefficients", coefficients)
    noise = torch.as_tensor(noise, dtype=lam.dtype, device=lam.device)
    if lam.device.type != "meta":
        require(bool((coefficients >= 0).all()), "squared coefficients of at least 0", float(coefficients.min()))
        require(bool((noise >= 0).all()), "a noise variance of at least 0", float(noise.min()))
    n, ridge, features = _cells(lam, n, ridge, features)
    found = solve(lam, counts, n, ridge, features)
    kappa, gamma, z, q = found
    share = _shares(lam, gamma)
    bias = (1 - share) @ coefficients.to(lam)
    total = torch.where(gamma > 0, gamma, torch.ones_like(gamma))
    # kappa lambda / (lambda + gamma)^2 = (kappa / gamma) L (1 - L)
    spread = (share * (1 - share)) @ coefficients.to(lam) * kappa / total
    loss = bias - spread / (1 - q / features) + noise
    variance = (q * (1 - 2 * z / features) + z.square() / features) / (n * (1 - q / features))
    # At n = k without ridge the denominator is zero but for rounding.
    sharp = 1 - variance > 64 * torch.finfo(lam.dtype).eps
    test = torch.where(sharp, loss / torch.where(sharp, 1 - variance, torch.ones_like(loss)), math.inf)
    ratio = torch.where(n <= features, (n - z) / n, ridge / (n * torch.where(kappa > 0, kappa, torch.ones_like(kappa))))
    ratio = torch.where(ridge == 0, (1 - z / n).clamp_min(0), ratio)
    train = torch.where(ratio > 0, ratio.square() * test, torch.zeros_like(test))
    return Risk(test, train, found)


def test_risk(
    eigenvalues: Float[Tensor, " M"],
    multiplicities: Float[Tensor, " M"] | None,
    coefficients: Float[Tensor, " M"],
    n: Number,
    ridge: Number,
    *,
    noise: Number = 0.0,
    features: Number = math.inf,
) -> Float[Tensor, "*cells"]:
    """Expected test error alone; arguments, result and errors as :func:`risk`.

    Source:
        simon2023more (expected test error).
    """
    return risk(eigenvalues, multiplicities, coefficients, n, ridge, noise=noise, features=features).test


test_risk.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def optimal_risk(
    eigenvalues: Float[Tensor, " M"],
    multiplicities: Float[Tensor, " M"] | None,
    coefficients: Float[Tensor, " M"],
    n: Number,
    *,
    noise: Number = 0.0,
    features: Number = math.inf,
    low: float = 1e-9,
    high: float = 1e6,
    steps: int = 60,
) -> tuple[Float[Tensor, "*cells"], Float[Tensor, "*cells"]]:
    r"""Test error at the best ridge, by golden-section search in :math:`\log\delta`.

    .. math:: \min_{\delta} \mathcal E(n, k, \delta)

    Args:
        eigenvalues, multiplicities, coefficients, n, noise, features: As in :func:`risk`.
        low, high: Ends of the search.
        steps: Steps of the search; each shrinks the interval by the golden ratio.

    Returns:
        The least test error and its ridge.

    Raises:
        ValueError: As :func:`risk`, or ends that are not positive and increasing.

    Source:
        simon2023more (more is better at the best ridge).
    """
    require(0 < low < high, "0 < low < high", (low, high))
    samples, _, count = _cells(eigenvalues, n, 0.0, features)
    variance = torch.as_tensor(noise, dtype=samples.dtype, device=samples.device)
    samples, count, variance = torch.broadcast_tensors(samples, count, variance)

    def at(place: Tensor) -> Tensor:
        return test_risk(
            eigenvalues, multiplicities, coefficients, samples, place.exp(), noise=variance, features=count
        )

    golden = (math.sqrt(5) - 1) / 2
    left, right = torch.full_like(samples, math.log(low)), torch.full_like(samples, math.log(high))
    a, b = right - golden * (right - left), left + golden * (right - left)
    fa, fb = at(a), at(b)
    for _ in range(steps):
        lower = fa < fb
        left, right = torch.where(lower, left, a), torch.where(lower, b, right)
        fresh = torch.where(lower, right - golden * (right - left), left + golden * (right - left))
        value = at(fresh)
        a, b = torch.where(lower, fresh, b), torch.where(lower, a, fresh)
        fa, fb = torch.where(lower, value, fb), torch.where(lower, fa, value)
    ends = torch.stack([a, b, torch.full_like(samples, math.log(low)), torch.full_like(samples, math.log(high))])
    values = torch.stack([fa, fb, at(ends[2]), at(ends[3])])
    best = values.argmin(0, keepdim=True)
    return values.gather(0, best)[0], ends.gather(0, best)[0].exp()
