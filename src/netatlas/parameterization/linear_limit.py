r"""The infinite-width limit of feature learning in a linear network, exactly, and two tasks that need features.

For :math:`f = n^{-1} V^\top U x` with unit normal entries and the rate :math:`\eta n` all columns of :math:`U` and
:math:`V` stay in the span of the initial ones, which are orthonormal in the limit. The limit is therefore a *finite*
network of width :math:`d + d_\text{out}` with orthonormal initial columns: infinite width costs no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.train import minimize

Params = dict[str, Tensor]


def linear_network(
    width: int | None,
    inputs: int,
    outputs: int,
    *,
    rule: str = "mup",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Params, float, float]:
    r"""Initial weights of a one-hidden-layer linear network, its output factor and the factor of its learning rate.

    .. math:: f = s\,V^\top U x, \qquad \text{muP: } s = 1/n,\ \eta n; \qquad \text{NTK: } s = 1/\sqrt n,\ \eta

    Args:
        width: :math:`n`, or ``None`` for the infinite muP network.
        inputs: :math:`d`.
        outputs: :math:`d_\text{out}`.
        rule: ``"mup"`` or ``"ntk"``.
        seed: Seeds the weights.
        dtype: Of the weights.

    Returns:
        ``{"U": [n, d], "V": [n, d_out]}``, the factor :math:`s`, and the rate's factor.

    Raises:
        ValueError: For sizes below 1, another rule, or an infinite NTK network (its features do not move: see
            :func:`kernel_step`).

    Source:
        yang2020feature (the limit of linear networks).
    """
    require(
        inputs >= 1 and outputs >= 1 and (width is None or width >= 1), "sizes of at least 1", (width, inputs, outputs)
    )
    require(rule in ("mup", "ntk"), "a rule out of mup, ntk", repr(rule))
    require(width is not None or rule == "mup", "a finite width for the ntk rule", width)
    if width is None:
        eye = torch.eye(inputs + outputs, dtype=dtype)
        return {"U": eye[:, :inputs].clone(), "V": eye[:, inputs:].clone()}, 1.0, 1.0
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(width, inputs, generator=generator, dtype=dtype)
    v = torch.randn(width, outputs, generator=generator, dtype=dtype)
    return {"U": u, "V": v}, *((1 / width, float(width)) if rule == "mup" else (width**-0.5, 1.0))


def limit_gap(
    widths: list[int],
    *,
    inputs: int = 20,
    outputs: int = 2,
    samples: int = 40,
    steps: int = 40,
    lr: float = 0.3,
    seed: int = 0,
) -> Float[Tensor, " W"]:
    r"""Mean distance of trained finite networks' outputs from the infinite network's, on random regression data.

    Args:
        widths: Widths to train at.
        inputs, outputs, samples: Sizes of the problem.
        steps: Gradient steps.
        lr: Learning rate.
        seed: Seeds data and weights.

    Raises:
        ValueError: As :func:`linear_network`.

    Source:
        yang2020feature, convergence to the limit at the rate :math:`n^{-1/2}`.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, inputs, generator=generator, dtype=torch.float64)
    y = torch.tanh(x @ torch.randn(inputs, outputs, generator=generator, dtype=torch.float64))

    def trained(width: int | None) -> Tensor:
        start, scale, factor = linear_network(width, inputs, outputs, seed=seed + 1, dtype=torch.float64)

        def out(p: Params) -> Tensor:
            return scale * (x @ p["U"].T) @ p["V"]

        end, _ = minimize(
            lambda p, step, g: (out(p) - y).square().mean(), start, steps=steps, optimizer="sgd", lr=lr * factor
        )
        return out(end)

    limit = trained(None)
    return torch.stack([(trained(n) - limit).abs().mean() for n in widths])


class Corpus(NamedTuple):
    """A corpus of windows and its analogies.

    Attributes:
        contexts: ``[T, C]`` words around the target.
        targets: ``[T]``.
        words: Vocabulary size.
        questions: ``[Q, 4]``, a is to b as c is to the fourth.
    """

    contexts: Int[Tensor, "T C"]
    targets: Int[Tensor, " T"]
    words: int
    questions: Int[Tensor, "Q 4"]


def analogy_corpus(
    *,
    attributes: int = 10,
    entities: int = 20,
    windows: int = 20_000,
    context: int = 4,
    strength: float = 1.5,
    dimension: int = 8,
    questions: int = 400,
    seed: int = 0,
) -> Corpus:
    r"""Windows of words from a log-bilinear model whose word vectors are sums of an attribute and an entity.

    Each window has a hidden topic :math:`t \sim \mathcal N(0, I)`; its words are drawn independently with
    :math:`p(w) \propto \exp(s\, t^\top (\alpha_{i(w)} + \epsilon_{j(w)}))`. Words are pairs of attribute :math:`i` and
    entity :math:`j`, so :math:`(i, j) : (i', j) = (i, j') : (i', j')` holds in the generating vectors.

    Args:
        attributes, entities: Vocabulary is their product.
        windows: Number of windows.
        context: Words around the target.
        strength: :math:`s`, how much a topic tells.
        dimension: Dimension of topics.
        questions: Number of analogies asked.
        seed: Seeds everything.

    Raises:
        ValueError: For fewer than two attributes or entities, or no windows.
    """
    require(
        min(attributes, entities) >= 2 and windows >= 1, "two attributes and entities, a window", (attributes, entities)
    )
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randn(attributes, 1, dimension, generator=generator) / math.sqrt(2)
    name = torch.randn(1, entities, dimension, generator=generator) / math.sqrt(2)
    vectors = (kind + name).reshape(-1, dimension)
    topics = torch.randn(windows, dimension, generator=generator)
    law = (strength * topics @ vectors.T).softmax(1)
    drawn = torch.multinomial(law, context + 1, replacement=True, generator=generator)
    i = torch.stack([torch.randperm(attributes, generator=generator)[:2] for _ in range(questions)])
    j = torch.stack([torch.randperm(entities, generator=generator)[:2] for _ in range(questions)])
    at = i * entities
    asked = torch.stack([at[:, 0] + j[:, 0], at[:, 1] + j[:, 0], at[:, 0] + j[:, 1], at[:, 1] + j[:, 1]], 1)
    return Corpus(drawn[:, 1:], drawn[:, 0], attributes * entities, asked)


def cbow(
    corpus: Corpus,
    width: int | None,
    *,
    rule: str = "mup",
    lr: float,
    steps: int,
    batch: int = 512,
    negatives: int = 5,
    seed: int = 0,
) -> Params:
    r"""Train word vectors: the mean of the context's vectors scores the target against random words.

    .. math::

        \ell = -\log\sigma(f_{w}) - \sum_{k} \log\sigma(-f_{w_k}), \qquad f_w = s\, v_w^\top U \bar x

    Args:
        corpus: Windows.
        width, rule: As :func:`linear_network`.
        lr: Learning rate at which the limit is taken.
        steps: SGD steps.
        batch: Windows a step.
        negatives: Random words a window.
        seed: Seeds weights and batches.

    Returns:
        Trained ``{"U", "V"}``.

    Raises:
        ValueError: As :func:`linear_network`, or if training diverges.

    Source:
        yang2020feature, section on Word2Vec.
    """
    start, scale, factor = linear_network(width, corpus.words, corpus.words, rule=rule, seed=seed)
    start = {k: v.T.contiguous() for k, v in start.items()}

    # Contexts as rows of word counts: a product instead of gathering and scattering rows, at this vocabulary faster.
    length = corpus.contexts.shape[1]
    shares = torch.zeros(len(corpus.targets), corpus.words).scatter_add_(
        1, corpus.contexts, torch.full(corpus.contexts.shape, 1 / length)
    )
    sign = torch.ones(1 + negatives)
    sign[1:] = -1

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(corpus.targets), (batch,), generator=generator)
        noise = torch.randint(corpus.words, (batch, negatives), generator=generator)
        asked = torch.cat([corpus.targets[rows][:, None], noise], 1)
        score = scale * (shares[rows] @ p["U"] @ p["V"].T).gather(1, asked)
        value = torch.nn.functional.softplus(-sign * score).sum(1).mean()
        if step % 10 == 0:
            # Most rates of a wide grid diverge early: the remaining steps are not worth their time.
            require(bool(torch.isfinite(value.detach())), "a finite loss", f"another one at step {step}")
        return value

    end, _ = minimize(loss, start, steps=steps, optimizer="sgd", lr=lr * factor, seed=seed)
    return {k: v.T for k, v in end.items()}


def analogy_accuracy(vectors: Float[Tensor, "n words"], questions: Int[Tensor, "Q 4"]) -> float:
    r"""Share of analogies answered right by :math:`u_b - u_a + u_c` and cosine, the three question words excluded.

    Args:
        vectors: Word vectors as columns.
        questions: ``Q`` quadruples.

    Raises:
        ValueError: For no questions.
    """
    require(len(questions) > 0, "at least one question", 0)
    u = torch.nn.functional.normalize(vectors.T, dim=1)
    a, b, c, d = questions.T
    score = (u[b] - u[a] + u[c]) @ u.T
    score.scatter_(1, questions[:, :3], -torch.inf)
    return float((score.argmax(1) == d).double().mean())


def kernel_step(
    support: Float[Tensor, "T S d"],
    labels: Float[Tensor, "T S K"],
    queries: Float[Tensor, "T Q d"],
    coefficient: Tensor,
) -> Float[Tensor, "T Q K"]:
    r"""One inner gradient step of a network whose kernel is fixed, :math:`f(x) = c\, K(x, X) Y` with a linear kernel.

    Args:
        support, labels, queries: Tasks.
        coefficient: The step's size :math:`c`, the one thing that can be learned.

    Source:
        yang2020feature, the NTK and GP arms of few-shot learning.
    """
    return coefficient * (queries @ support.mT) @ labels


class Tasks(NamedTuple):
    """Few-shot tasks: support and query inputs with centred one-hot labels."""

    support: Float[Tensor, "T S d"]
    labels: Float[Tensor, "T S K"]
    queries: Float[Tensor, "T Q d"]
    answers: Int[Tensor, "T Q"]


def draw_tasks(
    images: Float[Tensor, "N d"], labels: Int[Tensor, " N"], classes: list[int], *, tasks: int, queries: int, seed: int
) -> Tasks:
    """One-shot tasks: all the classes in a random order of labels, one example of each to learn from.

    Args:
        images: Inputs.
        labels: Their classes.
        classes: Which classes tasks are made of, ``K`` of them.
        tasks: Number of tasks ``T``.
        queries: Examples a class to answer.
        seed: Seeds the draws.

    Raises:
        ValueError: For fewer than two classes, or too few examples of one.
    """
    require(len(classes) >= 2, "at least two classes", classes)
    generator = torch.Generator().manual_seed(seed)
    k, need = len(classes), queries + 1
    pools = [(labels == c).nonzero()[:, 0] for c in classes]
    require(min(map(len, pools)) >= need, f"at least {need} examples a class", min(map(len, pools)))
    picked = torch.stack([p[torch.rand(tasks, len(p), generator=generator).argsort(1)[:, :need]] for p in pools], 1)
    order = torch.rand(tasks, k, generator=generator).argsort(1)
    hot = torch.eye(k)[order] - 1 / k
    answers = order[:, :, None].expand(-1, -1, queries).reshape(tasks, -1)
    return Tasks(images[picked[:, :, 0]], hot, images[picked[:, :, 1:]].reshape(tasks, k * queries, -1), answers)


def meta_train(
    tasks: Callable[[int], Tasks],
    width: int | None,
    inputs: int,
    outputs: int,
    *,
    rule: str = "mup",
    inner: float,
    lr: float,
    steps: int,
    clip: float = 0.5,
    seed: int = 0,
) -> Callable[[Tasks], float]:
    r"""First-order MAML with a linear network: one inner step a task, then a step along the adapted gradients.

    .. math::

        \theta_\tau = \theta - \epsilon \nabla \ell_\tau^{\text{support}}(\theta), \quad
        \theta \leftarrow
        \theta - \eta \operatorname{clip}\Bigl(\sum_\tau \nabla \ell_\tau^{\text{query}}(\theta_\tau)\Bigr)

    Args:
        tasks: ``tasks(step)``, the meta-batch.
        width, rule: As :func:`linear_network`.
        inputs, outputs: Dimensions.
        inner: Inner step size :math:`\epsilon`.
        lr: Outer rate :math:`\eta`.
        steps: Outer steps; 0 leaves the initial network.
        clip: Largest norm of the outer gradient at the limit's scale.
        seed: Seeds the weights.

    Returns:
        A function from tasks to the accuracy after one inner step.

    Raises:
        ValueError: As :func:`linear_network`.

    Source:
        yang2020feature, section on few-shot learning (first-order MAML).
    """
    params, scale, factor = linear_network(width, inputs, outputs, rule=rule, seed=seed)

    def adapted(p: Params, t: Tasks) -> tuple[Tensor, Tensor]:
        hidden = t.support @ p["U"].T
        f = scale * hidden @ p["V"]
        chi = (f.softmax(-1) - (t.labels + 1 / outputs)) / f.shape[1]
        rate = inner * factor * scale
        u = p["U"] - rate * torch.einsum("ok,tsk,tsd->tod", p["V"], chi, t.support)
        v = p["V"] - rate * torch.einsum("tso,tsk->tok", hidden, chi)
        return u, v

    def outputs_of(u: Tensor, v: Tensor, t: Tasks) -> Tensor:
        return scale * (t.queries @ u.mT) @ v

    for step in range(steps):
        batch = tasks(step)
        u, v = adapted(params, batch)
        hidden = batch.queries @ u.mT
        f = scale * hidden @ v
        chi = f.softmax(-1) - torch.eye(outputs)[batch.answers]
        chi = chi / (len(chi) * chi.shape[1])
        # First order: the adapted weights' gradient is applied to the weights before adaptation.
        grads = {
            "U": scale * torch.einsum("tok,tqk,tqd->od", v, chi, batch.queries),
            "V": scale * torch.einsum("tqo,tqk->ok", hidden, chi),
        }
        norm = math.sqrt(factor) * torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt()
        shrink = clip / norm.clamp_min(clip)
        params = {k: p - lr * factor * shrink * grads[k] for k, p in params.items()}

    def accuracy(t: Tasks) -> float:
        return float((outputs_of(*adapted(params, t), t).argmax(-1) == t.answers).double().mean())

    return accuracy
