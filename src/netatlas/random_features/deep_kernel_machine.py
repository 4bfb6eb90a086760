r"""Deep kernel machines: Gram matrices of hidden layers learned by maximising a likelihood less layerwise divergences.

In the limit of a wide deep Gaussian process whose likelihood grows with the width, the posterior of the hidden
features is Gaussian with the Gram matrices
:math:`G_1, \dots, G_L` that maximise

.. math::

    \mathcal L = \log \mathcal N\bigl(Y; 0, K(G_L) + \sigma^2 I\bigr)
    - \sum_{l=1}^{L} \nu_l\, \mathrm{KL}\bigl(\mathcal N(0, G_l) \,\|\, \mathcal N(0, K(G_{l-1}))\bigr) .

All functions take leading batch axes, so that splits and settings are fitted at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.train import minimize

KERNELS = ("linear", "arc_cosine", "rbf")


class Prediction(NamedTuple):
    """Predictive mean ``[..., T, C]`` and variance ``[..., T]`` of an output, noise included."""

    mean: Float[Tensor, "*batch T C"]
    variance: Float[Tensor, "*batch T"]


class Fitted(NamedTuple):
    """Lower-triangular factors ``[..., P, P]`` of the layers' whitened Gram matrices, and the objective's course."""

    factors: list[Float[Tensor, "*batch P P"]]
    objective: Float[Tensor, "steps *batch"]


def _check_gram(gram: Tensor) -> None:
    require(gram.is_floating_point(), "a Gram matrix of floating-point numbers", gram.dtype)
    require(gram.ndim >= 2 and gram.shape[-1] == gram.shape[-2], "square Gram matrices", tuple(gram.shape))
    require_finite("gram", gram)


def gram_kernel(gram: Float[Tensor, "*batch P P"], kernel: str = "arc_cosine") -> Float[Tensor, "*batch P P"]:
    r"""The next layer's kernel as a function of the Gram matrix alone.

    .. math::

        K_{\text{linear}} = G, \qquad K_{\text{arc}} = \frac{\sqrt{G_{ii} G_{jj}}}{\pi}\bigl(\sin\theta + (\pi -
        \theta)\cos\theta\bigr), \qquad
        K_{\text{rbf}} = e^{-(G_{ii} + G_{jj} - 2 G_{ij})/2}

    Args:
        gram: Gram matrices :math:`G`.
        kernel: ``"linear"``, ``"arc_cosine"`` (normalised to keep the diagonal) or ``"rbf"``.

    Raises:
        ValueError: For matrices that are not square or not finite, or an unknown kernel.

    Source:
        yang2021dkm (kernels that depend on the Gram matrix alone).
    """
    _check_gram(gram)
    require(kernel in KERNELS, f"a kernel out of {KERNELS}", repr(kernel))
    if kernel == "linear":
        return gram
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    if kernel == "rbf":
        return torch.exp(gram - (diagonal[..., None] + diagonal[..., None, :]) / 2)
    return _ArcCosine.apply(gram)


class _ArcCosine(torch.autograd.Function):
    r"""The arc-cosine kernel with its slopes in closed form, which the optimisers' time goes into.

    With :math:`J(c) = \sin\theta + (\pi - \theta)\,c` the slope is :math:`J'(c) = \pi - \theta`.
    """

    @staticmethod
    def forward(ctx, gram: Tensor) -> Tensor:
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        norm = diagonal.clamp_min(1e-12).sqrt()
        scale = norm[..., None] * norm[..., None, :]
        raw = gram / scale
        cos = raw.clamp(-1 + 1e-6, 1 - 1e-6)
        slope = (math.pi - torch.acos(cos)) / math.pi
        shape = (1 - cos.square()).sqrt() / math.pi + slope * cos
        # Beyond the clamp the shape is constant.
        slope = slope * (raw == cos)
        ctx.save_for_backward(slope, (shape - raw * slope) * scale, diagonal)
        value = scale * shape
        # On the diagonal, where arccos has no slope, the kernel is the Gram matrix itself.
        value.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
        return value

    @staticmethod
    def backward(ctx, upstream: Tensor) -> Tensor:
        slope, stretched, diagonal = ctx.saved_tensors
        own = upstream.diagonal(dim1=-2, dim2=-1)
        pulled = upstream * stretched
        lost = pulled.diagonal(dim1=-2, dim2=-1)
        side = (pulled.sum(-1) + pulled.sum(-2) - 2 * lost) / (2 * diagonal.clamp_min(1e-12))
        found = upstream * slope
        found.diagonal(dim1=-2, dim2=-1).copy_(own + side * (diagonal > 1e-12))
        return found


def _cholesky(matrix: Tensor, jitter: float) -> Tensor:
    mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    factor, info = torch.linalg.cholesky_ex(matrix + jitter * mean * eye)
    if matrix.device.type != "meta" and bool((info != 0).any()):
        lowest = float(torch.linalg.eigvalsh(matrix).amin())
        raise ValueError(
            f"expected positive-definite kernel matrices with jitter {jitter:g}, got an eigenvalue of {lowest:.3g}: "
            "remove duplicated points or use a larger jitter"
        )
    return factor


def gaussian_log_likelihood(
    covariance: Float[Tensor, "*batch P P"], targets: Float[Tensor, "*batch P C"]
) -> Float[Tensor, "*batch"]:
    r"""Log density of independent columns, :math:`\sum_c \log \mathcal N(y_c; 0, \Sigma)`.

    Args:
        covariance: :math:`\Sigma`, positive definite.
        targets: One column an output.

    Raises:
        ValueError: For a covariance that is not positive definite.

    Source:
        yang2021dkm (log-likelihood of the outputs).
    """
    factor = _cholesky(covariance, 0.0)
    white = torch.linalg.solve_triangular(factor, targets, upper=False)
    p, c = targets.shape[-2:]
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (white.square().sum((-1, -2)) + c * (log_det + p * math.log(2 * math.pi)))


def whitened_divergence(factor: Float[Tensor, "*batch P P"]) -> Float[Tensor, "*batch"]:
    r"""Divergence of a Gram matrix :math:`G = C T T^\top C^\top` from the kernel :math:`K = C C^\top`.

    .. math::

        \mathrm{KL}\bigl(\mathcal N(0, G) \,\|\, \mathcal N(0, K)\bigr) = \tfrac12 \bigl( \lVert T \rVert_F^2 - 2
        \textstyle\sum_i \log |T_{ii}| - P \bigr)

    Args:
        factor: Lower-triangular :math:`T`.

    Source:
        yang2021dkm (layerwise divergence).
    """
    diagonal = factor.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    return 0.5 * (factor.square().sum((-1, -2)) - 2 * diagonal - factor.shape[-1])


def layer_grams(
    inputs_gram: Float[Tensor, "*batch P P"],
    factors: Sequence[Float[Tensor, "*batch P P"]],
    *,
    kernel: str = "arc_cosine",
    jitter: float = 1e-6,
) -> list[Float[Tensor, "*batch P P"]]:
    r"""Gram matrices :math:`G_1, \dots, G_L` from whitened factors, :math:`G_l = C T_l T_l^\top C^\top` with
    :math:`C C^\top = K(G_{l-1})`.

    Args:
        inputs_gram: :math:`G_0`.
        factors: :math:`T_1, \dots, T_L`; identities give the infinite network without representation learning.
        kernel: As in :func:`gram_kernel`.
        jitter: Added to the kernel, relative to its mean diagonal.

    Raises:
        ValueError: For a kernel matrix that is not positive definite.

    Source:
        yang2021dkm (Gram matrices layer by layer).
    """
    grams, previous = [], inputs_gram
    for factor in factors:
        root = _cholesky(gram_kernel(previous, kernel), jitter) @ factor
        previous = root @ root.mT
        grams.append(previous)
    return grams


def objective(
    inputs_gram: Float[Tensor, "*batch P P"],
    targets: Float[Tensor, "*batch P C"],
    factors: Sequence[Float[Tensor, "*batch P P"]],
    *,
    nu: float | Tensor,
    noise: float | Tensor,
    amplitude: float | Tensor = 1.0,
    kernel: str = "arc_cosine",
    jitter: float = 1e-6,
) -> Float[Tensor, "*batch"]:
    r"""The deep kernel machine's objective.

    .. math:: \mathcal L = \log \mathcal N\bigl(Y; 0, \alpha K(G_L) + \sigma^2 I\bigr) - \sum_l \nu_l\, \mathrm{KL}_l

    Args:
        inputs_gram: :math:`G_0`.
        targets: :math:`Y`.
        factors: Whitened factors of the layers; none is a Gaussian process with kernel :math:`K(G_0)`.
        nu: Weight of the divergences, one for all or one a batch entry; infinity needs identities, whose divergence
            is 0.
        noise: Variance :math:`\sigma^2`.
        amplitude: Output scale :math:`\alpha`.
        kernel, jitter: As in :func:`layer_grams`.

    Raises:
        ValueError: For shapes that do not fit or a matrix that is not positive definite.

    Source:
        yang2021dkm (objective of the deep kernel machine).
    """
    _check_gram(inputs_gram)
    require(
        targets.shape[-2] == inputs_gram.shape[-1], f"targets [..., {inputs_gram.shape[-1]}, C]", tuple(targets.shape)
    )
    require_finite("targets", targets)
    grams = layer_grams(inputs_gram, factors, kernel=kernel, jitter=jitter)
    last = gram_kernel(grams[-1] if grams else inputs_gram, kernel)
    noise, amplitude = (torch.as_tensor(v, dtype=last.dtype, device=last.device) for v in (noise, amplitude))
    eye = torch.eye(last.shape[-1], dtype=last.dtype, device=last.device)
    fit = gaussian_log_likelihood(amplitude[..., None, None] * last + noise[..., None, None] * eye, targets)
    price = sum((whitened_divergence(f) for f in factors), torch.zeros_like(fit))
    return fit - torch.where(price == 0, torch.zeros_like(price), nu * price)


def fit(
    inputs_gram: Float[Tensor, "*batch P P"],
    targets: Float[Tensor, "*batch P C"],
    *,
    layers: int,
    nu: float | Tensor,
    noise: float | Tensor,
    amplitude: float | Tensor = 1.0,
    kernel: str = "arc_cosine",
    steps: int = 150,
    rate: float = 1e-2,
    jitter: float = 1e-6,
) -> Fitted:
    r"""Maximise :func:`objective` over the whitened factors by Adam, from the infinite network's (identities).

    Args:
        inputs_gram, targets, nu, noise, amplitude, kernel, jitter: As in :func:`objective`.
        layers: Hidden layers :math:`L`.
        steps, rate: Of Adam.

    Returns:
        The factors and the objective at every step.

    Raises:
        ValueError: As :func:`objective`, or for no layers.

    Source:
        yang2021dkm (deep kernel machines).
    """
    require(layers >= 1, "at least one layer", layers)
    shape = torch.broadcast_shapes(inputs_gram.shape[:-2], targets.shape[:-2], torch.as_tensor(nu).shape)
    p = inputs_gram.shape[-1]
    eye = torch.eye(p, dtype=inputs_gram.dtype, device=inputs_gram.device).expand(*shape, p, p)
    mask = torch.tril(torch.ones(p, p, dtype=inputs_gram.dtype, device=inputs_gram.device))
    start = {f"T{l}": eye.clone() for l in range(layers)}

    def loss(params: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        factors = [params[f"T{l}"] * mask for l in range(layers)]
        return -objective(
            inputs_gram, targets, factors, nu=nu, noise=noise, amplitude=amplitude, kernel=kernel, jitter=jitter
        )

    found, history = minimize(loss, start, steps=steps, lr=rate, schedule="cosine")
    return Fitted([found[f"T{l}"] * mask for l in range(layers)], -history)


def _blocks(inputs: Tensor, train: int) -> tuple[Tensor, Tensor, Tensor]:
    return inputs[..., :train, :train], inputs[..., train:, :train], inputs[..., train:, train:]


def propagate(
    joint_gram: Float[Tensor, "*batch A A"],
    factors: Sequence[Float[Tensor, "*batch P P"]],
    *,
    kernel: str = "arc_cosine",
    jitter: float = 1e-6,
) -> Float[Tensor, "*batch A A"]:
    r"""Carry new points through the layers by Gaussian conditioning on the training (or inducing) points, which come
    first.

    With :math:`W = K_{ti} K_{ii}^{-1}`:

    .. math:: G_{ti} = W G_{ii}, \qquad G_{tt} = K_{tt} - W K_{it} + W G_{ii} W^\top

    Args:
        joint_gram: Input Gram matrix of training and new points together.
        factors: Fitted factors of the P training points.
        kernel, jitter: As fitted.

    Returns:
        The joint Gram matrix of the last layer.

    Raises:
        ValueError: For fewer points than the factors have.

    Source:
        yang2021dkm (prediction and inducing points).
    """
    _check_gram(joint_gram)
    for factor in factors:
        p = factor.shape[-1]
        require(joint_gram.shape[-1] >= p, f"at least {p} points", joint_gram.shape[-1])
        k_ii, k_ti, k_tt = _blocks(gram_kernel(joint_gram, kernel), p)
        chol = _cholesky(k_ii, jitter)
        root = chol @ factor
        g_ii = root @ root.mT
        weights = torch.cholesky_solve(k_ti.mT, chol).mT
        g_ti = weights @ g_ii
        g_tt = k_tt - weights @ k_ti.mT + g_ti @ weights.mT
        joint_gram = torch.cat([torch.cat([g_ii, g_ti.mT], -1), torch.cat([g_ti, g_tt], -1)], -2)
    return joint_gram


def predict(
    joint_gram: Float[Tensor, "*batch A A"],
    targets: Float[Tensor, "*batch P C"],
    factors: Sequence[Float[Tensor, "*batch P P"]],
    *,
    noise: float | Tensor,
    amplitude: float | Tensor = 1.0,
    kernel: str = "arc_cosine",
    jitter: float = 1e-6,
) -> Prediction:
    r"""Predictions at new points by the Gaussian process with the learned kernel :math:`\alpha K(G_L)`.

    Args:
        joint_gram: Input Gram matrix of the P training points followed by the new ones.
        targets: Of the training points.
        factors: From :func:`fit`; identities or none give the infinite network.
        noise, amplitude, kernel, jitter: As fitted.

    Raises:
        ValueError: As :func:`propagate`.

    Source:
        yang2021dkm (deep kernel machines).
    """
    p = targets.shape[-2]
    last = gram_kernel(propagate(joint_gram, factors, kernel=kernel, jitter=jitter), kernel)
    noise, amplitude = (torch.as_tensor(v, dtype=last.dtype, device=last.device) for v in (noise, amplitude))
    last, sigma = amplitude[..., None, None] * last, noise[..., None, None]
    k_ii, k_ti, k_tt = _blocks(last, p)
    chol = _cholesky(k_ii + sigma * torch.eye(p, dtype=last.dtype, device=last.device), 0.0)
    weights = torch.cholesky_solve(k_ti.mT, chol).mT
    variance = k_tt.diagonal(dim1=-2, dim2=-1) - (weights * k_ti).sum(-1) + noise[..., None]
    return Prediction(weights @ targets, variance.clamp_min(1e-12))


def sparse_objective(
    inputs_gram: Float[Tensor, "*batch A A"],
    targets: Float[Tensor, "*batch P C"],
    factors: Sequence[Float[Tensor, "*batch I I"]],
    *,
    nu: float | Tensor,
    noise: float | Tensor,
    amplitude: float | Tensor = 1.0,
    kernel: str = "arc_cosine",
    jitter: float = 1e-6,
) -> Float[Tensor, "*batch"]:
    r"""The objective with inducing points: their Gram matrices are learned, data follow by conditioning.

    .. math::

        \mathcal L = \log \mathcal N\bigl(Y; 0, Q + \sigma^2 I\bigr) - \frac{C}{2\sigma^2} \operatorname{tr}(K_{tt} -
        Q) - \sum_l \nu_l\, \mathrm{KL}_l,
        \qquad Q = K_{ti} K_{ii}^{-1} K_{it}

    Args:
        inputs_gram: Input Gram matrix of I inducing points followed by the P data points.
        targets: Of the data points.
        factors: Of the inducing points, one a layer.
        nu, noise, amplitude, kernel, jitter: As in :func:`objective`.

    Returns:
        A lower bound of :func:`objective`, equal to it where the inducing points are the data points.

    Raises:
        ValueError: As :func:`propagate`.

    Source:
        yang2021dkm (sparse deep kernel machines).
    """
    require(len(factors) > 0, "at least one layer", 0)
    inducing = factors[0].shape[-1]
    last = amplitude * gram_kernel(propagate(inputs_gram, factors, kernel=kernel, jitter=jitter), kernel)
    k_ii, k_ti, k_tt = _blocks(last, inducing)
    chol = _cholesky(k_ii, jitter)
    half = torch.linalg.solve_triangular(chol, k_ti.mT, upper=False)
    p, c = targets.shape[-2:]
    eye = torch.eye(inducing, dtype=last.dtype, device=last.device)
    inner = torch.linalg.cholesky(noise * eye + half @ half.mT)
    projected = torch.linalg.solve_triangular(inner, half @ targets, upper=False)
    quadratic = (targets.square().sum((-1, -2)) - projected.square().sum((-1, -2))) / noise
    log_det = 2 * inner.diagonal(dim1=-2, dim2=-1).log().sum(-1) + (p - inducing) * math.log(noise)
    left = k_tt.diagonal(dim1=-2, dim2=-1).sum(-1) - half.square().sum((-1, -2))
    likelihood = -0.5 * (quadratic + c * (log_det + p * math.log(2 * math.pi))) - 0.5 * c * left / noise
    return likelihood - nu * sum(whitened_divergence(f) for f in factors)


def fit_sparse(
    inputs_gram: Float[Tensor, "A A"],
    targets: Float[Tensor, "P C"],
    *,
    inducing: int,
    layers: int,
    nu: float,
    noise: float,
    amplitude: float = 1.0,
    kernel: str = "arc_cosine",
    steps: int = 150,
    rate: float = 1e-2,
    jitter: float = 1e-6,
) -> Fitted:
    """Maximise :func:`sparse_objective` over the inducing points' factors; arguments and errors as :func:`fit`.

    Args:
        inputs_gram: Input Gram matrix of the inducing points followed by the data points.
        targets: Of the data points.
        inducing: Number of inducing points.
        layers, nu, noise, amplitude, kernel, steps, rate, jitter: As in :func:`fit`.

    Source:
        yang2021dkm (sparse deep kernel machines).
    """
    require(layers >= 1 and inducing >= 1, "at least one layer and one inducing point", (layers, inducing))
    mask = torch.tril(torch.ones(inducing, inducing, dtype=inputs_gram.dtype, device=inputs_gram.device))
    start = {f"T{l}": torch.eye(inducing, dtype=inputs_gram.dtype, device=inputs_gram.device) for l in range(layers)}

    def loss(params: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        factors = [params[f"T{l}"] * mask for l in range(layers)]
        return -sparse_objective(
            inputs_gram, targets, factors, nu=nu, noise=noise, amplitude=amplitude, kernel=kernel, jitter=jitter
        )

    found, history = minimize(loss, start, steps=steps, lr=rate, schedule="cosine")
    return Fitted([found[f"T{l}"] * mask for l in range(layers)], -history)


def sparse_predict(
    joint_gram: Float[Tensor, "A A"],
    targets: Float[Tensor, "P C"],
    factors: Sequence[Float[Tensor, "I I"]],
    *,
    noise: float,
    amplitude: float = 1.0,
    kernel: str = "arc_cosine",
    jitter: float = 1e-6,
) -> Float[Tensor, "T C"]:
    r"""Mean predictions of a sparse machine, :math:`K_{*i} (\sigma^2 K_{ii} + K_{it} K_{ti})^{-1} K_{it} Y`.

    Args:
        joint_gram: Input Gram matrix of inducing, data and new points, in this order.
        targets: Of the data points.
        factors: From :func:`fit_sparse`.
        noise, amplitude, kernel, jitter: As fitted.

    Source:
        yang2021dkm (sparse deep kernel machines).
    """
    inducing, data = factors[0].shape[-1], targets.shape[-2]
    last = amplitude * gram_kernel(propagate(joint_gram, factors, kernel=kernel, jitter=jitter), kernel)
    k_ii, k_oi, _ = _blocks(last, inducing)
    chol = _cholesky(k_ii, jitter)
    half = torch.linalg.solve_triangular(chol, k_oi.mT, upper=False)
    train, new = half[..., :data], half[..., data:]
    eye = torch.eye(inducing, dtype=last.dtype, device=last.device)
    return new.mT @ torch.linalg.solve(noise * eye + train @ train.mT, train @ targets)


def linear_solution(
    inputs_gram: Float[Tensor, "P P"], target_gram: Float[Tensor, "P P"], layers: int
) -> list[Float[Tensor, "P P"]]:
    r"""Closed-form Gram matrices of a noise-free linear machine with equal :math:`\nu`.

    .. math:: G_l = G_0 \bigl(G_0^{-1} S\bigr)^{l/(L+1)}, \qquad S = Y Y^\top / \nu

    For one layer this is the geometric mean of :math:`G_0` and :math:`S`.

    Args:
        inputs_gram: :math:`G_0`, positive definite.
        target_gram: :math:`S`, positive definite.
        layers: :math:`L`.

    Raises:
        ValueError: For a matrix that is not positive definite.

    Source:
        yang2021dkm (deep linear kernels).
    """
    root = _cholesky(inputs_gram, 0.0)
    white = torch.linalg.solve_triangular(
        root, torch.linalg.solve_triangular(root, target_gram, upper=False).mT, upper=False
    )
    values, vectors = torch.linalg.eigh(white)
    if values.device.type != "meta":
        require(bool((values > 0).all()), "a positive-definite target Gram matrix", float(values.min()))
    turned = root @ vectors
    return [(turned * values ** (l / (layers + 1))) @ turned.mT for l in range(1, layers + 1)]


def hamiltonian_gram(
    inputs_gram: Float[Tensor, "P P"],
    targets: Float[Tensor, "P C"],
    width: int,
    *,
    replicas: float,
    noise: float,
    chains: int,
    steps: int,
    burn: int,
    rate: float,
    leapfrog: int = 8,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "chains P P"], Float[Tensor, " chains"], float]:
    r"""Mean Gram matrix of a finite linear deep Gaussian process's posterior, by Hamiltonian Monte Carlo.

    The features :math:`F \in \mathbb R^{P \times N}` have the prior :math:`\mathcal N(0, G_0)` a column and the
    likelihood of the outputs counted ``replicas`` times:

    .. math::

        \log p(F) = -\tfrac12 \operatorname{tr}(F^\top G_0^{-1} F) + R \log \mathcal N\bigl(Y; 0, F F^\top / N +
        \sigma^2 I\bigr)

    Chains run in one batch from overdispersed starts; steps are in whitened coordinates.

    Args:
        inputs_gram: :math:`G_0`.
        targets: :math:`Y`.
        width: :math:`N`.
        replicas: :math:`R`; the width itself for the representation-learning limit, 1 for the usual one.
        noise: :math:`\sigma^2`.
        chains, steps, burn: Of the sampler; the first ``burn`` steps are dropped.
        rate: Leapfrog step.
        leapfrog: Leapfrog steps a proposal.
        generator: Draws everything.

    Returns:
        Each chain's mean of :math:`F F^\top / N`, the kurtosis of a chain's whitened features, and the acceptance rate.

    Raises:
        ValueError: For sizes below 1 or a burn-in as long as the run.

    Source:
        yang2021dkm (posteriors of wide but finite deep Gaussian processes).
    """
    require(
        min(width, chains, steps, leapfrog) >= 1 and 0 <= burn < steps,
        "sizes of at least 1",
        (width, chains, steps, burn),
    )
    chol = _cholesky(inputs_gram, 0.0)
    p = inputs_gram.shape[-1]
    options = {"generator": generator, "dtype": inputs_gram.dtype, "device": inputs_gram.device}
    eye = torch.eye(p, dtype=inputs_gram.dtype, device=inputs_gram.device)

    def force(v: Tensor) -> tuple[Tensor, Tensor]:
        features = chol @ v
        covariance = features @ features.mT / width + noise * eye
        factor = torch.linalg.cholesky(covariance)
        inverse = torch.cholesky_inverse(factor)
        solved = inverse @ targets
        energy = 0.5 * v.square().sum((-1, -2)) + 0.5 * replicas * (
            (targets * solved).sum((-1, -2)) + targets.shape[-1] * 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        )
        pull = (targets.shape[-1] * inverse - solved @ solved.mT) @ features * (replicas / width)
        return energy, v + chol.mT @ pull

    scales = torch.linspace(0.5, 1.5, chains, dtype=inputs_gram.dtype, device=inputs_gram.device)
    v = scales[:, None, None] * torch.randn(chains, p, width, **options)
    energy, gradient = force(v)
    mean = torch.zeros(chains, p, p, dtype=v.dtype, device=v.device)
    second, fourth = torch.zeros(chains, p, dtype=v.dtype), torch.zeros(chains, p, dtype=v.dtype)
    accepted = 0.0
    for step in range(steps):
        momentum = torch.randn(v.shape, **options)
        start = energy + 0.5 * momentum.square().sum((-1, -2))
        place, slope, moving = v, gradient, momentum
        for _ in range(leapfrog):
            moving = moving - 0.5 * rate * slope
            place = place + rate * moving
            level, slope = force(place)
            moving = moving - 0.5 * rate * slope
        end = level + 0.5 * moving.square().sum((-1, -2))
        take = torch.rand(chains, **options).log() < start - end
        v = torch.where(take[:, None, None], place, v)
        gradient = torch.where(take[:, None, None], slope, gradient)
        energy = torch.where(take, level, energy)
        if step >= burn:
            features = chol @ v
            mean += features @ features.mT / width / (steps - burn)
            second += features.square().mean(-1).cpu() / (steps - burn)
            fourth += features.pow(4).mean(-1).cpu() / (steps - burn)
            accepted += float(take.double().mean()) / (steps - burn)
    kurtosis = (fourth / second.square() - 3).mean(-1)
    return mean, kurtosis, accepted
