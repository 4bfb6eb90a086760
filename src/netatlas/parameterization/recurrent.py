r"""Recurrent networks that start from structured connectivity, and how far training moves them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite


def effective_rank(weights: Float[Tensor, "*batch N M"]) -> Float[Tensor, "*batch"]:
    r"""Participation ratio of the squared singular values, :math:`(\sum s_i^2)^2 / \sum s_i^4`.

    It is 1 for rank one and the rank for equal singular values.

    Args:
        weights: Matrices.

    Raises:
        ValueError: For NaN or a matrix of zeros.

    Source:
        liu2023connectivity, effective rank of initial connectivity.
    """
    require(weights.ndim >= 2, "matrices", tuple(weights.shape))
    require_finite("weights", weights)
    squares = torch.linalg.svdvals(weights).square()
    total = squares.sum(-1)
    require(bool((total > 0).all()), "matrices other than zero", "zero")
    return total.square() / squares.square().sum(-1)


def low_rank_recurrent_init(
    size: int, rank: int, *, gain: float = 1.25, match: str = "frobenius", generator: torch.Generator
) -> Float[Tensor, "N N"]:
    r"""A Gaussian matrix cut to a rank and scaled back to the norm it had.

    .. math:: W_0 = U_r S_r V_r^\top \cdot \frac{\lVert G\rVert}{\lVert U_r S_r V_r^\top\rVert},
        \qquad G_{ij} \sim \mathcal N(0, g^2 / N)

    Args:
        size: :math:`N`.
        rank: :math:`r`, from 1 to ``size``.
        gain: :math:`g`.
        match: Which norm is kept: ``"frobenius"`` as in the paper, or ``"spectral"`` (then nothing is rescaled).
        generator: Draws the matrix.

    Raises:
        ValueError: For a rank out of range, a gain that is not positive, or another norm.

    Source:
        liu2023connectivity, low-rank initialisation at equal norm.
    """
    require(1 <= rank <= size, f"a rank in 1..{size}", rank)
    require(gain > 0, "a positive gain", gain)
    require(match in ("frobenius", "spectral"), "a norm out of frobenius, spectral", repr(match))
    g = gain * torch.randn(size, size, generator=generator) / math.sqrt(size)
    u, s, vt = torch.linalg.svd(g)
    cut = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return cut * (g.norm() / cut.norm()) if match == "frobenius" else cut


def structured_init(size: int, kind: str, *, gain: float = 1.25, generator: torch.Generator) -> Float[Tensor, "N N"]:
    r"""Connectivity with biological structure, at the Frobenius norm :math:`g \sqrt N` of the Gaussian matrix.

    ``"blocks"``: four cell types, variance between pairs of types drawn log-normally. ``"dale"``: every column has one
    sign, four fifths excitatory, inhibition balanced. ``"heavy"``: out-degrees with a heavy tail, weights log-normal.

    Args:
        size: :math:`N`.
        kind: ``"blocks"``, ``"dale"`` or ``"heavy"``.
        gain: :math:`g`.
        generator: Draws the matrix.

    Raises:
        ValueError: For another kind or a size below 4.

    Source:
        liu2023connectivity, structured initialisations; the statistics here are generic ones, not a connectome's.
    """
    require(size >= 4, "at least 4 neurons", size)
    require(kind in ("blocks", "dale", "heavy"), "a kind out of blocks, dale, heavy", repr(kind))
    normal = torch.randn(size, size, generator=generator)
    if kind == "blocks":
        of = torch.arange(size) * 4 // size
        strength = torch.randn(4, 4, generator=generator).mul(1.5).exp()
        w = normal * strength[of][:, of]
    elif kind == "dale":
        excitatory = torch.arange(size) < int(0.8 * size)
        w = normal.abs() * torch.where(excitatory, 1.0, -float(excitatory.sum()) / float((~excitatory).sum()))
    else:
        degree = torch.randn(size, generator=generator).mul(1.5).exp()
        linked = torch.rand(size, size, generator=generator) < (0.3 * degree / degree.mean()).clamp_max(1.0)
        w = linked * normal.sign() * torch.randn(size, size, generator=generator).exp()
        w[0, 0] = 1.0
    return w * (gain * math.sqrt(size) / w.norm())


class Trials(NamedTuple):
    """Trials of a decision task: inputs ``[T, B, 3]``, the wanted output of every step ``[T, B]``."""

    inputs: Float[Tensor, "T B 3"]
    targets: Int[Tensor, "T B"]


def two_alternative_forced_choice(
    batch: int, *, steps: int = 8, noise: float = 0.3, generator: torch.Generator
) -> Trials:
    r"""Two noisy channels, one a little stronger: fixate, then say which.

    Channel 0 is the fixation signal, on until the last step; channels 1 and 2 are :math:`1/2 \pm c/2` plus noise with
    coherence :math:`c \in \{.064, .128, .256, .512\}`. Output 0 is wanted while fixating, 1 or 2 at the last step.

    Args:
        batch: Trials.
        steps: Length, the last one the decision.
        noise: Standard deviation.
        generator: Draws the trials.

    Raises:
        ValueError: For no trials, fewer than two steps, or negative noise.

    Source:
        liu2023connectivity, two-alternative forced choice.
    """
    require(batch >= 1 and steps >= 2 and noise >= 0, "trials, two steps, noise of at least 0", (batch, steps, noise))
    coherence = torch.tensor([0.064, 0.128, 0.256, 0.512])[torch.randint(4, (batch,), generator=generator)]
    side = torch.randint(2, (batch,), generator=generator)
    sign = 1.0 - 2.0 * side
    means = 0.5 + 0.5 * torch.stack([coherence * sign, -coherence * sign], -1)
    inputs = torch.zeros(steps, batch, 3)
    inputs[:-1, :, 0] = 1.0
    inputs[:-1, :, 1:] = means + noise * torch.randn(steps - 1, batch, 2, generator=generator)
    targets = torch.zeros(steps, batch, dtype=torch.int64)
    targets[-1] = 1 + side
    return Trials(inputs, targets)


def recurrent_states(params: dict[str, Tensor], inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "M T B N"]:
    r"""States of a stack of networks, :math:`h_t = \mathrm{relu}(W_\text{in} x_t + W h_{t-1})`, :math:`h_0 = 0`.

    Args:
        params: ``W_in [M, N, I]`` and ``W [M, N, N]``.
        inputs: Shared by the networks.

    Raises:
        ValueError: For shapes that do not fit, or different devices.

    Source:
        liu2023connectivity (the recurrent network) with the leak rate 1.
    """
    w, enter = params["W"], params["W_in"]
    require({w.device, enter.device} == {inputs.device}, f"weights on {inputs.device}", {w.device, enter.device})
    require(inputs.shape[-1] == enter.shape[-1], f"inputs of {enter.shape[-1]} channels", tuple(inputs.shape))
    drive = torch.einsum("mni,tbi->tmbn", enter, inputs)
    h, states = torch.zeros_like(drive[0]), []
    for now in drive:
        h = torch.baddbmm(now, h, w.mT).relu()
        states.append(h)
    return torch.stack(states, 1)


def recurrent_kernel(params: dict[str, Tensor], inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "M BC BC"]:
    r"""Tangent kernel of the outputs at the last step with respect to the recurrent weights alone.

    With :math:`\delta_t = \partial f / \partial (\text{pre-activation})_t` the Jacobian is
    :math:`\sum_t \delta_t h_{t-1}^\top`, one backward sweep for all samples, outputs and networks.

    Args:
        params: ``W_in``, ``W`` and the readout ``V [M, C, N]``.
        inputs: The probe batch.

    Returns:
        Kernels between all pairs of sample and output.

    Raises:
        ValueError: For shapes that do not fit.

    Source:
        liu2023connectivity, kernel alignment (recurrent weights, decision step).
    """
    states = recurrent_states(params, inputs)
    m, steps, b, n = states.shape
    w, c = params["W"], params["V"].shape[1]
    delta = params["V"][:, None].expand(m, b, c, n)
    jacobian = torch.zeros(m, b, c, n, n, dtype=states.dtype, device=states.device)
    for t in range(steps - 1, 0, -1):
        delta = delta * (states[:, t] > 0)[:, :, None]
        jacobian = jacobian + torch.einsum("mbci,mbj->mbcij", delta, states[:, t - 1])
        delta = torch.einsum("mbci,mij->mbcj", delta, w)
    flat = jacobian.reshape(m, b * c, n * n)
    return flat @ flat.mT


def kernel_alignment(
    first: Float[Tensor, "*batch P P"], second: Float[Tensor, "*batch P P"], *, centred: bool = False
) -> Float[Tensor, "*batch"]:
    r"""Cosine between two kernels, :math:`\langle K, K'\rangle / (\lVert K\rVert\, \lVert K'\rVert)`.

    Args:
        first, second: Symmetric kernels on one device.
        centred: Whether rows and columns are centred first (CKA).

    Raises:
        ValueError: For shapes or devices that differ, NaN, or a kernel of zeros.

    Source:
        liu2023connectivity, kernel and representation alignment.
    """
    require(first.shape == second.shape and first.ndim >= 2, f"two kernels {tuple(first.shape)}", tuple(second.shape))
    require(first.device == second.device, f"both kernels on {first.device}", second.device)
    require_finite("first", first)
    require_finite("second", second)
    if centred:
        p = first.shape[-1]
        centre = torch.eye(p, dtype=first.dtype, device=first.device) - 1 / p
        first, second = centre @ first @ centre, centre @ second @ centre
    norms = torch.linalg.matrix_norm(first) * torch.linalg.matrix_norm(second)
    if first.device.type != "meta":
        require(bool((norms > 0).all()), "kernels other than zero", "zero")
    return (first * second).sum((-2, -1)) / norms


def linear_alignment(
    singular: Float[Tensor, "#K d"],
    task: Float[Tensor, "K d"],
    *,
    readout: Float[Tensor, "K d"] | None = None,
    steps: int = 4000,
    lr: float = 0.01,
    tiny: float = 1e-3,
) -> Float[Tensor, " K"]:
    r"""Kernel alignment after training a two-layer linear network, for many tasks at once.

    :math:`f = w_2^\top W_1 x` on whitened inputs, teacher :math:`\beta`, :math:`w_2` small at first; the kernel is
    :math:`K = W_1^\top W_1 + \lVert w_2\rVert^2 I`. Without loss :math:`W_1 = \mathrm{diag}(s)`.

    Args:
        singular: Initial singular values :math:`s`, zeros for lower rank; one row for all tasks or one a task.
        task: Teachers, unit vectors in the singular basis.
        readout: Directions of the initial :math:`w_2`; by default :math:`W_1\beta`, along which a readout of zero moves
            first.
        steps: Steps of gradient descent.
        lr: Step size.
        tiny: Norm of the initial :math:`w_2`.

    Raises:
        ValueError: For negative singular values, shapes that do not fit, or a readout without direction.

    Source:
        liu2023connectivity, theory of the two-layer linear network.
    """
    require(bool((singular >= 0).all()), "singular values of at least 0", float(singular.min()))
    singular = torch.atleast_2d(singular)
    require(task.ndim == 2 and task.shape[1] == singular.shape[1], f"tasks [K, {singular.shape[1]}]", tuple(task.shape))
    require(len(singular) in (1, len(task)), f"singular values for 1 or {len(task)} tasks", len(singular))
    k, d = task.shape
    w1 = torch.diag_embed(singular).to(task).expand(k, d, d).clone()
    w2 = torch.einsum("kij,kj->ki", w1, task) if readout is None else readout.to(task)
    require(w2.shape == task.shape, f"readouts {tuple(task.shape)}", tuple(w2.shape))
    norms = w2.norm(dim=1, keepdim=True)
    require(bool((norms > 0).all()), "readouts with a direction (the task is not seen by the weights)", "zero")
    w2 = tiny * w2 / norms
    eye = torch.eye(d, dtype=task.dtype)
    start = w1.mT @ w1 + w2.square().sum(1)[:, None, None] * eye
    for _ in range(steps):
        error = torch.einsum("kij,ki->kj", w1, w2) - task
        w1, w2 = w1 - lr * w2[:, :, None] * error[:, None], w2 - lr * torch.einsum("kij,kj->ki", w1, error)
    end = w1.mT @ w1 + w2.square().sum(1)[:, None, None] * eye
    return kernel_alignment(start, end)


def linear_alignment_closed(norm: float, dimension: int, *, aligned: bool) -> float:
    r"""Closed form of :func:`linear_alignment` for a rank-one matrix along the task, or an isotropic one.

    With :math:`s^2 = s_0^2/2 + \sqrt{s_0^4/4 + 1}` and :math:`w^2 = s^2 - s_0^2`,

    .. math::

        \text{aligned, } s_0 = F:&\quad \frac{s^2 + w^2}{\sqrt{(s^2 + w^2)^2 + (d-1) w^4}} \\
        \text{isotropic, } s_0 = F/\sqrt d:&\quad
        \frac{(d-1) s^2 + s^2 + w^2}{\sqrt{d\,((d-1) s^4 + (s^2 + w^2)^2)}}

    Args:
        norm: Frobenius norm :math:`F`.
        dimension: :math:`d`.
        aligned: Rank one along the task, else isotropic.

    Raises:
        ValueError: For a norm that is not positive or a dimension below 1.

    Source:
        liu2023connectivity, the exception of aligned low-rank initialisation, solved for small :math:`w_2`.
    """
    require(norm > 0 and dimension >= 1, "a positive norm and dimension", (norm, dimension))
    start = norm**2 if aligned else norm**2 / dimension
    s = start / 2 + math.sqrt(start**2 / 4 + 1)
    w = s - start
    if aligned:
        return (s + w) / math.sqrt((s + w) ** 2 + (dimension - 1) * w**2)
    return ((dimension - 1) * s + s + w) / math.sqrt(dimension * ((dimension - 1) * s**2 + (s + w) ** 2))
