"""What calibration measures agree on, and what a temperature changes, over a population of small networks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from netatlas.core.calibration import (
    brier_score,
    calibrated_bias,
    classwise_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    fit_temperature,
    kernel_calibration_error,
    ks_calibration_error,
    maximum_calibration_error,
    maximum_mean_calibration_error,
    negative_log_likelihood,
    top_label,
)
from netatlas.core.populations import Population, kendall_tau

BIN_COUNTS = (5, 10, 15, 20, 25, 50, 100, 200, 500)


class Judged(NamedTuple):
    """A population's measures on one data set.

    Attributes:
        accuracy: Test accuracy, ``[architectures, seeds]``.
        validation: Validation accuracy, likewise.
        temperature: Fitted temperatures.
        pre, post: Measures by name before and after scaling, each ``[architectures, seeds]``.
        halves: Measures on two halves of the test set, before and after: ``halves["pre"][0]["ECE 15"]``.
        null: Binned errors after scaling with labels drawn from each network's own confidences.
        debiased: Binned errors after scaling, less what a calibrated network would show.
        bias: What it would show after scaling, by the closed form.
    """

    accuracy: Tensor
    validation: Tensor
    temperature: Tensor
    pre: dict[str, Tensor]
    post: dict[str, Tensor]
    halves: dict[str, list[dict[str, Tensor]]]
    null: dict[str, Tensor]
    debiased: dict[str, Tensor]
    bias: dict[str, Tensor]


class Agreement(NamedTuple):
    """A statistic of rankings with its bootstrap interval over architectures.

    Attributes:
        value: On all architectures.
        low, high: Ends of the 95 % interval.
    """

    value: float
    low: float
    high: float


def binned_measures(confidence: Tensor, correct: Tensor) -> dict[str, Tensor]:
    """Every measure of the top label that uses bins: equal width, equal mass, and the maximum, at nine bin counts.

    Args:
        confidence, correct: ``[..., n]``.
    """
    found = {f"ECE {m}": expected_calibration_error(confidence, correct, m) for m in BIN_COUNTS}
    found |= {f"equal-mass ECE {m}": expected_calibration_error(confidence, correct, m, "mass") for m in BIN_COUNTS}
    return found | {f"MCE {m}": maximum_calibration_error(confidence, correct, m) for m in BIN_COUNTS}


def all_measures(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Binned measures and those without bins or over all classes.

    Args:
        logits: ``[M, n, C]``.
        labels: ``[n]``.
    """
    p = logits.softmax(-1)
    confidence, correct = top_label(p, labels)
    return binned_measures(confidence, correct) | {
        "classwise ECE 15": classwise_calibration_error(p, labels),
        "classwise equal-mass ECE 15": classwise_calibration_error(p, labels, 15, "mass"),
        "KS": ks_calibration_error(confidence, correct),
        "MMCE": maximum_mean_calibration_error(confidence, correct),
        "kernel ECE": kernel_calibration_error(confidence, correct),
        "NLL": negative_log_likelihood(logits, labels),
        "Brier": brier_score(p, labels),
    }


def judge(
    population: Population, validation_labels: Tensor, test_labels: Tensor, *, seeds: int, seed: int = 0
) -> Judged:
    """Measure a population whose outputs are those on the validation and on the test set.

    Args:
        population: Trained networks, seeds within architectures.
        validation_labels, test_labels: Labels of the two sets.
        seeds: Networks of each architecture.
        seed: Seeds the halves and the drawn labels.
    """
    validation, test = (part.double() for part in population.outputs)
    temperature = fit_temperature(validation, validation_labels)
    scaled = test / temperature[:, None, None]

    def grid(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: v.unflatten(0, (-1, seeds)) for name, v in values.items()}

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(test_labels), generator=generator)
    parts = order[: len(order) // 2], order[len(order) // 2 :]
    pairs = {"pre": top_label(test.softmax(-1), test_labels), "post": top_label(scaled.softmax(-1), test_labels)}
    halves = {k: [grid(binned_measures(c[:, i], a[:, i])) for i in parts] for k, (c, a) in pairs.items()}
    null, debiased, bias = {}, {}, {}
    for kind, (c, a) in pairs.items():
        drawn = (torch.rand(c.shape, generator=generator, dtype=c.dtype) < c).to(c)
        for m in BIN_COUNTS:
            null[f"{kind} {m}"] = expected_calibration_error(c, drawn, m)
            if kind == "post":
                # The mean over the population needs few resamples of each network.
                bias[f"{kind} {m}"] = calibrated_bias(c, m)
                debiased[f"{kind} {m}"] = debiased_calibration_error(c, a, m, resamples=5, generator=generator)
    right = [(z.argmax(-1) == y).double().mean(-1) for z, y in ((test, test_labels), (validation, validation_labels))]
    return Judged(
        *(r.unflatten(0, (-1, seeds)) for r in right),
        temperature.unflatten(0, (-1, seeds)),
        grid(all_measures(test, test_labels)),
        grid(all_measures(scaled, test_labels)),
        halves,
        grid(null),
        grid(debiased),
        grid(bias),
    )


def _draws(count: int, resamples: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.concatenate([np.arange(count)[None], rng.integers(0, count, (resamples, count))]))


def _tau(first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
    """Mean tau over all pairs of the columns (seeds) of two tables, for every resample of the rows."""
    a, b = first[rows].transpose(1, 2), second[rows].transpose(1, 2)
    return kendall_tau(a[:, :, None], b[:, None]).mean((1, 2))


def _own_tau(values: Tensor, rows: Tensor) -> Tensor:
    """Tau between the same architectures trained with different seeds."""
    a = values[rows].transpose(1, 2)
    i, j = torch.triu_indices(a.shape[1], a.shape[1], 1)
    return kendall_tau(a[:, i], a[:, j]).mean(1)


def _half_tau(halves: list[dict[str, Tensor]], name: str, rows: Tensor) -> Tensor:
    a, b = (half[name][rows].transpose(1, 2) for half in halves)
    return kendall_tau(a, b).mean(1)


def _interval(values: Tensor) -> Agreement:
    spread = values[1:][torch.isfinite(values[1:])]
    return Agreement(float(values[0]), *(float(q) for q in spread.quantile(torch.tensor([0.025, 0.975]).double())))


class Transfer(NamedTuple):
    """Question 1: rankings of the same architectures on two data sets.

    Attributes:
        accuracy, error: Tau across the sets of accuracy and of the calibration error.
        ceiling_accuracy, ceiling_error: Geometric means of the two sets' taus between seeds.
        difference: Corrected tau of the error minus that of accuracy.
    """

    accuracy: float
    error: float
    ceiling_accuracy: float
    ceiling_error: float
    difference: Agreement


def transfer(
    first: Judged, second: Judged, *, measure: str = "ECE 15", resamples: int = 500, seed: int = 0
) -> Transfer:
    """Does a measure's ranking carry over to another data set as well as accuracy's, each against its own ceiling?

    Args:
        first, second: The same architectures on two sets.
        measure: The calibration error.
        resamples: Bootstrap draws of architectures.
        seed: Seeds them.
    """
    rows = _draws(len(first.accuracy), resamples, seed)
    across, ceiling = [], []
    for a, b in ((first.accuracy, second.accuracy), (first.pre[measure], second.pre[measure])):
        across.append(_tau(a, b, rows))
        ceiling.append((_own_tau(a, rows).clamp_min(0.05) * _own_tau(b, rows).clamp_min(0.05)).sqrt())
    difference = across[1] / ceiling[1] - across[0] / ceiling[0]
    return Transfer(*(float(v[0]) for v in (*across, *ceiling)), _interval(difference))


class Scaling(NamedTuple):
    """Question 4: rankings before and after temperature scaling.

    Attributes:
        tau: Tau between them.
        ceiling_pre, ceiling_post: The smaller of the taus between seeds and between test halves.
        corrected: Tau over the geometric mean of the ceilings.
        worse: Share of networks with a larger error after scaling.
    """

    tau: float
    ceiling_pre: float
    ceiling_post: float
    corrected: Agreement
    worse: float


def scaling(judged: Judged, *, measure: str = "ECE 15", resamples: int = 500, seed: int = 0) -> Scaling:
    """Do rankings before and after temperature scaling agree, once noise is allowed for?

    Args:
        judged: A population.
        measure: The calibration error.
        resamples: Bootstrap draws of architectures.
        seed: Seeds them.
    """
    rows = _draws(len(judged.accuracy), resamples, seed)
    pre, post = judged.pre[measure], judged.post[measure]
    # The same trained network before and after: seed by seed, not across seeds.
    tau = kendall_tau(pre[rows].transpose(1, 2), post[rows].transpose(1, 2)).mean(1)
    ceilings = [
        torch.minimum(_own_tau(values, rows), _half_tau(judged.halves[kind], measure, rows))
        for kind, values in (("pre", pre), ("post", post))
    ]
    corrected = tau / (ceilings[0].clamp_min(0.05) * ceilings[1].clamp_min(0.05)).sqrt()
    return Scaling(
        float(tau[0]), float(ceilings[0][0]), float(ceilings[1][0]), _interval(corrected),
        float((post > pre).double().mean()),
    )  # fmt: skip


class BinAgreement(NamedTuple):
    """Question 3: agreement of binned measures.

    Attributes:
        same: Median tau of two measures on the same sample.
        opposite: Median tau of two measures on opposite halves of the test set.
        itself: Median tau of a measure with itself on opposite halves.
        null: Median tau on the same sample where all networks are perfectly calibrated.
    """

    same: float
    opposite: float
    itself: float
    null: float


def bin_agreement(judged: Judged, *, seed: int = 0) -> BinAgreement:
    """How far binned measures rank alike, on the same sample and on opposite halves.

    Args:
        judged: A population.
        seed: Seeds the null: confidences of Beta(6, 2) with labels drawn from them.
    """

    def table(measures: dict[str, Tensor]) -> Tensor:
        return torch.stack([v.T for name, v in measures.items() if name.split()[-1] in map(str, BIN_COUNTS)
                            and not name.startswith("classwise")])  # fmt: skip

    whole = table(judged.pre)
    first, second = (table(half) for half in judged.halves["pre"])
    off = ~torch.eye(len(whole), dtype=torch.bool)
    rng = np.random.default_rng(seed)
    confidence = torch.from_numpy(rng.beta(6, 2, (len(judged.accuracy), 800)))
    correct = torch.from_numpy((rng.random(confidence.shape) < confidence.numpy()).astype(float))
    calibrated = table({k: v[:, None] for k, v in binned_measures(confidence, correct).items()})
    across = kendall_tau(first[:, None], second[None]).nanmean(-1)
    return BinAgreement(
        float(kendall_tau(whole[:, None], whole[None]).nanmean(-1)[off].nanmedian()),
        float(across[off].nanmedian()),
        float(across.diagonal().nanmedian()),
        float(kendall_tau(calibrated[:, None], calibrated[None]).nanmean(-1)[off].nanmedian()),
    )


class BinGrowth(NamedTuple):
    """Question 6: how the mean error grows with the number of bins.

    Attributes:
        pre, post: Mean error for each bin count.
        null_pre, null_post: The same with labels drawn from the networks' own confidences.
        debiased: After scaling, less what a calibrated network would show.
        bias: What it would show, by the closed form.
        growth_pre, growth_post: (error at most bins - at fewest) / error at fewest.
        share_null: How much of the growth after scaling a calibrated network shows too.
    """

    pre: list[float]
    post: list[float]
    null_pre: list[float]
    null_post: list[float]
    debiased: list[float]
    bias: list[float]
    growth_pre: float
    growth_post: float
    share_null: float


def bin_growth(judged: Judged) -> BinGrowth:
    """Mean error against the number of bins, before and after scaling, and for a calibrated network.

    Args:
        judged: A population.
    """
    pre, post = ([float(part[f"ECE {m}"].mean()) for m in BIN_COUNTS] for part in (judged.pre, judged.post))
    null = {kind: [float(judged.null[f"{kind} {m}"].mean()) for m in BIN_COUNTS] for kind in ("pre", "post")}
    return BinGrowth(
        pre, post, null["pre"], null["post"], [float(judged.debiased[f"post {m}"].mean()) for m in BIN_COUNTS],
        [float(judged.bias[f"post {m}"].mean()) for m in BIN_COUNTS],
        (pre[-1] - pre[0]) / pre[0], (post[-1] - post[0]) / post[0],
        (null["post"][-1] - null["post"][0]) / (post[-1] - post[0]),
    )  # fmt: skip


class Relation(NamedTuple):
    """Question 5: accuracy against calibration error.

    Attributes:
        everyone: Tau over all architectures, mean over seeds.
        best: Tau among the architectures in the top quarter by validation accuracy.
    """

    everyone: float
    best: float


def accuracy_relation(judged: Judged, *, measure: str = "ECE 15", share: float = 0.25) -> Relation:
    """Tau of accuracy and calibration error, for all and for the best on validation data.

    Args:
        judged: A population.
        measure: The calibration error.
        share: Which share counts as the best.
    """
    everyone, best = [], []
    count = max(round(share * len(judged.accuracy)), 3)
    for s in range(judged.accuracy.shape[1]):
        top = judged.validation[:, s].argsort(descending=True, stable=True)[:count]
        accuracy, error = judged.accuracy[:, s], judged.pre[measure][:, s]
        everyone.append(float(kendall_tau(accuracy, error)))
        best.append(float(kendall_tau(accuracy[top], error[top])))
    return Relation(float(np.mean(everyone)), float(np.nanmean(best)))


def pooled_images(images: Tensor, size: int) -> Tensor:
    """Images averaged down to a square of ``size`` pixels in grey, standardised by their own mean and deviation.

    Args:
        images: ``[N, C, H, W]``.
        size: Side of the result.
    """
    small = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), size)
    return (small - small.mean()) / small.std()
