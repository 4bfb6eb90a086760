r"""Second derivatives of a loss without the matrix: products, spectra, traces.

For a loss :math:`L(\theta) = \frac1N \sum_i \ell(f(x_i;\theta), y_i)` with Jacobians :math:`J_i` of the outputs

.. math::

    H = \underbrace{\tfrac1N \sum_i J_i^\top \ell''_i J_i}_{G,\ \text{Gauss-Newton}}
        + \tfrac1N \sum_i \sum_c \ell'_{ic} \nabla^2 f_c(x_i), \qquad
    F = \tfrac1N \sum_i J_i^\top \operatorname{Cov}_{y \sim p_i}\!\bigl[\nabla_f \log p(y \mid f)\bigr] J_i .

Parameters are a dict of tensors. Where the loss returns ``[M]`` values, the parameters are :math:`M` networks stacked
along the first axis, as in :mod:`netatlas.core.train`; members do not mix, so that one product serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap

from netatlas.core.checks import require, require_finite, require_same_device

Params = dict[str, Tensor]
Loss = Callable[[Params], Tensor]


def _check_params(params: Params) -> None:
    require(len(params) > 0, "at least one parameter tensor", 0)
    for name, value in params.items():
        require(value.is_floating_point(), f"floating-point values in {name}", value.dtype)
        require_finite(name, value)
    require(len({v.dtype for v in params.values()}) == 1, "one dtype", {k: v.dtype for k, v in params.items()})
    require_same_device(params.items())


def flatten_params(params: Params, *, stacked: bool = False) -> Tensor:
    """All parameters in one vector ``[D]``, in the order of the dict; ``[M, D]`` for stacked ones.

    Args:
        params: Tensors by name; with ``stacked``, ``[M, ...]`` each.
        stacked: Whether the first axis counts members.

    Raises:
        ValueError: For no tensors, mixed dtypes or devices, or member counts that differ.
    """
    _check_params(params)
    if not stacked:
        return torch.cat([v.reshape(-1) for v in params.values()])
    counts = {k: v.shape[0] if v.ndim else None for k, v in params.items()}
    require(len(set(counts.values())) == 1 and None not in counts.values(), "equal numbers of members", counts)
    return torch.cat([v.reshape(v.shape[0], -1) for v in params.values()], 1)


def unflatten_params(flat: Float[Tensor, "*batch D"], like: Params, *, stacked: bool = False) -> Params:
    """The inverse of :func:`flatten_params`; further leading axes of ``flat`` stay in front.

    Args:
        flat: ``[..., D]``, with ``stacked`` ``[..., M, D]``.
        like: Tensors whose names and shapes are taken.
        stacked: Whether the first axis of ``like`` counts members.

    Raises:
        ValueError: If the length of ``flat`` is not the number of parameters.
    """
    shapes = {k: v.shape[1:] if stacked else v.shape for k, v in like.items()}
    sizes = [shape.numel() for shape in shapes.values()]
    require(flat.shape[-1] == sum(sizes), f"{sum(sizes)} entries", flat.shape[-1])
    parts = flat.split(sizes, -1)
    return {k: part.reshape(*flat.shape[:-1], *shape) for (k, shape), part in zip(shapes.items(), parts)}


@dataclass(frozen=True)
class Curvature:
    """A symmetric matrix for each member, known by its products with vectors.

    Attributes:
        product: ``[K, D]`` to ``[K, D]``, or ``[K, M, D]`` to ``[K, M, D]`` with members: K vectors at once.
        dim: The number of parameters D.
        members: The number of members M, or ``None`` for a single network without a member axis.
        dtype: Of the vectors.
        device: Of the vectors.
    """

    product: Callable[[Tensor], Tensor]
    dim: int
    members: int | None
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector: ``(D,)`` or ``(M, D)``."""
        return (self.dim,) if self.members is None else (self.members, self.dim)

    def __call__(self, vectors: Tensor) -> Tensor:
        """The product with one vector or with K stacked in front.

        Args:
            vectors: ``[D]`` or ``[K, D]``; ``[M, D]`` or ``[K, M, D]`` with members.

        Raises:
            ValueError: For another shape, dtype or device.
        """
        one = tuple(vectors.shape) == self.shape
        require(one or tuple(vectors.shape[1:]) == self.shape, f"vectors {self.shape} or [K, ...]", vectors.shape)
        require(vectors.dtype == self.dtype, f"vectors of dtype {self.dtype}", vectors.dtype)
        require(vectors.device == self.device, f"vectors on {self.device}", vectors.device)
        return self.product(vectors[None])[0] if one else self.product(vectors)

    def shifted(self, shift: float) -> Curvature:
        r"""The matrix :math:`A + s I`.

        Args:
            shift: The multiple of the identity :math:`s`.
        """
        return Curvature(lambda v: self.product(v) + shift * v, self.dim, self.members, self.dtype, self.device)


def matrix_curvature(matrix: Float[Tensor, "*M D D"]) -> Curvature:
    """A symmetric matrix, or one a member, as a :class:`Curvature`.

    Args:
        matrix: ``[D, D]`` or ``[M, D, D]``.

    Raises:
        ValueError: If it is not square or not symmetric to rounding.
    """
    require(matrix.ndim in (2, 3) and matrix.shape[-1] == matrix.shape[-2], "square matrices", tuple(matrix.shape))
    require_finite("matrix", matrix)
    if matrix.device.type != "meta":
        gap = (matrix - matrix.mT).abs().max() if matrix.numel() else torch.zeros(())
        bound = 1e3 * torch.finfo(matrix.dtype).eps * matrix.abs().max().clamp_min(1e-300)
        require(bool(gap <= bound), "a symmetric matrix", f"an asymmetry of {float(gap):.1e}")
    members = None if matrix.ndim == 2 else matrix.shape[0]
    return Curvature(
        lambda v: (matrix @ v[..., None])[..., 0] if members else v @ matrix,
        matrix.shape[-1],
        members,
        matrix.dtype,
        matrix.device,
    )


def _value(loss: Tensor) -> Tensor:
    require(loss.ndim <= 1, "a loss that is a scalar or [M]", f"shape {tuple(loss.shape)}")
    return loss


def _grads(outputs: list[Tensor], leaves: list[Tensor], cotangents: list[Tensor], *, batched: bool) -> list[Tensor]:
    """Vector-Jacobian products through a graph that is kept, zeros where a leaf does not matter."""
    used = [i for i, out in enumerate(outputs) if out.requires_grad]
    if not used:
        found: list[Tensor | None] = [None] * len(leaves)
    else:
        found = list(
            torch.autograd.grad(
                [outputs[i] for i in used],
                leaves,
                [cotangents[i] for i in used],
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=batched,
            )
        )
    lead = cotangents[0].shape[:1] if batched else ()
    return [leaf.new_zeros(*lead, *leaf.shape) if g is None else g for g, leaf in zip(found, leaves)]


def hessian_operator(loss: Loss, params: Params) -> Curvature:
    r"""The Hessian :math:`H = \nabla^2 L(\theta)` as an operator; the gradient's graph is built once and kept.

    Args:
        loss: ``loss(params)``: a scalar, or ``[M]`` for stacked members.
        params: The point; not changed.

    Raises:
        ValueError: For bad parameters or a loss of another shape.
    """
    _check_params(params)
    leaves = {k: v.detach().clone().requires_grad_(True) for k, v in params.items()}
    value = _value(loss(leaves))
    stacked = value.ndim == 1
    names = list(leaves)
    inputs = [leaves[k] for k in names]
    grads: list[Tensor | None] = [None] * len(inputs)
    if value.requires_grad:
        grads = list(torch.autograd.grad(value.sum(), inputs, create_graph=True, allow_unused=True))
    gradient = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, inputs)]

    batching = True

    def product(vectors: Tensor) -> Tensor:
        nonlocal batching
        parts = unflatten_params(vectors, params, stacked=stacked)
        if batching and len(vectors) > 1:
            try:
                found = _grads(gradient, inputs, [parts[k] for k in names], batched=True)
                return torch.cat([g.reshape(*vectors.shape[:-1], -1) for g in found], -1)
            except RuntimeError:
                # Some layers' second derivatives have no batching rule (group normalisation): one vector at a time.
                batching = False
        each = [_grads(gradient, inputs, [parts[k][i] for k in names], batched=False) for i in range(len(vectors))]
        return torch.stack([torch.cat([g.reshape(*vectors.shape[1:-1], -1) for g in one], -1) for one in each])

    flat = flatten_params(params, stacked=stacked)
    return Curvature(product, flat.shape[-1], len(flat) if stacked else None, flat.dtype, flat.device)


def gauss_newton_operator(
    outputs: Callable[[Params], Tensor], criterion: Callable[[Tensor], Tensor], params: Params
) -> Curvature:
    r"""The generalised Gauss-Newton matrix :math:`G = J^\top (\nabla^2_f \ell) J` as an operator.

    :math:`J` is the Jacobian of all outputs and :math:`\ell` the criterion with its mean over examples, so that
    :math:`H - G` is what the curvature of the network itself adds.

    Args:
        outputs: ``outputs(params)``, for example ``[N, C]`` or ``[M, N, C]``.
        criterion: ``criterion(outputs)``: a scalar, or ``[M]`` for stacked members.
        params: The point; not changed.

    Raises:
        ValueError: For bad parameters or a criterion of another shape.
    """

    def middle(f: Tensor) -> tuple[bool, Callable[[Tensor], Tensor]]:
        leaf = f.detach().requires_grad_(True)
        value = _value(criterion(leaf))
        (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)

        def apply(u: Tensor) -> Tensor:
            return _grads([slope], [leaf], [u], batched=True)[0]

        return value.ndim == 1, apply

    return _sandwich(outputs, middle, params)


def _sandwich(
    outputs: Callable[[Params], Tensor],
    middle: Callable[[Tensor], tuple[bool, Callable[[Tensor], Tensor]]],
    params: Params,
) -> Curvature:
    """The operator v -> J^T B J v for outputs with Jacobian J; B acts on K tensors shaped as the outputs."""
    _check_params(params)
    primals = {k: v.detach() for k, v in params.items()}
    pulled = vjp(outputs, primals)
    value, pull = pulled[0], pulled[1]
    stacked, inner = middle(value)

    def product(vectors: Tensor) -> Tensor:
        parts = unflatten_params(vectors, params, stacked=stacked)
        pushed = vmap(lambda v: jvp(outputs, (primals,), (v,))[1])(parts)
        back = vmap(lambda u: pull(u)[0])(inner(pushed))
        return torch.cat([back[k].reshape(*vectors.shape[:-1], -1) for k in params], -1).detach()

    flat = flatten_params(params, stacked=stacked)
    return Curvature(product, flat.shape[-1], len(flat) if stacked else None, flat.dtype, flat.device)


def fisher_operator(
    outputs: Callable[[Params], Tensor],
    params: Params,
    *,
    kind: Literal["categorical", "gaussian", "empirical"] = "categorical",
    stacked: bool = False,
) -> Curvature:
    r"""The Fisher information as an operator.

    ``"categorical"``: :math:`\frac1N \sum_i J_i^\top (\operatorname{diag} p_i - p_i p_i^\top) J_i` with softmax
    probabilities of the outputs; ``"gaussian"``: :math:`\frac1N \sum_i J_i^\top J_i`, unit variance. ``"empirical"``:
    :math:`\frac1N \sum_i g_i g_i^\top`, where ``outputs`` returns each example's loss and :math:`g_i` is its gradient;
    it is not an estimate of the Fisher information unless the model is right.

    Args:
        outputs: ``outputs(params)``: logits or means ``[N, C]``, or losses ``[N]`` for ``"empirical"``; one more
            leading axis ``M`` with ``stacked``.
        params: The point; not changed.
        kind: Which of the three.
        stacked: Whether parameters and outputs have a leading member axis.

    Raises:
        ValueError: For an unknown kind, outputs of another shape, or no examples.
    """
    kinds = ("categorical", "gaussian", "empirical")
    require(kind in kinds, f"a kind out of {', '.join(kinds)}", repr(kind))
    axes = (1 if kind == "empirical" else 2) + int(stacked)

    def middle(f: Tensor) -> tuple[bool, Callable[[Tensor], Tensor]]:
        require(f.ndim == axes, f"outputs of {axes} axes", tuple(f.shape))
        count = f.shape[int(stacked)]
        require(count > 0, "at least one example", 0)
        if kind != "categorical":
            return stacked, lambda u: u / count
        p = f.softmax(-1)
        return stacked, lambda u: p * (u - (p * u).sum(-1, keepdim=True)) / count

    return _sandwich(outputs, middle, params)


def _dict_product(operator: Curvature, params: Params, vectors: Params) -> Params:
    require(set(vectors) == set(params), f"vectors for {sorted(params)}", sorted(vectors))
    stacked = operator.members is not None
    first = next(iter(params))
    extra = vectors[first].ndim - params[first].ndim
    require(extra in (0, 1), "vectors shaped as the parameters, or K of them in front", tuple(vectors[first].shape))
    lead = vectors[first].shape[:extra]
    for name, p in params.items():
        require(vectors[name].shape == (*lead, *p.shape), f"{(*lead, *p.shape)} for {name}", vectors[name].shape)
    tail = operator.shape[:-1]
    flat = torch.cat([vectors[k].reshape(*lead, *tail, -1) for k in params], -1)
    return unflatten_params(operator(flat), params, stacked=stacked)


def hessian_vector_product(loss: Loss, params: Params, vectors: Params) -> Params:
    r"""The product :math:`H v` of the loss's Hessian with vectors shaped as the parameters.

    For many products at one point build :func:`hessian_operator` once.

    Args:
        loss: ``loss(params)``: a scalar, or ``[M]`` for stacked members (each member's own Hessian acts).
        params: The point.
        vectors: As ``params``, or with one more axis ``K`` in front of every tensor.

    Returns:
        The products, shaped as ``vectors``.

    Raises:
        ValueError: For names or shapes that differ from the parameters', NaN, or mixed dtypes.
    """
    return _dict_product(hessian_operator(loss, params), params, vectors)


def gauss_newton_vector_product(
    outputs: Callable[[Params], Tensor], criterion: Callable[[Tensor], Tensor], params: Params, vectors: Params
) -> Params:
    r"""The product :math:`G v = J^\top (\nabla^2_f \ell)\, J v`; see :func:`gauss_newton_operator`.

    Args:
        outputs: ``outputs(params)``.
        criterion: ``criterion(outputs)``, a scalar or ``[M]``.
        params: The point.
        vectors: As ``params``, or with one more axis in front.

    Raises:
        ValueError: As :func:`hessian_vector_product`.
    """
    return _dict_product(gauss_newton_operator(outputs, criterion, params), params, vectors)


def fisher_vector_product(
    outputs: Callable[[Params], Tensor],
    params: Params,
    vectors: Params,
    *,
    kind: Literal["categorical", "gaussian", "empirical"] = "categorical",
    stacked: bool = False,
) -> Params:
    r"""The product :math:`F v` with the Fisher information; see :func:`fisher_operator`.

    Args:
        outputs: ``outputs(params)``.
        params: The point.
        vectors: As ``params``, or with one more axis in front.
        kind: ``"categorical"``, ``"gaussian"`` or ``"empirical"``.
        stacked: Whether there is a leading member axis.

    Raises:
        ValueError: As :func:`fisher_operator` and :func:`hessian_vector_product`.
    """
    return _dict_product(fisher_operator(outputs, params, kind=kind, stacked=stacked), params, vectors)


def dense_matrix(operator: Curvature, *, chunk: int = 256) -> Float[Tensor, "*M D D"]:
    """The whole matrix, by products with the columns of the identity, and made symmetric.

    Args:
        operator: The matrix as an operator.
        chunk: Columns at once.

    Raises:
        ValueError: For a chunk below 1.
    """
    require(chunk >= 1, "a chunk of at least 1", chunk)
    eye = torch.eye(operator.dim, dtype=operator.dtype, device=operator.device)
    if operator.members is not None:
        eye = eye[:, None].expand(-1, operator.members, -1)
    columns = torch.cat([operator(part.contiguous()) for part in eye.split(chunk)])
    matrix = columns if operator.members is None else columns.movedim(0, 1)
    return (matrix + matrix.mT) / 2


def hessian_matrix(loss: Loss, params: Params, *, chunk: int = 256) -> Float[Tensor, "*M D D"]:
    r"""The exact Hessian :math:`\nabla^2 L`, for networks of up to a few thousand parameters.

    Args:
        loss: ``loss(params)``: a scalar, or ``[M]`` for stacked members.
        params: The point.
        chunk: Columns at once.

    Raises:
        ValueError: As :func:`hessian_operator`.
    """
    return dense_matrix(hessian_operator(loss, params), chunk=chunk)


class SpectralQuadrature(NamedTuple):
    r"""Gauss quadratures of the spectrum, one a probe: :math:`v^\top f(A) v = \sum_i w_i f(\theta_i)`.

    The rule of :math:`m` nodes is exact for polynomials of degree up to :math:`2m - 1`. Nodes beyond an early end
    of the iteration have weight zero and lie inside the spectrum.

    Attributes:
        nodes: Ritz values in increasing order, probes first, then members, then ``m`` nodes.
        weights: Of the same shape, non-negative, with sum 1 for every probe.
        dim: The number of parameters D.
    """

    nodes: Tensor
    weights: Tensor
    dim: int

    def mean(self, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        r"""An estimate of :math:`\frac1D \operatorname{tr} f(A)` and its standard error over probes.

        Args:
            function: Applied to the nodes, elementwise.
        """
        values = (self.weights * function(self.nodes)).sum(-1)
        probes = values.shape[0]
        spread = values.std(0) / probes**0.5 if probes > 1 else torch.full_like(values[0], torch.nan)
        return values.mean(0), spread

    def density(self, grid: Float[Tensor, " T"], width: float) -> tuple[Tensor, Tensor]:
        r"""The smoothed spectral density :math:`\hat\phi(t) = \sum_i w_i\, \mathcal N(t; \theta_i, \sigma^2)`.

        Args:
            grid: Where, ``[T]``.
            width: Standard deviation :math:`\sigma` of the Gaussian.

        Returns:
            Mean over probes ``[..., T]`` and its standard error.

        Raises:
            ValueError: For a width that is not positive.
        """
        require(width > 0, "a positive width", width)
        offset = (grid[:, None] - self.nodes[..., None, :]) / width
        bells = torch.exp(-0.5 * offset**2) / (width * (2 * torch.pi) ** 0.5)
        values = (self.weights[..., None, :] * bells).sum(-1)
        probes = values.shape[0]
        spread = values.std(0) / probes**0.5 if probes > 1 else torch.full_like(values[0], torch.nan)
        return values.mean(0), spread


def random_signs(operator: Curvature, probes: int, generator: torch.Generator) -> Tensor:
    """Vectors of random signs ``[K, D]``, the same for all members: ``[K, M, D]``.

    Args:
        operator: Gives shape, dtype and device.
        probes: How many.
        generator: Draws them; its device is used for drawing.

    Raises:
        ValueError: For fewer than one probe.
    """
    require(probes >= 1, "at least one probe", probes)
    signs = torch.randint(0, 2, (probes, operator.dim), generator=generator, device=generator.device) * 2 - 1
    signs = signs.to(operator.device, operator.dtype)
    return signs if operator.members is None else signs[:, None].expand(-1, operator.members, -1).contiguous()


def lanczos_quadrature(operator: Curvature, start: Tensor, steps: int) -> SpectralQuadrature:
    r"""Lanczos iterations from many start vectors at once, with full reorthogonalisation, as quadratures.

    Each start vector's recurrence :math:`A Q = Q T + r e_m^\top` gives nodes :math:`\theta_i`, the eigenvalues of
    :math:`T`, and weights :math:`w_i = (e_1^\top y_i)^2` from its eigenvectors. An iteration that meets an
    invariant subspace ends there. For the Ritz vectors of one start vector see :func:`netatlas.core.linalg.lanczos`.

    Args:
        operator: The symmetric matrix.
        start: Start vectors ``[K, D]`` or ``[K, M, D]``, none zero; they are normalised.
        steps: Largest number of steps; at most D are made.

    Raises:
        ValueError: For zero or NaN start vectors, a wrong shape, or fewer than one step.
    """
    require(steps >= 1, "at least one step", steps)
    require(tuple(start.shape[1:]) == operator.shape, f"start vectors [K, *{operator.shape}]", tuple(start.shape))
    require_finite("start", start)
    steps, meta = min(steps, operator.dim), start.device.type == "meta"
    norms = torch.linalg.vector_norm(start, dim=-1, keepdim=True)
    require(meta or bool((norms > 0).all()), "start vectors that are not zero", "a norm of 0")
    batch = start.shape[:-1]
    q = (start / norms).reshape(-1, operator.dim)
    basis = q.new_zeros(len(q), steps, operator.dim)
    alphas, betas = q.new_zeros(len(q), steps), q.new_zeros(len(q), max(steps - 1, 0))
    alive, scale = torch.ones_like(alphas[:, 0]), torch.zeros_like(alphas[:, 0])
    floor = 10 * torch.finfo(q.dtype).eps * operator.dim**0.5
    for k in range(steps):
        basis[:, k] = q
        w = operator(q.reshape(*batch, -1)).reshape(-1, operator.dim)
        alpha = (w * q).sum(-1)
        alphas[:, k] = torch.where(alive > 0, alpha, alphas[:, 0])
        if k + 1 == steps:
            break
        known = basis[:, : k + 1]
        # A second pass restores orthogonality to rounding where one leaves the square root of it.
        for _ in range(2):
            w = w - ((known @ w[..., None]).mT @ known)[:, 0]
        beta = torch.linalg.vector_norm(w, dim=-1)
        scale = torch.maximum(scale, torch.maximum(alpha.abs(), beta))
        alive = alive * (beta > floor * scale)
        if not meta and not bool(alive.any()):
            alphas[:, k + 1 :] = alphas[:, :1]
            break
        betas[:, k] = beta * alive
        q = torch.where(alive[:, None] > 0, w / beta.clamp_min(torch.finfo(q.dtype).tiny)[:, None], 0)
    tridiagonal = torch.diag_embed(alphas) + torch.diag_embed(betas, 1) + torch.diag_embed(betas, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return SpectralQuadrature(values.reshape(*batch, -1), vectors[:, 0].square().reshape(*batch, -1), operator.dim)


def stochastic_lanczos_quadrature(
    operator: Curvature, *, probes: int, steps: int, generator: torch.Generator
) -> SpectralQuadrature:
    """The spectral density from Lanczos iterations started at random signs, all probes (and members) at once.

    Args:
        operator: The symmetric matrix.
        probes: Number of start vectors.
        steps: Lanczos steps of each.
        generator: Draws the signs.

    Raises:
        ValueError: For fewer than one probe or step.
    """
    return lanczos_quadrature(operator, random_signs(operator, probes, generator), steps)


class Extremes(NamedTuple):
    """Eigenvalues at both ends of a spectrum, ``[k]`` or ``[M, k]`` each: the largest first, the smallest first."""

    largest: Tensor
    smallest: Tensor


def extreme_eigenvalues(
    operator: Curvature, count: int = 1, *, steps: int = 60, generator: torch.Generator | None = None
) -> Extremes:
    """Largest and smallest eigenvalues by Lanczos, from one random start vector a member.

    Ritz values lie inside the spectrum, and those at its ends converge first. With ``steps = D`` they are exact if no
    eigenvalue is repeated; a repeated one is found once.

    Args:
        operator: The symmetric matrix.
        count: How many at each end, at most ``steps``.
        steps: Lanczos steps.
        generator: Draws the start vector; default: seed 0.

    Raises:
        ValueError: For a count below 1 or above the number of steps.
    """
    require(1 <= count <= min(steps, operator.dim), f"a count from 1 to {min(steps, operator.dim)}", count)
    generator = generator or torch.Generator().manual_seed(0)
    start = torch.randn(1, operator.dim, generator=generator, device=generator.device, dtype=torch.float64)
    start = start.to(operator.device, operator.dtype)
    if operator.members is not None:
        start = start[:, None].expand(-1, operator.members, -1).contiguous()
    nodes = lanczos_quadrature(operator, start, steps).nodes[0]
    return Extremes(nodes[..., -count:].flip(-1), nodes[..., :count])


class Traces(NamedTuple):
    """Estimates of a trace and their standard errors, scalars or ``[M]``."""

    mean: Tensor
    stderr: Tensor


def hutchinson(operator: Curvature, *, probes: int, generator: torch.Generator) -> Traces:
    r"""Hutchinson's estimate :math:`\frac1K \sum_k z_k^\top A z_k` of the trace, for all members at once.

    The variance of one probe is :math:`2 \sum_{i \ne j} A_{ij}^2`.

    Args:
        operator: The symmetric matrix.
        probes: Number of vectors of random signs, at least 2.
        generator: Draws them.

    Raises:
        ValueError: For fewer than two probes.
    """
    require(probes >= 2, "at least two probes", probes)
    signs = random_signs(operator, probes, generator)
    samples = (signs * operator(signs)).sum(-1)
    return Traces(samples.mean(0), samples.std(0) / probes**0.5)


def hutch_plus_plus(operator: Curvature, *, products: int, generator: torch.Generator) -> Traces:
    r"""Hutch++: the trace on a sketched subspace exactly, the rest by Hutchinson's estimate.

    With :math:`Q` an orthonormal basis of :math:`A S` for a matrix :math:`S` of random signs and
    :math:`P = I - Q Q^\top`,

    .. math:: \operatorname{tr} A \approx \operatorname{tr} Q^\top A Q + \tfrac1K \sum_k (P z_k)^\top A (P z_k) .

    A third of the products makes the sketch, a third its trace, a third the estimate. For positive semi-definite
    matrices the error falls like one over the number of products, Hutchinson's like one over its root.

    Args:
        operator: The symmetric matrix.
        products: Matrix-vector products to spend, at least 6; what is left over of a third is not used.
        generator: Draws the signs.

    Returns:
        The estimate and the standard error of its random part given the sketch.

    Raises:
        ValueError: For fewer than six products.
    """
    require(products >= 6, "at least 6 products", products)
    third = min(products // 3, operator.dim)
    sketch = operator(random_signs(operator, third, generator)).movedim(0, -1)
    q = torch.linalg.qr(sketch).Q
    columns = q.movedim(-1, 0).contiguous()
    exact = (columns * operator(columns)).sum((0, -1))
    signs = random_signs(operator, products // 3, generator).movedim(0, -1)
    rest = (signs - q @ (q.mT @ signs)).movedim(-1, 0).contiguous()
    samples = (rest * operator(rest)).sum(-1)
    return Traces(exact + samples.mean(0), samples.std(0) / len(samples) ** 0.5)
