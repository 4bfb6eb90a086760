r"""Polynomial regression as an alternative to a neural network, and the collinearity of a network's layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from netatlas.core import kernel_ridge
from netatlas.core.checks import require, require_finite

RIDGES = tuple(10.0**e for e in range(-7, 3))


def polynomial_exponents(
    features: int, degree: int, *, interactions: int | None = None, binary: Sequence[bool] | None = None
) -> Int[Tensor, "terms features"]:
    r"""Exponents of all monomials of total degree 1 to ``degree``.

    .. math::

        \{ e \in \mathbb N_0^p : 1 \le |e| \le r,\ |\operatorname{supp} e| \le m,\ e_j \le 1 \text{ for binary } j \}

    Args:
        features: Number of inputs :math:`p`.
        degree: Largest total degree :math:`r`.
        interactions: Largest number of different inputs in a monomial, :math:`m`; default ``degree``.
        binary: Which inputs are 0/1: their powers would repeat columns.

    Returns:
        One row a monomial; without restrictions there are :math:`\binom{p + r}{r} - 1`.

    Raises:
        ValueError: For no inputs, a degree or a number of interactions below 1, or flags of another length.

    Source:
        cheng2018polynomial (the package's ``getPoly``).
    """
    require(features >= 1 and degree >= 1, "at least one input and degree 1", (features, degree))
    widest = degree if interactions is None else interactions
    require(widest >= 1, "at least one input in a monomial", widest)
    flags = [False] * features if binary is None else list(binary)
    require(len(flags) == features, f"{features} flags", len(flags))
    rows = []
    for total in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(features), total):
            counts = [0] * features
            for j in chosen:
                counts[j] += 1
            if len(set(chosen)) <= widest and all(c <= 1 for c, flag in zip(counts, flags) if flag):
                rows.append(counts)
    return torch.tensor(rows, dtype=torch.int64)


def polynomial_features(
    inputs: Float[Tensor, "*batch N p"],
    degree: int,
    *,
    interactions: int | None = None,
    binary: Sequence[bool] | None = None,
    intercept: bool = True,
) -> Float[Tensor, "*batch N terms"]:
    r"""All monomials of the inputs, degree by degree, each one product away from a monomial of one degree less.

    .. math:: x \mapsto \bigl(x^e\bigr)_{|e| \le r}, \qquad x^{e + \mathbf 1_j} = x^e\, x_j

    Args:
        inputs: N points.
        degree: Largest total degree.
        interactions, binary: As in :func:`polynomial_exponents`.
        intercept: Whether a first column of ones is wanted.

    Returns:
        The columns in the order of :func:`polynomial_exponents`, after the column of ones; a transposed view.

    Raises:
        ValueError: For inputs that are not floating-point or not finite, or as :func:`polynomial_exponents`.

    Source:
        cheng2018polynomial (the package ``polyreg``).
    """
    require(inputs.is_floating_point(), "inputs of floating-point numbers", inputs.dtype)
    require(inputs.ndim >= 2, "inputs [..., N, p]", tuple(inputs.shape))
    require_finite("inputs", inputs)
    p, before = inputs.shape[-1], int(intercept)
    if interactions is None and binary is None:
        require(p >= 1 and degree >= 1, "at least one input and degree 1", (p, degree))
        # Columns lie together in memory: a block of monomials times one input is then one contiguous product.
        rows = inputs.mT.contiguous()
        shape = (*inputs.shape[:-2], math.comb(p + degree, degree) - 1 + before, inputs.shape[-2])
        if inputs.device.type == "cpu" and inputs.dtype in (torch.float32, torch.float64):
            # NumPy asks for huge pages: filling fresh memory costs half as much.
            out = torch.from_numpy(np.empty(shape, dtype=np.float32 if inputs.dtype == torch.float32 else np.float64))
        else:
            out = inputs.new_empty(shape)
        out[..., :before, :] = 1
        _fill(rows, degree, out[..., before:, :])
        return out.mT
    exponents = polynomial_exponents(p, degree, interactions=interactions, binary=binary)
    body = inputs.new_ones((*inputs.shape[:-1], len(exponents)))
    for j in range(p):
        powers = torch.stack([inputs[..., j] ** d for d in range(degree + 1)], -1)
        body = body * powers[..., exponents[:, j].to(inputs.device)]
    return torch.cat([torch.ones_like(body[..., :1]), body], -1) if intercept else body


def _fill(rows: Tensor, degree: int, out: Tensor) -> None:
    """Write the monomials into place: those of one degree that start with input ``j`` are that input times a tail."""
    p = rows.shape[-2]
    out[..., :p, :] = rows
    # Where, within the last degree, the monomials start whose first input is j.
    starts, before, here = list(range(p)), 0, p
    for _ in range(1, degree):
        end, place, fresh = here, here, []
        for j in range(p):
            tail = out[..., before + starts[j] : end, :]
            block = out[..., place : place + tail.shape[-2], :]
            if out.requires_grad or rows.requires_grad:
                block.copy_(rows[..., j, None, :] * tail.clone())
            else:
                torch.mul(tail, rows[..., j, None, :], out=block)
            fresh.append(place - end)
            place += tail.shape[-2]
        starts, before, here = fresh, end, place


def variance_inflation_factors(
    columns: Float[Tensor, "*batch N p"], *, largest: float = 1e6
) -> Float[Tensor, "*batch p"]:
    r"""Variance inflation factor of each column: how well the others predict it.

    .. math:: \mathrm{VIF}_j = \frac{1}{1 - R_j^2} = \bigl(C^{-1}\bigr)_{jj}

    with :math:`R_j^2` of the regression of column :math:`j` on the others and :math:`C` the correlation matrix. For
    iid Gaussian columns the mean is
    :math:`(N - 2)/(N - p - 1)`.

    Args:
        columns: N observations of p columns.
        largest: Values above are cut (exactly collinear columns have none).

    Returns:
        The factors, at least 1; NaN for a column that does not vary, which is also left out for the others.

    Raises:
        ValueError: For fewer than p + 2 observations, or values that are not finite.

    Source:
        cheng2018polynomial (collinearity of layers).
    """
    require(columns.is_floating_point(), "columns of floating-point numbers", columns.dtype)
    require(columns.ndim >= 2, "columns [..., N, p]", tuple(columns.shape))
    n, p = columns.shape[-2:]
    require(n >= p + 2, f"at least {p + 2} observations of {p} columns", n)
    require_finite("columns", columns)
    centred = columns.double() - columns.double().mean(-2, keepdim=True)
    norm = centred.norm(dim=-2, keepdim=True)
    scale = columns.double().abs().amax(-2, keepdim=True)
    alive = norm > 1e-12 * math.sqrt(n) * scale.clamp_min(torch.finfo(torch.float64).tiny)
    unit = centred / torch.where(alive, norm, torch.ones_like(norm)) * alive
    # Singular values instead of C^-1: half the digits are lost otherwise.
    _, values, right = torch.linalg.svd(unit, full_matrices=False)
    floor = (p / largest) ** 0.5 * 1e-3
    kept = values > floor * 1e-6
    inverse = torch.where(kept, values, torch.ones_like(values)) ** -2 * kept
    # A direction without variance that a live column takes part in makes that column's factor infinite.
    lost = ((right**2) * (~kept)[..., None]).sum(-2) > 1e-10
    factors = (right**2 * inverse[..., None]).sum(-2)
    factors = torch.where(lost, torch.full_like(factors, largest), factors.clamp(1.0, largest))
    return torch.where(alive[..., 0, :], factors, torch.full_like(factors, math.nan)).to(columns.dtype)


class PolynomialRegression:
    r"""Least squares on the monomials of standardised inputs, optionally of their leading principal components.

    .. math::

        \hat f(x) = \sum_{|e| \le r} \beta_e\, (P \tilde x)^e,
        \qquad \beta = \arg\min \lVert Y - A\beta \rVert^2 + \delta \lVert \beta \rVert^2

    Without a ridge the solution of least norm is taken, as a least-squares routine that drops aliased columns does in
    effect.
    With ``ridge="loo"`` the ridge is chosen by exact leave-one-out error.

    Args:
        degree: Largest total degree.
        pca: Share of the variance that the principal components kept must explain; None for the inputs themselves.
        ridge: 0, a number, or ``"loo"``.
        ridges: What ``"loo"`` chooses from; relative to the number of samples.
        interactions: As in :func:`polynomial_exponents`.

    Raises:
        ValueError: For a degree below 1, a share outside (0, 1], or a negative ridge.

    Source:
        cheng2018polynomial (``polyFit`` with ``pcaLocation = "front"`` and ``use = "lm"`` or ``"mvrlm"``).
    """

    def __init__(
        self,
        degree: int,
        *,
        pca: float | None = None,
        ridge: float | str = 0.0,
        ridges: Sequence[float] = RIDGES,
        interactions: int | None = None,
    ) -> None:
        require(degree >= 1, "a degree of at least 1", degree)
        require(pca is None or 0 < pca <= 1, "a share of the variance in (0, 1]", pca)
        require(ridge == "loo" or (not isinstance(ridge, str) and ridge >= 0), "a ridge of at least 0 or 'loo'", ridge)
        self.degree, self.pca, self.ridge, self.ridges = degree, pca, ridge, tuple(ridges)
        self.interactions = interactions

    def _expand(self, inputs: Tensor) -> Tensor:
        x = ((inputs.to(torch.float64) - self._mean) / self._scale) @ self._rotation
        columns = polynomial_features(x, self.degree, interactions=self.interactions, intercept=False)
        return columns

    def fit(self, inputs: Float[Tensor, "N p"], targets: Float[Tensor, "N *C"]) -> PolynomialRegression:
        """Fit; targets are numbers, one column an output (class indicators for a classifier).

        Args:
            inputs: N points.
            targets: ``[N]`` or ``[N, C]``.

        Raises:
            ValueError: For no points, lengths that differ, or values that are not finite.
        """
        require(inputs.ndim == 2 and len(inputs) > 0, "inputs [N, p] with N >= 1", tuple(inputs.shape))
        require(len(targets) == len(inputs), f"{len(inputs)} targets", len(targets))
        require_finite("inputs", inputs)
        require_finite("targets", targets)
        x = inputs.to(torch.float64)
        self._mean, spread = x.mean(0), x.std(0, correction=0)
        self._scale = torch.where(spread > 0, spread, torch.ones_like(spread))
        self._rotation = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        if self.pca is not None:
            _, values, right = torch.linalg.svd((x - self._mean) / self._scale, full_matrices=False)
            share = (values**2).cumsum(0) / (values**2).sum().clamp_min(torch.finfo(x.dtype).tiny)
            keep = min(int((share < self.pca - 1e-12).sum()) + 1, len(values))
            self._rotation = right[:keep].T
        columns = self._expand(inputs)
        self._centre, width = columns.mean(0), columns.std(0, correction=0)
        self._width = torch.where(width > 1e-12, width, torch.ones_like(width))
        design = (columns - self._centre) / self._width
        y = targets.to(torch.float64).reshape(len(targets), -1)
        self._offset, self._flat = y.mean(0), targets.ndim == 1
        centred = y - self._offset
        if self.ridge == "loo":
            grid = torch.tensor(self.ridges, dtype=torch.float64, device=x.device) * len(x)
            gram = design @ design.T
            self.chosen_ridge = float(kernel_ridge.select_ridge(gram, centred, grid).ridge)
            self._beta = design.T @ kernel_ridge.fit(gram, centred, self.chosen_ridge)
        elif self.ridge:
            self.chosen_ridge = float(self.ridge) * len(x)
            gram = design @ design.T
            self._beta = design.T @ kernel_ridge.fit(gram, centred, self.chosen_ridge)
        else:
            self.chosen_ridge = 0.0
            self._beta = torch.linalg.lstsq(design.cpu(), centred.cpu(), driver="gelsd", rcond=1e-10).solution.to(
                x.device
            )
        self.terms = design.shape[1] + 1
        return self

    def predict(self, inputs: Float[Tensor, "T p"]) -> Float[Tensor, "T *C"]:
        """Predictions at new points; class of a classifier is the largest column.

        Args:
            inputs: T points.
        """
        out = ((self._expand(inputs) - self._centre) / self._width) @ self._beta + self._offset
        return out[:, 0] if self._flat else out

    def leverage(self, inputs: Float[Tensor, "T p"], train: Float[Tensor, "N p"]) -> Float[Tensor, " T"]:
        r"""How far points lie outside the training cloud,
        :math:`(\tilde x - \bar x)^\top S^{-1} (\tilde x - \bar x)/N`.

        Args:
            inputs: T points.
            train: The training points.
        """
        z = ((train.to(torch.float64) - self._mean) / self._scale) @ self._rotation
        new = ((inputs.to(torch.float64) - self._mean) / self._scale) @ self._rotation
        return ((new @ torch.linalg.pinv(z.T @ z, hermitian=True)) * new).sum(1)


def inside_region(
    leverages: Float[Tensor, " T"], train: Float[Tensor, " N"], level: float = 0.95
) -> Bool[Tensor, " T"]:
    """Which points have a leverage within the training points' ``level`` quantile; extrapolation begins outside.

    Args:
        leverages: Of T new points.
        train: Of the training points.
        level: The quantile.

    Raises:
        ValueError: For a level outside (0, 1].

    Source:
        cheng2018polynomial (extrapolation).
    """
    require(0 < level <= 1, "a level in (0, 1]", level)
    return leverages <= torch.quantile(train, level)


def quadratic_network(
    inputs: Float[Tensor, "N p"], widths: Sequence[int], *, generator: torch.Generator
) -> Float[Tensor, "N out"]:
    r"""A random dense network with the activation :math:`z^2`: exactly a polynomial of degree :math:`2^L`.

    Args:
        inputs: N points.
        widths: Widths of the layers after the input; the last is the output, without activation.
        generator: Draws weights and biases.

    Raises:
        ValueError: For no layers.

    Source:
        cheng2018polynomial (networks as polynomials).
    """
    require(len(widths) > 0, "at least one layer", widths)
    hidden = inputs
    for layer, width in enumerate(widths):
        shape = (hidden.shape[1], width)
        weight = torch.randn(shape, generator=generator, dtype=inputs.dtype, device=inputs.device) / shape[0] ** 0.5
        bias = torch.randn(width, generator=generator, dtype=inputs.dtype, device=inputs.device)
        hidden = hidden @ weight + 0.5 * bias
        hidden = hidden.square() if layer + 1 < len(widths) else hidden
    return hidden
