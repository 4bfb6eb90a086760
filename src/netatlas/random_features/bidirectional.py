r"""Bidirectional learning for offline design of sequences: forward and backward losses in closed form, balanced on
the way.

An offline set of sequences with low scores is given, and better ones are wanted without measuring any. Leading batch
axes are independent landscapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core import kernel_ridge
from netatlas.core.checks import require, require_finite
from netatlas.core.train import Params, minimize

Encoder = Callable[[Tensor], Tensor]


def one_hot(
    sequences: Int[Tensor, "*batch L"], letters: int = 4, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "*batch L V"]:
    """Sequences of letter indices as one-hot rows.

    Args:
        sequences: Indices from 0 to ``letters - 1``.
        letters: Size of the alphabet.
        dtype: Type of the result.

    Raises:
        ValueError: For indices outside the alphabet.

    Source:
        chen2023bib (sequences as one-hot rows).
    """
    if sequences.device.type != "meta":
        require(
            bool(((sequences >= 0) & (sequences < letters)).all()),
            f"letters from 0 to {letters - 1}",
            (int(sequences.min()), int(sequences.max())),
        )
    return torch.nn.functional.one_hot(sequences, letters).to(dtype)


def straight_through(logits: Float[Tensor, "*batch L V"]) -> Float[Tensor, "*batch L V"]:
    r"""The most probable letters forward, the softmax's gradient backward.

    .. math::

        x = \operatorname{onehot}(\arg\max z) - \operatorname{stop}(\operatorname{softmax} z) + \operatorname{softmax} z

    Args:
        logits: :math:`z`.

    Source:
        chen2023bib (the language model behind the features).
    """
    soft = logits.softmax(-1)
    hard = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(soft)
    return hard - soft.detach() + soft


class LinearHead(NamedTuple):
    """Both directions of a kernel that is linear in D features, in D x D form.

    Attributes:
        head: Forward regression's weights ``[..., D]``.
        second: Mean outer product of the data's features ``[..., D, D]``.
        first: Mean of features times labels ``[..., D]``.
        power: Mean squared label ``[...]``.
        ridge: Ratio of the backward ridge to the design's own kernel value.
    """

    head: Float[Tensor, "... D"]
    second: Float[Tensor, "... D D"]
    first: Float[Tensor, "... D"]
    power: Float[Tensor, "..."]
    ridge: float


def fit_head(
    features: Float[Tensor, "*batch N D"], labels: Float[Tensor, "*batch N"], *, ridge: float = 1e-6
) -> LinearHead:
    r"""Prepare both losses: the forward regression's solution and the data's moments.

    .. math::

        \theta = (\Phi^\top \Phi + \beta I)^{-1} \Phi^\top y,
        \qquad \beta = \epsilon\, \operatorname{tr}(\Phi \Phi^\top)/N

    Args:
        features: :math:`\Phi` of the offline sequences.
        labels: Standardised labels.
        ridge: :math:`\epsilon`.

    Raises:
        ValueError: For lengths that differ, values that are not finite, or a ridge that is not positive.

    Source:
        chen2023bib (the linearized head and its closed forms).
    """
    require(features.shape[:-1] == labels.shape, f"labels {tuple(features.shape[:-1])}", tuple(labels.shape))
    require(ridge > 0, "a positive ridge", ridge)
    require_finite("features", features)
    require_finite("labels", labels)
    count = labels.shape[-1]
    second = features.mT @ features
    first = (features.mT @ labels[..., None])[..., 0]
    scale = second.diagonal(dim1=-2, dim2=-1).sum(-1) / count
    head = kernel_ridge.fit(second, first[..., None], ridge * scale)[..., 0]
    return LinearHead(head, second / count, first / count, labels.square().mean(-1), ridge)


def forward_loss(head: LinearHead, features: Float[Tensor, "*batch M D"], target: float) -> Float[Tensor, "*batch M"]:
    r"""How far the proxy's prediction at a design is from the wanted label.

    .. math:: \mathcal L_f = \bigl(k(x_h, X)\,(K + \beta I)^{-1} y - y_h\bigr)^2 = (\phi(x_h) \cdot \theta - y_h)^2

    Args:
        head: From :func:`fit_head`.
        features: Of M designs.
        target: :math:`y_h`, far above the data.

    Source:
        chen2023bib (forward mapping).
    """
    return ((features @ head.head[..., None])[..., 0] - target).square()


def backward_loss(head: LinearHead, features: Float[Tensor, "*batch M D"], target: float) -> Float[Tensor, "*batch M"]:
    r"""How badly a design, as the only training point, predicts the data.

    .. math:: \mathcal L_b = \frac1N \sum_i \Bigl(\frac{k(x_i, x_h)}{k_{hh} + \beta_h}\, y_h - y_i\Bigr)^2

    Args:
        head: From :func:`fit_head`.
        features: Of M designs.
        target: :math:`y_h`.

    Source:
        chen2023bib (backward mapping).
    """
    own = features.square().sum(-1)
    scale = target / (own * (1 + head.ridge)).clamp_min(1e-300)
    quadratic = ((features @ head.second) * features).sum(-1)
    linear = (features @ head.first[..., None])[..., 0]
    return scale.square() * quadratic - 2 * scale * linear + head.power[..., None]


class Design(NamedTuple):
    """Designed sequences ``[..., M, L]``, the course of the balance ``[steps, ..., M]``, and the last step sizes."""

    sequences: Int[Tensor, "*batch M L"]
    gamma: Float[Tensor, "steps *batch M"]
    eta: Float[Tensor, "*batch M"]


def design(
    starts: Int[Tensor, "*batch M L"],
    encoder: Encoder,
    head: LinearHead,
    scorer: Encoder,
    *,
    gamma: Float[Tensor, "*batch M"],
    adapt_gamma: Tensor,
    eta: Float[Tensor, "*batch M"],
    adapt_eta: Tensor,
    steps: int,
    target: float = 10.0,
    letters: int = 4,
    gamma_rate: float = 0.1,
    eta_rate: float = 0.01,
    generator: torch.Generator,
) -> Design:
    r"""Gradient design from many starts and with many settings at once, by Adam on the logits.

    .. math::

        \mathcal L = \gamma \mathcal L_f + (1 - \gamma) \mathcal L_b, \qquad
        \frac{d\, s(z - \eta \nabla \mathcal L)}{d\gamma} = -\eta\, \nabla s \cdot (\nabla \mathcal L_f - \nabla
        \mathcal L_b)

    The balance climbs the auxiliary score :math:`s` by Adam steps on that derivative; an adaptive step size falls
    with :math:`\nabla s \cdot u`, the
    agreement of the score's gradient with the direction subtracted.

    Args:
        starts: Sequences to start from.
        encoder: Features of (relaxed) one-hot sequences.
        head: From :func:`fit_head`.
        scorer: Auxiliary score, trained on the same offline data.
        gamma: Initial balance of every design; 1 is forward only, 0 backward only.
        adapt_gamma: Which designs adapt their balance.
        eta: Initial step sizes.
        adapt_eta: Which designs adapt their step size, within [1e-4, 0.5].
        steps: Adam steps.
        target: :math:`y_h` in standardised units.
        letters: Size of the alphabet.
        gamma_rate, eta_rate: Steps of the two outer updates.
        generator: Draws the initial logits.

    Returns:
        The designs, scored by nothing but the proxy.

    Raises:
        ValueError: For a balance outside [0, 1], step sizes that are not positive, or no steps.

    Source:
        chen2023bib (the two losses, Adaptive-gamma and Adaptive-eta).
    """
    require(steps >= 1, "at least one step", steps)
    require(bool(((gamma >= 0) & (gamma <= 1)).all()), "a balance in [0, 1]", (float(gamma.min()), float(gamma.max())))
    require(bool((eta > 0).all()), "positive step sizes", float(eta.min()))
    like = head.head
    z = 0.01 * torch.randn((*starts.shape, letters), generator=generator, dtype=like.dtype, device=like.device)
    # The candidate's letter gets its row's largest entry.
    top, where = z.max(-1, keepdim=True)
    own = z.gather(-1, starts[..., None])
    z = z.scatter(-1, where, own).scatter(-1, starts[..., None], top)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    outer_first, outer_second = torch.zeros_like(gamma), torch.zeros_like(gamma)
    gamma, eta, trace = gamma.clone(), eta.clone(), []
    for step in range(1, steps + 1):
        z = z.detach().requires_grad_(True)
        x = straight_through(z)
        features = encoder(x)
        losses = (forward_loss(head, features, target), backward_loss(head, features, target))
        gf, gb = (torch.autograd.grad(loss.sum(), z, retain_graph=True)[0] for loss in losses)
        gs = torch.autograd.grad(scorer(x).sum(), z)[0]
        with torch.no_grad():
            slope = ((gf - gb) * gs).sum((-1, -2)) * eta
            outer_first = 0.9 * outer_first + 0.1 * slope
            outer_second = 0.999 * outer_second + 0.001 * slope.square()
            move = outer_first / (1 - 0.9**step) / ((outer_second / (1 - 0.999**step)).sqrt() + 1e-8)
            gamma = torch.where(adapt_gamma, (gamma - gamma_rate * move).clamp(0, 1), gamma)
            trace.append(gamma)
            g = gamma[..., None, None] * gf + (1 - gamma[..., None, None]) * gb
            first = 0.9 * first + 0.1 * g
            second = 0.999 * second + 0.001 * g.square()
            direction = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            faster = (eta - eta_rate * (gs * direction).sum((-1, -2))).clamp(1e-4, 0.5)
            eta = torch.where(adapt_eta, faster, eta)
            z = z - eta[..., None, None] * direction
    return Design(z.argmax(-1), torch.stack(trace), eta)


class Landscape(NamedTuple):
    """Scores ``[..., 4^L]`` of all sequences, scaled to [0, 1], and the sequences ``[4^L, L]`` in that order."""

    scores: Float[Tensor, "*batch S"]
    sequences: Int[Tensor, "S L"]


def landscapes(count: int, *, length: int = 8, letters: int = 4, rank: int = 3, seed: int) -> Landscape:
    r"""Complete tables of scores: a weight matrix, low-rank epistasis between positions, and a saturating sigmoid.

    .. math::

        y = \operatorname{sigmoid}\Bigl(a\,\bigl[\textstyle\sum_l W_{l, x_l} + \sum_{r} \prod_{j=1,2} \sum_l
        U^{(r,j)}_{l, x_l}\bigr] - c\Bigr)

    Args:
        count: Landscapes.
        length, letters: Of the sequences.
        rank: Terms of epistasis.
        seed: Seeds all of them.

    Raises:
        ValueError: For sizes below 1 or a table of more than a million sequences.

    Source:
        chen2023bib (the complete tables of TFBind8 are measured; these are generated).
    """
    require(
        min(count, length, letters) >= 1 and letters**length <= 10**6, "a table of at most a million", letters**length
    )
    g = torch.Generator().manual_seed(seed)
    codes = torch.arange(letters**length)
    sequences = (codes[:, None] // letters ** torch.arange(length)) % letters
    x = one_hot(sequences, letters).flatten(1)
    weights = torch.randn(count, length * letters, generator=g, dtype=torch.float64)
    pairs = torch.randn(count, rank, 2, length * letters, generator=g, dtype=torch.float64) / length**0.5
    plain = weights @ x.T
    epistasis = torch.stack([((p[:, 0] @ x.T) * (p[:, 1] @ x.T)).sum(0) for p in pairs])
    total = plain + epistasis
    total = (total - total.mean(1, keepdim=True)) / total.std(1, keepdim=True)
    scores = torch.sigmoid(1.5 * total - 2)
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return Landscape((scores - low) / (high - low), sequences)


def sequence_index(sequences: Int[Tensor, "*batch L"], letters: int = 4) -> Int[Tensor, "*batch"]:
    """Rows of a complete table that sequences have.

    Args:
        sequences: Letter indices.
        letters: Size of the alphabet.

    Source:
        chen2023bib (scoring by the complete table).
    """
    return (sequences * letters ** torch.arange(sequences.shape[-1], device=sequences.device)).sum(-1)


def kmer_features(x: Float[Tensor, "*batch L V"], k: int = 3) -> Float[Tensor, "*batch F"]:
    """Counts of all words of ``k`` letters, as products of (relaxed) one-hot rows.

    Args:
        x: One-hot or relaxed sequences.
        k: Length of the words.

    Raises:
        ValueError: For words longer than the sequence.

    Source:
        chen2023bib (a control encoder).
    """
    length = x.shape[-2]
    require(1 <= k <= length, f"words of 1 to {length} letters", k)
    total = x[..., : length - k + 1, :]
    for shift in range(1, k):
        following = x[..., shift : length - k + 1 + shift, :]
        total = (total[..., :, None] * following[..., None, :]).flatten(-2)
    return total.sum(-2)


MASK_RATE = 0.15


def masked_lm_start(members: int, *, length: int = 8, letters: int = 4, width: int = 32, seed: int) -> Params:
    """Initial weights of small masked language models: embedding, one attention layer, one hidden layer, a head.

    Args:
        members: Models, stacked along the first axis.
        length, letters: Of the sequences; one more letter is the mask.
        width: Of the embedding.
        seed: Draws the weights; all members start alike.

    Raises:
        ValueError: For sizes below 1.

    Source:
        chen2023bib (in place of a pre-trained DNA model).
    """
    require(min(members, length, letters, width) >= 1, "sizes of at least 1", (members, length, letters, width))
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(shape, generator=g)).expand(members, *shape).clone()

    return {
        "letter": draw(letters + 1, width, scale=1.0),
        "place": draw(length, width, scale=1.0),
        "query": draw(width, width, scale=width**-0.5),
        "key": draw(width, width, scale=width**-0.5),
        "value": draw(width, width, scale=width**-0.5),
        "into": draw(width, 2 * width, scale=width**-0.5),
        "out": draw(2 * width, width, scale=(2 * width) ** -0.5),
        "head": draw(width, letters, scale=width**-0.5),
    }


def masked_lm_hidden(params: Params, x: Float[Tensor, "M *N L V"]) -> Float[Tensor, "M *N L width"]:
    """Last hidden layer of every member at its own sequences.

    Args:
        params: Stacked weights.
        x: ``[members, N, L, letters]``, with or without the mask's letter as a further column.

    Raises:
        ValueError: For another number of members.

    Source:
        chen2023bib (the language model behind the features).
    """
    require(len(x) == len(params["letter"]), f"{len(params['letter'])} members", len(x))

    def times(value: Tensor, name: str) -> Tensor:
        return torch.bmm(value.flatten(1, -2), params[name]).unflatten(1, value.shape[1:-1])

    letter = params["letter"][:, : x.shape[-1]]
    h = torch.bmm(x.flatten(1, -2), letter).unflatten(1, x.shape[1:-1])
    h = h + params["place"].reshape(len(x), *[1] * (h.ndim - 3), *params["place"].shape[1:])
    attention = (times(h, "query") @ times(h, "key").mT / h.shape[-1] ** 0.5).softmax(-1)
    h = h + attention @ times(h, "value")
    h = torch.nn.functional.layer_norm(h, h.shape[-1:])
    h = h + times(torch.relu(times(h, "into")), "out")
    return torch.nn.functional.layer_norm(h, h.shape[-1:])


def train_masked_lm(
    start: Params,
    corpora: Int[Tensor, "M N L"],
    *,
    steps: int,
    batch: int = 64,
    rate: float = 5e-3,
    letters: int = 4,
    seed: int,
) -> tuple[Params, Float[Tensor, " M"]]:
    """Train masked language models, each on its own corpus, all at once.

    Args:
        start: Stacked initial weights.
        corpora: A corpus for every member; its last tenth is held out.
        steps, batch, rate: Of Adam.
        letters: Size of the alphabet.
        seed: Orders batches and masks.

    Returns:
        Weights, and the accuracy at masked letters of the held-out part.

    Raises:
        ValueError: For another number of corpora, or fewer than ten sequences.

    Source:
        chen2023bib (the language model behind the features).
    """
    require(
        len(corpora) == len(start["letter"]) and corpora.shape[1] >= 10,
        "a corpus of ten or more a member",
        corpora.shape,
    )
    held = corpora.shape[1] // 10
    train, valid = corpora[:, held:], corpora[:, :held]

    def masked(tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        hide = torch.rand(tokens.shape[1:], generator=generator) < MASK_RATE
        return one_hot(torch.where(hide, letters, tokens), letters + 1, torch.float32), hide

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        index = torch.randint(train.shape[1], (batch,), generator=generator)
        tokens = train[:, index]
        x, hide = masked(tokens, generator)
        hidden = masked_lm_hidden(p, x)
        logits = torch.bmm(hidden.flatten(1, 2), p["head"]).unflatten(1, hidden.shape[1:3])
        each = torch.nn.functional.cross_entropy(logits.movedim(-1, 1), tokens, reduction="none")
        return (each * hide).sum((1, 2)) / hide.sum().clamp_min(1)

    params, _ = minimize(loss, start, steps=steps, lr=rate, seed=seed)
    with torch.no_grad():
        x, hide = masked(valid, torch.Generator().manual_seed(seed + 1))
        logits = torch.einsum("mnlw,mwv->mnlv", masked_lm_hidden(params, x), params["head"])
        right = (logits.argmax(-1) == valid) & hide
    return params, right.sum((1, 2)).double() / hide.sum()


def ntk_of_sequences(dots: Float[Tensor, "*shape"], length: int) -> Float[Tensor, "*shape"]:
    r"""Tangent kernel of a one-hidden-layer ReLU network between one-hot sequences, from the number of equal letters.

    .. math::

        \Theta = \frac{L}{\pi} \bigl(\sin\theta + 2 (\pi - \theta) \cos\theta\bigr),
        \qquad \cos\theta = \frac{x \cdot x'}{L}

    Args:
        dots: Inner products of (relaxed) one-hot sequences.
        length: :math:`L`.

    Source:
        chen2023bib (the kernel of its forerunner).
    """
    cos = (dots / length).clamp(-1 + 1e-7, 1 - 1e-7)
    angle = torch.acos(cos)
    return length / math.pi * (torch.sin(angle) + 2 * (math.pi - angle) * cos)
