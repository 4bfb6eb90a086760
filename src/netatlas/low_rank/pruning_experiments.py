"""The chapter's experiments on trained rank pruning: all arms and seeds of one small convolutional network at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require
from netatlas.core.train import batch_order, minimize, stack_members

from .manifold import LowRankConv, energy_rank, svd_truncation
from .nuclear import rank_cannot_rise
from .trained_rank import Scheme, decomposed_cost, flops_ratio, kernel_matrix, matrix_kernel, truncate_energy

Data = tuple[Tensor, Tensor]
Params = dict[str, Tensor]
AREAS = {"convolutions.1.weight": 64, "convolutions.2.weight": 16, "convolutions.3.weight": 16}


class SmallConvNet(nn.Module):
    """Four 3 x 3 convolutions with batch normalisation for 8 x 8 images; pooling after the second, then a linear head.

    Args:
        channels: Of the four convolutions.
        classes: Number of outputs.
    """

    def __init__(self, channels: Sequence[int] = (16, 24, 24, 24), classes: int = 10) -> None:
        super().__init__()
        sizes = [1, *channels]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(sizes, sizes[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x: Float[Tensor, "N 1 8 8"]) -> Float[Tensor, "N classes"]:
        for depth, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
            x = nn.functional.relu(norm(convolution(x)))
            x = nn.functional.max_pool2d(x, 2) if depth == 1 else x
        return self.head(x.mean((-2, -1)))


@dataclass(frozen=True)
class RankArm:
    """How ranks are treated in training.

    Attributes:
        loss: share of energy that a truncation may lose; none truncates nothing.
        nuclear: weight of the nuclear norm.
        every: steps between truncations.
        refresh: steps between new sub-gradients; ``every`` if omitted.
        start: added to the seed of the initial weights.
    """

    loss: float | None = None
    nuclear: float = 0.0
    every: int = 20
    refresh: int | None = None
    start: int = 0


class Premise(NamedTuple):
    """The rank theorem over all truncations of a run: pairs whose premise holds, and those of them whose rank rose."""

    pairs: int
    violations: int
    largest_step: float


class PrunedNetworks(NamedTuple):
    """Networks of all arms after training, stacked ``[arms x seeds, ...]`` with seeds running fastest.

    Attributes:
        arms: by name.
        seeds: as given.
        scheme: how kernels become matrices.
        params, buffers: weights before the last truncation, and running statistics.
        premise: the rank theorem's book-keeping by arm.
        norms: Frobenius norm of the decomposed layers by arm, mean over layers, ``[seeds]``.
    """

    arms: Mapping[str, RankArm]
    seeds: Sequence[int]
    scheme: Scheme
    params: Params
    buffers: Params
    premise: dict[str, Premise]
    norms: dict[str, Tensor]

    def rows(self, arm: str) -> slice:
        """Where an arm's members are."""
        at = list(self.arms).index(arm) * len(self.seeds)
        return slice(at, at + len(self.seeds))


def train_pruned(
    train: Data, arms: Mapping[str, RankArm], seeds: Sequence[int], *, steps: int, batch: int = 32, lr: float = 0.05,
    scheme: Scheme = "spatial",
) -> PrunedNetworks:  # fmt: skip
    """Train every arm from every seed as one stack, truncating and regularising each by its own rule.

    The gradient of a step with a truncation is taken at the truncated weights; momentum is not truncated.

    Args:
        train: Images ``[N, 1, 8, 8]`` and labels.
        arms: By name.
        seeds: Of weights and batches.
        steps, batch, lr: Of gradient descent with momentum .9 and a rate that falls to zero along a cosine.
        scheme: How kernels become matrices.

    Source:
        xu2018trp, xu2020trp.
    """
    x, y = train
    require(len(arms) > 0 and len(seeds) > 0, "at least one arm and one seed", (len(arms), len(seeds)))
    specs = [arm for arm in arms.values() for _ in seeds]
    members = [seed for _ in arms for seed in seeds]
    modules = []
    for spec, seed in zip(specs, members):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + spec.start)
            modules.append(SmallConvNet())
    module = modules[0].to(x.device)
    params, buffers = stack_members(modules)
    params, buffers = ({k: v.to(x.device) for k, v in part.items()} for part in (params, buffers))
    epochs = -(-steps // (len(x) // batch))
    order = torch.stack([batch_order(seed, len(x), epochs) for seed in members], 1).to(x.device)
    per_epoch = len(x) // batch
    energy = torch.tensor([s.loss or 0.0 for s in specs], dtype=torch.float64, device=x.device)
    weight = torch.tensor([s.nuclear for s in specs], device=x.device)
    last: dict[str, Tensor] = {}
    ranks: dict[str, Tensor] = {}
    pull = {name: torch.zeros_like(params[name]) for name in AREAS}
    book = [[0, 0, 0.0] for _ in specs]

    def truncate(p: Params, step: int) -> None:
        cut = torch.tensor([s.loss is not None and step % s.every == 0 for s in specs], device=x.device)
        fresh = torch.tensor([s.nuclear > 0 and step % (s.refresh or s.every) == 0 for s in specs], device=x.device)
        for name in AREAS if bool((cut | fresh).any()) else ():
            shape = p[name].shape[1:]
            matrix = kernel_matrix(p[name], scheme)
            rows = (cut | fresh).nonzero()[:, 0]
            # Arms that only need the sub-gradient lose no energy and keep their weights.
            share = torch.where(cut, energy, 0.0)[rows]
            low, rank, sub = truncate_energy(matrix[rows], share)
            on = rows[cut[rows]]
            if step and len(on):
                premise = rank_cannot_rise(matrix[on], last[name][on], energy[on])
                rose = rank[cut[rows]] > ranks[name][on]
                size = (matrix[on] - last[name][on]).flatten(1).norm(dim=1) / matrix[on].flatten(1).norm(dim=1)
                for at, member in enumerate(on.tolist()):
                    book[member][0] += int(premise[at])
                    book[member][1] += int(premise[at] & rose[at])
                    book[member][2] = max(book[member][2], float(size[at]))
            last.setdefault(name, torch.zeros_like(matrix))
            ranks.setdefault(name, torch.zeros(len(specs), dtype=torch.int64, device=x.device))
            last[name][on], ranks[name][on] = low[cut[rows]], rank[cut[rows]]
            p[name][on] = matrix_kernel(low[cut[rows]], shape, scheme)
            new = rows[fresh[rows]]
            pull[name][new] = matrix_kernel(sub[fresh[rows]], shape, scheme)

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        with torch.no_grad():
            truncate(p, step)
        epoch, at = divmod(step, per_epoch)
        index = order[epoch, :, at * batch : (at + 1) * batch]

        def one(p: Params, b: Params, x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(functional_call(module, (p, b), (x,), tie_weights=False), y)

        value = vmap(one)(p, buffers, x[index], y[index])
        # Linear in the weights with the sub-gradient for a slope: its gradient is the sub-gradient itself.
        return value + weight * sum((pull[name] * p[name]).flatten(1).sum(1) for name in AREAS)

    module.train()
    params, _ = minimize(loss, params, steps=steps, optimizer="sgd", lr=lr, momentum=0.9, schedule="cosine")
    premise, norms = {}, {}
    norm = torch.stack([params[name].flatten(1).norm(dim=1) for name in AREAS]).mean(0)
    for at, name in enumerate(arms):
        rows = range(at * len(seeds), (at + 1) * len(seeds))
        premise[name] = Premise(
            sum(book[r][0] for r in rows), sum(book[r][1] for r in rows), max(book[r][2] for r in rows)
        )
        norms[name] = norm[list(rows)].cpu()
    return PrunedNetworks(arms, seeds, scheme, params, buffers, premise, norms)


def accuracies(
    networks: PrunedNetworks, params: Params, rows: slice, data: Sequence[Data], renew: Tensor | None = None
) -> list[Tensor]:
    """Accuracies of some of the members with other weights, on several sets.

    Args:
        networks: Whose running statistics are used.
        params: Weights of these members only.
        rows: Which members.
        data: Images and labels of each set.
        renew: Images on which batch normalisation is estimated anew, in one pass without labels; none leaves it.
    """
    module = SmallConvNet().to(data[0][0].device)
    buffers = {k: v[rows].clone() for k, v in networks.buffers.items()}
    call = vmap(lambda p, b, x: functional_call(module, (p, b), (x,), tie_weights=False), in_dims=(0, 0, None))
    with torch.no_grad():
        if renew is not None:
            for norm in module.norms:
                norm.momentum = 1.0
            module.train()
            call(params, buffers, renew)
        module.eval()
        return [(call(params, buffers, x).argmax(-1) == y).double().mean(-1).cpu() for x, y in data]


def spectra(networks: PrunedNetworks, rows: slice) -> dict[str, Tensor]:
    """Singular values of some members' decomposed layers."""
    return {n: torch.linalg.svdvals(kernel_matrix(networks.params[n][rows], networks.scheme)) for n in AREAS}


def cut(networks: PrunedNetworks, rows: slice, ranks: Mapping[str, Tensor]) -> Params:
    """Weights of some members with their layers cut to given ranks."""
    params = {k: v[rows] for k, v in networks.params.items()}
    for name in AREAS:
        matrix = svd_truncation(kernel_matrix(params[name], networks.scheme), ranks[name])
        params[name] = matrix_kernel(matrix, params[name].shape[1:], networks.scheme)
    return params


def ratio(networks: PrunedNetworks, ranks: Mapping[str, Tensor]) -> Float[Tensor, " seeds"]:
    """Multiplications of the dense layers over those of the decomposed ones."""
    shapes = {name: tuple(networks.params[name].shape[1:]) for name in AREAS}
    return flops_ratio(shapes, ranks, AREAS, networks.scheme).cpu()


def ranks_at_energy(networks: PrunedNetworks, rows: slice, loss: float) -> dict[str, Int[Tensor, " seeds"]]:
    """Ranks of the layers at a share of energy lost."""
    return {name: energy_rank(s, loss).clamp_min(1) for name, s in spectra(networks, rows).items()}


def ranks_at_ratio(networks: PrunedNetworks, rows: slice, target: Tensor | float) -> dict[str, Int[Tensor, " seeds"]]:
    """Ranks of the layers by one share of energy for all, chosen so that the cost falls by the factor asked for.

    Args:
        networks, rows: Which networks.
        target: The factor, one for all or one a seed.
    """
    values = spectra(networks, rows)
    seeds = len(next(iter(values.values())))
    low, high = torch.zeros(seeds, dtype=torch.float64), torch.ones(seeds, dtype=torch.float64)
    goal = torch.as_tensor(target, dtype=torch.float64).expand(seeds)
    for _ in range(30):
        middle = (low + high) / 2
        ranks = {name: energy_rank(s, middle.to(s.device)).clamp_min(1) for name, s in values.items()}
        enough = ratio(networks, ranks) >= goal
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return {name: energy_rank(s, high.to(s.device)).clamp_min(1) for name, s in values.items()}


class Cut(NamedTuple):
    """An arm's networks before and after their decomposition, by seed.

    Attributes:
        before: test accuracy of the networks as trained.
        after: test accuracy after decomposition, batch normalisation estimated anew.
        stale: the same with the running statistics as they were.
        validation: validation accuracy after decomposition.
        ratio: factor by which multiplications fall.
        ranks: by layer.
    """

    before: Tensor
    after: Tensor
    stale: Tensor
    validation: Tensor
    ratio: Tensor
    ranks: dict[str, Tensor]


def cut_arm(
    networks: PrunedNetworks, arm: str, ranks: Mapping[str, Tensor], train: Data, validation: Data, test: Data
) -> Cut:
    """Decompose an arm's networks at given ranks and measure them.

    Args:
        networks: All of them.
        arm: Which.
        ranks: By layer, ``[seeds]`` each.
        train: Whose images batch normalisation is estimated on anew.
        validation, test: Images and labels.
    """
    rows = networks.rows(arm)
    full = {k: v[rows] for k, v in networks.params.items()}
    low = cut(networks, rows, ranks)
    after, chosen_by = accuracies(networks, low, rows, [test, validation], train[0])
    before, stale = (accuracies(networks, p, rows, [test])[0] for p in (full, low))
    return Cut(before, after, stale, chosen_by, ratio(networks, ranks), dict(ranks))


def post_hoc(networks: PrunedNetworks, like: Cut, train: Data, validation: Data, test: Data, arm: str = "plain") -> Cut:
    """The plain networks cut to another arm's cost without fine-tuning, by the better of two allocations on validation.

    Args:
        networks: All of them.
        like: The other arm; its own ranks are the first allocation, its factor the target of the second.
        train, validation, test: As in :func:`cut_arm`.
        arm: Which networks are cut.
    """
    rows = networks.rows(arm)
    tries = [like.ranks, ranks_at_ratio(networks, rows, like.ratio)]
    # Validation chooses before anything else is measured.
    scores = [accuracies(networks, cut(networks, rows, ranks), rows, [validation], train[0])[0] for ranks in tries]
    best = max(range(len(tries)), key=lambda i: float(scores[i].mean()))
    return cut_arm(networks, arm, tries[best], train, validation, test)


def fine_tuned(
    networks: PrunedNetworks, arm: str, ranks: Mapping[str, Tensor], train: Data, test: Data, *, steps: int
) -> Tensor:
    """Test accuracy of decomposed networks after fine-tuning with their ranks held by a truncation at every step.

    Args:
        networks, arm, ranks: As in :func:`cut_arm`.
        train, test: Images and labels.
        steps: Of batches of 32 at a tenth of the rate.
    """
    rows = networks.rows(arm)
    params, buffers = cut(networks, rows, ranks), {k: v[rows].clone() for k, v in networks.buffers.items()}
    module = SmallConvNet().to(train[0].device).train()
    order = torch.stack(
        [batch_order(seed + 1, len(train[0]), 1 + steps * 32 // len(train[0])) for seed in networks.seeds], 1
    )

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        with torch.no_grad():
            for name in AREAS:
                low = svd_truncation(kernel_matrix(p[name], networks.scheme), ranks[name])
                p[name].copy_(matrix_kernel(low, p[name].shape[1:], networks.scheme))
        epoch, at = divmod(step, len(train[0]) // 32)
        index = order[epoch, :, at * 32 : (at + 1) * 32].to(train[0].device)

        def one(p: Params, b: Params, x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(functional_call(module, (p, b), (x,), tie_weights=False), y)

        return vmap(one)(p, buffers, train[0][index], train[1][index])

    params, _ = minimize(loss, params, steps=steps, optimizer="sgd", lr=0.005, momentum=0.9)
    for name in AREAS:
        low = svd_truncation(kernel_matrix(params[name], networks.scheme), ranks[name])
        params[name] = matrix_kernel(low, params[name].shape[1:], networks.scheme)
    return accuracies(networks, params, rows, [test], train[0])[0]


class Curve(NamedTuple):
    """Accuracy after decomposition against the factor by which multiplications fall.

    Attributes:
        targets: the factors.
        test: test accuracy, ``[targets, seeds]``.
        area: its mean over the factors by the trapezoidal rule, ``[seeds]``.
        chosen: the arm that validation chose at each target.
    """

    targets: Sequence[float]
    test: Float[Tensor, "targets seeds"]
    area: Float[Tensor, " seeds"]
    chosen: list[str]


def accuracy_curve(
    networks: PrunedNetworks,
    candidates: Sequence[str],
    targets: Sequence[float],
    train: Data,
    validation: Data,
    test: Data,
) -> Curve:
    """Cut every candidate at every target by its own energy, and take at each target the one that validation prefers.

    Args:
        networks: All of them.
        candidates: Arms to choose from.
        targets: Factors by which multiplications shall fall, increasing.
        train, validation, test: As in :func:`cut_arm`.
    """
    found, chosen = [], []
    # Validation has nothing to choose where there is one candidate.
    sets = [test, validation] if len(candidates) > 1 else [test]
    for target in targets:
        cuts = []
        for arm in candidates:
            rows = networks.rows(arm)
            low = cut(networks, rows, ranks_at_ratio(networks, rows, target))
            cuts.append(accuracies(networks, low, rows, sets, train[0]))
        best = max(range(len(cuts)), key=lambda i: float(cuts[i][-1].mean())) if len(cuts) > 1 else 0
        chosen.append(candidates[best])
        found.append(cuts[best][0])
    table, at = torch.stack(found), torch.tensor(targets, dtype=torch.float64)
    area = torch.trapezoid(table, at[:, None], dim=0) / (at[-1] - at[0])
    return Curve(targets, table, area, chosen)


class RandomRanks(NamedTuple):
    """The rank theorem on random matrices: share of draws whose rank rose after a small and after a large step."""

    within: float
    beyond: float


def random_rank_rises(
    *, size: int = 40, rank: int = 10, loss: float = 0.02, draws: int = 1000, seed: int = 0
) -> RandomRanks:
    r"""Move low-rank matrices by :math:`\sqrt e \lVert T \rVert / 1.02` and by :math:`2 \sqrt e \lVert T \rVert`.

    Args:
        size, rank: Of the matrices.
        loss: The share :math:`e` of energy.
        draws: Matrices.
        seed: Draws them.
    """
    g = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(draws, size, rank, dtype=torch.float64, generator=g) for _ in range(2))
    low = left @ right.mT
    step = torch.randn(draws, size, size, dtype=torch.float64, generator=g)
    step *= (loss**0.5 * low.flatten(1).norm(dim=1) / step.flatten(1).norm(dim=1))[:, None, None]
    rises = [
        float((energy_rank(torch.linalg.svdvals(low + factor * step), loss) > rank).double().mean())
        for factor in (1 / 1.02, 2.0)
    ]
    return RandomRanks(*rises)


class LayerCost(NamedTuple):
    """One convolution cut to one rank, in both schemes.

    Attributes:
        distance: largest difference between :class:`~netatlas.low_rank.LowRankConv` and the convolution of the cut
            kernel, over the largest output.
        channel_loss, spatial_loss: norm of what the outputs lose over their norm.
        channel_cost, spatial_cost: multiplications over those of the dense layer.
    """

    distance: float
    channel_loss: float
    spatial_loss: float
    channel_cost: float
    spatial_cost: float


@torch.no_grad()
def decomposed_layer(
    networks: PrunedNetworks, arm: str, images: Float[Tensor, "N 1 8 8"], ranks: Sequence[int]
) -> dict[int, LayerCost]:
    """Cut the second convolution of an arm's first network on what it receives from images, in double precision.

    Args:
        networks: All of them.
        arm: Which.
        images: What the network sees.
        ranks: To be tried, each at most the kernel's in either scheme.

    Source:
        xu2018trp.
    """
    row = networks.rows(arm).start
    network = SmallConvNet()
    state = {k: v[row].cpu() for part in (networks.params, networks.buffers) for k, v in part.items()}
    network.load_state_dict(state)
    network = network.double().eval()
    layer: nn.Conv2d = network.convolutions[1]  # type: ignore[assignment]
    inner = nn.functional.relu(network.norms[0](network.convolutions[0](images.cpu().double())))
    dense, shape = layer(inner), layer.weight.shape
    found = {}
    for rank in ranks:
        outputs = {}
        for scheme in ("channel", "spatial"):
            low = svd_truncation(kernel_matrix(layer.weight, scheme), rank)
            outputs[scheme] = nn.functional.conv2d(inner, matrix_kernel(low, shape, scheme), padding=1)
        ours = LowRankConv.from_conv(layer, rank)
        gap = float((ours(inner) - outputs["channel"]).abs().max() / dense.abs().max())
        loss = [float((outputs[s] - dense).norm() / dense.norm()) for s in ("channel", "spatial")]
        cost = [float(decomposed_cost(shape, rank, s)) / shape.numel() for s in ("channel", "spatial")]
        found[rank] = LayerCost(gap, *loss, *cost)
    return found
