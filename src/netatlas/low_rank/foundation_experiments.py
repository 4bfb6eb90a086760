"""The chapter's experiments on the foundation model: adapters in one frame, quantised bases, the family portrait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor, nn

from netatlas.core.train import Ensemble, fit_many, minimize, stack_members
from netatlas.core.transformer import LastLogits, Transformer, attend

from .adapters import (
    Adapter,
    LoRALinear,
    adapt,
    count_trainable,
    freeze,
    prefix_gate,
    replace_linear,
)
from .integrator_experiments import Batches, dlrt_train
from .loraplus import loraplus_scales
from .manifold import FactorizedLinear, LowRankLinear
from .nf4 import (
    NF4_LEVELS,
    Quantized,
    QuantizedLinear,
    codes_of,
    dequantize,
    normal_float_levels,
    quantization_error,
    quantize,
    uniform_levels,
)
from .prompts import Prompts, trimmed
from .telecom import exact_match_by_family, majority_answers
from .trained_rank import truncate_energy
from .utilized import activation_gram, utilized_layer

Build = Callable[[], nn.Module]
# Prompts that are answered at once: the activations of more do not fit a processor's cache.
AT_ONCE = 128


@dataclass(frozen=True)
class Method:
    """A way to fine-tune the foundation model.

    Attributes:
        adapters: what is added to every block; nothing with ``full`` trains all weights.
        full: whether the weights themselves are trained.
        head: whether the last linear layer alone is trained.
        levels: code book of a quantised base, or none.
        quantized: whether the frozen linear layers of the blocks are stored in four bits.
        ratio: rate of B over rate of A.
    """

    adapters: tuple[Adapter, ...] = ()
    full: bool = False
    head: bool = False
    levels: Tensor | None = field(default=None, compare=False)
    quantized: bool = False
    ratio: float = 1.0


def quantized_base(base: Transformer, levels: Tensor | None = None) -> Transformer:
    """The foundation model with every linear layer of its blocks in few bits; embeddings, norms and head stay.

    Args:
        base: Frozen or not; not changed.
        levels: Code book; NF4 if omitted.
    """
    import copy

    model = copy.deepcopy(base)
    for block in model.blocks:
        replace_linear(block, lambda _name, layer: QuantizedLinear(layer, levels))
    return model


def build_method(base: Transformer, method: Method) -> Build:
    """What makes one member: the foundation model prepared for a method.

    Args:
        base: The trained model; not changed.
        method: How it is to be fine-tuned.
    """
    import copy

    if method.full:
        return lambda: LastLogits(copy.deepcopy(base))
    prepared = quantized_base(base, method.levels) if method.quantized else copy.deepcopy(base)
    frozen = freeze(prepared)

    def build() -> nn.Module:
        model = adapt(frozen, method.adapters)
        if method.head:
            weight = model.head.weight  # type: ignore[union-attr]
            del model.head.weight  # type: ignore[union-attr]
            model.head.weight = nn.Parameter(weight.clone())  # type: ignore[union-attr, operator, arg-type]
        return LastLogits(model)

    return build


class FineTuned(NamedTuple):
    """A method at the rate that validation chose.

    Attributes:
        accuracy: test accuracy, ``[seeds]``.
        trainable: trained numbers.
        rate: the chosen rate.
        at_edge: whether it is an end of the grid.
        seconds: wall-clock time of all the method's runs, over their number.
        ensemble: the networks of the chosen rate.
    """

    accuracy: Float[Tensor, " seeds"]
    trainable: int
    rate: float
    at_edge: bool
    seconds: float
    ensemble: Ensemble


def fine_tune(
    base: Transformer, method: Method, train: Prompts, validation: Prompts, test: Prompts, *, seeds: Sequence[int],
    rates: Sequence[float], epochs: int, batch: int = 32,
) -> FineTuned:  # fmt: skip
    """Fine-tune by a method from every seed at every rate as one stack, and keep the rate that validation prefers.

    Args:
        base: The foundation model.
        method: How.
        train, validation, test: Prompts and answers.
        seeds: Of adapters and batches.
        rates: Learning rates of Adam, every method the same number of them.
        epochs, batch: Passes over the training prompts, and prompts a step.
    """
    train, validation, test = trimmed(train), trimmed(validation), trimmed(test)
    build = build_method(base, method)
    grid = [(rate, seed) for rate in rates for seed in seeds]
    with torch.random.fork_rng(devices=[]):
        probe = build()
    trainable = count_trainable(probe)
    scales = loraplus_scales(dict(probe.named_parameters()), method.ratio) if method.ratio != 1 else None
    start = time.perf_counter()
    many = fit_many(
        build, train.tokens, train.answers, seeds=[seed for _, seed in grid], epochs=epochs, batch_size=batch,
        optimizer="adam", lr=[rate for rate, _ in grid], schedule="linear", lr_scale=scales, diverged="keep",
        device=base.head.weight.device,
    )  # fmt: skip
    seconds = (time.perf_counter() - start) / len(grid)
    scores = many.accuracy(validation.tokens, validation.answers, batch_size=AT_ONCE).reshape(len(rates), -1).mean(1)
    best = int(scores.argmax())
    chosen = many[torch.arange(best * len(seeds), (best + 1) * len(seeds))]
    return FineTuned(
        chosen.accuracy(test.tokens, test.answers, batch_size=AT_ONCE).cpu(),
        trainable,
        rates[best],
        best in (0, len(rates) - 1),
        seconds,
        chosen,
    )


def sign_test(differences: Float[Tensor, " k"]) -> float:
    """One-sided p-value of as many positive differences or more, if either sign were as likely; ties do not count.

    Args:
        differences: Paired differences; 1 without any that is not 0.
    """
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue) if wins + losses else 1.0


@torch.no_grad()
def base_accuracy(base: Transformer, prompts: Prompts) -> float:
    """Share of prompts that a model answers exactly.

    Args:
        base: The model.
        prompts: Prompts and answers.
    """
    return float((base(prompts.tokens, last_only=True).argmax(-1) == prompts.answers).double().mean())


class FrameChecks(NamedTuple):
    """Exact properties of the frame.

    Attributes:
        identity: largest difference between prefix attention and its gated form, in double precision.
        ungated: the same without the gate (prefix output added with weight one half); not an identity.
        start: largest change of a logit by fresh adapters of all forms but the prefix.
        counts: whether trained numbers are those of the formulas, as the largest difference.
    """

    identity: float
    ungated: float
    start: float
    counts: int


def frame_checks(base: Transformer, prompts: Prompts, *, seed: int = 0) -> FrameChecks:
    """Check the frame on a random attention and on the foundation model.

    Args:
        base: The foundation model.
        prompts: On which the adapted models are compared.
        seed: Draws attention, prefix and adapters.

    Source:
        he2021unified.
    """
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(3, 4, 9, 8, dtype=torch.float64, generator=g) for _ in range(3))
    pk, pv = (torch.randn(3, 4, 5, 8, dtype=torch.float64, generator=g) for _ in range(2))
    joined = attend(q, torch.cat([pk, k], -2), torch.cat([pv, v], -2))
    gated, _ = prefix_gate(q, k, v, pk, pv)
    half = (attend(q, k, v) + attend(q, pk, pv)) / 2
    blocks, width = len(base.blocks), base.head.weight.shape[1]
    expected = {
        Adapter("sequential", "ffn", 6): 2 * 6 * width,
        Adapter("parallel", "ffn", 6): 2 * 6 * width,
        Adapter("sequential", "attention", 6): 2 * 6 * width,
        Adapter("parallel", "attention", 6, scale=4): 2 * 6 * width,
        Adapter("heads", "attention", 3): 3 * (base.blocks[0].attention.heads * width + width),
        Adapter("lora", "qv", 3): 4 * 3 * width,
        Adapter("lora", "ffn", 3): 10 * 3 * width,
        Adapter("prefix", "attention", 5): 2 * 5 * width,
    }
    off, change = 0, 0.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = base(prompts.tokens)
        for item, count in expected.items():
            model = build_method(base, Method((item,)))()
            off = max(off, abs(count_trainable(model) - blocks * count))
            if item.form != "prefix":
                change = max(change, float((model.transformer(prompts.tokens) - before).abs().max()))
    return FrameChecks(float((gated - joined).abs().max()), float((half - joined).abs().max()), change, off)


class QuantizerChecks(NamedTuple):
    """The quantiser on random weights: root mean square errors over the standard deviation, and exact properties.

    Attributes:
        normal: by code book, on normal weights.
        uniform: by code book, on uniform weights.
        bits: stored bits a weight with double quantisation.
        single_bits: stored bits a weight without.
        double_cost: error with double quantisation over the error without.
        gradient: largest relative difference between the gradients of A and B over quantised and over
            dequantised weights.
        again: largest change when a dequantised tensor is quantised again, without double quantisation.
        levels: largest distance of NF4's sixteen levels from the normal quantiles that define them.
        used: entropy of NF4's codes in bits, on normal and on uniform weights; 4 if all are equally frequent.
    """

    normal: dict[str, float]
    uniform: dict[str, float]
    bits: float
    single_bits: float
    double_cost: float
    gradient: float
    again: float
    levels: float
    used: tuple[float, float]


def quantizer_checks(seed: int, *, count: int = 2**20) -> QuantizerChecks:
    """Measure the code books on weights that follow a normal and a uniform law.

    Args:
        seed: Draws the weights.
        count: How many.

    Source:
        ethiraj2025tslam.
    """
    g = torch.Generator().manual_seed(seed)
    normal, uniform = torch.randn(count, generator=g), torch.rand(count, generator=g) * 2 - 1
    books = {"NF4": None, "int4, -7..7": uniform_levels(4), "int4, -8..7": uniform_levels(4, symmetric=False)}
    books["int2"] = uniform_levels(2, symmetric=False)
    errors = [{name: quantization_error(w, book) for name, book in books.items()} for w in (normal, uniform)]
    double, single = quantize(normal), quantize(normal, double=False)
    layer = nn.Linear(64, 48, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(48, 64, generator=g))
    stored = QuantizedLinear(layer)
    plain = nn.Linear(64, 48, bias=False)
    with torch.no_grad():
        plain.weight.copy_(stored.dense_weight())
    gradients = []
    for base in (stored, freeze(plain)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapted = LoRALinear(base, 4)
            nn.init.normal_(adapted.B)
            x = torch.randn(32, 64)
        gradients.append(torch.autograd.grad(adapted(x).square().sum(), (adapted.A, adapted.B)))
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients))
    once = dequantize(single)
    again = float((dequantize(quantize(once, double=False)) - once).abs().max())
    return QuantizerChecks(
        *errors, double.bits_per_weight, single.bits_per_weight,
        quantization_error(normal, double=True) / errors[0]["NF4"], difference, again,
        float((normal_float_levels() - torch.tensor(NF4_LEVELS, dtype=torch.float64)).abs().max()),
        (_code_entropy(double), _code_entropy(quantize(uniform))),
    )  # fmt: skip


def _code_entropy(stored: Quantized) -> float:
    share = torch.bincount(codes_of(stored), minlength=16).double() / math.prod(stored.shape)
    return float(-torch.xlogy(share, share).sum() / math.log(2))


def frozen_bytes(base: Transformer, quantized: bool) -> int:
    """Bytes of the linear layers of a model's blocks, dense in float32 or in four bits with their scales.

    Args:
        base: The model.
        quantized: Which of the two.
    """
    layers = [m for m in base.blocks.modules() if isinstance(m, nn.Linear)]
    if not quantized:
        return sum(4 * m.weight.numel() for m in layers)
    return round(sum(quantize(m.weight).bits_per_weight * m.weight.numel() / 8 for m in layers))


def answers(tuned: FineTuned, prompts: Prompts) -> Tensor:
    """Answers of each of a method's networks, ``[seeds, N]``.

    Args:
        tuned: From :func:`fine_tune`.
        prompts: What is asked.
    """
    return tuned.ensemble.predict(trimmed(prompts).tokens, batch_size=AT_ONCE).argmax(-1).cpu()


def families_won(
    tuned: FineTuned, base: Transformer, train: Prompts, test: Prompts, families: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Share of families in which a method beats the untouched base and the most frequent answer, and its matches.

    Args:
        tuned: From :func:`fine_tune`; its matches are means over its seeds.
        base: The untouched model.
        train: Where the most frequent answers are counted.
        test: What is asked.
        families: Their names, in the order of ``test.family``.
    """
    by_seed = [exact_match_by_family(row, test, families) for row in answers(tuned, test)]
    mine = {name: sum(one[name] for one in by_seed) / len(by_seed) for name in families}
    with torch.no_grad():
        untouched = exact_match_by_family(base(test.tokens, last_only=True).argmax(-1).cpu(), test, families)
    frequent = exact_match_by_family(majority_answers(train, test), test, families)
    won = [mine[name] > max(untouched[name], frequent[name]) for name in families]
    return sum(won) / len(won), mine


def low_rank_methods(
    base: Transformer, train: Prompts, validation: Prompts, test: Prompts, *, seeds: Sequence[int],
    rates: Sequence[float], epochs: int, batch: int = 32, share: float = 0.5, every: int = 20, loss: float = 0.05,
    threshold: float = 0.99,
) -> dict[str, FineTuned]:  # fmt: skip
    """Fine-tune the blocks' linear layers as matrices of low rank, in the chapter's three ways.

    The integrator starts from the layers' best approximation of a share of their rank; trained rank pruning fine-tunes
    them densely, cuts them every few steps and once at the end; the third projects them on what the prompts use and
    fine-tunes the factors. Embeddings, norms and head are frozen.

    Args:
        base: The foundation model.
        train, validation, test: Prompts and answers.
        seeds, rates, epochs, batch: As in :func:`fine_tune`.
        share: Of the rank with which the integrator works.
        every, loss: Steps between cuts, and the share of energy that a cut may lose.
        threshold: Share of energy of the projection.
    """
    train, validation, test = trimmed(train), trimmed(validation), trimmed(test)
    grid = [(rate, seed) for rate in rates for seed in seeds]
    order = [seed for _, seed in grid]
    steps = epochs * (len(train.tokens) // batch)
    lr = torch.tensor([rate for rate, _ in grid], device=base.head.weight.device)
    data = (train.tokens, train.answers)
    work = {
        "integrator at half the rank": partial(_integrated, share=share),
        "trained rank pruning": partial(_rank_pruned, every=every, loss=loss),
        "utilized rank, factors tuned": partial(_factors_tuned, threshold=threshold),
    }
    found = {}
    for name, run in work.items():
        start = time.perf_counter()
        module, params, kept = run(base, data, order, lr, steps, batch)
        seconds = (time.perf_counter() - start) / len(grid)
        many = Ensemble(module, params, {})
        scores = many.accuracy(validation.tokens, validation.answers, batch_size=AT_ONCE)
        scores = scores.reshape(len(rates), -1).mean(1)
        best = int(scores.argmax())
        rows = torch.arange(best * len(seeds), (best + 1) * len(seeds))
        found[name] = FineTuned(
            many[rows].accuracy(test.tokens, test.answers, batch_size=AT_ONCE).cpu(),
            round(float(kept[rows].double().mean())), rates[best], best in (0, len(rates) - 1), seconds, many[rows],
        )  # fmt: skip
    return found


Run = tuple[nn.Module, dict[str, Tensor], Tensor]


def _integrated(
    base: Transformer,
    data: tuple[Tensor, Tensor],
    order: Sequence[int],
    lr: Tensor,
    steps: int,
    batch: int,
    share: float,
) -> Run:
    """The integrator at a share of the layers' rank."""
    module = _with_layers(base, lambda _, m: LowRankLinear.from_linear(m, max(1, int(share * min(m.weight.shape)))))
    params = stack_members([module] * len(order))[0]
    done, _ = dlrt_train(module, params, data, seeds=order, steps=steps, batch=batch, lr=lr, optimizer="adam")
    kept = sum(m.U.numel() + m.V.numel() for m in module.modules() if isinstance(m, LowRankLinear))
    return module, done.params, torch.full((len(order),), kept)


def _factors_tuned(
    base: Transformer,
    data: tuple[Tensor, Tensor],
    order: Sequence[int],
    lr: Tensor,
    steps: int,
    batch: int,
    threshold: float,
) -> Run:
    """The layers projected on what the prompts use, their factors fine-tuned."""
    grams = _grams(base, data[0])

    def factored(path: str, layer: nn.Linear) -> nn.Module:
        part = utilized_layer(layer.weight.detach(), grams[path], threshold)
        made = FactorizedLinear(layer.in_features, layer.out_features, max(1, part.rank), bias=layer.bias is not None)
        left, right = part.factors
        # Both factors of one size: the product says nothing about how it is divided between them.
        balance = (right.norm() / left.norm().clamp_min(1e-12)).sqrt()
        with torch.no_grad():
            made.A.copy_(left * balance)
            made.B.copy_(right.T / balance)
            if made.bias is not None:
                made.bias.copy_(layer.bias)
        return made

    module = _with_layers(base, factored)
    kept = sum(m.A.numel() + m.B.numel() for m in module.modules() if isinstance(m, FactorizedLinear))
    params = stack_members([module] * len(order))[0]
    batches = Batches(module, data, order, batch, steps)
    params, _ = minimize(
        lambda p, step, _: batches(p, step),
        params,
        steps=steps,
        optimizer="adam",
        lr=lr,
        schedule="linear",
        diverged="keep",
    )
    return module, params, torch.full((len(order),), kept)


def _trainable(layer: nn.Module) -> nn.Module:
    """The layer with its constants as parameters again."""
    made = nn.Linear(int(layer.in_features), int(layer.out_features), bias=layer.bias is not None)  # type: ignore[arg-type]
    with torch.no_grad():
        made.weight.copy_(layer.weight)  # type: ignore[arg-type]
        if layer.bias is not None:
            made.bias.copy_(layer.bias)  # type: ignore[arg-type]
    return made


def _with_layers(base: Transformer, make: Callable[[str, nn.Linear], nn.Module]) -> nn.Module:
    """The frozen model as a classifier of its last position, with trainable layers in its blocks."""
    import copy

    model = copy.deepcopy(base)
    layers = {name: m for name, m in model.blocks.named_modules() if isinstance(m, nn.Linear)}
    made = {name: make(name, layer) for name, layer in layers.items()}
    freeze(model)
    for name, layer in made.items():
        owner = model.blocks.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], layer)
    return LastLogits(model).to(base.head.weight.device)


@torch.no_grad()
def _grams(base: Transformer, tokens: Tensor) -> dict[str, Tensor]:
    """Gram matrices of the inputs of all linear layers of the blocks."""
    seen: dict[str, list[Tensor]] = {}
    handles = [
        layer.register_forward_hook(lambda _m, given, _o, n=name: seen.setdefault(n, []).append(given[0]))
        for name, layer in base.blocks.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    base(tokens, last_only=True)
    for handle in handles:
        handle.remove()
    return {name: activation_gram(batches) for name, batches in seen.items()}


def _rank_pruned(
    base: Transformer, data: tuple[Tensor, Tensor], order: Sequence[int], lr: Tensor, steps: int, batch: int,
    every: int, loss: float,
) -> Run:  # fmt: skip
    """Dense fine-tuning with truncations on the way and at the end."""
    module = _with_layers(base, lambda _, m: _trainable(m))
    params = stack_members([module] * len(order))[0]
    names = [name for name, value in params.items() if value.ndim == 3]
    batches = Batches(module, data, order, batch, steps)

    def cut(p: dict[str, Tensor]) -> Tensor:
        kept = torch.zeros(len(order), dtype=torch.int64)
        for name in names:
            low, rank, _ = truncate_energy(p[name], loss)
            p[name].copy_(low)
            kept += torch.minimum(rank.cpu() * sum(low.shape[1:]), torch.tensor(low[0].numel()))
        return kept

    def step_loss(p: dict[str, Tensor], step: int, _: torch.Generator) -> Tensor:
        if step % every == 0:
            with torch.no_grad():
                cut(p)
        return batches(p, step)

    params, _ = minimize(step_loss, params, steps=steps, optimizer="adam", lr=lr, schedule="linear")
    return module, params, cut(params)
