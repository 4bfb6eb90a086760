r"""Robust fits of power laws: Huber's loss between logarithms, many starts and bootstrap samples in one batch.

A *batch* is a set of fits of the same points that differ in their start and in the points' weights. All of them take
their Levenberg-Marquardt steps together, so that a bootstrap interval costs little more than one fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from netatlas.core.checks import require, require_finite
from netatlas.core.stats import Interval, Values, as_array

Form = Literal["pure", "saturating", "broken"]
Residuals = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

NAMES: dict[str, tuple[str, ...]] = {
    "pure": ("log_scale", "exponent"),
    "saturating": ("log_scale", "exponent", "log_floor"),
    "broken": ("log_scale", "exponent", "late_exponent", "log_break"),
}


def robust_least_squares(
    residuals: Residuals,
    start: Float[np.ndarray, "batch parameters"],
    *,
    weights: Float[np.ndarray, "batch points"] | None = None,
    huber: float = np.inf,
    steps: int = 200,
    tolerance: float = 1e-12,
) -> tuple[Float[np.ndarray, "batch parameters"], Float[np.ndarray, " batch"]]:
    r"""Minimize weighted Huber losses by Levenberg-Marquardt steps, all members of a batch at once.

    .. math:: \min_\theta \sum_i w_i\, h_\delta\bigl(r_i(\theta)\bigr), \qquad
        h_\delta(r) = \begin{cases} r^2/2 & |r| \le \delta \\ \delta\,(|r| - \delta/2) & |r| > \delta \end{cases}

    Each step solves :math:`(J^\top V J + \mu\, \mathrm{diag}(J^\top V J))\, s = -J^\top V r` with the weights
    :math:`v_i = w_i \min(1, \delta / |r_i|)`; :math:`\mu` shrinks after a step that helped and grows after one that did
    not, separately for every member.

    Args:
        residuals: Maps parameters ``[batch, parameters]`` to residuals ``[batch, points]`` and their derivatives
            ``[batch, points, parameters]``.
        start: Where each member starts.
        weights: Non-negative weights of the points; 1 if not given.
        huber: The residual :math:`\delta` beyond which the loss is linear; infinite for least squares.
        steps: Steps at most.
        tolerance: A member has settled when a step that helped lowered its loss by less than this share.

    Returns:
        Parameters and losses.

    Raises:
        ValueError: For a start that is not finite or not two-dimensional, negative weights, or ``huber`` not positive.
    """
    require(start.ndim == 2 and start.size > 0, "starts of shape [batch, parameters]", start.shape)
    require_finite("start", start)
    require(huber > 0, "a positive Huber width", huber)
    theta = start.astype(np.float64).copy()
    residual, jacobian = residuals(theta)
    weight = np.ones_like(residual) if weights is None else np.broadcast_to(weights, residual.shape)
    require(bool((weight >= 0).all()), "non-negative weights", weight.min())
    eye = np.eye(theta.shape[1])

    def loss(values: np.ndarray) -> np.ndarray:
        size = np.abs(values)
        capped = np.minimum(size, huber)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.nan_to_num((weight_now * capped * (size - capped / 2)).sum(-1), nan=np.inf, posinf=np.inf)

    weight_now = weight
    best = loss(residual)
    damping = np.full(len(theta), 1e-3)
    active = np.ones(len(theta), dtype=bool)
    for _ in range(steps):
        if not active.any():
            break
        r, j, weight_now = residual[active], jacobian[active], weight[active]
        with np.errstate(divide="ignore"):
            v = weight_now * np.minimum(1.0, huber / np.abs(r))
        weighted = j * v[..., None]
        normal = np.swapaxes(weighted, 1, 2) @ j
        gradient = (np.swapaxes(weighted, 1, 2) @ r[..., None])[..., 0]
        diagonal = np.einsum("bpp->bp", normal)
        floor = 1e-12 * diagonal.max(-1, keepdims=True) + 1e-300
        damped = normal + (damping[active, None] * np.maximum(diagonal, floor) + floor)[..., None] * eye
        move = -np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial = theta[active] + move
        full = theta.copy()
        full[active] = trial
        trial_residual, trial_jacobian = residuals(full)
        value = loss(trial_residual[active])
        rows = np.flatnonzero(active)
        helped = value <= best[active]
        settled = helped & (best[active] - value <= tolerance * (best[active] + 1e-300))
        won = rows[helped]
        theta[won], residual[won], jacobian[won] = full[won], trial_residual[won], trial_jacobian[won]
        best[won] = value[helped]
        damping[rows] = np.where(helped, damping[rows] / 5, damping[rows] * 4)
        active[rows[settled]] = False
        active &= damping < 1e12
    return theta, best


def _softplus(values: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, values)


def _log_law(
    form: Form, theta: Float[np.ndarray, "batch p"], log_x: Float[np.ndarray, " points"], width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the law and its derivatives by the parameters."""
    line = theta[:, :1] - theta[:, 1:2] * log_x
    ones, slope = np.ones_like(line), np.broadcast_to(-log_x, line.shape)
    if form == "pure":
        return line, np.stack([ones, slope], -1)
    if form == "saturating":
        value = np.logaddexp(line, theta[:, 2:3])
        share = np.exp(line - value)
        return value, np.stack([share, share * slope, 1 - share], -1)
    position = (log_x - theta[:, 3:4]) / width
    soft, gate = width * _softplus(position), 0.5 * (1 + np.tanh(position / 2))
    change = theta[:, 2:3] - theta[:, 1:2]
    return line - change * soft, np.stack([ones, slope + soft, -soft, change * gate], -1)


@dataclass(frozen=True)
class PowerLaw:
    """A fitted law with its bootstrap.

    Attributes:
        form: ``"pure"``, ``"saturating"`` or ``"broken"``.
        values: Fitted parameters by name.
        samples: Bootstrap values by name, ``[bootstrap]`` each; empty without a bootstrap.
        loss: The Huber loss reached.
        width: Width of the broken form's bend, in units of :math:`\\ln x`.
    """

    form: Form
    values: Mapping[str, float]
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss: float = 0.0
    width: float = 0.5

    @property
    def exponent(self) -> float:
        """The fitted exponent (the early one of a broken law)."""
        return self.values["exponent"]

    def interval(self, name: str = "exponent", level: float = 0.95) -> Interval:
        """Fitted value with half the width of its bootstrap percentile interval.

        Args:
            name: Which parameter.
            level: Coverage, in (0, 1).

        Raises:
            ValueError: For an unknown name, or a fit without bootstrap.
        """
        require(name in self.values, f"a parameter out of {', '.join(self.values)}", name)
        require(name in self.samples, "a fit with bootstrap samples", "none")
        low, high = np.quantile(self.samples[name], [(1 - level) / 2, (1 + level) / 2])
        return Interval(self.values[name], float(high - low) / 2, len(self.samples[name]))

    def predict(self, x: Values) -> Float[np.ndarray, " points"]:
        """The law's values at positive positions ``x``."""
        theta = np.array([[self.values[name] for name in NAMES[self.form]]])
        return np.exp(_log_law(self.form, theta, np.log(as_array(x, "x")), self.width)[0][0])


def _starts(form: Form, log_x: np.ndarray, log_y: np.ndarray) -> np.ndarray:
    slope, offset = np.polyfit(log_x, log_y, 1)
    if form == "pure":
        return np.array([[offset, -slope]])
    if form == "saturating":
        found = []
        for share in (0.02, 0.3, 0.6, 0.85, 0.95, 0.99):
            floor = log_y.min() + np.log(share)
            rest = np.log(np.exp(log_y) - np.exp(floor))
            s, o = np.polyfit(log_x, rest, 1)
            found.append([o, -s, floor])
        return np.array(found)
    breaks = np.quantile(log_x, [0.25, 0.5, 0.75])
    return np.array([[offset, -slope * f, -slope / f, b] for b in breaks for f in (0.7, 1.0, 1.4)])


def fit_power_law(
    x: Values,
    y: Values,
    *,
    form: Form = "pure",
    huber: float = 1e-2,
    bootstrap: int = 0,
    width: float = 0.5,
    seed: int = 0,
) -> PowerLaw:
    r"""Fit a power law to positive values by Huber's loss between logarithms.

    .. math:: y = c\,x^{-\alpha}, \qquad y = y_\infty + c\,x^{-\alpha}, \qquad
        y = c\,x^{-\alpha}\bigl(1 + (x/x_0)^{1/w}\bigr)^{-(\alpha' - \alpha)\,w}

    Args:
        x: Positive positions; at least as many distinct ones as the form has parameters.
        y: Positive values.
        form: ``"pure"``, ``"saturating"`` (a floor) or ``"broken"`` (a late exponent after a bend).
        huber: Residual of :math:`\ln y` beyond which the loss is linear.
        bootstrap: Number of resamples of the points; all of them are fitted in one batch.
        width: Width :math:`w` of the broken form's bend in :math:`\ln x`.
        seed: Seeds the resampling.

    Raises:
        ValueError: For values that are not positive or finite, lengths that differ, too few distinct positions, or an
            unknown form.

    Source:
        The loss is that of the scaling-law literature since Hoffmann et al. (arXiv 2203.15556).
    """
    position, value = as_array(x, "x"), as_array(y, "y")
    require(form in NAMES, f"a form out of {', '.join(NAMES)}", repr(form))
    require(len(position) == len(value), f"{len(position)} values", len(value))
    require(bool((position > 0).all() and (value > 0).all()), "positive x and y", (position.min(), value.min()))
    names = NAMES[form]
    distinct = len(np.unique(position))
    require(distinct >= len(names), f"at least {len(names)} distinct x for the {form} form", distinct)
    require(bootstrap >= 0 and width > 0, "bootstrap of at least 0 and a positive width", (bootstrap, width))
    log_x, log_y = np.log(position), np.log(value)

    def residuals(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        law, derivative = _log_law(form, theta, log_x, width)
        return law - log_y, derivative

    theta, loss = robust_least_squares(residuals, _starts(form, log_x, log_y), huber=huber)
    best = int(np.argmin(loss))
    samples: dict[str, np.ndarray] = {}
    if bootstrap:
        counts = _resamples(position, len(names), bootstrap, seed)
        drawn, _ = robust_least_squares(residuals, np.tile(theta[best], (bootstrap, 1)), weights=counts, huber=huber)
        samples = {name: drawn[:, i] for i, name in enumerate(names)}
    fitted = {name: float(theta[best, i]) for i, name in enumerate(names)}
    return PowerLaw(form, fitted, samples, float(loss[best]), width)


def fit_replicated_power_law(
    x: Values,
    replicates: Float[np.ndarray, "draws points"],
    *,
    form: Form = "pure",
    huber: float = 1e-2,
    bootstrap: int = 200,
    width: float = 0.5,
    seed: int = 0,
) -> PowerLaw:
    r"""Fit a power law to the mean of independent curves; the bootstrap resamples whole curves.

    Points of one curve share its randomness, so resampling points would give intervals that are too short. The mean is
    taken before the logarithm.

    Args:
        x: Positive positions.
        replicates: A curve a row; means over rows are positive.
        form, huber, width: As in :func:`fit_power_law`.
        bootstrap: Number of resamples, 0 for none.
        seed: Seeds them.

    Raises:
        ValueError: For no curve, a resampled mean that is not positive, or as :func:`fit_power_law`.
    """
    curves = np.asarray(replicates, dtype=np.float64)
    require(curves.ndim == 2 and len(curves) >= 1, "curves of shape [draws, points]", curves.shape)
    law = fit_power_law(x, curves.mean(0), form=form, huber=huber, width=width)
    if not bootstrap:
        return law
    generator = np.random.default_rng(seed)
    share = generator.multinomial(len(curves), np.full(len(curves), 1 / len(curves)), bootstrap) / len(curves)
    means = share @ curves
    require(bool((means > 0).all()), "resampled means that are positive (more draws)", float(means.min()))
    log_x, log_y, names = np.log(as_array(x, "x")), np.log(means), NAMES[form]

    def residuals(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, derivative = _log_law(form, theta, log_x, width)
        return value - log_y, derivative

    start = np.array([[law.values[name] for name in names]])
    drawn, _ = robust_least_squares(residuals, np.tile(start, (bootstrap, 1)), huber=huber)
    return PowerLaw(form, law.values, {name: drawn[:, i] for i, name in enumerate(names)}, law.loss, width)


def _resamples(position: np.ndarray, needed: int, bootstrap: int, seed: int) -> np.ndarray:
    """How often each point is drawn; samples with too few distinct positions to determine the law are drawn again."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((bootstrap, len(position)))
    missing = np.ones(bootstrap, dtype=bool)
    kinds = np.unique(position, return_inverse=True)[1]
    one_hot = np.eye(kinds.max() + 1)[kinds]
    while missing.any():
        counts[missing] = generator.multinomial(len(position), np.full(len(position), 1 / len(position)), missing.sum())
        missing = ((counts @ one_hot) > 0).sum(1) < needed
    return counts


def extrapolation_error(
    x: Values, y: Values, *, held_out: int, form: Form = "pure", huber: float = 1e-2, width: float = 0.5
) -> float:
    r"""Root mean square error of :math:`\ln y` at the largest positions, predicted by a fit of all the others.

    Args:
        x: Positive positions.
        y: Positive values.
        held_out: How many of the largest distinct positions are predicted.
        form, huber, width: As in :func:`fit_power_law`.

    Raises:
        ValueError: If nothing is held out, or as :func:`fit_power_law` for what remains.
    """
    position, value = as_array(x, "x"), as_array(y, "y")
    require(held_out >= 1, "at least one position held out", held_out)
    distinct = np.unique(position)
    require(len(distinct) > held_out, f"more than {held_out} distinct x", len(distinct))
    late = position >= distinct[-held_out]
    law = fit_power_law(position[~late], value[~late], form=form, huber=huber, width=width)
    return float(np.sqrt(np.mean((np.log(law.predict(position[late])) - np.log(value[late])) ** 2)))
