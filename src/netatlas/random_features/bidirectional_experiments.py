"""Experiments on bidirectional learning: gradients, balances, step sizes, and where the features come from."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core import kernel_ridge
from netatlas.core.stats import Interval, mean_interval
from netatlas.random_features import bidirectional as bi
from netatlas.random_features.feature_maps import arc_cosine_features, gaussian_directions

LENGTH, LETTERS = 8, 4

# Name, balance, whether it adapts, step size, whether it adapts.
ARMS = (
    ("forward only", 1.0, False, 0.1, False),
    ("backward only", 0.0, False, 0.1, False),
    ("balance one half", 0.5, False, 0.1, False),
    ("adaptive balance", 0.5, True, 0.1, False),
    ("adaptive balance, step 0.03", 0.5, True, 0.03, False),
    ("adaptive balance, step 0.3", 0.5, True, 0.3, False),
    ("adaptive balance and step", 0.5, True, 0.1, True),
)
FIXED_STEPS = ("adaptive balance, step 0.03", "adaptive balance", "adaptive balance, step 0.3")


class Offline(NamedTuple):
    """The lowest-scored sequences: a training sample ``[B, N, L]`` with labels, and the best of them to start from."""

    sequences: Tensor
    labels: Tensor
    starts: Tensor
    highest: Tensor


def offline_set(table: bi.Landscape, *, worst: int, sample: int, designs: int, seed: int) -> Offline:
    """A sample of the worst sequences of every landscape; designs start from the best of the worst.

    Args:
        table: Landscapes.
        worst: Sequences in the offline set.
        sample: Of which the proxy sees so many.
        designs: Starts.
        seed: Seeds the sample.
    """
    order = table.scores.argsort(1)[:, :worst]
    pick = torch.randperm(worst, generator=torch.Generator().manual_seed(seed))[:sample]
    seen = order[:, pick]
    labels = table.scores.gather(1, seen)
    labels = (labels - labels.mean(1, keepdim=True)) / labels.std(1, keepdim=True)
    return Offline(
        table.sequences[seen], labels, table.sequences[order[:, -designs:]], table.scores.gather(1, order[:, -1:])[:, 0]
    )


def flat_encoder(x: Tensor) -> Tensor:
    """One-hot rows as they are, with a constant.

    Args:
        x: ``[..., L, V]``.
    """
    flat = x.flatten(-2)
    return torch.cat([flat, torch.ones_like(flat[..., :1])], -1)


def random_encoder(width: int, *, seed: int) -> bi.Encoder:
    """A random two-layer ReLU network on one-hot rows.

    Args:
        width: Of both layers.
        seed: Draws it.
    """
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(LENGTH * LETTERS, width, generator=g, dtype=torch.float64) / LENGTH**0.5
    second = torch.randn(width, width, generator=g, dtype=torch.float64) * (2 / width) ** 0.5

    def encode(x: Tensor) -> Tensor:
        return torch.relu(torch.relu(x.flatten(-2) @ first) @ second) / width**0.5

    return encode


def make_scorer(offline: Offline, *, heads: int = 5, features: int = 64, seed: int) -> bi.Encoder:
    """Auxiliary scorer: the mean of ridge heads on random ReLU features, trained on the same offline data.

    Args:
        offline: The data.
        heads: How many.
        features: Of each.
        seed: Draws the features.
    """
    g = torch.Generator().manual_seed(seed)
    flat = bi.one_hot(offline.sequences).flatten(-2)
    directions = [gaussian_directions(features, flat.shape[-1], generator=g) for _ in range(heads)]
    weights = []
    for d in directions:
        phi = arc_cosine_features(flat, d)
        gram = phi.mT @ phi
        ridge = 1e-3 * gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        weights.append(kernel_ridge.fit(gram, phi.mT @ offline.labels[..., None], ridge) / heads)
    return lambda x: sum((arc_cosine_features(x.flatten(-2), d) @ w)[..., 0] for d, w in zip(directions, weights))


class Outcome(NamedTuple):
    """Median and highest scores ``[landscapes]`` by arm, the course of the balance, and unguided mutations' medians.

    ``unguided`` changes as many letters as the arm did, at random; ``rarest`` changes them to the letters that are
    rarest at their places in the offline data.
    """

    median: dict[str, Tensor]
    highest: dict[str, Tensor]
    gamma: dict[str, Tensor]
    unguided: dict[str, Tensor]
    rarest: dict[str, Tensor]


def run_arms(
    table: bi.Landscape, offline: Offline, encoder: bi.Encoder, scorer: bi.Encoder, *, arms=ARMS, steps: int, seed: int
) -> Outcome:
    """Design with every arm from the same starts, all landscapes at once.

    Args:
        table, offline: The landscapes and their offline data.
        encoder: Features; those of a stack of models may depend on the landscape.
        scorer: Auxiliary score.
        arms: Balances and step sizes.
        steps: Adam steps.
        seed: Draws the initial logits.
    """
    lands, count = offline.starts.shape[:2]
    head = bi.fit_head(encoder(bi.one_hot(offline.sequences)), offline.labels)
    starts = offline.starts.repeat(1, len(arms), 1)

    def column(values: list, dtype=torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(count).expand(lands, -1).clone()

    names, gammas, moving, etas, stepping = zip(*arms)
    found = bi.design(
        starts,
        encoder,
        head,
        scorer,
        gamma=column(list(gammas)),
        adapt_gamma=column(list(moving), torch.bool),
        eta=column(list(etas)),
        adapt_eta=column(list(stepping), torch.bool),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )
    score = table.scores.gather(1, bi.sequence_index(found.sequences)).unflatten(1, (len(arms), count))
    median = {name: score[:, i].median(1).values for i, name in enumerate(names)}
    highest = {name: score[:, i].amax(1) for i, name in enumerate(names)}
    trace = found.gamma.unflatten(2, (len(arms), count)).mean((1, 3))
    # As many random letters changed as the arm changed, without any guide.
    distance = (found.sequences != starts).sum(2)
    g = torch.Generator().manual_seed(seed + 1)
    rare = bi.one_hot(offline.sequences).mean(1).argmin(-1)[:, None].expand_as(starts)
    medians = []
    for _ in range(10):
        places = torch.rand((*distance.shape, LENGTH), generator=g).argsort(2).argsort(2) < distance[..., None]
        letters = (starts + torch.randint(1, LETTERS, starts.shape, generator=g)) % LETTERS
        for new in (letters, rare):
            score = table.scores.gather(1, bi.sequence_index(torch.where(places, new, starts)))
            medians.append(score.unflatten(1, (len(arms), count)).median(2).values)
    unguided, rarest = torch.stack(medians).unflatten(0, (10, 2)).mean(0)
    return Outcome(
        median,
        highest,
        {name: trace[:, i] for i, name in enumerate(names)},
        {name: unguided[:, i] for i, name in enumerate(names)},
        {name: rarest[:, i] for i, name in enumerate(names)},
    )


def climbed(table: bi.Landscape, offline: Offline, proxy: bi.Encoder, *, steps: int, seed: int) -> Tensor:
    """Median score of mutants that a proxy ranks: one letter is changed a step, and kept if the proxy prefers it.

    Args:
        table, offline: The landscapes.
        proxy: A score of one-hot sequences.
        steps: Proxy calls of a design.
        seed: Seeds the mutations.
    """
    g = torch.Generator().manual_seed(seed)
    now = offline.starts
    value = proxy(bi.one_hot(now))
    for _ in range(steps):
        place = torch.randint(LENGTH, now.shape[:2], generator=g)
        letter = torch.randint(LETTERS, now.shape[:2], generator=g)
        new = now.scatter(2, place[..., None], letter[..., None])
        fresh = proxy(bi.one_hot(new))
        better = fresh > value
        now, value = torch.where(better[..., None], new, now), torch.where(better, fresh, value)
    return table.scores.gather(1, bi.sequence_index(now)).median(1).values


class Balances(NamedTuple):
    """Outcomes by encoder, on true and on permuted labels, and mutants ranked by a ridge proxy."""

    outcomes: dict[str, Outcome]
    permuted: Outcome
    mutants: Tensor
    intervals: dict[str, Interval]
    best_step: str
    table: pd.DataFrame


def difference(a: Tensor, b: Tensor) -> Interval:
    """95 % interval of a paired difference over landscapes.

    Args:
        a, b: One value a landscape.
    """
    return mean_interval(a - b)


def balances(*, count: int, worst: int, sample: int, designs: int, steps: int, width: int, seed: int) -> Balances:
    """The balance and step-size part: one-hot and random features on many landscapes, and the null of permuted labels.

    Args:
        count: Landscapes.
        worst, sample, designs: As in :func:`offline_set`.
        steps: Adam steps.
        width: Of the random encoder.
        seed: Seeds everything.
    """
    table = bi.landscapes(count, seed=seed)
    offline = offline_set(table, worst=worst, sample=sample, designs=designs, seed=seed)
    scorer = make_scorer(offline, seed=seed)
    encoders = {"one-hot": flat_encoder, "random network": random_encoder(width, seed=seed)}
    outcomes = {name: run_arms(table, offline, e, scorer, steps=steps, seed=seed) for name, e in encoders.items()}
    order = torch.randperm(sample, generator=torch.Generator().manual_seed(seed + 7))
    shuffled = offline._replace(labels=offline.labels[:, order])
    permuted = run_arms(
        table,
        shuffled,
        encoders["random network"],
        make_scorer(shuffled, seed=seed),
        arms=ARMS[:4],
        steps=steps,
        seed=seed,
    )
    head = bi.fit_head(encoders["random network"](bi.one_hot(offline.sequences)), offline.labels)
    mutants = climbed(
        table, offline, lambda x: (encoders["random network"](x) @ head.head[..., None])[..., 0], steps=steps, seed=seed
    )
    own = outcomes["random network"].median
    best_step = max(FIXED_STEPS, key=lambda a: float(own[a].mean()))
    intervals = {
        f"adaptive balance − {name}": difference(own["adaptive balance"], own[name])
        for name in ("forward only", "backward only", "balance one half")
    }
    intervals["adaptive step − best fixed step"] = difference(own["adaptive balance and step"], own[best_step])
    intervals |= {
        f"permuted labels, {name} − unguided": difference(permuted.median[name], permuted.unguided[name])
        for name in ("forward only", "adaptive balance")
    }
    intervals["true labels − permuted labels"] = difference(
        own["adaptive balance"], permuted.median["adaptive balance"]
    )
    rows = {
        f"{e}: {arm}": {"median": float(v.mean()), "highest": float(outcome.highest[arm].mean())}
        for e, outcome in outcomes.items()
        for arm, v in outcome.median.items()
    }
    rows["random network: mutants ranked by the proxy"] = {"median": float(mutants.mean())}
    rows["unguided mutation, equal distance"] = {
        "median": float(outcomes["random network"].unguided["adaptive balance"].mean())
    }
    return Balances(outcomes, permuted, mutants, intervals, best_step, pd.DataFrame(rows).T)


class LanguageModels(NamedTuple):
    """Median scores ``[landscapes]`` by encoder, masked accuracy by corpus, and the paired intervals."""

    median: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    intervals: dict[str, Interval]
    highest: Tensor


def language_models(
    *, count: int, corpus: int, train_steps: int, worst: int, sample: int, designs: int, steps: int, seed: int
) -> LanguageModels:
    """Where the features come from: masked language models trained on several corpora, against fixed kernels.

    Args:
        count: Landscapes.
        corpus: Sequences in a corpus.
        train_steps: Adam steps of a language model.
        worst, sample, designs, steps: Of the design, as in :func:`balances`.
        seed: Seeds everything.
    """
    table = bi.landscapes(count, seed=seed + 1000)
    offline = offline_set(table, worst=worst, sample=sample, designs=designs, seed=seed)
    scorer = make_scorer(offline, seed=seed)
    g = torch.Generator().manual_seed(seed)
    chance = torch.softmax(6 * table.scores, 1)
    allowed = table.scores <= offline.highest[:, None]
    below = chance * allowed
    corpora = {
        "corpus of its landscape": torch.multinomial(chance, corpus, replacement=True, generator=g),
        "corpus cut at the offline set": torch.multinomial(
            below / below.sum(1, keepdim=True), corpus, replacement=True, generator=g
        ),
        "uniform corpus": torch.randint(table.scores.shape[1], (count, corpus), generator=g),
    }
    start = bi.masked_lm_start(count * len(corpora), seed=seed)
    tokens = torch.cat([table.sequences[index] for index in corpora.values()])
    params, right = bi.train_masked_lm(start, tokens, steps=train_steps, seed=seed)
    stacks = {name: {k: v[i * count : (i + 1) * count] for k, v in params.items()} for i, name in enumerate(corpora)}
    accuracy = {name: right[i * count : (i + 1) * count] for i, name in enumerate(corpora)}
    stacks["corpus of another landscape"] = {k: v.roll(1, 0) for k, v in stacks["corpus of its landscape"].items()}
    stacks["random weights"] = {k: v[:count] for k, v in start.items()}
    arm = [a for a in ARMS if a[0] == "adaptive balance"]
    median = {}
    for name, stack in stacks.items():
        encode = lambda x, lm=stack: _centred(bi.masked_lm_hidden(lm, x.float()).mean(-2).double())  # noqa: E731
        median[f"LM, {name}"] = run_arms(table, offline, encode, scorer, arms=arm, steps=steps, seed=seed).median[
            "adaptive balance"
        ]
    median["3-letter words"] = run_arms(
        table, offline, bi.kmer_features, scorer, arms=arm, steps=steps, seed=seed
    ).median["adaptive balance"]
    anchors = bi.one_hot(offline.sequences[:, : min(256, sample)]).flatten(-2)
    median["tangent kernel"] = run_arms(
        table, offline, _ntk_encoder(anchors), scorer, arms=arm, steps=steps, seed=seed
    ).median["adaptive balance"]
    cut = stacks["corpus cut at the offline set"]
    likelihood = lambda x: _pseudo_likelihood(cut, x.float())  # noqa: E731
    median["mutants ranked by the cut LM's likelihood"] = climbed(table, offline, likelihood, steps=steps, seed=seed)
    pairs = {
        "LM, corpus of its landscape − tangent kernel": ("LM, corpus of its landscape", "tangent kernel"),
        "cut LM − tangent kernel": ("LM, corpus cut at the offline set", "tangent kernel"),
        "cut LM − random weights": ("LM, corpus cut at the offline set", "LM, random weights"),
        "cut LM − another landscape's": ("LM, corpus cut at the offline set", "LM, corpus of another landscape"),
        "full corpus − cut corpus": ("LM, corpus of its landscape", "LM, corpus cut at the offline set"),
    }
    return LanguageModels(
        median, accuracy, {k: difference(median[a], median[b]) for k, (a, b) in pairs.items()}, offline.highest
    )


def _centred(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], -1)


def _ntk_encoder(anchors: Tensor) -> bi.Encoder:
    """Finite features whose inner product is the tangent kernel on the span of the anchors (Nystroem)."""
    gram = bi.ntk_of_sequences(anchors @ anchors.mT, LENGTH)
    values, vectors = torch.linalg.eigh(gram)
    root = vectors * values.clamp_min(1e-6 * float(values.max())).rsqrt()[:, None]

    def encode(x: Tensor) -> Tensor:
        return bi.ntk_of_sequences(x.flatten(-2) @ anchors.mT, LENGTH) @ root

    return encode


def _pseudo_likelihood(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Mean log-probability of the letters, all unmasked: one pass a sequence."""
    hidden = bi.masked_lm_hidden(params, x)
    logits = torch.bmm(hidden.flatten(1, -2), params["head"]).unflatten(1, hidden.shape[1:-1])
    return (logits.log_softmax(-1) * x).sum((-1, -2))


class DesignChecks(NamedTuple):
    """Errors of the D x D form against the N x N form at two ridges, and of the balance's derivative."""

    primal: float
    primal_small_ridge: float
    derivative: float


def design_checks(*, seed: int) -> DesignChecks:
    """The closed forms against direct formulas on a small case.

    Args:
        seed: Seeds it.
    """
    g = torch.Generator().manual_seed(seed)
    phi = torch.randn(300, 20, generator=g, dtype=torch.float64)
    y = torch.randn(300, generator=g, dtype=torch.float64)
    new = torch.randn(5, 20, generator=g, dtype=torch.float64)
    errors = []
    for ridge in (1e-3, 1e-6):
        head = bi.fit_head(phi, y, ridge=ridge)
        gram = phi @ phi.T
        delta = ridge * float(gram.diagonal().mean())
        dual = torch.linalg.solve(gram + delta * torch.eye(300, dtype=torch.float64), y)
        exact = (new @ phi.T @ dual - 10).square()
        errors.append(float(((bi.forward_loss(head, new, 10.0) - exact) / exact).abs().max()))
    own = new.square().sum(1)
    direct = ((phi @ new.T / (own * (1 + 1e-6)) * 10 - y[:, None]).square()).mean(0)
    errors[0] = max(errors[0], float(((bi.backward_loss(head, new, 10.0) - direct) / direct).abs().max()))
    table = bi.landscapes(1, seed=seed)
    offline = offline_set(table, worst=500, sample=300, designs=4, seed=seed)
    scorer = make_scorer(offline, seed=seed)
    head = bi.fit_head(flat_encoder(bi.one_hot(offline.sequences)), offline.labels)
    # Soft inputs: with hard letters the score would be piecewise constant.
    z = torch.randn(1, 4, LENGTH, LETTERS, generator=g, dtype=torch.float64, requires_grad=True)
    x = z.softmax(-1)
    f = flat_encoder(x)
    gf, gb = (
        torch.autograd.grad(l(head, f, 10.0).sum(), z, retain_graph=True)[0]
        for l in (bi.forward_loss, bi.backward_loss)
    )
    rate, step = 1e-4, 1e-2

    def after(gamma: float) -> Tensor:
        return scorer((z - rate * (gamma * gf + (1 - gamma) * gb)).softmax(-1))

    numeric = (after(step) - after(-step)) / (2 * step)
    moved = z - rate * gb
    exact = -(torch.autograd.grad(scorer(moved.softmax(-1)).sum(), moved)[0] * (gf - gb)).sum((-1, -2)) * rate
    scale = exact.abs().mean()
    return DesignChecks(errors[0], errors[1], float(((numeric - exact).abs() / scale).max().detach()))
