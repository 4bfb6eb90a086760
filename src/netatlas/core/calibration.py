r"""How far stated confidence is from the share of right answers, and the scalings that mend it.

A network states a confidence :math:`c_i = \max_k p_{ik}` and is right or wrong, :math:`a_i \in \{0, 1\}`. It is
calibrated if :math:`\mathbb E[a \mid c] = c`. Every measure here takes any number of networks at once: leading axes are
batch axes, the last one runs over examples.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from netatlas.core.checks import require, require_finite, require_same_device

BinScheme = Literal["width", "mass"]
# A temperature beyond these is a fit at the edge: the data say "certain" or "uniform".
LOG_TEMPERATURE_LIMIT = 3.0


class CalibrationBins(NamedTuple):
    """Sums over bins of confidence.

    Attributes:
        counts: Examples in each bin, ``[..., M]``.
        accuracy: Sum of the right answers in each bin.
        confidence: Sum of the confidences in each bin.
    """

    counts: Tensor
    accuracy: Tensor
    confidence: Tensor


class MixedTemperature(NamedTuple):
    """A fitted ensemble temperature scaling.

    Attributes:
        temperature: Temperature of the scaled part, ``[...]``.
        weights: Shares of the scaled, the raw and the uniform part, ``[..., 3]``, each row summing to 1.
    """

    temperature: Tensor
    weights: Tensor


class VectorScaling(NamedTuple):
    """A fitted vector scaling.

    Attributes:
        scale: Factor of each class's logit, ``[..., C]``.
        bias: Added to each class's logit, ``[..., C]``.
    """

    scale: Tensor
    bias: Tensor


def _check_pairs(confidence: Tensor, correct: Tensor) -> None:
    require(confidence.ndim >= 1 and confidence.shape[-1] > 0, "at least one example", tuple(confidence.shape))
    require(confidence.is_floating_point(), "floating confidences", confidence.dtype)
    require(
        tuple(correct.shape) == tuple(confidence.shape),
        f"correctness of shape {tuple(confidence.shape)}",
        tuple(correct.shape),
    )
    require_same_device([("confidence", confidence), ("correct", correct)])
    require_finite("confidence", confidence)
    if confidence.device.type != "meta":
        low, high = float(confidence.min()), float(confidence.max())
        slack = 1e-5
        require(low >= -slack and high <= 1 + slack, "confidences in [0, 1]", (low, high))
        values = correct.to(confidence.dtype)
        require(bool(((values == 0) | (values == 1)).all()), "correctness of 0 or 1", "another value")


def _check_outputs(outputs: Tensor, labels: Tensor, name: str) -> Tensor:
    """Labels broadcast to the batch of the outputs."""
    require(outputs.ndim >= 2, f"{name} of shape [..., examples, classes]", tuple(outputs.shape))
    require(outputs.is_floating_point(), f"floating {name}", outputs.dtype)
    require(outputs.shape[-2] > 0 and outputs.shape[-1] > 0, "at least one example and one class", tuple(outputs.shape))
    require(not labels.is_floating_point() and labels.dtype != torch.bool, "integer labels", labels.dtype)
    require(
        labels.ndim >= 1 and labels.shape[-1] == outputs.shape[-2], f"{outputs.shape[-2]} labels", tuple(labels.shape)
    )
    require_same_device([(name, outputs), ("labels", labels)])
    require_finite(name, outputs)
    if labels.device.type != "meta":
        low, high = int(labels.min()), int(labels.max())
        require(low >= 0 and high < outputs.shape[-1], f"labels in [0, {outputs.shape[-1]})", (low, high))
    return _expanded("labels", labels, tuple(outputs.shape[:-1]))


def _expanded(name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values broadcast to a shape, the last axes first."""
    lead = len(shape) - values.ndim
    fits = lead >= 0 and all(a in (1, b) for a, b in zip(values.shape, shape[max(lead, 0) :]))
    require(fits, f"{name} that broadcast to {shape}", tuple(values.shape))
    return values.expand(shape)


def _check_weights(weights: Tensor | None, labels: Tensor, like: Tensor) -> Tensor:
    """Weights of the examples that sum to 1 in every row."""
    if weights is None:
        return torch.full(labels.shape, 1.0 / labels.shape[-1], dtype=like.dtype, device=like.device)
    require_same_device([("weights", weights), ("labels", labels)])
    require(
        weights.ndim >= 1 and weights.shape[-1] == labels.shape[-1], f"{labels.shape[-1]} weights", tuple(weights.shape)
    )
    weights = _expanded("weights", weights.to(like.dtype), tuple(labels.shape))
    require_finite("weights", weights)
    if weights.device.type != "meta":
        require(bool((weights >= 0).all()), "non-negative weights", float(weights.min()))
        require(bool((weights.sum(-1) > 0).all()), "a positive weight in every row", 0.0)
    return weights / weights.sum(-1, keepdim=True)


def top_label(
    probabilities: Float[Tensor, "*M n C"], labels: Int[Tensor, "*L n"]
) -> tuple[Float[Tensor, "*M n"], Float[Tensor, "*M n"]]:
    r"""Confidence of the most likely class and whether it is the label.

    .. math:: c_i = \max_k p_{ik}, \qquad a_i = 1[\arg\max_k p_{ik} = y_i]

    Args:
        probabilities: Class probabilities; batch axes lead.
        labels: Class indices, shared by the batch or one list a row.

    Returns:
        Confidence and correctness (0 or 1), each ``[..., n]``.

    Raises:
        ValueError: For shapes that do not fit, labels out of range, or NaN.
    """
    labels = _check_outputs(probabilities, labels, "probabilities")
    confidence, guess = probabilities.max(-1)
    return confidence, (guess == labels).to(probabilities.dtype)


def calibration_bins(
    confidence: Float[Tensor, "*M n"], correct: Tensor, bins: int = 15, scheme: BinScheme = "width"
) -> CalibrationBins:
    r"""Counts, right answers and confidences summed over bins of confidence.

    Bins of equal width are :math:`(\tfrac{b-1}{M}, \tfrac bM]`, and a confidence of 0 falls in the first. Bins of equal
    mass cut the sorted confidences at ranks :math:`\lfloor b\,n / M \rfloor`.

    Args:
        confidence: Confidences in [0, 1]; batch axes lead.
        correct: 0 or 1, of the same shape.
        bins: Number of bins ``M``.
        scheme: ``"width"`` or ``"mass"``.

    Returns:
        Three tensors ``[..., M]``.

    Raises:
        ValueError: For no examples, fewer than one bin, an unknown scheme, NaN, confidences outside [0, 1].
    """
    _check_pairs(confidence, correct)
    require(bins >= 1, "at least one bin", bins)
    require(scheme in ("width", "mass"), "a scheme out of width, mass", repr(scheme))
    correct = correct.to(confidence.dtype)
    if scheme == "width":
        edges = torch.arange(1, bins, device=confidence.device, dtype=confidence.dtype) / bins
        index = torch.bucketize(confidence.contiguous(), edges)
    else:
        confidence, order = confidence.sort(dim=-1, stable=True)
        correct = correct.gather(-1, order)
        n = confidence.shape[-1]
        ranks = torch.arange(n, device=confidence.device)
        cuts = torch.arange(1, bins, device=confidence.device) * n // bins
        index = torch.bucketize(ranks, cuts, right=True).expand(confidence.shape)
    zero = confidence.new_zeros((*confidence.shape[:-1], bins))
    return CalibrationBins(
        zero.scatter_add(-1, index, torch.ones_like(confidence)),
        zero.scatter_add(-1, index, correct),
        zero.scatter_add(-1, index, confidence),
    )


def expected_calibration_error(
    confidence: Float[Tensor, "*M n"], correct: Tensor, bins: int = 15, scheme: BinScheme = "width"
) -> Float[Tensor, "*M"]:
    r"""Expected calibration error, the mean gap between confidence and accuracy over bins.

    .. math:: \mathrm{ECE}_M = \sum_b \frac{n_b}{n} \bigl|\mathrm{acc}_b - \mathrm{conf}_b\bigr|

    Arguments and errors as :func:`calibration_bins`. ``scheme="mass"`` gives the adaptive error.
    """
    table = calibration_bins(confidence, correct, bins, scheme)
    return (table.accuracy - table.confidence).abs().sum(-1) / confidence.shape[-1]


def maximum_calibration_error(
    confidence: Float[Tensor, "*M n"], correct: Tensor, bins: int = 15, scheme: BinScheme = "width"
) -> Float[Tensor, "*M"]:
    r"""Largest gap of a bin that is not empty, :math:`\max_b |\mathrm{acc}_b - \mathrm{conf}_b|`.

    Arguments and errors as :func:`calibration_bins`.
    """
    table = calibration_bins(confidence, correct, bins, scheme)
    return ((table.accuracy - table.confidence).abs() / table.counts.clamp_min(1)).amax(-1)


def calibrated_bias(confidence: Float[Tensor, "*M n"], bins: int = 15) -> Float[Tensor, "*M"]:
    r"""The error that a perfectly calibrated network of these confidences shows, to the order of large bins.

    .. math:: \mathbb E\,\mathrm{ECE}_M \approx
        \frac1n \sum_b \sqrt{\frac2\pi}\,\Bigl(\sum_{i \in b} c_i (1 - c_i)\Bigr)^{1/2}

    The gap of a bin is then a sum of independent centred terms, near normal, and the formula is its mean size.

    Args:
        confidence: Confidences in [0, 1]; batch axes lead.
        bins: Number of bins of equal width.

    Raises:
        ValueError: As :func:`calibration_bins`.
    """
    _check_pairs(confidence, torch.zeros_like(confidence))
    require(bins >= 1, "at least one bin", bins)
    edges = torch.arange(1, bins, device=confidence.device, dtype=confidence.dtype) / bins
    index = torch.bucketize(confidence.contiguous(), edges)
    variance = confidence.new_zeros((*confidence.shape[:-1], bins)).scatter_add(
        -1, index, (confidence * (1 - confidence)).clamp_min(0)
    )
    return variance.sqrt().sum(-1) * (2 / torch.pi) ** 0.5 / confidence.shape[-1]


def debiased_calibration_error(
    confidence: Float[Tensor, "*M n"],
    correct: Tensor,
    bins: int = 15,
    scheme: BinScheme = "width",
    *,
    resamples: int = 20,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*M"]:
    r"""Expected calibration error minus what a calibrated network of the same confidences would show.

    .. math:: \mathrm{ECE}_M(a) - \frac1R \sum_r \mathrm{ECE}_M(a^{(r)}), \qquad a_i^{(r)} \sim \mathrm{Bernoulli}(c_i)

    A miscalibrated bin is less biased than a calibrated one, so the difference may be negative; it is not clipped.

    Args:
        confidence, correct, bins, scheme: As :func:`calibration_bins`.
        resamples: Draws ``R``.
        generator: Draws the labels.

    Raises:
        ValueError: For fewer than one resample, or as :func:`calibration_bins`.
    """
    require(resamples >= 1, "at least one resample", resamples)
    error = expected_calibration_error(confidence, correct, bins, scheme)
    total = torch.zeros_like(error)
    for _ in range(resamples):
        draw = torch.rand(confidence.shape, generator=generator, device=confidence.device, dtype=confidence.dtype)
        total += expected_calibration_error(confidence, (draw < confidence).to(confidence.dtype), bins, scheme)
    return error - total / resamples


def classwise_calibration_error(
    probabilities: Float[Tensor, "*M n C"], labels: Int[Tensor, "*L n"], bins: int = 15, scheme: BinScheme = "width"
) -> Float[Tensor, "*M"]:
    r"""Mean over classes of the one-against-the-rest error.

    .. math:: \frac1C \sum_k \mathrm{ECE}_M\bigl(p_{\cdot k}, 1[y = k]\bigr)

    Args:
        probabilities, labels: As :func:`top_label`.
        bins, scheme: As :func:`calibration_bins`.

    Raises:
        ValueError: As :func:`top_label` and :func:`calibration_bins`.
    """
    labels = _check_outputs(probabilities, labels, "probabilities")
    hits = F.one_hot(labels, probabilities.shape[-1]).to(probabilities.dtype)
    error = expected_calibration_error(probabilities.transpose(-1, -2), hits.transpose(-1, -2), bins, scheme)
    return error.mean(-1)


def ks_calibration_error(confidence: Float[Tensor, "*M n"], correct: Tensor) -> Float[Tensor, "*M"]:
    r"""Kolmogorov-Smirnov error, the largest gap between two running sums over examples sorted by confidence.

    .. math:: \max_m \frac1n \Bigl|\sum_{i \le m} (a_{(i)} - c_{(i)})\Bigr|

    It needs no bins. Ties of confidence are kept together: the maximum is taken where the confidence changes.
    Arguments and errors as :func:`calibration_bins`.
    """
    _check_pairs(confidence, correct)
    ordered, order = confidence.sort(dim=-1, stable=True)
    running = (correct.to(confidence.dtype).gather(-1, order) - ordered).cumsum(-1).abs() / confidence.shape[-1]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[..., :-1] = ordered[..., 1:] != ordered[..., :-1]
    return torch.where(last, running, torch.zeros_like(running)).amax(-1)


def maximum_mean_calibration_error(
    confidence: Float[Tensor, "*M n"], correct: Tensor, scale: float = 0.4
) -> Float[Tensor, "*M"]:
    r"""Kernel mean embedding of the residuals under the Laplacian kernel, in :math:`O(n \log n)`.

    .. math:: \mathrm{MMCE} = \Bigl(\frac1{n^2}\sum_{i,j} r_i r_j\, e^{-|c_i - c_j| / s}\Bigr)^{1/2}, \qquad r = a - c

    In sorted order the kernel factorises, :math:`e^{-(c_i - c_j)/s} = e^{-c_i/s}\, e^{c_j/s}` for :math:`j \le i`, and
    one running sum replaces the double sum.

    Args:
        confidence, correct: As :func:`calibration_bins`.
        scale: Width ``s`` of the kernel, at least 0.02.

    Raises:
        ValueError: For a scale below 0.02 (the factors would overflow), or as :func:`calibration_bins`.
    """
    _check_pairs(confidence, correct)
    require(scale >= 0.02, "a scale of at least 0.02", scale)
    ordered, order = confidence.sort(dim=-1, stable=True)
    residual = correct.to(confidence.dtype).gather(-1, order) - ordered
    shifted = (ordered - ordered[..., :1]) / scale
    before = (residual * shifted.exp()).cumsum(-1) - residual * shifted.exp()
    total = residual.square().sum(-1) + 2 * (residual * (-shifted).exp() * before).sum(-1)
    return total.clamp_min(0).sqrt() / confidence.shape[-1]


def kernel_calibration_error(
    confidence: Float[Tensor, "*M n"], correct: Tensor, bandwidth: float | None = None, cells: int = 512
) -> Float[Tensor, "*M"]:
    r"""Calibration error with kernel estimates in place of bins.

    .. math:: \int_0^1 \bigl|\hat a(t) - t\,\hat f(t)\bigr|\,dt, \qquad
        \hat f(t) = \frac1n\sum_i K_h(t - c_i), \quad \hat a(t) = \frac1n\sum_i a_i K_h(t - c_i)

    with the triweight kernel :math:`K_h(u) = \tfrac{35}{32 h}(1 - (u/h)^2)^3_+`, mirrored at 0 and 1. The sums are made
    on a grid of cells (each example shared by its two nearest) by fast Fourier transform.

    Args:
        confidence, correct: As :func:`calibration_bins`.
        bandwidth: ``h``; default by Silverman's rule for this kernel, :math:`3.15\,\sigma n^{-1/5}`, between two
            cells and 1.
        cells: Cells of the grid.

    Raises:
        ValueError: For a bandwidth outside (0, 1], fewer than 16 cells, or as :func:`calibration_bins`.
    """
    _check_pairs(confidence, correct)
    require(cells >= 16, "at least 16 cells", cells)
    require(bandwidth is None or 0 < bandwidth <= 1, "a bandwidth in (0, 1]", bandwidth)
    n, step = confidence.shape[-1], 1.0 / cells
    if bandwidth is None:
        spread = confidence.std(-1, correction=0)
        width = (3.15 * spread * n ** (-0.2)).clamp(2 * step, 1.0)
    else:
        width = torch.full(
            confidence.shape[:-1], max(bandwidth, 2 * step), device=confidence.device, dtype=confidence.dtype
        )
    place = confidence.clamp(0, 1) * cells
    low = place.floor().clamp(max=cells - 1)
    share = place - low
    nodes = cells + 1
    zero = confidence.new_zeros((*confidence.shape[:-1], nodes))

    def gridded(values: Tensor) -> Tensor:
        grid = zero.scatter_add(-1, low.long(), values * (1 - share)).scatter_add(-1, low.long() + 1, values * share)
        return torch.cat([grid[..., 1:].flip(-1), grid, grid[..., :-1].flip(-1)], -1)

    size = 3 * nodes - 2
    length = size + 2 * cells
    offset = torch.arange(-cells, cells + 1, device=confidence.device, dtype=confidence.dtype) * step
    kernel = (1 - (offset / width[..., None]) ** 2).clamp_min(0) ** 3
    kernel = torch.fft.rfft(kernel / (kernel.sum(-1, keepdim=True) * step), length)

    def smooth(values: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(gridded(values), length) * kernel
        return torch.fft.irfft(spectrum, length)[..., 2 * cells : 2 * cells + nodes] / n

    gap = smooth(correct.to(confidence.dtype)) - smooth(confidence)
    return torch.trapezoid(gap.abs(), dx=step)


def brier_score(probabilities: Float[Tensor, "*M n C"], labels: Int[Tensor, "*L n"]) -> Float[Tensor, "*M"]:
    r"""Mean squared distance to the one-hot label, :math:`\frac1n\sum_i\sum_k (p_{ik} - 1[y_i = k])^2`.

    Arguments and errors as :func:`top_label`.
    """
    labels = _check_outputs(probabilities, labels, "probabilities")
    own = probabilities.gather(-1, labels[..., None])[..., 0]
    return (probabilities.square().sum(-1) - 2 * own + 1).mean(-1)


def negative_log_likelihood(
    logits: Float[Tensor, "*M n C"], labels: Int[Tensor, "*L n"], weights: Tensor | None = None
) -> Float[Tensor, "*M"]:
    r"""Weighted mean of :math:`\log\sum_k e^{z_{ik}} - z_{i y_i}`.

    Args:
        logits: Class scores; batch axes lead.
        labels: Class indices.
        weights: Non-negative weights of the examples (a mask of 0 and 1, say); default equal.

    Raises:
        ValueError: As :func:`top_label`, and for weights that are negative or all zero.
    """
    labels = _check_outputs(logits, labels, "logits")
    share = _check_weights(weights, labels, logits)
    own = logits.gather(-1, labels[..., None])[..., 0]
    return ((logits.logsumexp(-1) - own) * share).sum(-1)


def fit_temperature(
    logits: Float[Tensor, "*M n C"], labels: Int[Tensor, "*L n"], weights: Tensor | None = None, *, steps: int = 60
) -> Float[Tensor, "*M"]:
    r"""The temperature of least negative log-likelihood, all networks at once.

    .. math:: T^* = \arg\min_T \frac1n\sum_i -\log \mathrm{softmax}(z_i / T)_{y_i}, \qquad |\log T| \le 3

    The loss is convex in :math:`1/T`; the root of its derivative is bisected in :math:`\log T`.

    Args:
        logits, labels, weights: As :func:`negative_log_likelihood`.
        steps: Bisections, at least 1; 60 reach the precision of float64.

    Returns:
        Temperatures ``[...]``; at the limit where the data have no finite optimum.

    Raises:
        ValueError: For no bisection, or as :func:`negative_log_likelihood`.
    """
    require(steps >= 1, "at least one bisection", steps)
    labels = _check_outputs(logits, labels, "logits")
    share = _check_weights(weights, labels, logits)
    own = logits.gather(-1, labels[..., None])[..., 0]
    low = logits.new_full(logits.shape[:-2], -LOG_TEMPERATURE_LIMIT)
    high = -low
    for _ in range(steps):
        middle = (low + high) / 2
        p = (logits * torch.exp(-middle)[..., None, None]).softmax(-1)
        slope = (((p * logits).sum(-1) - own) * share).sum(-1)
        # The slope is in 1/T: positive means that 1/T is too large, T too small.
        low, high = torch.where(slope > 0, middle, low), torch.where(slope > 0, high, middle)
    return torch.exp((low + high) / 2)


def fit_vector_scaling(
    logits: Float[Tensor, "*M n C"],
    labels: Int[Tensor, "*L n"],
    weights: Tensor | None = None,
    *,
    penalty: float = 0.0,
    steps: int = 30,
) -> VectorScaling:
    r"""A factor and a bias for each class, by damped Newton steps on the convex loss.

    .. math:: \min_{s, b}\; \frac1n\sum_i -\log\mathrm{softmax}(s \odot z_i + b)_{y_i}
        + \tfrac\lambda2 \bigl(\|s - 1\|^2 + \|b\|^2\bigr)

    Args:
        logits, labels, weights: As :func:`negative_log_likelihood`.
        penalty: The pull :math:`\lambda \ge 0` towards leaving the logits alone.
        steps: Newton steps, each halved until the loss falls.

    Raises:
        ValueError: For a negative penalty, or as :func:`negative_log_likelihood`.
    """
    require(penalty >= 0, "a penalty of at least 0", penalty)
    labels = _check_outputs(logits, labels, "logits")
    share = _check_weights(weights, labels, logits)
    classes = logits.shape[-1]
    hot = F.one_hot(labels, classes).to(logits.dtype)
    start = torch.cat([torch.ones_like(logits[..., 0, :]), torch.zeros_like(logits[..., 0, :])], -1)
    theta = start.clone()

    def objective(theta: Tensor) -> Tensor:
        scaled = theta[..., None, :classes] * logits + theta[..., None, classes:]
        own = (scaled * hot).sum(-1)
        return ((scaled.logsumexp(-1) - own) * share).sum(-1) + penalty / 2 * (theta - start).square().sum(-1)

    eye = torch.eye(2 * classes, dtype=logits.dtype, device=logits.device)
    value = objective(theta)
    # The biases' common shift is flat; a floor on the curvature leaves it where it is.
    floor = 1e-8 if logits.dtype == torch.float64 else 1e-5
    for _ in range(steps):
        p = (theta[..., None, :classes] * logits + theta[..., None, classes:]).softmax(-1)
        residual = (p - hot) * share[..., None]
        gradient = torch.cat([(residual * logits).sum(-2), residual.sum(-2)], -1) + penalty * (theta - start)
        wide = torch.cat([p * logits, p], -1)
        weighted = wide * share[..., None]
        curved = wide.transpose(-1, -2) @ weighted
        square = torch.cat([(weighted[..., :classes] * logits).sum(-2), weighted[..., classes:].sum(-2)], -1)
        cross = (weighted[..., classes:] * logits).sum(-2)
        diagonal = torch.diag_embed(square)
        diagonal[..., :classes, classes:] += torch.diag_embed(cross)
        diagonal[..., classes:, :classes] += torch.diag_embed(cross)
        hessian = diagonal - curved + (penalty + floor) * eye
        step = torch.linalg.solve(hessian, gradient)
        size = torch.ones_like(value)
        for _ in range(20):
            trial = objective(theta - size[..., None] * step)
            size = torch.where(trial <= value, size, size / 2)
        trial = objective(theta - size[..., None] * step)
        better = trial <= value
        theta = torch.where(better[..., None], theta - size[..., None] * step, theta)
        value = torch.where(better, trial, value)
    return VectorScaling(theta[..., :classes], theta[..., classes:])


def _check_scaled(logits: Tensor, classes: int | None, networks: Tensor) -> None:
    require(logits.ndim >= 2 and logits.shape[-1] > 0, "logits [..., examples, classes]", tuple(logits.shape))
    require(classes in (None, logits.shape[-1]), f"{classes} classes", logits.shape[-1])
    _expanded("the fit's networks", networks, tuple(logits.shape[:-2]))
    require_finite("logits", logits)


def apply_vector_scaling(logits: Float[Tensor, "*M n C"], fitted: VectorScaling) -> Float[Tensor, "*M n C"]:
    r"""Logits :math:`s \odot z_i + b`; unlike a temperature, this may change the predicted class.

    Args:
        logits: Class scores; batch axes lead.
        fitted: From :func:`fit_vector_scaling`, one for all or one a network.

    Raises:
        ValueError: For logits that are NaN or whose classes or networks are not those of the fit.
    """
    classes = fitted.scale.shape[-1]
    _check_scaled(logits, classes, fitted.scale[..., 0])
    return fitted.scale[..., None, :] * logits + fitted.bias[..., None, :]


def fit_mixed_temperature(
    logits: Float[Tensor, "*M n C"], labels: Int[Tensor, "*L n"], weights: Tensor | None = None, *, steps: int = 200
) -> MixedTemperature:
    r"""Ensemble temperature scaling: a mixture of the scaled, the raw and the uniform prediction.

    .. math:: p = w_1\,\mathrm{softmax}(z / T) + w_2\,\mathrm{softmax}(z) + w_3 / C,
        \qquad w \ge 0,\; w_1 + w_2 + w_3 = 1

    The temperature is fitted first; the likelihood is concave in the weights, which are found by
    expectation-maximisation.

    Args:
        logits, labels, weights: As :func:`negative_log_likelihood`.
        steps: Rounds of expectation-maximisation.

    Raises:
        ValueError: As :func:`negative_log_likelihood`.
    """
    temperature = fit_temperature(logits, labels, weights)
    labels = _check_outputs(logits, labels, "logits")
    share = _check_weights(weights, labels, logits)
    parts = [(logits / temperature[..., None, None]).softmax(-1), logits.softmax(-1)]
    own = torch.stack([part.gather(-1, labels[..., None])[..., 0] for part in parts], -1)
    own = torch.cat([own, torch.full_like(own[..., :1], 1.0 / logits.shape[-1])], -1)
    mixture = torch.full_like(own[..., 0, :], 1.0 / 3.0)
    tiny = torch.finfo(own.dtype).tiny
    for _ in range(steps):
        joint = own * mixture[..., None, :]
        mixture = (joint / joint.sum(-1, keepdim=True).clamp_min(tiny) * share[..., None]).sum(-2)
    return MixedTemperature(temperature, mixture)


def apply_mixed_temperature(logits: Float[Tensor, "*M n C"], fitted: MixedTemperature) -> Float[Tensor, "*M n C"]:
    """Probabilities of a fitted :func:`fit_mixed_temperature`; the order of a row's classes does not change.

    Args:
        logits: Class scores; batch axes lead.
        fitted: One for all or one a network.

    Raises:
        ValueError: For logits that are NaN or whose networks are not those of the fit.
    """
    _check_scaled(logits, None, fitted.temperature)
    scaled = (logits / fitted.temperature[..., None, None]).softmax(-1)
    weights = fitted.weights[..., None, None, :]
    return weights[..., 0] * scaled + weights[..., 1] * logits.softmax(-1) + weights[..., 2] / logits.shape[-1]
