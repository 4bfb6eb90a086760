r"""The scaling law of routed language models: bilinear in the logarithms of dense size and saturating expert count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from netatlas.core.checks import require, require_finite
from netatlas.core.power_law import robust_least_squares

LawForm = Literal["separable", "separable saturating", "bilinear", "full"]
FORMS: tuple[LawForm, ...] = ("separable", "separable saturating", "bilinear", "full")


def saturating_expert_count(experts: np.ndarray, start: float, limit: float) -> np.ndarray:
    r"""Expert count :math:`\hat E` that begins at ``start`` for one expert and saturates at ``limit``.

    .. math:: \frac1{\hat E} = \frac{1}{E - 1 + \left(1/E_{start} - 1/E_{max}\right)^{-1}} + \frac1{E_{max}}

    Args:
        experts: Expert counts :math:`E \ge 1`.
        start: :math:`E_{start} > 0`.
        limit: :math:`E_{max} > E_{start}`; may be infinite.

    Returns:
        Saturated counts, of the shape of ``experts``.

    Raises:
        ValueError: For counts below 1, or a limit not above the start.

    Source:
        clark2022routed (the saturating expert count).
    """
    count = np.asarray(experts, dtype=np.float64)
    require(bool((count >= 1).all()), "expert counts of at least 1", count.min() if count.size else 0)
    require(0 < start < limit, "0 < start < limit", (start, limit))
    inverse_limit = 0.0 if np.isinf(limit) else 1 / limit
    return 1 / (1 / (count - 1 + 1 / (1 / start - inverse_limit)) + inverse_limit)


@dataclass(frozen=True)
class RoutedLaw:
    r"""A fitted law :math:`\log_{10} L = a\log_{10} N + b\log_{10}\hat E + c\log_{10} N\log_{10}\hat E + d`.

    Attributes:
        form: Which terms are free.
        a, b, c, d: Coefficients; ``c`` is 0 in the separable forms.
        start: :math:`E_{start}`; 1 where the count does not saturate.
        limit: :math:`E_{max}`; infinite where the count does not saturate.
        rmse: Root mean square residual of :math:`\log_{10} L`.
    """

    form: LawForm
    a: float
    b: float
    c: float
    d: float
    start: float
    limit: float
    rmse: float

    def effective_experts(self, experts: np.ndarray) -> np.ndarray:
        """Saturated expert counts."""
        return saturating_expert_count(experts, self.start, self.limit)

    def log_loss(self, size: np.ndarray, experts: np.ndarray) -> np.ndarray:
        r"""Predicted :math:`\log_{10} L`.

        Args:
            size: Dense sizes :math:`N`: the parameters that one token meets.
            experts: Expert counts.
        """
        n, e = np.log10(size), np.log10(self.effective_experts(experts))
        return self.a * n + self.b * e + self.c * n * e + self.d

    @property
    def cutoff(self) -> float:
        r"""Dense size :math:`N_{cut} = 10^{-b/c}` at which more experts stop helping; infinite for :math:`c \le 0`."""
        return 10 ** (-self.b / self.c) if self.c > 0 else float("inf")

    def effective_parameters(self, size: np.ndarray, experts: np.ndarray) -> np.ndarray:
        r"""Dense size with the same predicted loss.

        .. math:: \bar N = N^{\alpha(\hat E)/\alpha(E_{start})}
            \left(\frac{\hat E}{E_{start}}\right)^{b/\alpha(E_{start})}, \qquad \alpha(x) = a + c\log_{10} x

        Args:
            size: Dense sizes.
            experts: Expert counts.
        """
        e, base = np.log10(self.effective_experts(experts)), np.log10(self.start)
        slope = self.a + self.c * base
        return 10 ** (((self.a + self.c * e) * np.log10(size) + self.b * (e - base)) / slope)


def _expert_derivatives(experts: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    r"""log10 of the saturated count and its derivatives by u = ln start and v, limit = start (1 + e^v)."""
    start, ratio = np.exp(u)[:, None], np.exp(v)[:, None]
    offset = start * (1 + 1 / ratio)
    reach = experts - 1 + offset
    limit = start * (1 + ratio)
    inverse = 1 / reach + 1 / limit
    by_u = -offset / reach**2 - 1 / limit
    by_v = start / ratio / reach**2 - start * ratio / limit**2
    scale = -1 / inverse / np.log(10)
    return -np.log10(inverse), scale * by_u, scale * by_v


class _Problem:
    """Residuals of one form of the law, for any number of members at once."""

    def __init__(self, size: np.ndarray, experts: np.ndarray, loss: np.ndarray, form: LawForm) -> None:
        self.n, self.experts, self.target, self.form = np.log10(size), experts, np.log10(loss), form
        self.bilinear = form in ("bilinear", "full")
        self.saturates = form in ("separable saturating", "full")
        self.linear = 4 if self.bilinear else 3
        # Centred logarithms keep the normal equations well conditioned; the coefficients are turned back at the end.
        self.centre = float(self.n.mean())

    def columns(self, e: np.ndarray) -> np.ndarray:
        n = np.broadcast_to(self.n - self.centre, e.shape)
        return np.stack([n, e, np.ones_like(e)] + ([n * e] if self.bilinear else []), -1)

    def residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.saturates:
            e, by_u, by_v = _expert_derivatives(self.experts, theta[:, -2], theta[:, -1])
        else:
            e = np.broadcast_to(np.log10(self.experts), (len(theta), len(self.n)))
        design = self.columns(e)
        residual = (design @ theta[:, : self.linear, None])[..., 0] - self.target
        if not self.saturates:
            return residual, design
        slope = theta[:, 1:2] + (theta[:, 3:4] * (self.n - self.centre) if self.bilinear else 0.0)
        return residual, np.concatenate([design, (slope * by_u)[..., None], (slope * by_v)[..., None]], -1)

    def starts(self) -> np.ndarray:
        """Linear least squares for every starting pair of start and limit."""
        grid = [(u, v) for u in np.log([1.0, 2.0, 4.0, 8.0]) for v in np.log([10.0, 40.0, 150.0, 600.0])]
        tails = np.array(grid if self.saturates else [(0.0, np.inf)])
        found = []
        for u, v in tails:
            if self.saturates:
                e = _expert_derivatives(self.experts, np.array([u]), np.array([v]))[0]
            else:
                e = np.log10(self.experts)[None]
            linear = np.linalg.lstsq(self.columns(e)[0], self.target, rcond=None)[0]
            found.append(np.concatenate([linear, [u, v] if self.saturates else []]))
        return np.array(found)

    def law(self, theta: np.ndarray, rmse: float) -> RoutedLaw:
        a, b, d = theta[:3]
        c = theta[3] if self.bilinear else 0.0
        start = float(np.exp(theta[-2])) if self.saturates else 1.0
        limit = start * (1 + float(np.exp(theta[-1]))) if self.saturates else float("inf")
        return RoutedLaw(
            self.form, float(a), float(b - c * self.centre), float(c), float(d - a * self.centre), start, limit, rmse
        )


def _checked(size: np.ndarray, experts: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = tuple(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (size, experts, loss))
    for name, values in zip(("size", "experts", "loss"), arrays):
        require(values.ndim == 1 and len(values) == len(arrays[0]), f"{len(arrays[0])} values of {name}", values.shape)
        require_finite(name, values)
        require(bool((values > 0).all()), f"positive {name}", values.min())
    require(bool((arrays[1] >= 1).all()), "expert counts of at least 1", arrays[1].min())
    return arrays[0], arrays[1], arrays[2]


def fit_routed_laws(
    size: Float[np.ndarray, " runs"],
    experts: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    *,
    form: LawForm = "full",
    weights: Float[np.ndarray, "fits runs"] | None = None,
) -> list[RoutedLaw]:
    r"""Fit the law by least squares of :math:`\log_{10} L`, every start and every weighting of the runs in one batch.

    Args:
        size: Dense sizes :math:`N`.
        experts: Expert counts, 1 for a dense run.
        loss: Losses.
        form: ``"separable"`` (:math:`c = 0`, :math:`\hat E = E`), ``"separable saturating"`` (:math:`c = 0`),
            ``"bilinear"`` (:math:`\hat E = E`) or ``"full"``.
        weights: A row of non-negative weights a fit: bootstrap counts, or zeros for runs that are left out.

    Returns:
        One law a row of ``weights`` (one law without them), each the best over all starts.

    Raises:
        ValueError: For an unknown form, values that are not positive, lengths that differ, or a fit with fewer runs of
            positive weight than parameters.

    Source:
        clark2022routed (the bilinear law); restrictions as compared there.
    """
    require(form in FORMS, f"a form out of {', '.join(FORMS)}", repr(form))
    size, experts, loss = _checked(size, experts, loss)
    rows = np.ones((1, len(size))) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))
    require(rows.shape[1] == len(size), f"weights for {len(size)} runs", rows.shape)
    problem = _Problem(size, experts, loss, form)
    starts = problem.starts()
    used = (rows > 0).sum(1)
    require(bool((used >= starts.shape[1]).all()), f"at least {starts.shape[1]} runs in every fit", used.min())
    theta, cost = robust_least_squares(
        problem.residuals,
        np.tile(starts, (len(rows), 1)),
        weights=np.repeat(rows, len(starts), axis=0),
        steps=400,
        tolerance=1e-10,
    )
    cost, theta = cost.reshape(len(rows), -1), theta.reshape(len(rows), len(starts), -1)
    best = cost.argmin(1)
    return [problem.law(theta[i, k], float(np.sqrt(2 * cost[i, k] / rows[i].sum()))) for i, k in enumerate(best)]


def fit_routed_law(size: np.ndarray, experts: np.ndarray, loss: np.ndarray, *, form: LawForm = "full") -> RoutedLaw:
    """One law on all runs. Arguments, errors and source as :func:`fit_routed_laws`."""
    return fit_routed_laws(size, experts, loss, form=form)[0]


class HeldOutSize(NamedTuple):
    """Prediction of one model size by laws fitted on all the others.

    Attributes:
        rmse: Root mean square error of :math:`\\log_{10} L` by form.
        scatter: Standard deviation of that error, its mean removed: what the effective parameters leave open.
        laws: The fitted laws.
    """

    rmse: dict[str, float]
    scatter: dict[str, float]
    laws: dict[str, RoutedLaw]


def predict_held_out_size(
    size: np.ndarray,
    experts: np.ndarray,
    loss: np.ndarray,
    *,
    held_out: float,
    forms: Sequence[LawForm] = FORMS,
) -> HeldOutSize:
    r"""Fit without one dense size and predict its runs.

    Predicted loss is a function of the effective parameter count :math:`\bar N` alone, so the scatter of the error
    around its mean is the scatter of the held-out runs around one curve in :math:`\bar N`.

    Args:
        size, experts, loss: As in :func:`fit_routed_laws`.
        held_out: The dense size to leave out.
        forms: The forms to compare.

    Raises:
        ValueError: If no run has this size, or as :func:`fit_routed_laws`.
    """
    size, experts, loss = _checked(size, experts, loss)
    out = size == held_out
    require(bool(out.any()), "a dense size among the runs", held_out)
    laws = {form: fit_routed_law(size[~out], experts[~out], loss[~out], form=form) for form in forms}
    errors = {form: law.log_loss(size[out], experts[out]) - np.log10(loss[out]) for form, law in laws.items()}
    return HeldOutSize(
        {form: float(np.sqrt(np.mean(e**2))) for form, e in errors.items()},
        {form: float(e.std(ddof=1)) if len(e) > 1 else 0.0 for form, e in errors.items()},
        laws,
    )


def jackknife_sizes(
    size: np.ndarray, experts: np.ndarray, loss: np.ndarray, *, form: LawForm = "full"
) -> tuple[list[RoutedLaw], dict[str, float]]:
    r"""Delete-one-size jackknife: runs of one dense size share their error and leave together.

    .. math:: s^2 = \frac{m - 1}{m} \sum_{j=1}^m (\theta_{(j)} - \bar\theta)^2

    Args:
        size, experts, loss, form: As in :func:`fit_routed_laws`.

    Returns:
        The laws without each size (in increasing order), and the standard errors of ``a``, ``b``, ``c`` and ``d``.

    Raises:
        ValueError: For fewer than three sizes, or as :func:`fit_routed_laws`.
    """
    size, experts, loss = _checked(size, experts, loss)
    sizes = np.unique(size)
    require(len(sizes) >= 3, "at least three dense sizes", len(sizes))
    laws = fit_routed_laws(size, experts, loss, form=form, weights=(size != sizes[:, None]).astype(float))
    m = len(sizes)
    errors = {
        name: float(np.sqrt((m - 1) * np.var([getattr(law, name) for law in laws]))) for name in ("a", "b", "c", "d")
    }
    return laws, errors


def bootstrap_laws(
    size: np.ndarray, experts: np.ndarray, loss: np.ndarray, *, samples: int, form: LawForm = "full", seed: int = 0
) -> list[RoutedLaw]:
    """Laws fitted to resamples of the runs, in one batch.

    Args:
        size, experts, loss, form: As in :func:`fit_routed_laws`.
        samples: Number of resamples.
        seed: Seeds them.

    Raises:
        ValueError: For fewer than one sample, or as :func:`fit_routed_laws`.
    """
    require(samples >= 1, "at least one sample", samples)
    count = len(np.atleast_1d(size))
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
    return fit_routed_laws(size, experts, loss, form=form, weights=weights)
