"""The chapter's experiments on the low-rank integrator: small singular values, adaptive rank, exact checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.nn import MLP
from netatlas.core.train import Ensemble, batch_order, fit_many, minimize, stack_members

from .adapters import replace_linear
from .asymmetry import haar_orthonormal
from .dlrt import DLRT, augmented_basis
from .manifold import FactorizedLinear, LowRankLinear, svd_truncation

Data = tuple[Tensor, Tensor]
Params = dict[str, Tensor]


def low_rank_network(widths: Sequence[int], rank: int, *, room: int | None = None, factorized: bool = False) -> MLP:
    """A multilayer perceptron whose hidden layers have low rank; the last layer is dense.

    Args:
        widths: Input, hidden and output widths.
        rank: Of the hidden layers.
        room: Columns there is room for.
        factorized: Two plain factors instead of three on the manifold.
    """
    last = len(widths) - 2

    def make(name: str, layer: nn.Linear) -> nn.Module | None:
        if int(name.rpartition(".")[2]) == last:
            return None
        if factorized:
            return FactorizedLinear(layer.in_features, layer.out_features, rank)
        return LowRankLinear(layer.in_features, layer.out_features, rank, room=room)

    return replace_linear(MLP(widths), make)  # type: ignore[return-value]


class Batches:
    """The losses of stacked members on the batches that each would see alone.

    Args:
        module: The architecture.
        data: Inputs and labels.
        seeds: One a member.
        batch: Examples a batch.
        steps: Batches that will be asked for.
    """

    def __init__(self, module: nn.Module, data: Data, seeds: Sequence[int], batch: int, steps: int) -> None:
        self.module, self.data, self.batch = module, data, batch
        self.per_epoch = len(data[0]) // batch
        epochs = -(-steps // self.per_epoch)
        known = {seed: batch_order(seed, len(data[0]), epochs) for seed in set(seeds)}
        self.order = torch.stack([known[seed] for seed in seeds], 1).to(data[0].device)

    def __call__(self, params: Params, step: int) -> Float[Tensor, " M"]:
        epoch, at = divmod(step, self.per_epoch)
        index = self.order[epoch, :, at * self.batch : (at + 1) * self.batch]
        x, y = self.data[0][index], self.data[1][index]

        def one(p: Params, x: Tensor, y: Tensor) -> Tensor:
            # The modules tie no weights; looking for ties at every step would take longer than a small layer.
            return nn.functional.cross_entropy(functional_call(self.module, p, (x,), tie_weights=False), y)

        return vmap(one)(params, x, y)


def dlrt_train(
    module: nn.Module, params: Params, data: Data, *, seeds: Sequence[int], steps: int, batch: int,
    lr: float | Tensor, **options: object,
) -> tuple[DLRT, Float[Tensor, "steps M"]]:  # fmt: skip
    """Train stacked members by the low-rank integrator.

    Args:
        module: With :class:`~netatlas.low_rank.LowRankLinear` layers.
        params: Stacked parameters.
        data: Inputs and labels.
        seeds: One a member; they order the batches.
        steps, batch: Steps, and examples a step.
        lr: One for all or one a member.
        options: Of :class:`~netatlas.low_rank.DLRT`.

    Returns:
        The integrator with the trained parameters, and the losses of all steps; NaN once a member has diverged.
    """
    ranks = {n: m.rank for n, m in module.named_modules() if isinstance(m, LowRankLinear)}
    integrator = DLRT(params, ranks, lr=lr, **options)  # type: ignore[arg-type]
    batches = Batches(module, data, seeds, batch, steps)
    healthy = {k: v.clone() for k, v in integrator.params.items()}
    lost = torch.zeros(len(seeds), dtype=torch.bool, device=data[0].device)
    trace = []
    for step in range(steps):
        loss = integrator.step(lambda p, step=step: batches(p, step))
        # A member that diverges would stop the decompositions of all: it is put back to its start and counted out.
        size = torch.stack([v.flatten(1).abs().amax(1) for v in integrator.params.values()]).amax(0)
        bad = ~torch.isfinite(loss) | ~torch.isfinite(size) | (size > 1e6)
        if bool(bad.any()):
            lost |= bad
            for name, value in integrator.params.items():
                value[bad] = healthy[name][bad]
        trace.append(torch.where(lost, torch.nan, loss))
    return integrator, torch.stack(trace)


class Decay(NamedTuple):
    """Training from singular values that fall by k decades.

    Attributes:
        decades: the k tried.
        rates: learning rates tried.
        losses: mean loss of the last 20 steps by arm, ``[decades, rates, seeds]``; infinite where it diverged.
    """

    decades: Sequence[float]
    rates: Sequence[float]
    losses: dict[str, Float[Tensor, "k rates seeds"]]

    def best(self, arm: str) -> Float[Tensor, "k seeds"]:
        """Losses at each k's best rate, chosen by the mean over seeds."""
        table = self.losses[arm]
        chosen = table.mean(2).argmin(1)
        return torch.stack([row[i] for row, i in zip(table, chosen)])

    def at_edge(self, arm: str) -> int:
        """How many of the best rates, one for each k, lie at an end of the grid."""
        chosen = self.losses[arm].mean(2).argmin(1)
        return int(((chosen == 0) | (chosen == len(self.rates) - 1)).sum())


def decaying_start(
    widths: Sequence[int], rank: int, decades: float, *, top: float = 3.0, seed: int = 0
) -> tuple[Params, Params, Params]:
    r"""One initial function in three forms: on the manifold, as two factors, and dense.

    Hidden weights have singular values :math:`3 \cdot 10^{-k i/(r-1)}` in random directions.

    Args:
        widths: Of the multilayer perceptron.
        rank: :math:`r`, at least 2.
        decades: :math:`k`.
        top: The largest singular value.
        seed: Draws directions and the last layer.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plain = dict(MLP(widths).named_parameters())
    triple: Params = {}
    for layer, (n, m) in enumerate(zip(widths[:-2], widths[1:-1])):
        u = haar_orthonormal(rank, m, generator=generator)[0].T.float()
        v = haar_orthonormal(rank, n, generator=generator)[0].T.float()
        s = top * 10 ** (-decades * torch.arange(rank) / (rank - 1))
        triple |= {f"layers.{layer}.U": u, f"layers.{layer}.S": torch.diag(s), f"layers.{layer}.V": v}
    rest = {k: torch.zeros_like(v) if k.endswith("bias") else v.detach() for k, v in plain.items()}
    rest = {k: v for k, v in rest.items() if k.endswith("bias") or f"{k[:-7]}.U" not in triple}
    factors, dense = {}, {}
    for name in [n[:-2] for n in triple if n.endswith(".U")]:
        u, s, v = (triple[f"{name}.{part}"] for part in "USV")
        factors |= {f"{name}.A": u * s.diagonal().sqrt(), f"{name}.B": v * s.diagonal().sqrt()}
        dense[f"{name}.weight"] = u @ s @ v.T
    return triple | rest, factors | rest, dense | rest


def small_singular_values(
    data: Data, *, widths: Sequence[int], rank: int, decades: Sequence[float], rates: Sequence[float],
    seeds: Sequence[int], steps: int, batch: int = 64,
) -> Decay:  # fmt: skip
    """Train from singular values that decay over k decades: the integrator, two plain factors, and the full matrix.

    A step of the integrator makes three passes, so the factors are also given three times the steps.

    Args:
        data: Inputs as vectors, and labels.
        widths: Of the multilayer perceptron.
        rank: Of its hidden layers.
        decades: The k to try.
        rates: Learning rates to try, the same for all arms.
        seeds: One run each.
        steps: Steps of the integrator.
        batch: Examples a step.

    Source:
        schotthofer2022dlrt.
    """
    grid = [(k, rate, seed) for k in decades for rate in rates for seed in seeds]
    members = [seed for _, _, seed in grid]
    lr = torch.tensor([rate for _, rate, _ in grid], device=data[0].device)
    starts = [decaying_start(widths, rank, k, seed=seed) for k, _, seed in grid]
    stacks = [
        {n: torch.stack([s[form][n] for s in starts]).to(lr.device) for n in starts[0][form]} for form in range(3)
    ]
    modules = [low_rank_network(widths, rank), low_rank_network(widths, rank, factorized=True), MLP(widths)]
    shape = (len(decades), len(rates), len(seeds))

    def tail(trace: Tensor) -> Tensor:
        return trace[-20:].mean(0).nan_to_num(torch.inf, posinf=torch.inf).reshape(shape).double().cpu()

    _, trace = dlrt_train(modules[0], stacks[0], data, seeds=members, steps=steps, batch=batch, lr=lr)
    losses = {"DLRT": tail(trace)}
    for arm, form, length in (("factors, equal passes", 1, 3 * steps), ("full matrix", 2, steps)):
        batches = Batches(modules[form], data, members, batch, length)
        _, trace = minimize(
            lambda p, step, _g, b=batches: b(p, step),
            stacks[form],
            steps=length,
            optimizer="sgd",
            lr=lr,
            diverged="keep",
        )
        if form == 1:
            # Rates are constant: the run of equal steps is the beginning of the longer one.
            losses["factors"] = tail(trace[:steps])
        losses[arm] = tail(trace)
    return Decay(decades, rates, losses)


class Adaptive(NamedTuple):
    """Networks trained with adaptive ranks, by tolerance and seed, each at the rate that validation chose.

    Attributes:
        tolerances: as given.
        validation, test: accuracy, ``[tolerances, seeds]``.
        ranks: final ranks, ``[tolerances, seeds, layers]``.
        parameters: share of the full network's parameters, ``[tolerances, seeds]``.
        rates: chosen learning rates, one a tolerance.
        full: test accuracy of the full network, ``[seeds]``.
        full_validation: its validation accuracy, ``[seeds]``.
        truncated: test accuracy of the full network cut to the same ranks, ``[tolerances, seeds]``.
        frozen_basis: test accuracy without basis augmentation, at the first tolerance and its rate, ``[seeds]``.
        frozen_ranks: its ranks, ``[seeds, layers]``.
    """

    tolerances: Sequence[float]
    validation: Float[Tensor, "tau seeds"]
    test: Float[Tensor, "tau seeds"]
    ranks: Int[Tensor, "tau seeds layers"]
    parameters: Float[Tensor, "tau seeds"]
    rates: Sequence[float]
    full: Float[Tensor, " seeds"]
    full_validation: Float[Tensor, " seeds"]
    truncated: Float[Tensor, "tau seeds"]
    frozen_basis: Float[Tensor, " seeds"]
    frozen_ranks: Int[Tensor, "seeds layers"]

    def smallest_within(self, margin: float) -> int:
        """Position of the largest tolerance within a margin of the full network on validation data; else 0."""
        near = self.validation.mean(1) >= self.full_validation.mean() - margin
        return max((i for i in range(len(near)) if near[i]), default=0)


def adaptive_rank(
    train: Data, validation: Data, test: Data, *, widths: Sequence[int], start: int, tolerances: Sequence[float],
    rates: Sequence[float], seeds: Sequence[int], steps: int, batch: int = 64,
) -> Adaptive:  # fmt: skip
    """Train with adaptive ranks, and compare with a full network and with its truncation at the same ranks.

    Args:
        train, validation, test: Inputs as vectors, and labels.
        widths: Of the multilayer perceptron.
        start: Rank at the start, and the largest one.
        tolerances: Relative tolerances to try.
        rates: Learning rates of Adam, the same for the full network.
        seeds: One run each.
        steps, batch: For all arms.

    Source:
        schotthofer2022dlrt.
    """
    device, size = train[0].device, len(seeds)
    networks = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks.append(low_rank_network(widths, start))
    module = networks[0].to(device)
    grid = [(rate, tau) for rate in rates for tau in tolerances]
    many = {k: v.to(device) for k, v in stack_members(networks * len(grid))[0].items()}
    spread = lambda values: torch.tensor(values, device=device).repeat_interleave(size)  # noqa: E731
    options = {"steps": steps, "batch": batch, "optimizer": "adam"}
    done, _ = dlrt_train(
        module, many, train, seeds=list(seeds) * len(grid), lr=spread([rate for rate, _ in grid]),
        tolerance=spread([tau for _, tau in grid]), **options,
    )  # type: ignore[arg-type]  # fmt: skip
    shape = (len(rates), len(tolerances), size)
    trained = Ensemble(module, done.params, {})
    scores = trained.accuracy(*validation).reshape(shape)
    best = scores.mean(2).argmax(0)
    pick = lambda table: torch.stack([table.reshape(*shape, *table.shape[1:])[b, i] for i, b in enumerate(best)])  # noqa: E731
    ranks = pick(torch.stack([done.ranks[name] for name in done.layers], -1)).cpu()
    few = {k: v[:size] for k, v in many.items()}
    frozen, _ = dlrt_train(
        module, few, train, seeds=seeds, lr=rates[int(best[0])], tolerance=tolerances[0], augment=False, **options
    )  # type: ignore[arg-type]
    examples = steps * batch
    epochs = max(1, -(-examples // len(train[0])))
    part = [tensor[: examples // epochs] for tensor in train]
    fulls = fit_many(
        lambda: MLP(widths), *part, seeds=list(seeds) * len(rates), epochs=epochs, batch_size=batch, optimizer="adam",
        lr=spread(list(rates)), device=device,
    )  # fmt: skip
    at = int(fulls.accuracy(*validation).reshape(len(rates), size).mean(1).argmax())
    full = fulls[torch.arange(at * size, (at + 1) * size)]
    cut = []
    for row in ranks:
        weights = dict(full.params)
        for layer, name in enumerate(done.layers):
            weights[f"{name}.weight"] = svd_truncation(full.params[f"{name}.weight"], row[:, layer].to(device))
        cut.append(Ensemble(full.module, weights, {}).accuracy(*test))
    total = sum(v[0].numel() for v in full.params.values())
    return Adaptive(
        tolerances, pick(scores.flatten()), pick(trained.accuracy(*test)), ranks, pick(done.parameters_kept()) / total,
        [rates[int(b)] for b in best], full.accuracy(*test), full.accuracy(*validation), torch.stack(cut),
        Ensemble(module, frozen.params, {}).accuracy(*test),
        torch.stack([frozen.ranks[name] for name in frozen.layers], -1).cpu(),
    )  # fmt: skip


class IntegratorChecks(NamedTuple):
    """Exact properties of a step of the integrator on a quadratic loss, relative errors.

    Attributes:
        quadratic: distance from the target after one step of rate one half; should vanish.
        augmented: change of the weight by new bases that keep the old ones; should vanish.
        fixed: the same with bases that do not keep them; should not.
        factors: distance from the target after one step of two plain factors at the same rate; should not.
    """

    quadratic: float
    augmented: float
    fixed: float
    factors: float


def integrator_checks(seed: int, *, rows: int = 20, columns: int = 30, rank: int = 4) -> IntegratorChecks:
    r"""One step on :math:`\lVert W - W^* \rVert_F^2` with a target of the manifold's rank.

    Args:
        seed: Draws start and target.
        rows, columns, rank: Sizes.
    """
    g = torch.Generator().manual_seed(seed)
    u, v, target_u, target_v = (
        haar_orthonormal(rank, side, generator=g)[0].T for side in (rows, columns, rows, columns)
    )
    s = torch.randn(rank, rank, dtype=torch.float64, generator=g)
    target = target_u @ torch.diag(torch.linspace(1, 2, rank, dtype=torch.float64)) @ target_v.T
    params = {"w.U": u, "w.S": s, "w.V": v}

    def loss(p: Params) -> Tensor:
        return (p["w.U"] @ p["w.S"] @ p["w.V"].mT - target).square().sum()

    def distance(w: Tensor, other: Tensor) -> float:
        return float((w - other).norm() / other.norm())

    one = DLRT(params, {"w": rank}, lr=0.5)
    one.step(loss)
    reached = one.params["w.U"] @ one.params["w.S"] @ one.params["w.V"].mT
    moved = u @ s - 0.1 * (u @ s - target @ v), v @ s.mT - 0.1 * (v @ s.mT - target.mT @ u)
    used = torch.tensor(rank)
    bases = [augmented_basis(k, old, used) for k, old in zip(moved, (u, v))]
    plain = [torch.linalg.qr(k)[0] for k in moved]
    kept = DLRT(params, {"w": rank}, lr=0.5, tolerance=0.0)
    weights = [left @ kept.transported("w", left, right) @ right.mT for left, right in (bases, plain)]
    left, right = (u @ s).clone().requires_grad_(), v.clone().requires_grad_()
    gradients = torch.autograd.grad((left @ right.mT - target).square().sum(), (left, right))
    factors = (left - 0.5 * gradients[0]) @ (right - 0.5 * gradients[1]).mT
    return IntegratorChecks(
        distance(reached, target), distance(weights[0], u @ s @ v.mT), distance(weights[1], u @ s @ v.mT),
        distance(factors.detach(), target),
    )  # fmt: skip
