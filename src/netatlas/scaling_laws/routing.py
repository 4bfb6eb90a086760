r"""Routed language models at small scale: three routers, grouped experts, and a language whose entropy is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from netatlas.core.checks import require
from netatlas.core.train import Params, minimize

Router = Literal["sinkhorn", "reinforce", "hash", "position", "soft"]
ROUTERS: tuple[Router, ...] = ("sinkhorn", "reinforce", "hash")
WITH_CONTROL: tuple[Router, ...] = (*ROUTERS, "position")


@dataclass(frozen=True)
class Grammar:
    r"""A random second-order language: the next token's distribution depends on the last two tokens.

    .. math:: \ln p(y \mid s, t) = -\zeta \ln y + g\,\bigl[U \tanh(W [e_s; e_t])\bigr]_y + B_{ty} + \mathrm{const}

    Attributes:
        embedding: Token vectors :math:`e`, ``[V, k]``.
        mixing: :math:`W`, ``[h, 2k]``.
        readout: :math:`g\,U`, ``[V, h]``.
        bias: Rank-``k`` preferences :math:`B` of the last token, with Zipf's prior of exponent :math:`\zeta` added.
    """

    embedding: Float[Tensor, "V k"]
    mixing: Float[Tensor, "h k2"]
    readout: Float[Tensor, "V h"]
    bias: Float[Tensor, "V V"]

    def log_probability(self, before: Int[Tensor, " T"], last: Int[Tensor, " T"]) -> Float[Tensor, "T V"]:
        """Log-probabilities of the next token after two tokens."""
        pair = torch.cat([self.embedding[before], self.embedding[last]], -1)
        return F.log_softmax(torch.tanh(pair @ self.mixing.T) @ self.readout.T + self.bias[last], -1)

    def sample(self, chains: int, length: int, generator: torch.Generator) -> Int[Tensor, "length chains"]:
        """Text of independent chains, in columns, after a few tokens of warming up."""
        vocabulary = len(self.bias)
        text = [torch.randint(vocabulary, (chains,), generator=generator) for _ in range(2)]
        for _ in range(length + 8):
            probability = self.log_probability(text[-2], text[-1]).exp()
            text.append(torch.multinomial(probability, 1, generator=generator)[:, 0])
        return torch.stack(text[-length:])


def random_grammar(vocabulary: int, *, hidden: int, gain: float, zipf: float = 1.0, seed: int = 0) -> Grammar:
    """A random grammar.

    Args:
        vocabulary: Tokens, at least 2.
        hidden: Units of the hidden layer that mixes two tokens.
        gain: Size of what two tokens say together, in logits.
        zipf: Exponent of the prior over tokens.
        seed: Seeds it.

    Raises:
        ValueError: For fewer tokens or units.
    """
    require(vocabulary >= 2 and hidden >= 1, "two tokens and one hidden unit at least", (vocabulary, hidden))
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    size = 16
    prior = -zipf * torch.arange(1, vocabulary + 1, dtype=torch.float32).log()
    preference = normal(vocabulary, size) @ normal(size, vocabulary) / size**0.5
    return Grammar(
        normal(vocabulary, size),
        normal(hidden, 2 * size) * (1.5 / size**0.5),
        normal(vocabulary, hidden) * (gain / hidden**0.5),
        prior + 0.5 * preference,
    )


def sinkhorn_assignment(
    scores: Float[Tensor, "*b T E"], *, steps: int = 8, temperature: float = 1.0
) -> Int[Tensor, "*b T"]:
    r"""Balanced assignment of tokens to experts by entropic optimal transport with uniform marginals.

    The scores' kernel :math:`e^{S/\tau}` is scaled by turns to rows of sum 1 and columns of sum :math:`T/E`; each token
    goes to the largest entry of its row. Labels and later tokens play no part.

    Args:
        scores: Affinities of tokens for experts.
        steps: Sinkhorn steps.
        temperature: The regularization :math:`\tau`, in units of the scores' standard deviation.

    Raises:
        ValueError: For no step or a temperature that is not positive.

    Source:
        clark2022routed, S-BASE.
    """
    require(steps >= 1 and temperature > 0, "one step and a positive temperature", (steps, temperature))
    spread = scores.std(dim=(-2, -1), keepdim=True) if scores[..., 0].numel() > 1 else torch.ones_like(scores)
    scaled = scores / (temperature * spread.clamp_min(1e-8))
    plan = (scaled - scaled.amax(-1, keepdim=True)).exp().clamp_min(1e-30)
    for _ in range(steps):
        plan = plan / plan.sum(-1, keepdim=True)
        plan = plan / plan.sum(-2, keepdim=True)
    return plan.argmax(-1)


def hash_table(vocabulary: int, experts: int, seed: int) -> Int[Tensor, " V"]:
    """A fixed random expert for every token: the hash router learns nothing.

    Args:
        vocabulary: Tokens.
        experts: Experts; each has as many tokens as the others, one more at most.
        seed: Seeds the hash.
    """
    require(vocabulary >= 1 and experts >= 1, "at least one token and one expert", (vocabulary, experts))
    order = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))
    return torch.argsort(order) % experts


def grouped_expert_mlp(
    tokens: Float[Tensor, "T d"],
    expert: Int[Tensor, " T"],
    up: Float[Tensor, "E d n"],
    up_bias: Float[Tensor, "E n"],
    down: Float[Tensor, "E n d"],
) -> Float[Tensor, "T d"]:
    r"""Each token through its own expert, :math:`y_i = \mathrm{relu}(x_i U_{e_i} + c_{e_i})\,D_{e_i}`.

    Tokens are sorted by expert into one padded block an expert, so that two batched products do all the work.

    Args:
        tokens: Inputs.
        expert: The expert of each token.
        up, up_bias, down: Weights of the experts.

    Raises:
        ValueError: For an expert that does not exist, or shapes that do not fit.
    """
    experts, dim, _ = up.shape
    require(tokens.ndim == 2 and tokens.shape[1] == dim, f"tokens of shape [T, {dim}]", tuple(tokens.shape))
    require(expert.shape == tokens.shape[:1], f"{len(tokens)} experts, one a token", tuple(expert.shape))
    if len(tokens) == 0:
        return tokens
    counts = torch.bincount(expert, minlength=experts)
    require(bool(expert.min() >= 0) and len(counts) == experts, f"experts in 0..{experts - 1}", int(expert.max()))
    capacity = int(counts.max())
    order = torch.argsort(expert, stable=True)
    sorted_expert = expert[order]
    place = torch.arange(len(tokens), device=tokens.device) - (counts.cumsum(0) - counts)[sorted_expert]
    slot = torch.empty_like(expert)
    slot[order] = sorted_expert * capacity + place
    padded = tokens.new_zeros(experts * capacity, dim).index_copy(0, slot, tokens).view(experts, capacity, dim)
    hidden = torch.baddbmm(up_bias[:, None], padded, up).relu()
    return torch.bmm(hidden, down).reshape(experts * capacity, dim)[slot]


@dataclass(frozen=True)
class RoutedModel:
    r"""Two feed-forward blocks over the embeddings of the last two tokens; the second block is routed.

    Attributes:
        vocabulary: Tokens.
        hidden: Hidden units of the dense block and of each expert.
        experts: Experts :math:`E`; 1 is the dense model.
        router: ``"sinkhorn"`` (balanced in training, greedy in use), ``"reinforce"`` (sampled in training, with a
            learned baseline and a balancing loss; greedy in use), ``"hash"`` (of the token), ``"position"`` (drawn
            anew for every position, a control), ``"soft"`` (all experts, weighted; no routing).
        dim: Width of the residual stream.
    """

    vocabulary: int
    hidden: int
    experts: int = 1
    router: Router = "hash"
    dim: int = 24

    @property
    def dense_size(self) -> int:
        """Parameters that one token meets, embeddings and read-out left out."""
        return 2 * (2 * self.dim * self.hidden + self.hidden)

    def init(self, seeds: Sequence[int]) -> Params:
        """Stacked parameters, one member a seed."""
        d, n, e, v = self.dim, self.hidden, self.experts, self.vocabulary
        shapes = {
            "before": ((v, d), 1.0),
            "last": ((v, d), 1.0),
            "up0": ((d, n), (2 / d) ** 0.5),
            "bias0": ((n,), 0.0),
            "down0": ((n, d), (1 / n) ** 0.5),
            "up": ((e, d, n), (2 / d) ** 0.5),
            "bias": ((e, n), 0.0),
            "down": ((e, n, d), (1 / n) ** 0.5),
            "readout": ((d, v), (1 / d) ** 0.5),
            "prior": ((v,), 0.0),
            "router": ((d, e), (1 / d) ** 0.5),
            "baseline": ((d,), 0.0),
        }
        members = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            members.append({k: s * torch.randn(*shape, generator=generator) for k, (shape, s) in shapes.items()})
        return {k: torch.stack([m[k] for m in members]) for k in shapes}

    def outputs(
        self,
        params: Params,
        before: Int[Tensor, "M T"],
        last: Int[Tensor, "M T"],
        *,
        generator: torch.Generator,
        train: bool,
    ) -> tuple[Float[Tensor, "M T V"], Routing]:
        """Next-token log-probabilities and how the tokens were routed."""
        rows = torch.arange(len(before))[:, None]
        h = _norm(params["before"][rows, before] + params["last"][rows, last])
        h = h + torch.baddbmm(params["bias0"][:, None], h, params["up0"]).relu() @ params["down0"]
        x = _norm(h)
        routing = self._route(params, x, last, generator, train)
        if self.router == "soft":
            each = torch.einsum("mtd,medn->metn", x, params["up"]) + params["bias"][:, :, None]
            h = h + torch.einsum("metn,mend,mte->mtd", each.relu(), params["down"], routing.probability)
        else:
            flat = (rows * self.experts + routing.expert).reshape(-1)
            up, bias, down = (params[k].flatten(0, 1) for k in ("up", "bias", "down"))
            out = grouped_expert_mlp(x.flatten(0, 1), flat, up, bias, down).view_as(h)
            h = h + routing.gate[..., None] * out
        logits = torch.baddbmm(params["prior"][:, None], _norm(h), params["readout"])
        return F.log_softmax(logits, -1), routing

    def _route(self, params: Params, x: Tensor, last: Tensor, generator: torch.Generator, train: bool) -> Routing:
        members, tokens, e = *last.shape, self.experts
        if self.router == "hash":
            expert = torch.stack([hash_table(self.vocabulary, e, seed) for seed in range(members)])
            return Routing(expert.gather(1, last), torch.ones(members, tokens), torch.zeros(0))
        if self.router == "position":
            expert = torch.randint(e, last.shape, generator=generator)
            return Routing(expert, torch.ones(members, tokens), torch.zeros(0))
        scores = x @ params["router"]
        probability = scores.softmax(-1)
        if self.router == "sinkhorn" and train:
            expert = sinkhorn_assignment(scores.detach())
        elif self.router == "reinforce" and train:
            expert = torch.multinomial(probability.detach().flatten(0, 1), 1, generator=generator).view_as(last)
        else:
            expert = scores.argmax(-1)
        gate = probability.gather(-1, expert[..., None])[..., 0]
        return Routing(expert, gate, probability)

    def loss(
        self, params: Params, before: Tensor, last: Tensor, following: Tensor, generator: torch.Generator
    ) -> Float[Tensor, " M"]:
        """Training loss: cross-entropy, and for ``"reinforce"`` the policy, baseline and balance terms."""
        log, routing = self.outputs(params, before, last, generator=generator, train=True)
        nll = -log.gather(-1, following[..., None])[..., 0]
        loss = nll.mean(-1)
        if self.router != "reinforce" or self.experts == 1:
            return loss
        chosen = routing.probability.gather(-1, routing.expert[..., None])[..., 0]
        rows = torch.arange(len(before))[:, None]
        seen = _norm(params["before"][rows, before] + params["last"][rows, last]).detach()
        guess = (seen @ params["baseline"][..., None])[..., 0] + nll.detach().mean(-1, keepdim=True)
        advantage = guess.detach() - nll.detach()
        policy = -(advantage * chosen.clamp_min(1e-9).log()).mean(-1)
        value = ((guess - nll.detach()) ** 2).mean(-1)
        load = F.one_hot(routing.expert, self.experts).float().mean(1)
        balance = self.experts * (load * routing.probability.mean(1)).sum(-1)
        return loss + 0.01 * policy + 0.1 * value + 0.01 * balance


class Routing(NamedTuple):
    """How tokens were routed.

    Attributes:
        expert: The expert of each token, ``[M, T]``.
        gate: The factor on the expert's output.
        probability: The router's softmax, ``[M, T, E]``; empty where nothing is learned.
    """

    expert: Int[Tensor, "M T"]
    gate: Float[Tensor, "M T"]
    probability: Float[Tensor, "M T E"]


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


class TrainedRouting(NamedTuple):
    """What training reached.

    Attributes:
        loss: Expected cross-entropy on held-out contexts in nats a token, ``[seeds]``.
        largest_load: Largest share of tokens that one expert received in use, mean over seeds.
        rate: The learning rate chosen.
    """

    loss: Float[Tensor, " seeds"]
    largest_load: float
    rate: float


RATES = (0.01, 0.03, 0.1, 0.3)


def training_texts(
    grammar: Grammar, *, seeds: Sequence[int], steps: int, batch: int
) -> Int[Tensor, "length seeds batch"]:
    """The text that each seed trains on: fresh at every step, and the same for every model.

    Args:
        grammar: The language.
        seeds: One a repetition.
        steps: Training steps.
        batch: Tokens a step.
    """
    require(len(seeds) > 0, "at least one seed", 0)
    generators = [torch.Generator().manual_seed(10_000 + seed) for seed in seeds]
    return torch.stack([grammar.sample(batch, steps + 2, generator) for generator in generators], 1)


def train_routed(
    model: RoutedModel,
    grammar: Grammar,
    *,
    seeds: Sequence[int],
    steps: int,
    batch: int,
    rates: Sequence[float] = RATES,
    tests: int = 2048,
    texts: Int[Tensor, "length seeds batch"] | None = None,
) -> TrainedRouting:
    """Train a model on fresh text: all learning rates at once with the first seed, then the other seeds with the best.

    The rate is chosen on one held-out text and the loss reported on another. Both take the grammar's exact
    distribution of the next token instead of a drawn one.

    Args:
        model: What to train.
        grammar: The language.
        seeds: One a repetition: weights and text.
        steps: Adam steps, with a cosine schedule.
        batch: Tokens a step.
        rates: Learning rates tried.
        tests: Held-out contexts for each purpose.
        texts: What :func:`training_texts` gave for these seeds, steps and batch; made here if not given.

    Raises:
        ValueError: For no seeds or rates, or a vocabulary that differs from the grammar's.
    """
    require(len(seeds) > 0 and len(rates) > 0, "at least one seed and one rate", (len(seeds), len(rates)))
    require(model.vocabulary == len(grammar.bias), f"a vocabulary of {len(grammar.bias)}", model.vocabulary)
    if texts is None:
        texts = training_texts(grammar, seeds=seeds, steps=steps, batch=batch)
    wanted = (steps + 2, len(seeds), batch)
    require(tuple(texts.shape) == wanted, f"texts of shape {wanted}", tuple(texts.shape))
    pilot = texts[:, :1].expand(-1, len(rates), -1).contiguous()
    tried, load = _train(model, grammar, pilot, [seeds[0]] * len(rates), torch.tensor(list(rates)), tests)
    best = int(tried[:, 0].argmin())
    loss, loads = tried[best : best + 1, 1], load[best : best + 1]
    if len(seeds) > 1:
        same = torch.full((len(seeds) - 1,), rates[best])
        others, more = _train(model, grammar, texts[:, 1:].contiguous(), seeds[1:], same, tests)
        loss, loads = torch.cat([loss, others[:, 1]]), torch.cat([loads, more])
    return TrainedRouting(loss, float(loads.mean()), rates[best])


@lru_cache(maxsize=2)
def _held_out(grammar: Grammar, tests: int) -> tuple[Int[Tensor, "2 T"], Float[Tensor, "T V"]]:
    """Contexts for choosing and for reporting, ``tests`` of each, and the exact distribution of what follows."""
    held = grammar.sample(2 * tests, 2, torch.Generator().manual_seed(99))
    return held, grammar.log_probability(held[0], held[1]).exp()


def _train(
    model: RoutedModel, grammar: Grammar, text: Tensor, seeds: Sequence[int], rates: Tensor, tests: int
) -> tuple[Float[Tensor, "M 2"], Float[Tensor, " M"]]:
    """Losses of stacked members on both held-out texts, and the largest share of tokens that one expert receives."""
    params, _ = minimize(
        lambda p, step, generator: model.loss(p, text[step], text[step + 1], text[step + 2], generator),
        model.init(seeds),
        steps=len(text) - 2,
        lr=rates,
        schedule="cosine",
        seed=seeds[0],
    )
    held, truth = _held_out(grammar, tests)
    with torch.no_grad():
        contexts = held[0].expand(len(seeds), -1), held[1].expand(len(seeds), -1)
        log, routing = model.outputs(params, *contexts, generator=torch.Generator().manual_seed(1), train=False)
    # A rate that diverged is no candidate.
    nll = torch.nan_to_num(-(truth * log).sum(-1).double(), nan=torch.inf).view(len(seeds), 2, tests).mean(-1)
    if model.router == "soft":
        return nll, torch.ones(len(seeds), dtype=torch.float64)
    return nll, F.one_hot(routing.expert, model.experts).double().mean(1).amax(-1)


def entropy_floor(grammar: Grammar, tests: int = 2048) -> float:
    """Entropy of the next token on the held-out contexts of :func:`train_routed`, in nats: no model is below it."""
    held = grammar.sample(2 * tests, 2, torch.Generator().manual_seed(99))[:, tests:]
    log = grammar.log_probability(held[0], held[1])
    return float(-(log.exp() * log).sum(-1).double().mean())


def equal_parameters(model: RoutedModel) -> RoutedModel:
    """The dense model whose second block is as large as all experts together; every token meets all of it."""
    return replace(model, hidden=model.hidden * model.experts, experts=1, router="hash")
