r"""Dynamical low-rank training: gradient descent that stays on the manifold of rank-:math:`r` matrices.

A step moves :math:`K = U S` with :math:`V` held and :math:`L = V S^\top` with :math:`U` held, both from the same point,
takes new bases from the results, and moves :math:`S` in them. No step divides by a singular value of :math:`S`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite

from .manifold import orthonormal_basis, tail_rank

Params = dict[str, Tensor]


def _t(matrix: Tensor) -> Tensor:
    return matrix.transpose(-1, -2)


def augmented_basis(
    moved: Float[Tensor, "*M m R"], old: Float[Tensor, "*M m R"], rank: Int[Tensor, "*M"]
) -> Float[Tensor, "*M m R2"]:
    r"""Orthonormal columns that span both the moved and the old ones, :math:`\operatorname{qr}([K', U])`.

    Args:
        moved: ``[..., m, R]``, the first ``rank`` columns in use.
        old: ``[..., m, R]`` likewise.
        rank: Columns in use.

    Returns:
        ``[..., m, 2R]``; the first ``2 rank`` columns are orthonormal, the rest are zero.
    """
    room = moved.shape[-1]
    both = torch.cat([moved, old], -1)
    used = torch.arange(room, device=moved.device) < rank[..., None]
    # Columns in use first: QR completes zero columns by arbitrary directions, which must come last to be cut off.
    order = torch.cat([used, used], -1).logical_not().to(torch.int8).argsort(dim=-1, stable=True)
    both = both.gather(-1, order[..., None, :].expand_as(both))
    return orthonormal_basis(both, 2 * rank)


class DLRT:
    r"""The low-rank integrator of a model with :class:`~netatlas.low_rank.LowRankLinear` layers, one or many at once.

    .. math:: K' = US - \eta \nabla_K \mathcal L(K V^\top),\quad L' = VS^\top - \eta \nabla_L \mathcal L(U L^\top),
    .. math:: U' = \operatorname{qr}([K', U]),\quad V' = \operatorname{qr}([L', V]),\quad
        \tilde S = (U'^\top U)\, S\, (V'^\top V)^\top,\quad S' = \tilde S - \eta \nabla_S \mathcal L(U' S V'^\top)

    followed by a truncation of :math:`S'` at the relative tolerance :math:`\tau`. Without a tolerance the rank stays
    and the bases are :math:`\operatorname{qr}(K')` and :math:`\operatorname{qr}(L')`. Parameters that belong to no
    triple ``NAME.U``, ``NAME.S``, ``NAME.V`` move in the last pass only. Adam's averages turn with the bases: the first
    moments exactly, the second ones by the squares of the rotation.

    Args:
        params: Parameters by name, ``[...]`` or stacked ``[M, ...]``; not changed.
        ranks: Columns in use by layer name, a number or ``[M]``.
        lr: Learning rate, one for all or one a member.
        optimizer: ``"sgd"`` or ``"adam"``.
        tolerance: Relative tolerance of the truncation, one for all or one a member; none keeps the rank.
        augment: Whether the old basis stays in the new one; only with a tolerance.
        smallest: Least rank that a truncation may leave.

    Raises:
        ValueError: For no low-rank layer, ranks beyond the room, room for more than half of a side while the rank
            adapts, or a rate that is not positive.

    Source:
        schotthofer2022dlrt.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        ranks: Mapping[str, int | Tensor],
        *,
        lr: float | Tensor,
        optimizer: str = "sgd",
        tolerance: float | Tensor | None = None,
        augment: bool = True,
        smallest: int = 2,
    ) -> None:
        self.params = {name: value.detach().clone() for name, value in params.items()}
        self.layers = [name[:-2] for name in params if name.endswith(".U")]
        require(len(self.layers) > 0, "at least one low-rank layer (NAME.U, NAME.S, NAME.V)", sorted(params))
        require(set(ranks) == set(self.layers), f"a rank for each of {self.layers}", sorted(ranks))
        require(optimizer in ("sgd", "adam"), "an optimizer out of sgd, adam", repr(optimizer))
        if tolerance is not None:
            bounds = torch.as_tensor(tolerance)
            require(bool(((bounds >= 0) & (bounds < 1)).all()), "a tolerance in [0, 1)", tolerance)
        self.lr, self.optimizer, self.tolerance = torch.as_tensor(lr, dtype=torch.float64), optimizer, tolerance
        require(bool((self.lr > 0).all()), "a positive learning rate", lr)
        self.adaptive, self.smallest = tolerance is not None, smallest
        self.augment = augment and self.adaptive
        self.ranks = {}
        for name in self.layers:
            u, v = self.params[f"{name}.U"], self.params[f"{name}.V"]
            for factor in (u, v, self.params[f"{name}.S"]):
                require_finite(name, factor)
            room, side = u.shape[-1], min(u.shape[-2], v.shape[-2])
            self.ranks[name] = torch.as_tensor(ranks[name], device=u.device).expand(u.shape[:-2]).clone()
            used = self.ranks[name]
            require(bool(((used >= 1) & (used <= room)).all()), f"ranks from 1 to {room} in {name}", ranks[name])
            require(not self.augment or 2 * room <= side, f"room for at most {side // 2} columns in {name}", room)
        self.moments: dict[tuple[str, str], list[Tensor]] = {}
        self.core_bases: Params = {}
        self.count = 0

    def _move(self, slot: str, name: str, value: Tensor, gradient: Tensor) -> Tensor:
        lr = self.lr.to(value).reshape(self.lr.shape + (1,) * (value.ndim - self.lr.ndim)) if self.lr.ndim else self.lr
        if self.optimizer == "sgd":
            return value - lr * gradient
        first, second = self.moments.setdefault((slot, name), [torch.zeros_like(value), torch.zeros_like(value)])
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.001)
        scale = (second / (1 - 0.999**self.count)).sqrt() + 1e-8
        return value - lr / (1 - 0.9**self.count) * first / scale

    def _gradients(self, loss: Callable[[Params], Tensor], params: Params, names: list[str]) -> tuple[Tensor, list]:
        leaves = {name: params[name].detach().requires_grad_() for name in names}
        value = loss(params | leaves)
        gradients = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
        return value.detach(), [torch.zeros_like(params[n]) if g is None else g for n, g in zip(names, gradients)]

    def step(self, loss: Callable[[Params], Tensor]) -> Tensor:
        """One step: three passes forward and backward.

        Args:
            loss: From parameters to a scalar, or to ``[M]`` losses of stacked members. The three passes call it with
                bases of different widths.

        Returns:
            The loss before the step.
        """
        self.count += 1
        # The identity in the place of S makes K V^T (or U L^T) out of the same three factors.
        eye = {f"{n}.S": torch.eye(s.shape[-1], dtype=s.dtype, device=s.device).expand_as(s) for n, s in self._cores()}
        k = {f"{n}.U": self.params[f"{n}.U"] @ s for n, s in self._cores()}
        left = {f"{n}.V": self.params[f"{n}.V"] @ _t(s) for n, s in self._cores()}
        value, k_gradients = self._gradients(loss, self.params | eye | k, list(k))
        _, l_gradients = self._gradients(loss, self.params | eye | left, list(left))
        moved = {n: self._move("K", n, k[n], g) for n, g in zip(k, k_gradients)}
        moved |= {n: self._move("L", n, left[n], g) for n, g in zip(left, l_gradients)}
        after = dict(self.params)
        for name in self.layers:
            for side in ("U", "V"):
                after[f"{name}.{side}"] = self._basis(name, moved[f"{name}.{side}"], self.params[f"{name}.{side}"])
            after[f"{name}.S"] = self.transported(name, after[f"{name}.U"], after[f"{name}.V"])
            self._turned_core(name, after)
        bases = {f"{name}.{side}" for name in self.layers for side in ("U", "V")}
        rest = [name for name in after if name not in bases]
        _, gradients = self._gradients(loss, after, rest)
        for name, gradient in zip(rest, gradients):
            after[name] = self._move("S", name, after[name], gradient)
        if self.optimizer == "adam":
            self._carry_core_moments(after)
        if self.adaptive:
            for name in self.layers:
                self._truncate(name, after)
        if self.optimizer == "adam":
            for name in self.layers:
                self._carry_moments(name, after)
        self.params = after
        return value

    def _carry_moments(self, name: str, after: Params) -> None:
        """Adam's averages of K and L in the new bases: a gradient with respect to K is G V, whose V has turned."""
        for slot, side, moving in (("K", "U", "V"), ("L", "V", "U")):
            turn = _t(self.params[f"{name}.{moving}"]) @ after[f"{name}.{moving}"]
            first, second = self.moments[slot, f"{name}.{side}"]
            self.moments[slot, f"{name}.{side}"] = [first @ turn, second @ turn.square()]

    def _carry_core_moments(self, after: Params) -> None:
        """Remember the bases in which S has just moved; the averages follow when the next ones are known."""
        self.core_bases = {k: v for k, v in after.items() if k[-2:] in (".U", ".V")}

    def _turned_core(self, name: str, after: Params) -> None:
        if self.optimizer != "adam" or ("S", f"{name}.S") not in self.moments:
            return
        left = _t(after[f"{name}.U"]) @ self.core_bases[f"{name}.U"]
        right = _t(_t(after[f"{name}.V"]) @ self.core_bases[f"{name}.V"])
        first, second = self.moments["S", f"{name}.S"]
        self.moments["S", f"{name}.S"] = [left @ first @ right, left.square() @ second @ right.square()]

    def _cores(self) -> list[tuple[str, Tensor]]:
        return [(name, self.params[f"{name}.S"]) for name in self.layers]

    def _basis(self, name: str, moved: Tensor, old: Tensor) -> Tensor:
        rank = self.ranks[name]
        used = torch.arange(moved.shape[-1], device=moved.device) < rank[..., None]
        moved = moved * used[..., None, :]
        return augmented_basis(moved, old, rank) if self.augment else orthonormal_basis(moved, rank)

    def transported(self, name: str, u: Tensor, v: Tensor) -> Tensor:
        r"""The core in new bases, :math:`\tilde S = (U'^\top U) S (V'^\top V)^\top`."""
        old = self.params
        return (_t(u) @ old[f"{name}.U"]) @ old[f"{name}.S"] @ _t(_t(v) @ old[f"{name}.V"])

    def _truncate(self, name: str, after: Params) -> None:
        room = self.params[f"{name}.S"].shape[-1]
        p, d, qt = torch.linalg.svd(after[f"{name}.S"])
        assert self.tolerance is not None
        rank = tail_rank(d, self.tolerance, smallest=min(self.smallest, room), largest=room)
        keep = torch.arange(room, device=d.device) < rank[..., None]
        u = after[f"{name}.U"] @ (p[..., :room] * keep[..., None, :])
        # Singular vectors come with either sign; Adam's averages need the one that continues the old basis.
        sign = torch.where((u * self.params[f"{name}.U"]).sum(-2, keepdim=True) < 0, -1.0, 1.0).to(u)
        after[f"{name}.U"] = u * sign
        after[f"{name}.V"] = after[f"{name}.V"] @ (_t(qt)[..., :room] * keep[..., None, :]) * sign
        after[f"{name}.S"] = torch.diag_embed(d[..., :room] * keep)
        self.ranks[name] = rank

    def parameters_kept(self) -> Int[Tensor, "*M"]:
        r"""Numbers needed for evaluation: :math:`r(m + n)` a low-rank layer, and all of the others."""
        members = self.ranks[self.layers[0]].shape
        total = torch.zeros(members, dtype=torch.int64)
        for name, value in self.params.items():
            layer = name[:-2]
            if layer in self.layers:
                total += self.ranks[layer].cpu() * value.shape[-2] * (name[-1] != "S")
            else:
                total += value[0].numel() if members else value.numel()
        return total
