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
# # Connectivity
#
# Train the same network twice and you get two points in a space of a hundred thousand dimensions. What lies between
# them? If the loss stays low on the straight line, the two runs have found *one* solution; if it rises, they have found
# two, or the same one twice in different notation. The notation matters, because a network can be written in many ways:
# its neurons can change places, and in a network of ReLUs each neuron can be scaled. This chapter first counts these
# symmetries and finds some that nobody wrote down. Then it takes them away, to see whether ensembles are the better for it.
# Then it walks from one network to the other, layer by layer. And last it asks *when* two runs part, and whether what
# is known at the two ends tells how high the ridge between them is.

# %% tags=["parameters"]
profile, seed, device = "ci", 0, "cpu"

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from netatlas import data, lab
from netatlas.connectivity import experiments as ex
from netatlas.connectivity import ridge_landscape, ridge_walks
from netatlas.core.nn import ResNet
from netatlas.core.stats import spearman, stderr

lab.begin("connectivity", profile=profile, seed=seed, device=device)

# %%
lab.papers_table()

# %% [markdown]
# ## The shared kernel: symmetries, and a line between two networks
#
# Write $\pi$ for a reordering of the hidden neurons and $c > 0$ for a scaling. Both act on the weights,
#
# $$(\pi\theta)_\ell = P_\ell W_\ell P_{\ell-1}^\top, \qquad (c\,\theta)_\ell = C_\ell W_\ell C_{\ell-1}^{-1},$$
#
# and the function does not notice. The other half of the kernel is the *barrier* between two networks: how far the loss
# on the line rises above the straight line between the losses at its ends,
#
# $$B = \max_\alpha\ L\bigl((1-\alpha)\theta_1+\alpha\theta_2\bigr) - (1-\alpha)L(\theta_1) - \alpha L(\theta_2).$$
#
# A copy in another notation is the same function, yet the line to it has a barrier. That is the first thing to know
# about barriers: part of them is notation. Here are such copies of a network that has learnt the digits. To undo the notation, give
# every neuron incoming weights of norm one, and match the neurons by their weights.

# %%
copies = pd.DataFrame(ex.copy_table(lab.seeds(3))).set_index("copy")
for column, floor in (("change of the outputs", 1e-12), ("squared distance", 1e-9), ("barrier", 1e-9)):
    copies[column] = [float(lab.rounding(abs(v), floor)) if abs(v) < 1e-3 else v for v in copies[column]]
lab.table(
    copies,
    fmt="{:.2g}",
    caption=f"Means over three networks. No copy changes an output by more than {copies['change of the outputs'].max():.0e} of the largest, yet "
    f"the line to the copy in another order rises by {copies['barrier']['in another order']:.2f} in loss, to the scaled one by "
    f"{copies['barrier']['scaled']:.2f}. With scale and order undone, {copies['barrier']['the same, undone']:.0e} is left.",
)

# %% [markdown]
# (paper-grigsby2023hidden)=
# ## Hidden symmetries: directions that the function cannot see
#
# Are reordering and scaling all there is? [Grigsby, Lindsey and Rolnick (2023)](https://arxiv.org/abs/2306.06179) say no.
# A neuron that is never active on the inputs has weights that do not matter. A neuron that is always active is linear, and
# its bias can be moved into the next layer. Two neurons that are never active together leave the weight between them free.
# To count such directions without knowing them, differentiate the outputs by all parameters at many inputs and take the
# rank, the *functional dimension*:
#
# $$\dim_{\mathrm{fun}}(\theta) = \sup_Z\ \mathrm{rank}\,\bigl[\partial f_\theta(z)/\partial\theta\bigr]_{z\in Z}
# \ \le\ \sum_\ell n_\ell n_{\ell-1} + n_L .$$
#
# The bound is all parameters minus one scale for each hidden neuron. A network that reaches it has no continuous hidden
# symmetry; one that stays below has some, on the inputs that were sampled. So the count needs a check that it is not a matter of
# too few inputs: it is made twice, with 20 and with 100 inputs a parameter.
#
# First the mechanisms, planted by hand into networks that had lost nothing.

# %%
planted = pd.DataFrame(ex.planted_table(lab.seeds(6)))
exact = [set(row.lost) == {row.predicted} for row in planted.itertuples()]
shown = planted.assign(
    widths=[" → ".join(map(str, w)) for w in planted.widths], lost=[", ".join(map(str, v)) for v in planted.lost]
).set_index("mechanism")
lab.table(
    shown.rename(columns={"predicted": "directions lost, predicted", "lost": "measured, one number a network"}),
    caption=f"In {sum(exact)} of {len(exact)} mechanisms the rank falls by the predicted number in every network. A dead "
    "neuron costs its incoming and its outgoing weights; the other two cost one direction each.",
)

# %% [markdown]
# Now random networks: weights $N(0, 2/n_{\ell-1})$, biases of standard deviation 0.1, one output. Depth at width 5 and
# five inputs; then, with two hidden layers, the width and the number of inputs. Two ablations: with leaky ReLU a neuron can no longer be
# dead, only linear; with tanh there is neither scaling nor any of the three mechanisms.

# %%
nets = lab.pick(ci=20, gpu=200)
depths = lab.pick(ci=[1, 2, 3, 4, 5], gpu=[1, 2, 3, 4, 5, 6, 8, 10])
deep = {d: ex.sample_ranks([5] + [5] * d + [1], lab.seeds(nets)) for d in depths}
leaky = {d: ex.sample_ranks([5] + [5] * d + [1], lab.seeds(nets), slope=0.1) for d in depths}
wide = {w: ex.sample_ranks([5, w, w, 1], lab.seeds(2 * nets if w == 5 else nets)) for w in (5, 10, 15)}
fed = {n: wide[10] if n == 5 else ex.sample_ranks([n, 10, 10, 1], lab.seeds(nets)) for n in (2, 5, 10)}
smooth = [ex.smooth_rank([5, 5, 5, 1], s) for s in lab.seeds(3)]

# %%
everything = [*deep.values(), *wide.values(), *fed.values()]
kept, dropped = min(s.gap[0] for s in everything), max(s.gap[1] for s in everything)
over = max(int((s.ranks - s.largest).max()) for s in everything)
moved = ex.ranks_moved_by_symmetries([5, 5, 5, 1], lab.seeds(5))
share = {m: [float(deep[d].full(c).mean()) for d in depths] for c, m in enumerate((20, 100))}
growing = [deep[d].still_growing() for d in depths]
fallen = {m: spearman(depths, share[m]) for m in share}
by_width = float(wide[15].full().mean() - wide[5].full().mean())
by_inputs = float(fed[10].full().mean() - fed[2].full().mean())
noise = {
    n: np.hypot(stderr(a.full()), stderr(b.full())) for n, a, b in (("w", wide[15], wide[5]), ("n", fed[10], fed[2]))
}

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.4))
for m, style in zip(share, ("--", "-")):
    axes[0].plot(depths, share[m], style, marker="o", label=f"ReLU, {m} inputs a parameter")
axes[0].plot(depths, [leaky[d].full().mean() for d in depths], marker="s", label="leaky ReLU, 100")
axes[1].plot(depths, [deep[d].deficit().mean() for d in depths], marker="o", label="ReLU")
axes[1].plot(depths, [leaky[d].deficit().mean() for d in depths], marker="s", label="leaky ReLU")
for label, group in (("width (5 inputs)", wide), ("inputs (width 10)", fed)):
    values = [group[n].full() for n in group]
    axes[2].errorbar(
        list(group), [v.mean() for v in values], [2 * stderr(v) for v in values], marker="o", capsize=2, label=label
    )
axes[0].set(title="Depth, width 5", xlabel="hidden layers", ylabel="share without hidden symmetry")
axes[1].set(title="How many are hidden", xlabel="hidden layers", ylabel="directions lost, mean")
axes[2].set(title="Two hidden layers", xlabel="neurons or inputs", ylabel="share without hidden symmetry")
axes[0].legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18))
axes[1].legend(fontsize=7)
axes[2].legend(fontsize=7)

# %%
lab.figure(
    fig,
    caption=f"{nets} networks a point. Without hidden symmetry: {share[100][0]:.0%} of the networks at depth {depths[0]}, "
    f"{share[100][-1]:.0%} at depth {depths[-1]}, with {deep[depths[-1]].deficit().mean():.1f} directions lost on average "
    f"(leaky ReLU {leaky[depths[-1]].deficit().mean():.1f}). Share whose rank still grew from 20 to 100 inputs a parameter, by "
    f"depth: {', '.join(f'{g:.2f}' for g in growing)}; with 20 the share at the greatest depth is {share[20][-1]:.0%}. "
    f"The smallest singular value that counts is {lab.rounding(kept, 1e-7):.0e} of the largest, the largest that does not {lab.rounding(dropped, 1e-14):.0e}.",
    alt="Three panels: share of networks of full functional dimension against depth, lost directions against depth, share "
    "against width and number of inputs.",
)

# %%
measured = {
    "share without hidden symmetry at the greatest depth": deep[depths[-1]].full(),
    "the same, 20 inputs a parameter": deep[depths[-1]].full(0),
    "rank correlation of share and depth, 100 inputs a parameter": fallen[100],
    "rank correlation of share and depth, 20 inputs a parameter": fallen[20],
    "share: width 15 minus width 5": by_width,
    "share: 10 inputs minus 2 inputs": by_inputs,
    "standard error of the difference in width": noise["w"],
    "standard error of the difference in inputs": noise["n"],
    "planted mechanisms that lose what was predicted": sum(exact),
}
control = {
    "share without hidden symmetry at depth 1": deep[1].full(),
    "largest rank above the bound": over,
    "networks whose rank moves by scaling and reordering": moved,
    "tanh: parameters minus rank": lab.each([count - rank for rank, count in smooth]),
}

# %%
holds = {
    "the share falls with depth, to at most one in twenty, at both numbers of inputs": (
        lab.below(max(fallen.values()), -0.9 + 1e-9) & lab.below(max(share[20][-1], share[100][-1]), 0.05 + 1e-9)
    ),
    "it is larger at width 15 than at 5, by two standard errors": lab.exceeds(by_width, 2 * noise["w"]),
    "it is larger with 10 inputs than with 2, by two standard errors": lab.exceeds(by_inputs, 2 * noise["n"]),
    "one hidden layer has none": lab.exceeds(share[100][0], 1 - 1e-9),
    "no rank exceeds the bound or moves by known symmetries": lab.below(max(over, moved), 0.5),
    "planted mechanisms lose what was predicted": lab.exceeds(sum(exact), len(exact) - 0.5),
}

# %%
reason = (
    f"With two hidden layers {wide[5].full().mean():.0%} of {len(wide[5].ranks)} networks of width 5 and "
    f"{wide[15].full().mean():.0%} of {len(wide[15].ranks)} of width 15 have no hidden symmetry; the difference {by_width:.3f} has "
    f"a standard error of {noise['w']:.3f}, so this many networks cannot decide it. Width 10 has {wide[10].full().mean():.0%}."
)

# %%
lab.claim(
    "grigsby2023hidden",
    "Beyond permutations and scalings, random ReLU networks have hidden symmetries, the more the deeper and the fewer "
    "the wider they are",
    measured=measured,
    control=control,
    holds=holds,
    scaled=f"{nets} networks a size (twice as many at width 5), widths 5 to 15, at most 100 inputs a parameter",
    reason=reason,
)

# %% [markdown]
# (paper-chernov2025asymensembles)=
# ## Ensembles without symmetry: does each member count for more?
#
# If two networks may write one function differently, take the freedom away: freeze in each row of a layer a few weights,
# at other places in every row, at fixed random values. Two neurons then can no longer change places. With mask $M$ and
# frozen values $\kappa G$,
#
# $$W = M \odot V + (1-M)\odot \kappa\,G .$$
#
# [Chernov and Novitskij (2025)](https://arxiv.org/abs/2502.17391) report that ensembles of such networks gain more from
# every further member, though a single one is no better. The trap is in the word *gain*: a worse single network gains more
# from an ensemble, without any help of symmetry. So the absolute score decides here, and the gain is judged beside a
# control, plain networks stopped so early that a single one is as weak as an asymmetric one with $\kappa=1$. Both arms have two
# settings to choose from, on the validation part of the first split: the plain one its weight decay, the asymmetric one $\kappa$. The
# rate of both is 0.003. It was raised from the paper's 0.001 after a first run, in which neither arm had finished learning.

# %%
names = lab.pick(ci=["digits", "breast_cancer", "diabetes"], gpu=["digits", "breast_cancer", "diabetes", "wine"])
budget = lab.pick(ci={"width": 32, "members": 16, "steps": 200}, gpu={"width": 64, "members": 64, "steps": 1000})
splits = {
    n: ex.tabular_splits(n, lab.seeds(lab.pick(ci=4, gpu=10)), noise=float(n != "diabetes"), device=device)
    for n in names
}
studies = {n: ex.ensemble_study(splits[n], seed=seed, lr=3e-3, ablations=n == names[0], **budget) for n in names}
tests = {n: ex.one_sided_lead(s.scores["asymmetric"][:, -1] - s.scores["plain"][:, -1]) for n, s in studies.items()}
nulls = {
    n: ex.one_sided_lead(s.scores["plain, other seeds"][:, -1] - s.scores["plain"][:, -1]) for n, s in studies.items()
}
gains = {n: ex.one_sided_lead(s.gain("asymmetric") - s.gain("plain")) for n, s in studies.items()}
weak = {n: ex.one_sided_lead(s.gain("asymmetric, scale 1") - s.gain("weak plain")) for n, s in studies.items()}
lab.glue("smallest_r2", min(float(v[:, 0].min()) for v in studies["diabetes"].scores.values()), fmt=".2f")
won, won_null = (sum(mean > bound for mean, bound in found.values()) for found in (tests, nulls))
gained = sum(gains[n][0] > gains[n][1] and weak[n][0] > weak[n][1] for n in names)

# %%
fig, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.6))
for axis, (n, study) in zip(axes, studies.items()):
    for arm in ("plain", "asymmetric", "asymmetric, scale 1", "weak plain"):
        axis.errorbar(
            study.sizes,
            study.scores[arm].mean(0),
            [stderr(c) for c in study.scores[arm].T],
            marker="o",
            capsize=2,
            label=arm,
        )
    axis.set(title=n, xlabel="members", ylabel="R²" if n == "diabetes" else "accuracy", xscale="log")
    axis.set_xticks(study.sizes, [str(s) for s in study.sizes], minor=False)
    axis.minorticks_off()
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)

# %%
lab.figure(
    fig,
    caption="Test score against ensemble size; bars are standard errors over splits. Asymmetric minus plain at the largest size: "
    + "; ".join(f"{n} {mean:+.4f} (must exceed {bound:.4f})" for n, (mean, bound) in tests.items())
    + f". It passes on {won} of {len(names)} data sets; plain against plain with other seeds passes on {won_null}.",
    alt="One panel a data set: score against the number of members for plain, asymmetric and weak plain networks.",
)

# %%
first = studies[names[0]]
table = pd.DataFrame(
    {
        "single": {arm: float(v[:, 0].mean()) for arm, v in first.scores.items()},
        f"{first.sizes[-1]} members": {arm: float(v[:, -1].mean()) for arm, v in first.scores.items()},
        "weights averaged": {arm: float(v.mean()) for arm, v in first.single_average.items()},
        "disagreement": first.disagreement,
    }
).rename_axis(f"accuracy on {names[0]}")
lab.table(
    table,
    caption=f"Chosen on validation data: κ = {first.settings['asymmetric']:g}, weight decay {first.settings['plain']:g}. One network made of the "
    f"mean of all weights has {table['weights averaged']['asymmetric, scale 1']:.2f} with shared frozen weights of scale 1, "
    f"{table['weights averaged']['own masks']:.2f} with masks of their own and {table['weights averaged']['plain']:.2f} for plain networks. "
    f"The gain of scale 1 ({first.gain('asymmetric, scale 1').mean():.1%}) "
    f"is to be read beside that of the weak plain networks ({first.gain('weak plain').mean():.1%}, stopped after {first.weak_steps} steps).",
)

# %% [markdown]
# A relative gain in $R^2$ is loud: the least that a single network has on the regression table is {glue:text}`smallest_r2`, and the gain divides by it.
# It is the paper's measure and stays, but the absolute score is the one to read.
#
# The same question for mixtures of experts, where a gate chooses for each sample: mixing the experts' *outputs*, or their
# *weights* before every activation. The paper found nothing conclusive here. To agree with that, an interval has to contain
# zero *and* be narrow; a wide one says only that there was too little data.

# %%
mixtures = ex.mixture_study(
    splits["digits"], width=32, experts=4, members=2, steps=200, seed=seed, lr=3e-3, scale=first.settings["asymmetric"]
)
edges = {
    kind: ex.interval(mixtures[f"{kind}, asymmetric"] - mixtures[f"{kind}, plain"]) for kind in ("outputs", "weights")
}
farthest = max(map(abs, [*edges["outputs"], *edges["weights"]]))
checks = ex.exact_checks(seed)
broken = checks.pop("places exchanged, frozen weights restored: another function")
largest = lab.rounding(max(checks.values()), 1e-12)
lab.table(
    pd.DataFrame({k: {"plain": float(mixtures[f"{k}, plain"].mean()), "asymmetric": float(mixtures[f"{k}, asymmetric"].mean()),
                      "difference, low": low, "difference, high": high} for k, (low, high) in edges.items()}).T.rename_axis("mixture of"),
    caption="Accuracy of mixtures of four experts, and the 95 % interval of the difference over splits: "
    + "; ".join(f"{k} {ex.conclusion(*e)}" for k, e in edges.items()) + f". What must hold exactly holds to {largest:.0e}.",
)  # fmt: skip

# %%
measured = {
    f"{n}: asymmetric minus plain, largest ensemble": studies[n].scores["asymmetric"][:, -1]
    - studies[n].scores["plain"][:, -1]
    for n in names
}

# %%
measured |= {
    f"{n}: relative gain, asymmetric minus plain": studies[n].gain("asymmetric") - studies[n].gain("plain")
    for n in names
}
measured |= {"data sets won": won, "data sets with a larger gain, beyond the weak control": gained}
measured |= {"mixtures: difference at the farthest end of both intervals": farthest}
measured |= {"exact cases: largest error": largest}
control = {
    "data sets won by plain networks with other seeds": won_null,
    "frozen weights restored after an exchange: change of the output": broken,
}
control |= {
    f"{n}: relative gain, scale 1 minus weak plain": studies[n].gain("asymmetric, scale 1")
    - studies[n].gain("weak plain")
    for n in names
}

# %%
holds = {
    "asymmetric ensembles are better on at least two thirds of the data sets": lab.exceeds(
        won, 2 * len(names) / 3 - 0.5
    ),
    "they gain more, and more than equally weak plain networks": lab.exceeds(gained, 2 * len(names) / 3 - 0.5),
    "mixtures: no difference, to two points": lab.below(farthest, 0.02),
    "plain networks with other seeds do not pass": lab.below(won_null, 2 * len(names) / 3 - 0.5),
    "averages, exchanges and gates are exact": lab.below(largest, 1e-6),
    "frozen weights do break the symmetry": lab.exceeds(broken, 0.1),
}

# %%
reason = (
    "Differences at the largest size, with what a one-sided t test asks: "
    + "; ".join(f"{n} {mean:+.4f} ({bound:.4f})" for n, (mean, bound) in tests.items())
    + ". Relative gain beyond plain networks: "
    + "; ".join(f"{n} {gains[n][0]:+.3f} ({gains[n][1]:.3f})" for n in names)
    + "; of scale 1 beyond equally weak plain networks: "
    + "; ".join(f"{n} {weak[n][0]:+.3f} ({weak[n][1]:.3f})" for n in names)
    + ". Mixtures: "
    + "; ".join(f"{k} [{low:+.3f}, {high:+.3f}]" for k, (low, high) in edges.items()) + "."
)  # fmt: skip

# %%
lab.claim(
    "chernov2025asymensembles",
    "Ensembles of networks with fewer symmetries gain more from every further member than ensembles of ordinary networks",
    measured=measured,
    control=control,
    holds=holds,
    scaled=f"{len(names)} small tables with added noise, {budget['members']} members of width {budget['width']}, {budget['steps']} steps without early stopping, "
    "instead of five data sets, 64 members and up to 200 epochs",
    data="real",
    reason=reason,
)

# %% [markdown]
# (paper-adilova2023layerwise)=
# ## Layer by layer: where on the way is the barrier?
#
# [Adilova and others (2023)](https://arxiv.org/abs/2307.06966) average one layer of two networks and leave all others as they
# are. Even where the full average is ruined, they see no barrier:
#
# $$B_S = L\bigl(\theta_1 \text{ with layer } S \text{ at } \tfrac12(\theta_1+\theta_2)\bigr)
# - \tfrac12\bigl(L(\theta_1)+L(\theta_2)\bigr) \approx 0 .$$
#
# Part of that is bookkeeping, since one layer is only a part of the way. Two controls go just as far: in a *random* direction
# of the same layer, and along the line of *all* layers together. A small $B_S$ is a finding if it is well below the second.
# The pairs start from the same weights and see the data in different orders, as in the paper; pairs from different starts are
# shown beside them. A pair whose full barrier is below 0.05 has nothing to explain and does not count.

# %%
name = lab.pick(ci="mnist", gpu="cifar10_jpeg")
stand_in = {"mnist": data.digit_images, "cifar10_jpeg": data.colour_images}[name]
images, labels = (
    part.to(lab.device()) for part in data.load(name, limit=lab.pick(ci=8000, gpu=30_000), stand_in=stand_in)
)
pixels, inputs = (images - images.mean()) / images.std(), images[0].numel()
count = lab.pick(ci=3000, gpu=24_000)
train, held_out = (pixels[:count], labels[:count]), (pixels[-1000:], labels[-1000:])
judged = (train[0][:1000], train[1][:1000])
recipe = lab.pick(
    ci={"epochs": 6, "batch_size": 60, "lr": 0.02, "momentum": 0.9},
    gpu={"epochs": 40, "batch_size": 60, "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"},
) | {"device": device}

# %%
network = lab.pick(
    ci=partial(ex.he_network, [inputs, *[64] * 5, 10]), gpu=partial(ResNet, 32, 2, 10, norm="none", bias=True)
)
same = ex.train_pairs(network, train, lab.seeds(12), shared_start=True, **recipe)
apart = ex.train_pairs(network, train, lab.seeds(6), shared_start=False, **recipe)
rows = {
    "same start": ex.layer_ratios(same, judged, seed=seed),
    "independent": ex.layer_ratios(apart, judged, seed=seed),
}
unseen = ex.layer_ratios(same, held_out, seed=seed)

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.5))
for axis, (title, found) in zip(axes, rows.items()):
    place = range(1, len(found.layers) + 1)
    axis.errorbar(
        place,
        found.barrier.mean(1),
        [stderr(b) for b in found.barrier],
        marker="o",
        capsize=2,
        label="one layer averaged",
    )
    axis.plot(place, found.joint, "s--", label="as far, along all layers")
    axis.plot(place, found.random, "^:", label="as far, random direction")
    axis.axhline(found.full.mean(), color="0.5", label="full barrier")
    axis.set(title=title.capitalize(), xlabel="layer, from the input", ylabel="barrier in loss")
for title, order in (("from the input", 1), ("from the output", -1)):
    curve = ex.cumulative(same, judged, order)
    axes[2].plot(range(curve.shape[0]), curve.mean(1), marker="o", label=title)

# %%
axes[2].set(title="Growing set, same start", xlabel="layers averaged", ylabel="barrier in loss")
axes[0].legend(fontsize=7)
axes[2].legend(fontsize=7)

# %%
start, other = rows["same start"], rows["independent"]
worst = int(start.share().argmax())
lab.figure(
    fig,
    caption=f"Same start, {len(start.full)} of {start.trained} pairs with a barrier to explain ({start.full.mean():.3f} on average): one layer's barrier is at most "
    f"{np.delete(start.share(), worst).max():.1%} of the full one, but for layer {worst + 1} ({start.share()[worst]:.0%}), where {ex.displacement_share(same, worst):.0%} of the "
    f"squared distance lies. Independent starts (full {other.full.mean():.2f}): between {other.share().min():.0%} and {other.share().max():.0%}.",
    alt="Barriers of single layers with two controls, for pairs with the same start and with different starts, and the barrier of a growing set of layers.",
)

# %% [markdown]
# The word barrier has a second sense: on the segment in that layer alone, compared with the ends *of the segment*. There a barrier
# cannot occur where the loss is convex in the layer, that is always in the last layer, and in every layer of a linear network. In
# this sense {glue:text}`sagging` layers of our networks sag on average over the pairs; but the far end of the segment, one layer of the other network put into this one, is so bad that this says little.

# %%
middle = slice(1, len(start.layers) - 1)
below_joint = float((start.barrier.mean(1) < start.joint / 2)[middle].mean())
below_random = float((start.barrier.mean(1) <= start.random + 0.02)[middle].mean())
head = max(float(start.segment[-1].max()), float(unseen.segment[-1].max()))
bend = ex.linear_network_bend(seed)
itself = ex.layer_ratios(ex.Pairs(same.module, same.first, same.first), judged, seed=seed, least=-1.0)
strict = float(start.barrier.mean(1).max())
lab.glue("sagging", f"{int((start.segment.mean(1) < 0).sum())} of {len(start.layers)}")
ablation = {}
for title, widths, change in (
    ("width 32", [32] * 5, {}),
    ("two hidden layers", [64] * 2, {}),
    ("rate 0.05", [64] * 5, {"lr": 0.05}),
):
    build = partial(ex.he_network, [inputs, *widths, 10])
    pairs = ex.train_pairs(build, train, lab.seeds(6), shared_start=True, **recipe | change)
    ablation[title] = ex.layer_ratios(pairs, judged, seed=seed, draws=1)

# %%
cases = {"width 64, six layers": start, "the same, unseen images": unseen, **ablation, "independent starts": other}
lab.table(
    pd.DataFrame({name: ex.layer_row(found) for name, found in cases.items()}).T.rename_axis(
        "pairs with the same start"
    ),
    caption="The first layer carries most of what one layer can carry in "
    f"{sum(ex.layer_row(f)['first layer / full'] == max(f.share()) for f in cases.values() if len(f.full))} of {len(cases)} rows. "
    "Rows without a pair above 0.05 have nothing to explain and stay empty.",
)

# %%
measured = {
    "full barrier, same start": start.full,
    "largest layer barrier / full barrier": start.share().max(),
    "the same without the first layer": start.share()[1:].max(),
    "pairs with a barrier to explain": len(start.full),
    "middle layers below half of the joint control": below_joint,
    "middle layers no worse than a random direction (+.02)": below_random,
}

# %%
measured |= {
    "largest layer barrier": strict,
    "last layer, segment sense: largest": head,
    "linear network: smallest second difference": bend,
    "independent starts: largest layer barrier / full barrier": other.share().max(),
}
control = {"a network with itself: largest layer barrier": lab.rounding(abs(itself.barrier).max(), 1e-9)}

# %%
holds = {
    "every layer's barrier is below a tenth of the full one, over three pairs or more": (
        lab.below(start.share().max(), 0.1) & lab.exceeds(len(start.full), 2.5)
    ),
    "for all layers but the first it is": lab.below(start.share()[1:].max(), 0.1),
    "at least half of the middle layers stay below half of the joint control": lab.exceeds(below_joint, 0.5 - 1e-9),
    "and do no worse than a random direction": lab.exceeds(below_random, 0.5 - 1e-9),
    "convex where it must be": lab.below(head, 1e-6) & lab.exceeds(bend, -1e-9),
    "a network has no barrier with itself": lab.below(lab.rounding(abs(itself.barrier).max(), 1e-9), 1e-6),
}

# %%
reason = (
    f"The first layer alone has {start.share()[0]:.0%} of the full barrier; the input has {inputs} values, and the layer holds {ex.displacement_share(same, 0):.0%} of the squared "
    f"distance between the two networks. Without it the largest share is {start.share()[1:].max():.1%}. The largest barrier of a single layer is {strict:.3f} "
    f"in loss, so “no layer has a barrier” in the strict sense (below .02) does not hold in these networks either."
    + lab.pick(ci=" Convolutional networks, whose first layer is small, are left to the gpu profile.", gpu="")
)

# %%
lab.claim(
    "adilova2023layerwise",
    "Averaging a single layer of two networks meets no barrier even where averaging all of them does",
    measured=measured,
    control=control,
    holds=holds,
    scaled=lab.pick(
        ci=f"six-layer MLP of width 64 on {count} MNIST images, {recipe['epochs']} epochs, instead of ResNet18 on CIFAR-10 for 200",
        gpu="a residual network of 13 layers on JPEG-compressed CIFAR-10, 40 epochs, instead of ResNet18 for 200",
    ),
    data=data.kind(name),
    reason=reason,
)

# %% [markdown]
# (paper-singh2024landscaping)=
# ## Mountainside and ridge: when do two runs part?
#
# [Singh and others (2024)](https://arxiv.org/abs/2406.16300) draw a picture: training comes down a mountainside, and at some height a
# ridge begins. Runs that part above it may slide down on different sides; runs that part below stay in one valley. A toy shows it
# with two coordinates, one valley that forks where $y>0$:
#
# $$L(x, y) = \bigl(x^2 - s(y)\bigr)^2 - \tfrac12\min(y, \tfrac32), \qquad s(y) = \min(\max(y, 0), 1).$$
#
# Pairs of walks share their noise for a while and then part. Each then walks 1500 noisy steps; after the 1000 first planned, one of them
# was still on the ridge.

# %%
walks = {k: ridge_walks(k, pairs=lab.pick(ci=200, gpu=2000), seed=seed) for k in (0, 100, 200, 250, 300, 400, 600)}
heights = [w.branch_height for w in walks.values()]
different = [float(w.apart.double().mean()) for w in walks.values()]
across = np.concatenate([w.barrier[w.apart].numpy() for w in walks.values()])
along = np.concatenate([w.barrier[~w.apart].numpy() for w in walks.values()])
late = max(d for h, d in zip(heights, different) if h > 0.4)

# %%
grid_x, grid_y = ex.plane((-1.6, 1.6), (-1.2, 1.8))
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
axes[0].contourf(grid_x, grid_y, ridge_landscape(grid_x, grid_y).clamp(max=1.5), levels=20)
for ends in (walks[0].first, walks[0].second):
    axes[0].scatter(ends[:40, 0], ends[:40, 1], s=12, color="white", edgecolor="black", linewidth=0.5)
axes[0].scatter([0], [-1], marker="*", s=90, color="white", edgecolor="black")
axes[0].set(title="The toy landscape", xlabel="x", ylabel="y")
axes[1].plot(heights, different, marker="o")
axes[1].axvline(0, color="0.5", linestyle="--")
axes[1].set(title="Where pairs part", xlabel="y at the branch", ylabel="share in different valleys")
lab.figure(
    fig,
    caption=f"Left: start (star) and ends (dots) of walks. Right: {different[0]:.0%} of the pairs that part at once end in different valleys, {late:.0%} at most of those that "
    f"part well above the fork (dashed). Between different valleys the barrier is {across.min():.3f} to {across.max():.3f}, within one valley at most {along.max():.3f}.",
    alt="Contours of a valley that forks, and the share of pairs in different valleys falling with the height at which they part.",
)

# %% [markdown]
# Can the barrier be told from the two ends alone? Expand the loss at each end to second order along $D=\theta_2-\theta_1$ and weight the two
# expansions by their nearness. Half way this gives
#
# $$B \approx \tfrac14 (g_1-g_2)\cdot D + \tfrac1{16}\, D^\top (H_1+H_2)\, D .$$
#
# On one quadratic bowl the gradients turn the sign of the curvature around, and the formula says, correctly, that there is no barrier. Without
# them it could not say so wherever the curvature is positive. (The expansion is ours: the paper's constants could not be confirmed.) Pairs of real networks share their
# batches up to the branch and see different ones after it; momentum is shared too. The rate is constant, so one run serves two arms: a fixed total of epochs, and a fixed number *after* the branch, because runs that
# part later have otherwise had less time to move away from each other. Beside the rank correlation over all pairs stands that *within* groups of equal
# branch time. With few pairs a group its interval is wide, and can rule out little; pairs that the bootstrap draws twice count as tied.

# %%
times = lab.pick(ci=[0, 0.25, 1], gpu=[0, 0.1, 0.25, 0.5, 1, 2])
shape = partial(ex.he_network, [inputs, *[64] * 4, 10])
training = {"batch_size": 60, "lr": 0.05, "momentum": 0.9, "device": device}
total, after = ex.branching_runs(
    shape, train, judged, pairs=lab.pick(ci=3, gpu=6), seed=seed, times=times, total=6, after=4, **training
)
null_square, null_barrier = ex.unparted_pair(shape, train, seed=seed, **training)
ranks, ranks_square, wins = ex.rank_difference(total, "predicted", "square", seed=seed)
ranks_bent = ex.rank_difference(total, "bent", "square", draws=1)[0]
inner, low, high = ex.within_groups(total, "predicted", seed=seed)
by_layer, by_layer_square = (ex.layer_rank_correlations(total, part) for part in ("layers_predicted", "layers_square"))

# %%
arms = {"fixed total": total[:-1], "fixed time after the branch": after}
falls = {arm: ex.fall(groups) for arm, groups in arms.items()}
at_start = min(float(groups[0].barrier.mean()) for groups in arms.values())
at_one = max(float(groups[times.index(1)].barrier.mean()) for groups in arms.values())

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.8, 3.6))
for arm, groups in arms.items():
    axes[0].errorbar(
        times,
        [float(g.barrier.mean()) for g in groups],
        [stderr(g.barrier) for g in groups],
        marker="o",
        capsize=2,
        label=arm,
    )
for group in total:
    axes[1].scatter(group.predicted, group.middle, label=f"branch {group.name}")
lowest, highest = (f([float(f(g.middle)) for g in total]) for f in (min, max))
axes[1].plot([lowest, highest], [lowest, highest], color="0.5", linewidth=1)
axes[0].set(title="Barrier", xlabel="epochs before the branch", ylabel="barrier in loss")
axes[1].set(title="From the ends alone", xlabel="second-order prediction", ylabel="barrier at one half")
for axis in axes:
    axis.legend(fontsize=7)

# %%
lab.figure(
    fig,
    caption=f"Left: parting at the start gives {at_start:.3f} or more, after one epoch {at_one:.3f} at most. Right (line: equality): rank correlation with the prediction {ranks:.2f} "
    f"({ranks_bent:.2f} without gradients), with the squared distance alone {ranks_square:.2f}; the prediction is ahead in {wins:.0%} of the bootstrap samples. Within groups of equal branch "
    f"time it is {inner:.2f} [{low:.2f}, {high:.2f}]" + (": zero is inside, so that it orders pairs, and not only branch times, is not shown." if low <= 0 else ".")
    + f" Measured over predicted: {ex.mean_ratio(total[-1]):.2f} for independent runs, {ex.mean_ratio(total[0]):.2f} for a shared start.",
    alt="Barrier against the time of the branch in two arms, and measured against predicted barriers.",
)  # fmt: skip

# %%
table = pd.DataFrame(
    {
        f"{arm}, {g.name}": ex.branch_row(g)
        for arm, groups in {**arms, "no common start": total[-1:]}.items()
        for g in groups
    }
).T
lab.table(
    table.rename_axis("arm, epochs before the branch"),
    caption="Means over pairs. The angle between the two ways since the branch falls from "
    f"{table['angle, degrees'].iloc[0]:.0f} to {table['angle, degrees'].iloc[len(times) - 1]:.0f} degrees with a fixed total. A pair that never parts has distance {null_square:.0f} and barrier {null_barrier:.0f}.",
)

# %%
measured = {
    "rank correlation with the barrier: second order": ranks,
    "rank correlation with the barrier: squared distance alone": ranks_square,
    "bootstrap samples in which second order is ahead": wins,
    "rank correlation over layers: second order": by_layer,
    "rank correlation over layers: squared distance in the layer": by_layer_square,
    "rank correlation of barrier and branch time, larger of both arms": max(falls.values()),
    "barrier, parting at the start, smaller of both arms": at_start,
    "barrier, parting after one epoch, larger of both arms": at_one,
}

# %%
measured |= {
    "rank correlation within groups of equal branch time": inner,
    "the same, lower end of its interval": low,
    "toy: share in different valleys, parting at once": different[0],
    "toy: the same, parting above the fork": late,
    "toy: largest miss of the ridge's height": abs(across - 1).max(),
}
control = {
    "toy: largest barrier within one valley": lab.rounding(along.max(), 1e-9),
    "a pair that never parts: barrier": null_barrier,
    "the same: squared distance": null_square,
}

# %%
holds = {
    "second order ranks the barriers (at least .8), and better than distance alone in 90 % of bootstrap samples": (
        lab.exceeds(ranks, 0.8) & lab.exceeds(wins, 0.9)
    ),
    "it ranks the layers (at least .8), better than distance alone": (
        lab.exceeds(by_layer.mean(), 0.8) & lab.exceeds(by_layer.mean(), by_layer_square.mean())
    ),
    "later branches have lower barriers, in both arms": (
        lab.below(max(falls.values()), -0.8) & lab.exceeds(at_start, 0.1) & lab.below(at_one, 0.02)
    ),
    "toy: the barrier is the ridge's height, or nothing": (
        lab.below(abs(across - 1).max(), 0.01) & lab.below(lab.rounding(along.max(), 1e-9), 0.01)
    ),
    "toy: half of the pairs part before the ridge, few after it": lab.within(different[0], 0.4, 0.6)
    & lab.below(late, 0.1),
    "a pair that never parts has no barrier": lab.below(max(null_barrier, null_square), 1e-9),
}

# %%
reason = (
    f"The prediction and the squared distance rank the {sum(len(g.middle) for g in total)} pairs nearly alike ({ranks:.2f} and {ranks_square:.2f}), because both follow the time of "
    f"the branch; within groups of equal branch time the prediction has {inner:.2f} [{low:.2f}, {high:.2f}]. Over layers it has {by_layer.mean():.2f}, distance {by_layer_square.mean():.2f}. "
    f"Barriers by branch time: rank correlation {', '.join(f'{v:.2f} ({a})' for a, v in falls.items())}; {at_start:.3f} at the start, {at_one:.3f} after one epoch."
)

# %%
lab.claim(
    "singh2024landscaping",
    "Two runs end in one valley if they part after the ridge and in different ones if they part before, and the barrier's height follows from curvature and distance",
    measured=measured,
    control=control,
    holds=holds,
    scaled=f"five-layer MLP of width 64 on {count} images, 6 epochs, {len(total[0].middle)} pairs a branch time, instead of ResNets on CIFAR-10; our own second-order expansion",
    data=data.kind(name),
    reason=reason,
)

# %% [markdown]
# ## Family portrait: the same pairs, before and after
#
# How much of a barrier is notation? The portrait takes the same pairs of independently trained networks over depth and width, and looks at the line between
# them five times: as they are, with the neurons of one in random order (the control), and with its neurons ordered by activations, by weights, or by the loss half way with a straight-through
# gradient. Whatever these remove was notation. The last column needs no alignment at all: pairs that start from the same weights.

# %%
sizes = lab.pick(ci={"widths": [16, 64, 128], "depths": [1, 3]}, gpu={"widths": [32, 128, 512], "depths": [1, 2, 4, 6]})
cells = pd.DataFrame(
    ex.alignment_portrait(
        train,
        held_out,
        pairs=lab.pick(ci=2, gpu=5),
        seed=seed,
        steps=lab.pick(ci=20, gpu=100),
        **sizes,
        **recipe | {"epochs": 4},
    )
)
cells["mean"] = [float(b.mean()) for b in cells.barrier]

# %%
matrix = cells.pivot_table(index=["depth", "width"], columns="method", values="mean", sort=False)
left = {m: float((matrix[m] / matrix["as they are"]).mean()) for m in matrix}
best = min(("activation matching", "weight matching", "straight-through"), key=left.get)
trend = {
    d: [float(matrix[best][(d, w)] / matrix["as they are"][(d, w)]) for w in sizes["widths"]] for d in sizes["depths"]
}

# %%
fig, axis = plt.subplots(figsize=(8.2, 3.8))
shown = axis.imshow(matrix.clip(lower=0), aspect="auto", cmap="cividis")
for i, row in enumerate(matrix.to_numpy()):
    for j, value in enumerate(row):
        axis.text(
            j,
            i,
            f"{value:.2f}",
            ha="center",
            va="center",
            color="white" if value < matrix.to_numpy().max() / 2 else "black",
        )

# %%
axis.set_xticks(range(matrix.shape[1]), [m.replace(" ", "\n", 1).replace(", ", ",\n") for m in matrix], fontsize=7)
axis.set_yticks(range(len(matrix)), [f"{d} × {w}" for d, w in matrix.index])
axis.set(title="Barrier in loss half way", xlabel="how the two are brought together", ylabel="hidden layers × width")
fig.colorbar(shown, label="barrier in loss")
axis.grid(visible=False)

# %%
lab.portrait(
    fig,
    caption=f"Mean over pairs, unseen images. Of the barrier between networks as they are, {best} leaves the least: {left[best]:.0%} on average over sizes (random order {left['random order']:.0%}). What it leaves, by width "
    f"{', '.join(map(str, sizes['widths']))}: " + "; ".join(f"{d} hidden layer{'s' * (d > 1)} {', '.join(f'{v:.0%}' for v in vs)}" for d, vs in trend.items())
    + f". Pairs with the same start keep {left['same start, as they are']:.0%}: no alignment found here does as well as never having parted far."
    * (left["same start, as they are"] < left[best]),
    alt="Matrix of barriers: sizes of networks in rows, ways of bringing two networks together in columns.",
)  # fmt: skip

# %% [markdown]
# ## What is scaled down
#
# Networks are small, data are digits and tables, and training is short. For the hidden symmetries this is the paper's own scale; there only the number of networks and of
# inputs is smaller. The ensembles have 16 members of width 32 instead of 64 of width up to 256, on tables that fit into scikit-learn, made harder by noise, and train for a fixed number of steps. Layer-wise
# connectivity was published for convolutional networks with a small first layer and for language models; in a perceptron on pixels the first layer is most of the network, and the verdict is about
# that. Federated training and perturbations inside the training subspace are not run. Of the mountainside paper the second-order statement could not be read in the original, and the expansion used here is our own.
# The ends of our runs have not converged; gradients there are not small, which is why the formula with gradients is used. Mixtures have the softmax gate only;
# the Gumbel-softmax gate is in the package (`temperature` of `mixture_study`) and left to an exercise. The sizes of the gpu profile are written down but have not been run.
#
# ## Exercises
#
# 1. Set the biases of the random networks to zero (`bias_std=0.0` in `sample_ranks`): every linear piece becomes a cone. What happens to the share at depth 2?
# 2. Draw the inputs three times as wide (`spread=3.0` in `sample_ranks`). Are fewer neurons dead on the sample, and how many of the lost directions come back?
# 3. Give `ensemble_study` the scales `(0.1, 3.0)`. Which end of the trade between a good single network and a diverse ensemble does validation choose?
# 4. Give `mixture_study` a noisy gate, `temperature=2.0`. Does the difference between asymmetric and plain experts move out of its interval?
# 5. Train the layer-wise pairs at a rate of 0.1 (`recipe | {"lr": 0.1}`). Which layer has the largest barrier now, and do all pairs still train?
# 6. In the branching experiment, set `momentum` to 0. Does the time after which parting is harmless change?
# 7. Give the straight-through search of the portrait 200 `steps`. Does it overtake activation matching at depth 3?
