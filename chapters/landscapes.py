# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: netatlas
#     language: python
#     name: netatlas
# ---

# %% [markdown]
# # Landscapes
#
# Training a network is a walk downhill in a space of thousands of dimensions. Nobody can look at such a space, but one
# can ask it questions. How many of its dimensions does a task really need? In how many directions does the ground bend,
# and does the bending tell whether the network will do well on data that it has not seen? How many examples can be
# learned by heart before the valley no longer reaches the ground? And what do the weights look like at the very bottom,
# where in one solvable case the bottom is known exactly? This chapter asks all five of small networks, and at its end
# all of them of the *same* networks.

# %% tags=["parameters"]
profile, seed, device = "ci", 0, "cpu"

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from netatlas import data, lab
from netatlas.core.nn import MLP
from netatlas.core.stats import loglog_slope, spearman
from netatlas.core.train import fit_many
from netatlas.landscapes import StridedConvNet, collapse_threshold
from netatlas.landscapes import experiments as ex

lab.begin("landscapes", profile=profile, seed=seed, device=device)

# %%
lab.papers_table()

# %% [markdown]
# ## The shared kernel: curvature without the matrix
#
# Around a point $\theta$ the loss is $L(\theta) + g^\top \delta + \tfrac12 \delta^\top H \delta$. The Hessian $H$ of a network
# with $D$ parameters has $D^2$ entries, but its product with a vector costs only a few gradients, and products are enough.
# Lanczos iteration turns $m$ products with one start vector $v$ into a small tridiagonal matrix, whose eigenvalues
# $\theta_i$ and weights $w_i$ are a Gauss quadrature of the spectrum:
#
# $$v^\top f(H)\, v \approx \sum_{i=1}^m w_i f(\theta_i),\qquad \text{exactly for polynomials of degree up to } 2m - 1 .$$
#
# With random signs for $v$, averages over start vectors estimate the spectral density, the trace, and their errors.
# Rounding destroys the vectors' orthogonality and makes ghosts of eigenvalues, so every new vector is
# orthogonalised against *all* earlier ones. Four checks with a known answer:

# %%
checks = {name: lab.rounding(error, 1e-12) for name, error in ex.quadrature_checks(seed=seed).items()}
lab.table(
    pd.DataFrame({"largest error": checks}).rename_axis("check"),
    fmt="{:.0e}",
    caption=f"On a small network the quadrature meets the exact Hessian to {max(checks.values()):.0e}.",
)

# %%
images, labels = data.load("digits")
split = ex.split_digits(images, labels, train=1300, held_out=200, seed=seed)
seeds = lab.seeds(lab.pick(ci=3, gpu=8))

# %% [markdown]
# (paper-li2018intrinsic)=
# ## Intrinsic dimension: how many random directions does a task need?
#
# [Li et al. (2018)](https://arxiv.org/abs/1804.08838) freeze a network at its random start $\theta_0$ and let it move only
# in a random subspace of $d$ dimensions:
#
# $$\theta = \theta_0 + P v,\qquad v \in \mathbb R^d,\quad v_0 = 0,\quad \lVert P_{:j} \rVert = 1 .$$
#
# Only $v$ is trained. The smallest $d$ that reaches 90 % of the accuracy of ordinary training is the *intrinsic dimension*
# $d_{90}$. $P$ may be dense, very sparse (an entry in $\sqrt D$ is not zero), or the Fastfood product of Hadamard matrices,
# which is never formed. A loss made of sums over ten groups of coordinates shows what is meant: it has a thousand
# parameters, and dimension ten.

# %%
few = [8, 9, 10, 11, 12]
residuals = ex.group_sum_residuals(few, seed=seed)
permuted = lab.rounding(ex.permuted_pixels_gap(split.train, seed=seed), 1e-12)
lab.table(
    pd.DataFrame({"least loss": [lab.rounding(r, 1e-12) for r in residuals]}, index=few).rename_axis("dimension d"),
    fmt="{:.2g}",
    caption=f"Ten groups of a hundred coordinates: the first dimension without loss is {few[int((residuals < 1e-9).argmax())]}. "
    f"Pixels permuted together with the rows of P change no loss of a dense network by more than {permuted:.0e}.",
)

# %% [markdown]
# Now handwritten digits, 8 by 8 pixels, and three dense networks whose numbers of parameters differ by a factor of ten. The
# learning rate of $v$ is chosen on held-out training data, that of ordinary training likewise, from equally many. A linear
# classifier is a fourth network: if it needs as many dimensions, then their number is a property of the data and not of
# hidden layers. The control trains on *shuffled* labels, which do not fit into a few hundred numbers.

# %%
networks = {"64-32-10": [64, 32, 10], "64-64-10": [64, 64, 10], "64-128-128-10": [64, 128, 128, 10], "linear": [64, 10]}
dims = [80, 100, 130, 160, 200, 240]
steps = lab.pick(ci=200, gpu=2000)
options = {"seeds": seeds, "steps": steps, "tune_at": 160}
sweeps = {name: ex.subspace_sweep(partial(MLP, widths), split, dims, **options) for name, widths in networks.items()}
arms = ex.projection_arms(networks["64-32-10"], split, 130, seeds=seeds, steps=steps)

# %%
dense = [name for name in networks if name != "linear"]
dimension = {name: sweep.dimension() for name, sweep in sweeps.items()}
sizes = [sweeps[name].size for name in dense]
means = [dimension[name].mean() for name in dense]
finite = [name for name in dense if np.isfinite(dimension[name]).all()]
points = [(sweeps[n].size, d) for n in finite for d in dimension[n]]
growth = loglog_slope(*zip(*points))
spread = max(means) / min(means)
without_hidden = dimension["linear"].mean() / np.mean(means)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for name, sweep in sweeps.items():
    axes[0].errorbar(dims, sweep.accuracy.mean(0), sweep.accuracy.std(0), marker="o", capsize=2, label=name)
    axes[1].errorbar(sweep.size, dimension[name].mean(), dimension[name].std(), marker="o", capsize=3)
axes[0].set(xlabel="dimension d of the subspace", ylabel="test accuracy", title="Training in a random subspace")
axes[0].legend(fontsize="small")
axes[1].set(
    xscale="log",
    yscale="log",
    ylim=(30, 1000),
    xlabel="parameters D",
    ylabel="intrinsic dimension",
    title="Against size",
)

# %%
lab.figure(
    fig,
    caption="Intrinsic dimension, mean of seeds (in brackets the first grid point): "
    + ", ".join(f"{n} {dimension[n].mean():.0f} ({s.first_dimension():.0f})" for n, s in sweeps.items())
    + f". Slope on logarithmic axes over the dense networks: {growth.slope:.2f} ± {growth.stderr:.2f}. At d = 130, rates chosen for "
    f"each: {', '.join(f'{name} {a.mean():.1%}' for name, a in arms.items())}. Chosen rates at an end of their grid: "
    f"{sum(s.at_end for s in sweeps.values())} of {2 * len(sweeps)}. The linear classifier needs {without_hidden:.2f} times "
    "the mean dimension of the dense networks.",
    alt="Left: accuracy against subspace dimension for four networks. Right: intrinsic dimension against parameters.",
)

# %% [markdown]
# What the three kinds of $P$ have in common is unit columns; that is why they may replace each other, and
# why one rate serves all sizes. The last arm puts the subspace through the origin instead of a random start. And where the
# linear classifier's ratio to the dense networks is near one, or above, the constancy says something about the digits rather
# than about hidden layers.

# %%
measured = {
    **{f"intrinsic dimension: {name}": dimension[name] for name in dense},
    "largest over smallest mean dimension": spread,
    "not deciding: slope of log dimension on log parameters": growth.slope,
    **{f"not deciding: accuracy at d = 130, {name}": a for name, a in arms.items()},
    "permuted pixels: change of the loss": permuted,
}
shuffled = max(sweep.shuffled.max() for sweep in sweeps.values())
control = {
    "shuffled labels, d = 240: best training accuracy": shuffled,
    "linear classifier: intrinsic dimension": dimension["linear"],
    "not deciding: the same over the dense networks' mean": without_hidden,
    "largest over smallest number of parameters": max(sizes) / min(sizes),
}

# %%
holds = {
    "mean dimension below D / 10 for every network": lab.below(max(d / size for d, size in zip(means, sizes)), 0.1),
    "dimensions differ by less than a factor of 2": lab.below(spread, 2),
    "while parameters differ by more than 10": lab.exceeds(max(sizes) / min(sizes), 10),
    "shuffled labels stay below one half": lab.below(shuffled, 0.5),
    "permuted pixels change nothing": lab.below(permuted, 1e-10),
}
reason = (
    f"mean dimensions {', '.join(f'{n} {m:.0f} of {s}' for n, m, s in zip(dense, means, sizes))}; largest over smallest "
    f"{spread:.2f}; shuffled labels {shuffled:.0%}"
)

# %%
lab.claim(
    "li2018intrinsic",
    "Networks of very different size need about the same small number of random directions to solve a task",
    measured=measured,
    control=control,
    holds=holds,
    data=data.kind("digits"),
    scaled="8 x 8 digits and dense networks of up to 26 thousand parameters instead of MNIST, CIFAR-10 and games; a few hundred steps",
    reason=reason,
)

# %% [markdown]
# (paper-sagun2017hessian)=
# ## The Hessian of a trained network: a bulk at zero and a few outliers
#
# [Sagun et al. (2017)](https://arxiv.org/abs/1706.04454) compute *all* eigenvalues of small trained networks. The Hessian has
# two parts,
#
# $$H = \underbrace{\tfrac1n \sum_i J_i^\top \ell''_i J_i}_{G} + \tfrac1n \sum_i \sum_c \ell'_{ic}\, \nabla^2 f_c(x_i) ,$$
#
# and where examples are fitted $\ell'$ is small, so that $H \approx G$. The rank of $G$ is at most $n (K - 1)$ for $K$ classes
# under softmax. Symmetries take more: adding a number to all classes' weights from one unit changes nothing, nor does scaling
# a unit up before and down after its ReLU; with $h$ hidden units that makes $2h + 1$ directions. What remains of
# $G$ is dominated by differences between classes. So size should add to the bulk, data decide the outliers.
#
# Gaussian clusters at orthogonal means are learned by networks with $h$ = 12 and 40 hidden units; $H$ is exact. The outliers
# are counted by the largest ratio of neighbouring eigenvalues among the first fifteen. Controls: shuffled labels, and classes
# that consist of several clusters.

# %%
case = ex.SpectrumCase
pairs = [case(k, k, h, shuffled=mixed) for k in (4, 8) for h in (12, 40) for mixed in (False, True)]
others = [case(2, 2, 12), case(2, 2, 40), case(2, 8, 12), case(4, 8, 12), case(2, 2, 12, 100), case(2, 2, 40, 100)]
found = ex.spectra(pairs + others, seeds=seeds)
basins = ex.batch_size_basins(seeds=seeds)

# %%
rows = {
    f"K = {c.classes}, {c.clusters} clusters, h = {c.hidden}, n = {c.examples}{', shuffled' * c.shuffled}": {
        "gap after": " ".join(str(s.gap) for s in runs),
        "ratio at K - 1": np.mean([s.ratio_here for s in runs]),
        "above 1 %": np.mean([s.above for s in runs]),
        "near zero": np.mean([s.near_zero for s in runs]),
        "lowest / largest": np.mean([s.lowest for s in runs]),
        "loss": np.mean([s.loss for s in runs]),
    }
    for c, runs in found.items()
}

# %%
true = {c: runs for c, runs in found.items() if not c.shuffled}
plain_runs = [(c, s) for c, runs in true.items() if c.clusters == c.classes and c.examples == 1000 for s in runs]
hits = sum(s.gap == c.classes - 1 for c, s in plain_runs)
slopes = {k: ex.outlier_growth(found, k, (12, 40)).slope for k in (2, 4, 8)}
merged = [s.gap for s in found[case(2, 8, 12)] + found[case(4, 8, 12)]]
lab.table(
    pd.DataFrame(rows).T.rename_axis("network and data"),
    caption=f"The largest gap, one number a seed, comes after K - 1 eigenvalues in {hits} of {len(plain_runs)} networks whose classes are "
    f"single clusters (n = 1000, true labels). Slope of the number of eigenvalues above 1 % of the "
    f"largest against parameters: {', '.join(f'{v:.2f} (K = {k})' for k, v in slopes.items())}. With eight clusters in two and "
    f"in four classes the gap comes after {', '.join(map(str, merged))}.",
)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, k in zip(axes, (4, 8)):
    for h in (12, 40):
        values = found[case(k, k, h)][0].eigenvalues
        axis.plot(np.arange(1, len(values) + 1), np.abs(values) / values[0], label=f"h = {h}, D = {len(values)}")
    mixed = found[case(k, k, 40, shuffled=True)][0].eigenvalues
    axis.plot(np.arange(1, len(mixed) + 1), np.abs(mixed) / mixed[0], linestyle=":", label="h = 40, shuffled labels")
    axis.axvline(k - 0.5, color="0.6", linewidth=1)
    axis.set(xscale="log", yscale="log", ylim=(1e-6, 1.5), xlabel="rank i", title=f"{k} classes")
axes[0].set_ylabel("|eigenvalue| / largest")
axes[0].legend(fontsize="small")

# %%
lab.figure(
    fig,
    caption="First seed; the line is after K - 1 eigenvalues. The ratio there, mean of seeds: "
    + "; ".join(
        f"K = {k}, h = {h}: {np.mean([s.ratio_here for s in found[case(k, k, h)]]):.2f}, shuffled "
        f"{np.mean([s.ratio_here for s in found[case(k, k, h, shuffled=True)]]):.2f}"
        for k in (4, 8)
        for h in (12, 40)
    )
    + ".",
    alt="Two panels of eigenvalues against rank on logarithmic axes for two widths and for shuffled labels.",
)

# %% [markdown]
# The paper's last observation is about basins. One network is trained with batches of 16, another *from the same start*
# with full batches and then continued with batches of 16. Is there a barrier on the straight line between them? The
# control is a line between two small-batch networks from different starts. Because the first two share their start,
# little follows from this about basins in general; even without the continuation the barrier may be small.

# %%
lab.table(
    pd.DataFrame(
        {
            "continued": basins.continued,
            "large batch, not continued": basins.direct,
            "independent starts": basins.independent,
            **{f"loss: {name}": loss for name, loss in basins.losses.items()},
        }
    ).rename_axis("pair"),
    fmt="{:.4f}",
    caption=f"Barriers of the loss to the small-batch network, and losses at the ends. Continued over independent: at most "
    f"{(basins.continued / basins.independent).max():.3f}.",
)

# %%
at_gap = {h: sum(s.gap == k - 1 for k in (4, 8) for s in found[case(k, k, h)]) / (2 * len(seeds)) for h in (12, 40)}
wins = {
    h: np.mean(
        [
            a.ratio_here > b.ratio_here
            for k in (4, 8)
            for a, b in zip(found[case(k, k, h)], found[case(k, k, h, shuffled=True)])
        ]
    )
    for h in (12, 40)
}
zeros = {k: [np.mean([s.near_zero for s in found[case(k, k, h)]]) for h in (12, 40)] for k in (2, 4, 8)}
every = [s for runs in found.values() for s in runs]
exact = lab.rounding(max(max(s.null_error, s.scale_error, s.product_error) for s in every), 1e-12)
excess = max(s.rank - s.bound for runs in true.values() for s in runs)
ratio = (basins.continued / basins.independent).max()

# %%
measured = {
    **{f"share of networks with the gap at K - 1, h = {h}": share for h, share in at_gap.items()},
    **{f"slope of large eigenvalues on parameters, K = {k}": slope for k, slope in slopes.items()},
    **{f"near-zero fraction, h = 40 less h = 12, K = {k}": b - a for k, (a, b) in zeros.items()},
    "barrier, continued": basins.continued,
    "not deciding: first K - 1 eigenvalues of H and G differ by": max(
        s.head_gap for c, runs in true.items() if c.examples == 1000 for s in runs
    ),
    "null directions, products: largest relative error": exact,
    "rank of G less its bound": excess,
}
control = {
    **{f"share of pairs in which shuffled labels have the smaller ratio, h = {h}": won for h, won in wins.items()},
    "barrier, independent starts": basins.independent,
}

# %%
holds = {
    "the gap is after K - 1 in 5 of 6 networks, at each width": lab.exceeds(min(at_gap.values()), 0.8),
    "its ratio exceeds that of shuffled labels in 5 of 6 pairs": lab.exceeds(min(wins.values()), 0.8),
    "large eigenvalues grow slower than the root of D, for every K": lab.below(max(slopes.values()), 0.5),
    "the near-zero fraction grows with h, for every K": lab.exceeds(min(b - a for a, b in zeros.values()), 0),
    "one basin: barrier below a tenth of the control's, every seed": lab.below(ratio, 0.1),
    "exact null directions": lab.below(exact, 1e-10),
    "the rank stays within its bound": lab.below(excess, 1),
}
reason = (
    f"gap at K - 1 in {at_gap[12]:.0%} and {at_gap[40]:.0%} of the networks; ratio above shuffled labels in {wins[12]:.0%} and "
    f"{wins[40]:.0%}; slopes {', '.join(f'{v:.2f}' for v in slopes.values())}; barriers at most {ratio:.3f} of the control's"
)

# %%
lab.claim(
    "sagun2017hessian",
    "The Hessian of a trained network has a bulk at zero and a few outliers: size adds to the bulk, the data determine the "
    "outliers; small- and large-batch solutions lie in one basin",
    measured=measured,
    control=control,
    holds=holds,
    data="generated",
    scaled="Gaussian clusters and two-layer networks of up to a thousand parameters; outliers are counted by the largest ratio",
    reason=reason,
)

# %% [markdown]
# (paper-gabdullin2024lla)=
# ## Loss landscape analysis: does negative curvature tell how well a network will do?
#
# [Gabdullin (2024)](https://arxiv.org/abs/2412.10146) evaluates the Hessian not on the training data but on the data that
# the network will meet. At a good minimum the spectrum is mostly positive; on data that do not fit, negative curvature
# appears. From Ritz values and weights,
#
# $$K_{H,n} = \frac{\sum_{\theta_i < 0} |\theta_i w_i|^n}{\sum_{\theta_i > 0} (\theta_i w_i)^n}\quad (n = \tfrac12),\qquad
# r_e = \left|\frac{\min \theta_i}{\max \theta_i}\right| .$$
#
# Five networks are tested on 24 shifted versions of the same 256 test digits: noise, blur, contrast, translation, dropped
# pixels. $K_H$ needs labels, through the loss; so the first question of a sceptic is whether it tells more than the loss itself.
# Strengths inside a family of shifts are ordered, so anything monotone in strength correlates with the error.
# What carries information is the correlation *given the loss*, and that *between* families. A median over a few
# networks is uncertain; the card also shows what the first three alone would say.

# %%
five = lab.seeds(lab.pick(ci=5, gpu=30))
nets = fit_many(
    partial(MLP, [64, 32, 10]),
    *split.train,
    seeds=five,
    epochs=60,
    batch_size=64,
    optimizer="adam",
    lr=3e-3,
    schedule="cosine",
)

# %%
test_images, test_labels = split.test[0][:256].reshape(-1, 8, 8), split.test[1][:256]
studies = [
    ex.shift_study({k: v[i] for k, v in nets.params.items()}, test_images, test_labels, [64, 32, 10], seed=s, probes=3)
    for i, s in enumerate(five)
]
names = list(studies[0].criteria)
ranks = {name: [ex.shift_correlations(study, name) for study in studies] for name in names}
nulls = np.array([ex.permutation_quantiles(study, names[0], seed=s) for study, s in zip(studies, five)])

# %%
columns = {"with the error": "overall", "given the loss": "given_loss", "between families": "between"}
medians = {
    name: {word: np.median([getattr(r, field) for r in runs]) for word, field in columns.items()}
    for name, runs in ranks.items()
}
lab.table(
    pd.DataFrame(medians).T.rename_axis("median rank correlation"),
    fmt="{:.2f}",
    caption=f"{len(five)} networks, 24 test sets each. With the error the loss has {medians['loss']['with the error']:.2f}, the "
    f"negative mass {medians[names[0]]['with the error']:.2f}; given the loss it keeps {medians[names[0]]['given the loss']:.2f}, where "
    f"permuted values reach {np.median(nulls[:, 1]):.2f} in one case of twenty. Between five families the steps are coarse.",
)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
families = np.array(studies[0].families)
for axis, name in zip(axes, (names[0], "loss")):
    for family, marker in zip(dict.fromkeys(families), "osv^D"):
        rows_of = families == family
        axis.plot(studies[0].criteria[name][rows_of], studies[0].error[rows_of], marker, mfc="none", label=family)
    axis.set(xlabel=name, xscale="log", title=f"rank correlation {ranks[name][0].overall:.2f}")
axes[0].set_ylabel("error on the shifted test set")
axes[0].legend(fontsize="small")
lab.figure(
    fig,
    caption=f"First network. Largest distance of the two rank correlations over all networks: "
    f"{max(b.overall - a.overall for a, b in zip(ranks[names[0]], ranks['loss'])):.2f}.",
    alt="Two scatter plots of the error on shifted test sets, against the negative mass and against the loss.",
)

# %% [markdown]
# **Axes.** The paper also warns of pictures: with batch normalisation, random axes rescaled to the size of the weights may
# mislead, and eigenvectors of the Hessian are better axes. Two things can be measured. How much of the largest curvature
# does an axis see? And what does a picture show when the weights before a batch normalisation are halved, which does not change the
# function at all? (Normalisation uses the batch's own statistics here, in training and in evaluation.)

# %%
grid = torch.linspace(-1, 1, 15)
axes_seen = ex.axis_study(split, seeds=seeds, grid=grid, epochs=20)
table = {
    axis: {
        "curvature / largest, plain": axes_seen.curvature["plain", axis].mean(),
        "curvature / largest, batch norm": axes_seen.curvature["batch norm", axis].mean(),
        "factor when weights are halved": axes_seen.rescaled[axis].mean(),
    }
    for axis in ex.AXES
}
lab.table(
    pd.DataFrame(table).T.rename_axis("axis"),
    fmt="{:.3g}",
    caption="A random axis sees about the average of the spectrum, a Hessian axis its top. But under a change that leaves the function "
    f"alone the curvature along a Hessian axis changes by a factor of {axes_seen.rescaled['Hessian'].mean():.1f}, along a filter-normalised "
    f"one by {axes_seen.rescaled['random, filter-normalised'].mean():.2f}, along a plain random "
    f"one by {axes_seen.rescaled['random'].mean():.1f}.",
)

# %%
fig, panels = plt.subplots(1, 3, figsize=(8.4, 3), sharex=True, sharey=True)
for panel, axis in zip(panels, ex.AXES):
    surface = axes_seen.surfaces["batch norm", axis]
    drawn = panel.contourf(
        grid, grid, np.log10(1e-3 + np.maximum(surface - surface.min(), 0)), levels=np.linspace(-3, 1, 13), extend="max"
    )
    panel.set(title=axis, xlabel="first axis")
panels[0].set_ylabel("second axis")
fig.colorbar(drawn, ax=panels, label="log10(loss - lowest + 0.001)")
seen = {axis: axes_seen.surfaces["batch norm", axis] for axis in ex.AXES}
lab.figure(
    fig,
    caption="One network with batch normalisation. Highest loss above the centre on each picture: "
    + ", ".join(f"{axis} {surface.max():.2f}" for axis, surface in seen.items())
    + ".",
    alt="Three contour plots of the loss around a trained network, along random, normalised random and Hessian axes.",
)

# %%
overall, given = np.array([r.overall for r in ranks[names[0]]]), np.array([r.given_loss for r in ranks[names[0]]])
above, above_given = np.mean(np.abs(overall) > nulls[:, 0]), np.mean(np.abs(given) > nulls[:, 1])
worst, first_three = max(checks.values()), np.median(overall[:3])
measured = {
    "negative mass: rank correlation with the error": overall,
    "negative mass: the same given the loss": given,
    "share of networks above the permutations": above,
    "share above the permutations, given the loss": above_given,
    "not deciding: median of the first three networks": first_three,
    "not deciding: between families": [r.between for r in ranks[names[0]]],
    "exact checks of the quadrature": worst,
}
control = {
    "permuted values: .95 quantile": nulls[:, 0],
    "permuted values: .95 quantile, given the loss": nulls[:, 1],
    **{f"not deciding: {name}, with the error": [r.overall for r in ranks[name]] for name in names[1:]},
}

# %%
holds = {
    "median rank correlation with the error at least .7": lab.exceeds(np.median(overall), 0.7),
    "above the permutations' quantile in every network": lab.exceeds(above, 0.99),
    "beyond the loss: median partial correlation at least .3": lab.exceeds(np.median(given), 0.3),
    "and above the permutations' quantile in two of three": lab.exceeds(above_given, 0.66),
    "the quadrature is exact where it must be": lab.below(worst, 1e-8),
}
reason = (
    f"rank correlation of the negative mass with the error {np.median(overall):.2f} in the median, of the loss "
    f"{medians['loss']['with the error']:.2f}, and both need the labels. {int((overall > 0.7).sum())} of {len(five)} networks exceed "
    f"0.7; the first three alone have a median of {first_three:.2f}. Given the loss "
    f"{np.median(given):.2f} is left, above permuted values in {above_given:.0%} of the networks"
)

# %%
lab.claim(
    "gabdullin2024lla",
    "When the data change, the negative curvature of the loss follows the error of the network, and tells more than the loss itself",
    measured=measured,
    control=control,
    holds=holds,
    data=data.kind("digits"),
    scaled="dense networks on shifted 8 x 8 digits instead of pre-trained image classifiers on ImageNet variants",
    reason=reason,
)

# %% [markdown]
# (paper-shwartzziv2024flexible)=
# ## Flexibility in practice: the largest set that training can fit
#
# A network with $P$ parameters is often said to fit about $P$ examples. [Shwartz-Ziv et al. (2024)](https://arxiv.org/abs/2406.11463)
# measure it: the *effective model complexity* is the largest number of examples that training from scratch classifies
# without an error, where training has ended at a minimum. For a linear classifier through the origin the answer is known.
# Cover counted the labellings of $n$ points in $d$ dimensions that a plane can separate:
#
# $$P(n, d) = 2^{1-n} \sum_{k<d} \binom{n-1}{k},\qquad P(2d, d) = \tfrac12 .$$

# %%
sizes_lp = [10, 15, 20, 25, 30]
cover = ex.cover_check(10, sizes_lp, draws=lab.pick(ci=60, gpu=400), seed=seed)
lab.table(
    pd.DataFrame({"separated": cover[0], "Cover": cover[1]}, index=sizes_lp).rename_axis("points in 10 dimensions"),
    caption=f"Linear programming decides each instance; largest distance to the formula {np.abs(cover[0] - cover[1]).max():.2f}.",
)

# %% [markdown]
# Now networks of about 830 parameters on 8 by 8 digits with labels drawn at *random*. Each size is tried with
# several learning rates, each from its own start (three with Adam, two with SGD), and counts as fitted if one run makes no error: small ReLU networks lose units
# at the start. Arms: a ReLU network, the same with tanh, a convolutional one, and stochastic against full-batch gradient descent
# without Adam, for equal numbers of samples and of steps. True labels come from MNIST, averaged to 8 by 8 pixels.
#
# A bound to keep in mind: Cover's classifier stores two bits a parameter, and a random label of ten classes holds
# $\log_2 10 = 3.3$. A network that stores no more cannot fit as many random labels as it has parameters, whatever the
# optimizer. True labels are compressible; there it could.
#
# A run that fails has not shown that its set cannot be fitted, only that these steps did not do it. The budget matters: an
# earlier version of this section took fewer rates and fewer steps, and there the convolutional network was *not* ahead of both
# others in every draw. The table therefore shows the gradients at the end, of runs that fit and of runs that do not.

# %%
generator = torch.Generator().manual_seed(lab.seeds(1)[0])
pixels = (images.flatten(1) - images.mean()) / images.std()
draws, ladder = lab.seeds(lab.pick(ci=3, gpu=8)), [120, 150, 190, 240]
which = torch.stack([torch.randperm(len(pixels), generator=generator)[:480] for _ in draws])
random_labels = torch.randint(10, which.shape, generator=generator)
relu, tanh = partial(MLP, [64, 11, 10]), partial(MLP, [64, 11, 10], activation="tanh")
wide, arm, length = [150, 190, 240, 300, 380], ex.CapacityArm, lab.pick(ci=1500, gpu=8000)
rates, coarse, brief = (0.005, 0.01, 0.02), (0.1, 0.3), lab.pick(ci=1000, gpu=5000)
trials = {
    "MLP, ReLU": arm(relu, ladder, rates, steps=length),
    "MLP, tanh": arm(tanh, wide[:-1], rates, steps=length),
    "CNN": arm(StridedConvNet, wide[1:], rates, steps=length),
    "SGD": arm(relu, ladder, coarse, "sgd", steps=brief),
    "full batch, equal samples": arm(relu, ladder, coarse, "sgd", None, brief * 64 // 150),
    "full batch, equal steps": arm(relu, ladder, coarse, "sgd", None, brief),
}

# %%
capacity = {name: ex.measure_capacity(one, pixels[which], random_labels, seeds=draws) for name, one in trials.items()}
mnist, answers = data.load("mnist", limit=9000, stand_in=data.digit_images)
pooled = ex.pooled_images(mnist)
pooled = (pooled - pooled.mean()) / pooled.std()
rows_true = torch.stack([torch.randperm(len(pooled), generator=generator)[:1250] for _ in draws])
truth = arm(relu, [800, 1000, 1250], rates, steps=lab.pick(ci=2000, gpu=20_000))
capacity["true labels: MLP, ReLU"] = ex.measure_capacity(truth, pooled[rows_true], answers[rows_true], seeds=draws)

# %%
rows = {
    name: {
        "parameters": str(c.size),
        "fitted, by draw": " ".join(f"{n:.0f}" for n in c.capacity),
        "a parameter": c.capacity.mean() / c.size,
        "bits a parameter": c.capacity.mean() * np.log2(10) / c.size,
        "top reached": str(c.found.censored),
        "fitted above a failure": str(c.found.above_failure),
        "gradient, fitted": c.gradient[0],
        "gradient, failed": c.gradient[1],
        "negative curvature": c.negative,
    }
    for name, c in capacity.items()
}

# %%
unfinished = [c.gradient[1] / c.gradient[0] for c in capacity.values()]
lab.table(
    pd.DataFrame(rows).T.rename_axis("network and training"),
    caption="Largest training set fitted. Examples a parameter: random labels "
    f"{capacity['MLP, ReLU'].capacity.mean() / capacity['MLP, ReLU'].size:.2f}, true labels "
    f"{capacity['true labels: MLP, ReLU'].capacity.mean() / capacity['true labels: MLP, ReLU'].size:.2f} (ReLU network). Of the runs that fit, at most "
    f"{np.nanmax([c.negative for c in capacity.values()]):.0%} have a Ritz value below minus 1 % of the largest. Gradients where "
    f"runs fail, over those where they fit: {min(unfinished):.1f} to {max(unfinished):.1f}.",
)

# %%
fig, axis = plt.subplots(figsize=(6, 3.6))
for (name, c), marker in zip(list(capacity.items())[:6], "osv^D*"):
    axis.plot(trials[name].ladder, c.found.fitted.any(2).mean(0), marker=marker, mfc="none", label=name)
axis.set(xlabel="examples with random labels", ylabel="share of draws fitted", title="Ladders")
axis.legend(fontsize="small")
lab.figure(
    fig,
    caption="Mean size fitted: "
    + ", ".join(f"{name} {c.capacity.mean():.0f}" for name, c in list(capacity.items())[:6])
    + ".",
    alt="Share of label draws that are fitted without an error against the number of examples, six arms.",
)

# %%
step = np.log(1.26)
log = {name: c.log.mean() for name, c in capacity.items()}
true_labels = capacity["true labels: MLP, ReLU"]
true_share = true_labels.capacity.mean() / true_labels.size
ahead = capacity["CNN"].log - np.maximum(capacity["MLP, ReLU"].log, capacity["MLP, tanh"].log)
stochastic = {word: log["SGD"] - log[f"full batch, equal {word}"] for word in ("samples", "steps")}
rectified = log["MLP, ReLU"] - log["MLP, tanh"]
scatter = max(c.scatter for c in capacity.values() if c is not true_labels)

# %%
measured = {
    "true labels: examples fitted a parameter": true_labels.capacity / true_labels.size,
    "CNN, random labels": capacity["CNN"].capacity,
    "CNN over the better MLP, log, by draw": ahead,
    "SGD over full batch, log: equal samples": stochastic["samples"],
    "SGD over full batch, log: equal steps": stochastic["steps"],
    "ReLU over tanh, log": rectified,
}
control = {
    "MLP, ReLU, random labels": capacity["MLP, ReLU"].capacity,
    "MLP, tanh, random labels": capacity["MLP, tanh"].capacity,
    "two draws of one arm differ by, log, worst arm": scatter,
}

# %%
holds = {
    "fewer examples than parameters, also with true labels": lab.below(true_share, 1),
    "the CNN fits more than both MLPs, in every draw by a step of the ladder": lab.exceeds(ahead.min(), 0.9 * step),
    "SGD fits more than full batch by a step, samples equal": lab.exceeds(stochastic["samples"], 0.9 * step),
    "and with steps equal": lab.exceeds(stochastic["steps"], 0.9 * step),
    "ReLU fits more than tanh by a step": lab.exceeds(rectified, 0.9 * step),
    "two draws of an arm differ by less than a step in the mean": lab.below(scatter, step),
}
drawn = {name: "/".join(f"{n:.0f}" for n in c.capacity) for name, c in capacity.items() if "true" not in name}
reason = (
    f"the ReLU network fits {true_share:.2f} true labels a parameter (the ladder's top in {true_labels.found.censored} of {len(draws)} "
    f"draws). Random labels by draw: {', '.join(f'{name} {sizes}' for name, sizes in drawn.items())}; two draws of an arm differ by "
    f"up to {scatter:.2f} in the mean, a step of the ladder is {step:.2f}"
)

# %%
lab.claim(
    "shwartzziv2024flexible",
    "In practice networks fit fewer examples than they have parameters; convolution, stochastic gradients and ReLU raise the number",
    measured=measured,
    control=control,
    holds=holds,
    data=data.kind("mnist"),
    scaled="networks of 830 parameters on 8 x 8 digits; one optimizer budget; the link of capacities with generalization is not tested",
    reason=reason,
)

# %% [markdown]
# (paper-dang2023deepnc)=
# ## Neural collapse: the bottom of the landscape, exactly
#
# Late in training the last features of a class shrink to one point, and the points of all classes form a regular figure. Why?
# [Dang et al. (2023)](https://arxiv.org/abs/2301.00437) let the features $H$ be free variables before $M$ linear layers,
#
# $$\min\; \frac{1}{2N} \lVert W_M \cdots W_1 H - Y \rVert^2 + \sum_m \frac{\lambda_m}{2} \lVert W_m \rVert^2 + \frac{\lambda_H}{2} \lVert H \rVert^2 ,$$
#
# and find all global minima. The problem falls apart into one scalar problem a class with $n_k$ examples,
#
# $$s_k = \arg\min_{s \ge 0} \frac{(s - \sqrt{n_k})^2}{2N} + \frac{M+1}{2}\, c\, s^{2/(M+1)},\qquad c = (\lambda_1 \cdots \lambda_M \lambda_H)^{\frac{1}{M+1}} .$$
#
# Without bias, class vectors are *orthogonal*, with lengths set by the class sizes, and a class of at most $n^*$ examples
# collapses to zero: $n^* = N^2 \lambda_1 \lambda_H$ for one layer, $4 (N c)^{3/2}$ for two. For one layer a class fades away; for more it jumps,
# and zero is always a local minimum. Balanced data *with* bias form a simplex instead, all cosines $-1/(K-1)$.

# %%
counts, minority, layers = (100, 50, 20, 10), (100, 60, 30, 4), lab.pick(ci=[1, 2], gpu=[1, 2, 3])
plain = {
    m: [ex.LinearCase(counts, 5e-3 if m == 1 else 3e-3, 2e-4), ex.LinearCase((40,) * 4, 3e-3, 2e-4)] for m in layers
}
straddling = {m: ex.straddling_cases(minority, m, [3.6, 4.4, 12]) for m in layers}
results = {
    m: ex.train_linear(plain[m] + straddling[m], m, inits=5, seed=seed, steps=lab.pick(ci=2000, gpu=6000))
    for m in layers
}
rows = {}
for m in layers:
    for linear, result in zip(plain[m] + straddling[m], results[m]):
        limit = collapse_threshold(sum(linear.counts), [linear.weight_decay] * m, linear.feature_decay)
        rows[f"{m} layer{'s' * (m > 1)}, n = {linear.counts}, n* = {limit:.3g}"] = {
            "trained": " ".join(f"{s:.3f}" for s in result.singular_values),
            "theory": " ".join(f"{s:.3f}" for s in result.theory),
            "starts that lost a class": result.fallen,
        }

# %%
runs = [r for m in layers for r in results[m]]
gap = lab.rounding(max(r.objective_gap for r in runs), 1e-9)
value_gap = lab.rounding(max(r.value_gap for r in runs), 1e-6)
crossed = lab.rounding(max(max(r.off_diagonal, r.within) for r in runs), 1e-9)
balance = lab.rounding(max(r.balance for r in runs), 1e-9)
wrong = sum(int(((r.singular_values < 1e-3) != (r.theory == 0)).sum()) for r in runs)
lab.table(
    pd.DataFrame(rows).T.rename_axis("problem"),
    fmt="{:.0%}",
    caption=f"Singular values, the best of five random starts. Objective within {gap:.0e} of the closed form, singular values within "
    f"{value_gap:.0e}, off-diagonal products and spread within classes {crossed:.0e}; classes on the wrong side of the threshold: {wrong}.",
)

# %%
fig, axis = plt.subplots(figsize=(6, 3.6))
for m, marker in zip(layers, "osv"):
    for linear, result in zip(straddling[m], results[m][2:]):
        limit = collapse_threshold(sum(minority), [linear.weight_decay] * m, linear.feature_decay)
        x, y = np.array(minority) / limit, result.singular_values / np.sqrt(minority)
        axis.plot(
            x,
            y,
            marker,
            color=f"C{m - 1}",
            mfc="none",
            label=f"{m} layer{'s' * (m > 1)}, trained" if linear is straddling[m][0] else None,
        )
    sizes_nc, share_nc = ex.collapse_curve(m, [0.3, 40])
    axis.plot(sizes_nc, share_nc, color=f"C{m - 1}", linewidth=1)
axis.set(xscale="log", xlabel="class size / threshold n*", ylabel="s / root of class size", title="Fading and jumping")
axis.legend(fontsize="small")

# %%
lab.figure(
    fig,
    caption=f"Lines: closed form; the same for all problems in these units. Largest distance of a trained value: {value_gap:.0e}. Just "
    "above the threshold the share is "
    + ", ".join(f"{ex.collapse_curve(m, [1, 2])[1][0]:.2f} ({m} layer{'s' * (m > 1)})" for m in layers)
    + ".",
    alt="Relative singular value against class size over threshold: a continuous curve for one layer, a jump for two.",
)

# %% [markdown]
# **A real network.** Digits of four classes, 150, 100, 50 and 15 examples, and a network whose features before the head
# are linear; features and head alone are decayed, as in the model. The theory then gives directions *and* lengths without
# a free constant. The control must not be orthogonal: balanced classes and a head with bias. A third arm has a ReLU before the head,
# whose features cannot have negative products; it is reported only.

# %%
few_classes = (150, 100, 50, 15)
uneven = ex.imbalanced_subset(images.flatten(1), labels, few_classes, seed=seed)
even = ex.imbalanced_subset(images.flatten(1), labels, (80,) * 4, seed=seed)
steps_nc = lab.pick(ci=1200, gpu=6000)
orthogonal = ex.collapse_training(uneven, seeds=seeds, bias=False, steps=steps_nc)
simplex = ex.collapse_training(even, seeds=seeds, bias=True, steps=steps_nc)
rectified_nc = ex.collapse_training(uneven, seeds=seeds[:1], bias=False, relu=True, steps=lab.pick(ci=400, gpu=2000))
theory = ex.collapse_optimum(few_classes, [5e-3], 2e-4).weight_norms[0]
length_gap = np.abs(orthogonal.head_norms / theory - 1).max(1)

# %%
named = {"imbalanced, no bias": orthogonal, "balanced, bias": simplex, "imbalanced, ReLU features": rectified_nc}
words = {
    "NC1": "within",
    "|cos| of means": "mean_cosine",
    "|cos| of head": "head_cosine",
    "to the simplex": "mean_simplex",
}
table = {
    name: {
        f"{word}{when}": getattr(stage, field).mean()
        for word, field in words.items()
        for when, stage in ((", step 20", run.early), (", end", run.end))
    }
    for name, run in named.items()
}

# %%
lab.table(
    pd.DataFrame(table).T.rename_axis("network"),
    fmt="{:.2g}",
    caption=f"Mean over seeds. Lengths of the head's rows: {', '.join(f'{v:.3f}' for v in orthogonal.head_norms.mean(0))}; theory: "
    f"{', '.join(f'{v:.3f}' for v in theory)}; largest relative distance {length_gap.max():.1%}.",
)

# %%
ortho = np.stack([orthogonal.end.mean_cosine, orthogonal.end.head_cosine]).max(0)
away = np.stack([orthogonal.end.mean_simplex, orthogonal.end.head_simplex]).min(0)
fell = np.stack(
    [
        e - f
        for e, f in (
            (orthogonal.early.mean_cosine, orthogonal.end.mean_cosine),
            (orthogonal.early.head_cosine, orthogonal.end.head_cosine),
        )
    ]
).min()
opposite = np.stack(
    [simplex.end.mean_cosine - simplex.end.mean_simplex, simplex.end.head_cosine - simplex.end.head_simplex]
).min(0)

# %%
measured = {
    "linear: objective over theory, less 1": gap,
    "linear: singular values, largest distance": value_gap,
    "linear: off-diagonal and within classes": crossed,
    "linear: balance": balance,
    "linear: classes on the wrong side": wrong,
    "network: larger |cos| of means and head": ortho,
    "network: smaller distance to the simplex": away,
    "network: fall of |cos| since step 20": fell,
    "network: relative distance of lengths": length_gap,
}
control = {"balanced with bias: |cos| less distance to the simplex": opposite}

# %%
holds = {
    "training reaches the closed form's objective": lab.below(gap, 1e-6),
    "and its singular values": lab.below(value_gap, 1e-3),
    "class vectors are orthogonal, features collapse": lab.below(crossed, 1e-4),
    "exactly the classes below the threshold vanish": lab.below(wrong, 1),
    "factors are balanced": lab.below(balance, 1e-6),
    "network: nearer to orthogonal than to a simplex, every seed": lab.exceeds((away - ortho).min(), 0),
    "network: and on the way there since step 20": lab.exceeds(fell, 0),
    "network: lengths within 5 % of the theory": lab.below(length_gap.max(), 0.05),
    "balanced with bias: the opposite order, every seed": lab.exceeds(opposite.min(), 0),
}
reason = (
    f"objective {gap:.0e}, singular values {value_gap:.0e}, {wrong} classes on the wrong side; network |cos| {ortho.max():.3f}, lengths within "
    f"{length_gap.max():.1%}"
)

# %%
lab.claim(
    "dang2023deepnc",
    "The best deep linear networks show neural collapse at every layer; with imbalanced data the class vectors are orthogonal, with "
    "lengths set by the class sizes, and small classes vanish",
    measured=measured,
    control=control,
    holds=holds,
    data=data.kind("digits"),
    scaled="a two-layer network on four classes of 8 x 8 digits instead of deep networks on CIFAR-10 and EMNIST",
    reason=reason,
)

# %% [markdown]
# ## Family portrait: all questions to the same networks
#
# The three architectures of the section on capacity are trained on 300 digits, once with true labels and once with 30 % of
# all labels wrong, in training and test alike: with right test labels the gap would be that between two tasks. For each: the gap
# between test and training loss, and beside it everything this chapter measures. The capacity is the one of the architecture, for
# random labels. Wrong labels move many numbers at once; so the correlations are also taken among networks of equal labels.

# %%
small = ex.split_digits(pixels, labels, train=300, held_out=80, seed=seed)
builds = {"MLP, ReLU": relu, "MLP, tanh": tanh, "CNN": StridedConvNet}
portrait = {}
for share in (0.0, 0.3):
    wrong_labels = ex.noisy_labels(small.train[1], share, 10, seed=seed)
    wrong_answers = ex.noisy_labels(small.test[1], share, 10, seed=seed + 1)
    noisy = ex.Split(
        (small.train[0], wrong_labels), (small.held_out[0], wrong_labels[-80:]), (small.test[0], wrong_answers)
    )
    for name, build in builds.items():
        portrait[name, share] = ex.portrait_row(build, noisy, [80, 140, 200, 260], seeds=seeds, epochs=100, steps=100)

# %%
quantities = {
    "intrinsic dimension": "dimension",
    "largest eigenvalue": "top",
    "trace": "trace",
    "negative mass": "negative",
    "NC1": "collapse",
}
values = {word: np.concatenate([getattr(r, field) for r in portrait.values()]) for word, field in quantities.items()}
beyond = int(np.isinf(values["intrinsic dimension"]).sum())
values["intrinsic dimension"] = np.minimum(values["intrinsic dimension"], 400)
values["capacity"] = np.concatenate([np.full(len(seeds), capacity[name].capacity.mean()) for name, _ in portrait])
gaps = np.concatenate([r.gap for r in portrait.values()])
follows = {word: spearman(v, gaps) for word, v in values.items()}
apart = ex.correlations_apart(values, gaps, [share for _, share in portrait for _ in seeds])

# %%
fig, panels = plt.subplots(2, 3, figsize=(8.4, 5), sharey=True)
for panel, (word, v) in zip(panels.flat, values.items()):
    for i, (name, share) in enumerate(portrait):
        part = slice(i * len(seeds), (i + 1) * len(seeds))
        style = {"color": f"C{i // 3}", "mfc": "none", "label": f"{name}, {share:.0%} wrong"}
        panel.plot(v[part], gaps[part], "osv"[i % 3], **style)
    panel.set(xlabel=word, xscale="log" if word == "NC1" else "linear", title=f"rank correlation {follows[word]:.2f}")
panels[0, 0].set_ylabel("test loss - training loss")
panels[1, 0].set_ylabel("test loss - training loss")
panels[1, 2].legend(fontsize=6, loc="center")

# %%
lab.portrait(
    fig,
    caption=f"{len(gaps)} networks of about 830 parameters. Rank correlation with the generalization gap, and in brackets the mean of that "
    "among networks without and among networks with wrong labels: "
    + ", ".join(
        f"{word} {rho:.2f} ({apart[word]:.2f})" for word, rho in sorted(follows.items(), key=lambda one: -abs(one[1]))
    )
    + f". Sweeps that do not reach the mark: {beyond}, drawn at 400.",
    alt="Six scatter plots of the generalization gap against intrinsic dimension, spectrum, collapse and capacity.",
)

# %% [markdown]
# ## What is scaled down
#
# Networks have at most a few tens of thousands of parameters and mostly under a thousand, images have 64 pixels. Intrinsic dimensions are relative
# to a budget of a few hundred steps, the same for all networks; with more steps fewer dimensions do. Hessians are exact where the
# papers had to estimate, but of small networks on easy data. Capacity is a lower bound: what two or three runs a size reach in
# so many steps, without a second try of sizes that fail. Its link with generalization, the difference between true and random
# labels over many models, is not tested. The median that decides on negative curvature is one over five networks, and not a sharp number. The
# `gpu` profile takes more seeds and steps; everything in this chapter is computed on the CPU whatever `device` says.
#
# ## Exercises
#
# 1. Set `steps` to 800 in the subspace sweep. Does the intrinsic dimension fall, and by the same factor for all networks?
# 2. Give `ex.spectra` a case with $K = 8$ classes and 500 examples. Look at the loss at the end before you look at the gap.
# 3. In `ex.shift_study` take 60 Lanczos steps. Which of the criteria changes, and does its rank correlation?
# 4. Take `[2, 2, 2]` for the thresholds in `ex.straddling_cases` with two layers. How many starts now lose the small class that the global
#    minimum keeps?
# 5. Take three times the steps for `length` and `brief`. Which arms fit more, and in which is the top of the ladder now reached, so
#    that it must be made longer before the arms are compared?
# 6. Set `weight_decay=5e-2` in `ex.collapse_training`. Compare `collapse_threshold` with the smallest class before you run it.
