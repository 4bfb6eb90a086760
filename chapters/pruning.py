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
# # Pruning
#
# A trained network can lose most of its weights and hardly notice. Which ones, when, and what is gained? Here the same
# question is asked in nine ways: prune agents while they learn, let gradients choose widths, look for the ratio of
# computation to parameters that good small networks share, ask what pruning does to features under corruption,
# let the loss say which weights matter, keep several sparse networks in the rows of one, prune a random network
# until it is a given one, train a network that prepares others for the knife, and, last, lose nothing at all and
# compress the file.

# %% tags=["parameters"]
profile, seed, device = "ci", 0, "cpu"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import avg_pool2d

from netatlas import data, lab
from netatlas.core.stats import paired, stderr
from netatlas.data import weights
from netatlas.pruning import agents, meta_recipe, population, spaces
from netatlas.pruning import codec_experiments as ce
from netatlas.pruning import experiments as ex
from netatlas.pruning import logarithmic_experiments as ge
from netatlas.pruning import lottery_experiments as le
from netatlas.pruning import tas_experiments as te
from netatlas.pruning.dqn import greedy_returns, interquartile_mean
from netatlas.pruning.dress import stored_bytes
from netatlas.pruning.zipnn import compress, gaussian_exponent_entropy

lab.begin("pruning", profile=profile, seed=seed, device=device)

# %%
lab.papers_table()

# %% [markdown]
# ## The shared kernel: a score, a structure, a schedule
#
# Nearly everything in this chapter is one operation. Give every weight a *score* $S_i$ (its size, how far it moved from zero, how
# much the loss feels it). Say by a *structure* which weights may go together: any, the same number in every row, two of four,
# whole channels, tiles. Let a *schedule* $s_t$ tell what share is gone at step $t$; the usual one is
#
# $$s_t = s_F\Bigl(1 - \bigl(1 - \tfrac{t - t_0}{t_1 - t_0}\bigr)^3\Bigr), \qquad t_0 \le t \le t_1 .$$
#
# The mask keeps the largest scores that the structure allows, and what was cut stays cut. Every kernel has a case whose
# answer is known; all errors below must be rounding.

# %%
checks = {name: lab.rounding(error, 1e-12) for name, error in ex.exact_checks(seed).items()}
lab.table(
    pd.DataFrame({"largest error": checks}).rename_axis("check"),
    fmt="{:.0e}",
    caption=f"{len(checks)} checks against closed forms, counts and dense computation; the largest error is "
    f"{max(checks.values()):.0e}.",
)

# %% [markdown]
# A mask on its own saves nothing: zeros are multiplied like other numbers. Two things do save. Channels can be *cut out*, after
# which matrices are smaller; this was the check called surgery. And a sparse matrix can be *executed* as one, if enough is gone. How
# much is enough on this machine?

# %%
speeds = {(layout, s): ex.sparse_speed(s, layout) for layout in ("csr", "block") for s in (0.5, 0.8, 0.95)}
rows = [
    {"layout": "any weight" if layout == "csr" else "tiles of 32", "sparsity": f"{s:.0%}",
     "times as fast as dense": lab.volatile(round(v.dense / v.sparse, 2))}
    for (layout, s), v in speeds.items()
]  # fmt: skip
lab.table(
    pd.DataFrame(rows),
    index=False,
    caption="A matrix of 1024 x 1024 times 64 inputs, one thread, beside the dense product; below 1 the zeros cost "
    "more than they save. Times differ from run to run.",
)

# %% [markdown]
# (paper-obandoceron2024pruned)=
# ## Deep reinforcement learning: pruned agents
#
# [Obando-Ceron et al. (2024)](https://arxiv.org/abs/2402.12479) report something odd. Value-based agents do not profit from
# width as classifiers do; prune them *while they learn*, from 20 to 80 % of training by the schedule above, and they do:
# the pruned wide network beats the dense wide one, the more so the wider. The agents here are plain DQN (replay, target network,
# Huber loss) on Gymnasium's CartPole, written as a batched tensor program that is tested against Gymnasium step by step, and on Catch: a ball
# falls through a grid of pixels, half of the inputs are meaningless bits. First a short training seen from inside.

# %%
live = ex.live_agents(steps=lab.pick(ci=600, gpu=5000), width=64, seeds=lab.seeds(3))
fig, axis = plt.subplots(figsize=(5, 3))
axis.plot(live.steps, live.sparsity)
axis.set(title="Zeros of the hidden matrix", xlabel="update", ylabel="share of zeros")
lab.figure(
    fig,
    caption=f"The mask of an agent while it learns: {live.wrong} deviations from the schedule, or weights that came back, in "
    f"{len(live.steps)} masks of {len(live.returns)} agents; {live.sparsity[-1]:.0%} of the hidden matrix are zero at the end.",
    alt="Share of zeros against updates: flat, then rising steeply and levelling off.",
)

# %% [markdown]
# Learning itself takes minutes, so agents are stored with the recipe that trained them: `netatlas weights train pruned_agents` makes them
# again. For every arm and width the learning rate was chosen among three on seeds of its own. Beside dense and pruned stand a random
# mask that is there from the start, and a dense network that is as small as the pruned one. The figure of merit is the interquartile mean
# over ten agents of greedy returns in the last tenth of training.

# %%
stored, record = weights.load("pruned_agents")
tasks, widths = list(agents.TASKS), list(agents.WIDTHS)
finals = {
    key.removesuffix("/returns"): agents.final_return(value).double().numpy()
    for key, value in stored.items() if key.endswith("/returns")
}  # fmt: skip
gains = {task: ex.agent_gains(stored, task, widths) for task in tasks}
scores = {key: interquartile_mean(value) for key, value in finals.items()}
best = {name: kind.best for name, kind in agents.TASKS.items()}
wide = {task: f"{task}/{widths[-1]}/" for task in tasks}

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for axis, task in zip(axes, tasks):
    for arm, marker in (("dense", "o"), ("pruned 90 %", "s")):
        axis.plot(widths, [scores[f"{task}/{w}/{arm}"] for w in widths], marker=marker, label=arm)
    for arm, marker in (("pruned 95 %", "^"), ("random mask 90 %", "x"), ("narrow", "v")):
        axis.plot(widths[-1:], [scores[f"{task}/{widths[-1]}/{arm}"]], marker, ls="none", label=arm)
    axis.set(title=task, xlabel="width", ylabel="return", xscale="log", xticks=widths, xticklabels=widths)
    axis.minorticks_off()
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
words = {t: f"{g.widest[0]:+.2f} [{g.widest[1]:.2f}, {g.widest[2]:.2f}]" for t, g in gains.items()}
lab.figure(
    fig,
    caption="Interquartile means of ten agents. Pruned minus dense at the greatest width, with 95 % bootstrap intervals: "
    + "; ".join(f"{task} {text}" for task, text in words.items()) + ".",
    alt="Return against width for dense and pruned agents on two tasks, with the controls at the greatest width.",
)  # fmt: skip

# %% [markdown]
# What does pruning do inside? The paper sees fewer dormant units, a higher effective rank of the features, smaller norms and less
# variance of the estimated values.

# %%
inside = ["dormant units", "effective rank", "norm of the parameters", "variance of Q"]
table = pd.DataFrame(
    {f"{t}: {a}": {d: float(stored[f"{wide[t]}{a}/{d}"].mean()) for d in inside}
     for t in tasks for a in ("dense", "pruned 90 %")}
)  # fmt: skip
rise = {t: stored[f"{wide[t]}pruned 90 %/effective rank"] - stored[f"{wide[t]}dense/effective rank"] for t in tasks}
lab.table(
    table.rename_axis("at the end of training"),
    caption="Means over ten agents of the greatest width. Effective rank, pruned minus dense: "
    + "; ".join(f"{t} {float(r.mean()):+.1f} ± {stderr(r):.1f}" for t, r in rise.items()) + ".",
)  # fmt: skip

# %%
played = {
    f"{task}: {arm}": greedy_returns(
        agents.stored_agents(stored, task, widths[-1], arm), agents.TASKS[task](), episodes=4, seed=seed
    ).mean(1)
    for task in tasks for arm in ("dense", "pruned 90 %")
}  # fmt: skip
floor = {name: kind.worst for name, kind in agents.TASKS.items()}
ceiling = {t: (scores[wide[t] + "dense"] - floor[t]) / (best[t] - floor[t]) for t in tasks}
measured = {f"{key.replace('/', ', width ', 1).replace('/', ': ')}": value for key, value in finals.items()}
measured |= {f"{name}, stored agents played again": value for name, value in played.items()}
wins = [gain.widest[1] for gain in gains.values()]
measured |= {"pruned minus dense, widest: lower ends": lab.each(wins), "deviations from the schedule": live.wrong}

# %%
growth = [gain.growth_in_errors() for gain in gains.values()]
static = [gain.static[1] for gain in gains.values()]
small = [gain.narrow_net[2] for gain in gains.values()]
control = {
    "pruned minus random mask: lower ends": lab.each(static),
    "pruned minus dense narrow net: upper ends": lab.each(small),
    "gain at the greatest minus at the least width, in standard errors": lab.each(growth),
    "dense, widest: share of the range of returns": lab.each(list(ceiling.values())),
}
holds = {
    "pruned above dense at the greatest width, on every task": lab.exceeds(min(wins), 0),
    "the gain grows with width by two standard errors, on every task": lab.exceeds(min(growth), 2),
    "pruned above a random mask, on every task": lab.exceeds(min(static), 0),
    "pruned not below a dense net of equal size": lab.exceeds(min(small), 0),
    "dense agents leave room (below 90 % of the range)": lab.below(max(ceiling.values()), 0.9),
    "masks follow the schedule and stay": lab.below(live.wrong, 1),
}

# %%
reason = (
    "pruned minus dense at the greatest width is "
    + "; ".join(f"{word} on {task}" for task, word in words.items())
    + f"; against the random mask the lower ends are {', '.join(f'{v:.2f}' for v in static)}, and the dense agents already reach "
    + ", ".join(f"{v:.0%} of the range of returns on {t}" for t, v in ceiling.items())
    + ". Runs of a few thousand updates may be too short for the loss of plasticity that pruning is said to cure"
)
lab.claim(
    "obandoceron2024pruned",
    "Pruning during training makes value-based agents better than dense ones, and the more so the wider they are",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="DQN with two hidden layers of up to 128 units on CartPole and Catch, 48 thousand frames, instead of Impala ResNets on 15 Atari games and "
    "40 million frames",
)

# %% [markdown]
# (paper-dong2019tas)=
# ## Transformable architecture search: gradients choose widths
#
# How wide should each layer of the small network be? [Dong and Yang (2019)](https://arxiv.org/abs/1905.09717) make widths
# differentiable. Each layer has eight candidate widths, all prefixes of one weight; two are drawn from a relaxed distribution
# and their outputs, brought to one width by averaging neighbouring channels (CWI), are mixed:
#
# $$\begin{gathered} O = \sum_{j \in I} \hat p_j\, \mathrm{CWI}\bigl(O_{1:c_j}, \max_{i\in I} c_i\bigr), \\
# \hat p_j \propto \exp\bigl((\log p_j + o_j)/\tau\bigr), \quad o_j \text{ Gumbel noise}. \end{gathered}$$
#
# Depth is chosen likewise, over the outputs of the layers. Weights learn on one half of the data, the logits on the other with a
# penalty on the expected cost. The most probable network is trained anew, with knowledge transfer (KD) from the full one.
# Every arm below has half of the full network's multiply-adds and the same number of gradients in all: teacher and search count. The learning
# rate was chosen out of three for uniform widths with KD (`tune_rate`) and serves all. Teacher, search and last training of the searched network take
# `budget` steps each. A first run had half of today's steps, which left the distilled networks unfinished; how much the order of arms
# hangs on that number is an exercise.

# %%
train, validation, test = ex.split_digits(seed)
both = tuple(torch.cat(parts) for parts in zip(train, validation))
searched = te.compare_searches(both, test, seeds=lab.seeds(5), budget=lab.pick(ci=300, gpu=1500))
rows = {
    name: {"accuracy": float(arm.accuracy.mean()), "standard error": stderr(arm.accuracy),
           "multiply-adds": f"{float(arm.cost.mean()):.0f} ± {float(arm.cost.std()):.0f}"}
    for name, arm in searched.arms.items()
}  # fmt: skip
kd, plain, preset, bare, untrained, lucky = (
    searched.arms[name].accuracy
    for name in ("search, distilled", "search, not distilled", "uniform, distilled", "uniform, not distilled",
                 "untrained logits, distilled", "best of two random, distilled")
)  # fmt: skip

# %%
over, null, transfer = paired(kd, preset), paired(kd, untrained), paired(kd, plain)
lab.table(
    pd.DataFrame(rows).T.rename_axis("arm"),
    caption=f"Five seeds on digits; the full network has {float(searched.full.mean()):.1%} as a teacher. Search with KD minus "
    f"uniform widths with KD: {ex.points(kd - preset)} points; minus widths drawn by untrained logits: {ex.points(kd - untrained)}. "
    f"KD itself: {ex.points(kd - plain)} for searched, {ex.points(preset - bare)} for uniform widths. {searched.scaled:.0%} of "
    "the searches missed the band of cost and were scaled into it.",
)

# %% [markdown]
# Whether gradients find widths at all is better asked where the answer is known. A teacher with three hidden layers of 32 units has only 4 in
# its first layer (A) or in its second (B); there are 32 inputs and outputs too, so that a unit costs the same in either. First, two fixed networks tell
# whether the loss prefers the right place for the narrow layer.

# %%
planted = te.planted_widths(seeds=lab.seeds(5), steps=lab.pick(ci=300, gpu=2000))
signs = te.planted_signs(planted)
right = [float((signs["A"] > 0).double().mean()), float((signs["B"] < 0).double().mean())]
prefers = [planted.fixed[case]["wrong"] / planted.fixed[case]["right"] for case in ("A", "B")]
lab.table(
    pd.DataFrame(
        {case: {"error, narrow layer in the right place": planted.fixed[case]["right"],
                "error, in the wrong place": planted.fixed[case]["wrong"],
                "mean width found, layer 1": float(w[:, 0].double().mean()),
                "mean width found, layer 2": float(w[:, 1].double().mean()),
                "share of searches on the right side": share}
         for (case, w), share in zip(planted.widths.items(), right)}
    ).rename_axis("teacher"),
    caption=f"The right place has {prefers[0]:.1f} and {prefers[1]:.1f} times less error; searches take its side in "
    f"{right[0]:.0%} and {right[1]:.0%} of five runs, where chance is 44 %.",
)  # fmt: skip

# %%
measured = {name: arm.accuracy for name, arm in searched.arms.items()} | {"planted: on the right side": lab.each(right)}
measured |= {"search minus uniform": kd - preset, "distilled minus not": kd - plain}
control = {
    "search minus untrained logits": kd - untrained,
    "search minus best of two random": kd - lucky,
    "planted: error in the wrong over the right place": lab.each(prefers),
    "cost of the searched networks": searched.arms["search, distilled"].cost,
    "CWI and expected cost: error": max(
        checks["interpolation: constants are kept"], checks["search: expected cost against enumeration"]
    ),
}

# %%
holds = {
    "search + KD above uniform + KD by two standard errors": lab.exceeds(over.mean, 2 * over.stderr),
    "above untrained logits + KD by two standard errors": lab.exceeds(null.mean, 2 * null.stderr),
    "not half a point below the best of two random": lab.exceeds((kd - lucky).mean(), -0.005),
    "knowledge transfer helps by two standard errors": lab.exceeds(transfer.mean, 2 * transfer.stderr),
    "planted narrow layers found in all runs": lab.exceeds(min(right), 0.999),
}
reason = (
    f"search minus uniform is {ex.points(kd - preset)} points and minus untrained logits {ex.points(kd - untrained)}; gradients spent on "
    f"teacher and search are missing in the last training, and distillation instead of longer training is worth "
    f"{ex.points(kd - plain)} points for searched and {ex.points(preset - bare)} for uniform widths. On planted widths trained networks have "
    f"{min(prefers):.1f} times more error or worse with the narrow layer in the wrong place, yet the searches find the right one in {right[0]:.0%} and {right[1]:.0%} of runs"
)

# %%
lab.claim(
    "dong2019tas",
    "Searching width and depth by gradients, then transferring knowledge from the full network, prunes better than preset widths",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="perceptrons of four layers of 64 units on digits, a few hundred steps, instead of ResNets on CIFAR and ImageNet for hundreds of epochs",
    data="real",
)

# %% [markdown]
# (paper-li2022robustness)=
# ## The robustness lottery: what pruning does to features
#
# [Li et al. (2022)](https://arxiv.org/abs/2206.07918) look at pruned networks through the geometry of the last layer. With features
# $h$ and a class direction $w_k$, the logit is $z_k = |w_k|\,|h| \cos\theta_k + b_k$: length of the feature, angle to the class, norm of
# the class. Theirs is a paper of visual analytics, so its quantitative core is chosen here, with four questions: does geometry explain who loses
# how much under which corruption; does the dense network's margin $\min_{k\ne y}\theta_k - \theta_y$ know which images will flip after
# pruning; are ten corruptions ten different tests; and is some pruned network more robust than the dense one?
#
# Seven methods of pruning, two sparsities, one budget of epochs; learning rates were chosen per method on validation images
# (`tune_rates`). “Rewound weights” go back to initialisation, not to an early step of training.

# %%
pool, stand_in = lab.pick(ci=2, gpu=1), data.digit_images
pairs = [data.load("mnist", split=part, stand_in=stand_in) for part in ("train", "test")]
seen, unseen = ((avg_pool2d(x, pool).flatten(1), y) for x, y in pairs)
seen = tuple(part[: lab.pick(ci=2000, gpu=20_000)] for part in seen)
unseen = tuple(part[: lab.pick(ci=1500, gpu=10_000)] for part in unseen)
side = 28 // pool
suite = le.run_suite(
    seen, unseen, widths=[side * side, *lab.pick(ci=[64, 32], gpu=[300, 100]), 10], seeds=lab.seeds(6), side=side,
    few=lab.pick(ci=300, gpu=2000), seed=seed,
)  # fmt: skip

# %%
labels = [name if name == "dense" else f"{name} {s:.0%}" for name, s in suite.names]
kin = suite.alike - 2 * np.eye(len(labels))
clean, hard = suite.clean.mean(1), suite.corrupted.mean((1, 2, 3))
fig, axis = plt.subplots(figsize=(6, 3.8))
marks = {m: (sign, f"C{i}") for i, (m, sign) in enumerate(zip(dict.fromkeys(m for m, _ in suite.names), "osv^DPX*"))}
for (name, s), x, y in zip(suite.names, clean, hard):
    sign, color = marks[name]
    axis.plot(x, y, sign, label=name if s in (0.0, 0.8) else None, mfc="none" if s > 0.9 else color, color=color)
axis.set(xlabel="clean accuracy", ylabel="accuracy under corruption", title="Seven ways to prune")
axis.legend(fontsize="small", loc="lower right")
top = int(hard.argmax())
lab.figure(
    fig,
    caption=f"Means over six seeds and {suite.corrupted.shape[2]} corruptions of three severities; open marks are 95 % sparse. The dense network has "
    f"{hard[0]:.1%} under corruption, the best is {labels[top]} with {hard[top]:.1%}.",
    alt="Accuracy under corruption against clean accuracy for pruned networks of seven methods.",
)

# %% [markdown]
# Are some methods kin? Linear CKA compares the features that two networks of the same seed have on clean images; it is 1 if they are
# equal up to rotation and scale.

# %%
fig, axis = plt.subplots(figsize=(6, 5), layout="constrained")
image = axis.imshow(suite.alike, vmin=0, vmax=1, cmap="viridis")
axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize="small")
axis.set_yticks(range(len(labels)), labels, fontsize="small")
axis.set(xlabel="method and sparsity", ylabel="method and sparsity")
axis.grid(visible=False)
fig.colorbar(image, label="linear CKA")
near, far = (np.unravel_index(int(i), kin.shape) for i in (kin.argmax(), suite.alike.argmin()))
lab.figure(
    fig,
    caption=f"Mean over six seeds. Most alike are the features of {labels[near[0]]} and {labels[near[1]]} ({suite.alike[near]:.2f}), least those of "
    f"{labels[far[0]]} and {labels[far[1]]} ({suite.alike[far]:.2f}).",
    alt="Square of similarities between the features of fifteen networks, pruned by seven methods.",
)

# %% [markdown]
# The drop of accuracy of every (method, sparsity, corruption, severity) is regressed on changes of geometry, each method predicted from the
# others. Label-free geometry uses the predicted class only. Geometry *with* labels nearly is accuracy, and decides nothing. Controls:
# confidence (largest probability and entropy), and features permuted among the rows of a method.

# %%
explained = le.explain_drop(suite, seed=seed)
fragile = le.fragility(suite, seed=seed)
overlap = le.redundancy(suite, seed=seed)
hand = le.winning_hand(suite)
lab.table(
    pd.DataFrame({"R² on a left-out method": explained._asdict()}).rename(
        index={"free": "geometry without labels", "labelled": "geometry with labels", "permuted": "geometry, permuted"}
    ).rename_axis("features"),
    caption=f"Geometry without labels explains {explained.free:.0%} of the variance of drops, confidence {explained.confidence:.0%}. Margins tell the "
    f"images that flip under 90 % of one-shot pruning with an AUC of {fragile.margin.mean():.2f}, the mere length of the features with {fragile.length.mean():.2f}; "
    f"{overlap.components} of {len(overlap.shares)} components hold 90 % of the variance ({overlap.permuted.min()} or more if permuted).",
)  # fmt: skip

# %%
lead, shuffle = hand.lead.mean(), abs(fragile.shuffled.mean() - 0.5)
measured = {
    "R², geometry without labels": explained.free,
    "R², geometry with labels": explained.labelled,
    "AUC of the dense margin for flips": fragile.margin,
    "flips a seed": fragile.flips,
    "components for 90 % of the variance": overlap.components,
    f"lead over dense, {hand.name[0]} {hand.name[1]:.0%}": hand.lead,
    "margin's sign is correctness, equal norms, no bias": suite.equalised,
    "z = |w||h| cos + b: relative error": lab.rounding(suite.identity, 1e-5),
}

# %%
control = {
    "R², confidence": explained.confidence,
    "R², permuted geometry": explained.permuted,
    "AUC, feature length alone": fragile.length,
    "AUC, shuffled margins": fragile.shuffled,
    "components, permuted columns": overlap.permuted,
    "margin's sign is correctness, as trained": suite.agreement,
}

# %%
identity = lab.rounding(suite.identity, 1e-5)
holds = {
    "geometry explains drops, R² > 0.6": lab.exceeds(explained.free, 0.6),
    "it beats confidence by 0.05": lab.exceeds(explained.free - explained.confidence, 0.05),
    "permuted features explain nothing": lab.below(explained.permuted, 0.1),
    "dense margins foretell flips, AUC > 0.75": lab.exceeds(fragile.margin.mean(), 0.75),
    "shuffled margins do not": lab.below(shuffle, 2 * stderr(fragile.shuffled) + 0.01),
    "at least 30 flips a seed": lab.exceeds(fragile.flips.min(), 29),
    "four of ten components suffice": lab.below(overlap.components, 4.5),
    "permuted columns need six components": lab.exceeds(overlap.permuted.min(), 5.5),
    "a pruned network is more robust, on seeds that did not choose it": lab.exceeds(lead, 2 * stderr(hand.lead)),
    "margins are correctness when norms are equal": lab.exceeds(suite.equalised, 0.9999),
    "logits are their geometry": lab.below(identity, 1e-4),
}

# %%
weaker = "less than" if fragile.margin.mean() < fragile.length.mean() else "more than"
reason = (
    f"geometry without labels has an R² of {explained.free:.2f} on methods it has not seen (confidence {explained.confidence:.2f}, geometry with labels "
    f"{explained.labelled:.2f}); the margin's AUC is {fragile.margin.mean():.2f}, {weaker} that of the feature's length "
    f"({fragile.length.mean():.2f}); {overlap.components} components are needed; {hand.name[0]} at {hand.name[1]:.0%} leads the dense network by {ex.points(hand.lead)} points "
    "on three seeds"
)
lab.claim(
    "li2022robustness",
    "Simple geometric quantities of the representation explain how pruning methods change a network's robustness",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="a perceptron on digits of 14 x 14 pixels with ten corruptions of our own, instead of ResNets on CIFAR-10-C and ImageNet-C",
    data=data.kind("mnist"),
)

# %% [markdown]
# (paper-he2023pruningspaces)=
# ## Pruning spaces: populations instead of single winners
#
# [He et al. (2023)](https://arxiv.org/abs/2304.09453) sample whole populations of subnetworks at one cost and ask what the
# good ones have in common. Their conjecture: at a given number of multiply-adds the best share one ratio of computation to parameters,
#
# $$q = \frac{\sum_l \text{FLOPs}_l}{\sum_l \text{params}_l} = \frac{\sum_l \text{params}_l\, h_l w_l}{\sum_l \text{params}_l},$$
#
# and searching near it is cheap. Only the abstract could be read; the paper's "parameter bucket" is not defined there, and plain
# parameters stand for it. Mind what that means: at *fixed* FLOPs the ratio is the parameter count in disguise, high $q$ keeps
# early, large maps, low $q$ late channels.
#
# The populations are stored (`netatlas weights train pruning_population`): four-layer convolutional networks on digits, each trained from
# scratch, at one half and one quarter of the original's cost. The law is fitted on a random half of a population and judged on the other. As a null, the
# ratios of that other half are shuffled among its networks before any is picked.

# %%
nets, record = weights.load("pruning_population")
regimes = population.REGIMES
errors = {name: population.stored_errors(nets, name) for name in regimes}
shapes = {name: nets[f"{name}/widths"].numpy() for name in regimes}
ratios = {
    name: spaces.flops_per_parameter(spaces.layer_costs(w, population.MAPS, population.CLASSES))
    for name, w in shapes.items()
}
main = [name for name in regimes if name.startswith("pyramid")]
tests = {
    name: spaces.judge_space(ratios[name], errors[name], shapes[name], regimes[name].full, seed=seed) for name in main
}
again = population.stored_errors(nets, "repeats").reshape(-1, population.REPEATS)
noise, between = float(again.var(1, ddof=1).mean()), float(errors[main[0]].var(ddof=1))

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True)
for axis, name in zip(axes, regimes):
    axis.plot(ratios[name], errors[name], ".", ms=4)
    axis.set(
        title=name, xlabel="multiply-adds a parameter", xscale="log", xticks=[2, 4, 8, 16], xticklabels=[2, 4, 8, 16]
    )
    axis.minorticks_off()
    if name in tests:
        grid = np.geomspace(ratios[name].min(), ratios[name].max(), 50)
        axis.plot(grid, tests[name].law.predict(grid), "k-")
axes[0].set_ylabel("test error")
told = [f"{name}: {t.law.optimum:.1f}, rank correlation {t.rank:.2f}" for name, t in tests.items()]
lab.figure(
    fig,
    caption="Every point is a trained network of the same cost; lines are fitted on half of a population. Least error predicted at q of "
    + "; ".join(told) + f". Training noise is {noise / between:.0%} of the variance between networks.",
    alt="Three clouds of test error against the ratio of multiply-adds to parameters, with fitted curves.",
)  # fmt: skip

# %%
lab.table(
    pd.DataFrame({name: {rule: float(v.mean()) for rule, v in t.refined.items()} for name, t in tests.items()}).rename_axis("picked from the other half by"),
    caption="Mean test error of 25 networks picked by each rule from the half that the law has not seen. Minus shuffled ratios, the networks nearest to q* have "
    + "; ".join(f"{ex.points(t.refined['nearest to q*'] - t.refined['shuffled ratios'])}" for t in tests.values()) + " points.",
)  # fmt: skip

# %%
apart = {n: ex.welch(t.refined["nearest to q*"], t.refined["all"]) for n, t in tests.items()}
mixed = {n: ex.welch(t.refined["nearest to q*"], t.refined["shuffled ratios"]) for n, t in tests.items()}
starved = {n: ex.welch(t.refined["nearest to q*"], t.refined["largest smallest share"]) for n, t in tests.items()}
even = {n: ex.welch(t.refined["nearest to q*"], t.refined["least spread of shares"]) for n, t in tests.items()}
ranks = [t.rank for t in tests.values()]
measured = {f"error near q*, {n}": t.refined["nearest to q*"] for n, t in tests.items()}
measured |= {
    "curvature in log q": lab.each([t.curvature for t in tests.values()]),
    "share of bootstrap optima inside": lab.each([t.inside for t in tests.values()]),
    "linear minus quadratic error: lower ends": lab.each([t.better[0] for t in tests.values()]),
    "rank correlation with the prediction": lab.each(ranks),
    "z of near q* below all": lab.each(list(apart.values())),
}

# %%
control = {f"error of all, {n}": t.refined["all"] for n, t in tests.items()}
control |= {f"error by shuffled ratios, {n}": t.refined["shuffled ratios"] for n, t in tests.items()}
control |= {
    "rank correlation, shuffled ratios": lab.each([t.shuffled_rank for t in tests.values()]),
    "z of near q* below shuffled": lab.each(list(mixed.values())),
    "z below largest smallest share": lab.each(list(starved.values())),
    "z below least spread": lab.each(list(even.values())),
    "training variance over variance between": noise / between,
}
curved, inside = min(t.curvature for t in tests.values()), min(t.inside for t in tests.values())
gain, wrong = min(t.better[0] for t in tests.values()), max(abs(t.shuffled_rank) for t in tests.values())

# %%
holds = {
    "an interior optimum: convex in log q, 95 % of bootstrap optima inside, better than a line": lab.exceeds(curved, 0)
    & lab.exceeds(inside, 0.95)
    & lab.exceeds(gain, 0),
    "predicted and measured error agree in rank": lab.exceeds(min(ranks), 0.3),
    "shuffled ratios predict nothing (within 0.2)": lab.below(wrong, 0.2),
    "networks near q* beat all by two standard errors": lab.exceeds(min(apart.values()), 2),
    "and those by shuffled ratios": lab.exceeds(min(mixed.values()), 2),
    "and those by the largest smallest share (specific to q)": lab.exceeds(min(starved.values()), 1),
    "and those by the least spread (specific to q)": lab.exceeds(min(even.values()), 1),
    "variance between networks above twice the noise": lab.below(noise / between, 0.5),
}
reason = (
    f"curvatures are {', '.join(f'{t.curvature:.3f}' for t in tests.values())}, with {', '.join(f'{t.inside:.0%}' for t in tests.values())} of bootstrap optima inside; rank correlations "
    f"{', '.join(f'{r:.2f}' for r in ranks)}; networks near q* are "
    f"{', '.join(f'{v:.1f}' for v in apart.values())} standard errors below all, {', '.join(f'{v:.1f}' for v in starved.values())} below those that "
    f"merely starve no layer; training noise is {noise / between:.0%} of the variance between networks"
)

# %%
lab.claim(
    "he2023pruningspaces",
    "At a given cost the best pruned networks share a ratio of computation to parameters, and searching there alone is cheap",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="populations of 200 four-layer networks on digits of 8 x 8 pixels, trained from scratch for 8 epochs, instead of ResNet-50 on ImageNet; the ratio's "
    "parameter bucket is taken as plain parameters",
    data="real",
)

# %% [markdown]
# (paper-tartaglione2020lobster)=
# ## LOBSTER: shrink what the loss does not feel
#
# Weight decay shrinks every weight alike. [Tartaglione et al. (2020)](https://arxiv.org/abs/2011.09905) switch it off where the loss is
# sensitive; the gradient is there anyway:
#
# $$w' = w - \eta\, g, \qquad w'' = w' - \lambda\, w' \max(0, 1 - |g|), \qquad g = \partial L/\partial w .$$
#
# Whenever the validation loss has stopped improving, all weights below a threshold are cut for good, the largest threshold that bisection finds
# to worsen that loss by at most five per cent. Look at the formula before running it: if gradients are far below one, the factor is
# one, and LOBSTER is weight decay. A *rescaled* variant divides by the largest gradient of the tensor. The control shuffles the
# factor inside each tensor at every step. Fronts need many runs, so the network is small; whether its size is what keeps gradients small is asked of
# LeNet-300, which the paper starts with, in a short training on MNIST. (In the `gpu` profile the fronts are those of LeNet-300.)

# %%
rules, decays = ["LOBSTER", "L2", "rescaled", "shuffled rescaled"], [1e-4, 3e-4, 1e-3]
splits = ex.cut_in_three(*data.load("mnist", limit=lab.pick(ci=3600, gpu=6000), stand_in=data.digit_images))
fronts, run = ex.lobster_fronts(
    seed, lab.pick(ci=None, gpu=splits), rules=rules, decays=decays, seeds=lab.seeds(5), epochs=lab.pick(ci=45, gpu=40),
    widths=lab.pick(ci=[64, 40, 20, 10], gpu=[784, 300, 100, 10]),
)  # fmt: skip
lenet = ex.lenet_gradients(splits, seed=seed, epochs=lab.pick(ci=5, gpu=50))

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
for rule, marker in zip([*rules, "none"], "os^vx"):
    front = fronts[rule]
    axes[0].plot(front.remaining.mean(1), front.test.mean(1), marker=marker, label=rule)
axes[0].set(xlabel="share of weights left", ylabel="test accuracy", title="Fronts over the decay")
axes[0].legend(fontsize="small")
for word, gradient in zip(("start", "middle", "end"), run.histogram):
    axes[1].hist(np.log10(gradient.numpy() + 1e-9), bins=40, range=(-7, 1), histtype="step", label=word)
axes[1].set(xlabel="log10 |gradient|", ylabel="weights", title="How sensitive?")
axes[1].legend(fontsize="small")
lab.figure(
    fig,
    caption=f"Left: means over five seeds. Right: gradients of one network; over all networks and the three times, at least {run.inactive:.1%} of the weights have "
    f"a gradient below 0.1, and the 99 % quantile is at most {float(run.gradients[:, 1].max()):.3f}. In LeNet-300 it is at most "
    f"{float(lenet.gradients[:, 1].max()):.1e}, and at least {lenet.inactive:.2%} of gradients are below 0.1.",
    alt="Left, accuracy against remaining weights for five rules. Right, histograms of gradients on a logarithmic axis.",
)

# %%
left = {rule: fronts[rule].at_choice("remaining") for rule in rules}
logs = {rule: np.log(values) for rule, values in left.items()}
versus = {
    "L2": paired(logs["LOBSTER"], logs["L2"]),
    "rescaled, L2": paired(logs["rescaled"], logs["L2"]),
    "rescaled, shuffled": paired(logs["rescaled"], logs["shuffled rescaled"]),
}
ends = {name: float(np.exp(v.mean + 2 * v.stderr)) for name, v in versus.items()}
measured = {f"weights left, {rule}": left[rule] for rule in ("LOBSTER", "rescaled")}
measured |= {f"test accuracy, {rule}": fronts[rule].at_choice("test") for rule in ("LOBSTER", "rescaled", "L2")}
measured |= {"least share of gradients below 0.1": run.inactive, "the same in LeNet-300 on MNIST": lenet.inactive}
measured |= {"one step: error": checks["LOBSTER: one step by hand"]}
control = {f"weights left, {rule}": left[rule] for rule in ("L2", "shuffled rescaled")}
control |= {"weights left, no decay": fronts["none"].at_choice("remaining")}
control |= {f"ratio to control, upper end: {name}": value for name, value in ends.items()}

# %%
holds = {
    "LOBSTER leaves less than 0.9 of what L2 leaves": lab.below(ends["L2"], 0.9),
    "the mechanism is active: over 1 % of gradients above 0.1": lab.below(run.inactive, 0.99),
    "rescaled leaves less than 0.9 of L2": lab.below(ends["rescaled, L2"], 0.9),
    "rescaled leaves less than 0.9 of its shuffled self": lab.below(ends["rescaled, shuffled"], 0.9),
    "one step is the formula": lab.below(checks["LOBSTER: one step by hand"], 1e-11),
}
reason = (
    f"LOBSTER leaves {np.exp(versus['L2'].mean):.2f} times what L2 leaves at matched accuracy, rescaled {np.exp(versus['rescaled, L2'].mean):.2f} times, and "
    f"{np.exp(versus['rescaled, shuffled'].mean):.2f} times what its shuffled control leaves. At least {run.inactive:.1%} of the gradients are below 0.1, where the factor "
    f"1 - |g| is within a tenth of one, and {lenet.inactive:.2%} in LeNet-300: the rule is weight decay there as well"
)
# %%
lab.claim(
    "tartaglione2020lobster",
    "Shrinking the weights to which the loss is least sensitive trains sparse networks from scratch",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="fronts of a perceptron of 3,600 weights on digits, three decays, 45 epochs, gradients of LeNet-300 only in a few epochs, instead of LeNet to ResNet-101 on MNIST to ImageNet",
    data="real",
)

# %% [markdown]
# (paper-qu2022dress)=
# ## DRESS: several sparse networks in the rows of one
#
# A device has much power now and little later. [Qu et al. (2022)](https://arxiv.org/abs/2207.00670) store one network and
# run as much of it as the moment allows. In every row of every matrix, weights are ordered by size; level $k$ uses the first
# $(1 - s_k)$ of them. Rows are balanced, levels are nested, and changing the level is changing one integer. All levels train
# together,
#
# $$\min_W \sum_k \pi_k\, L\bigl(W \odot b_k(W)\bigr), \qquad b_1 \subset b_2 \subset \dots$$
#
# and each gets normalisation statistics of its own. The natural rival is a *slimmable* network whose levels are narrower networks.
# It must have as many weights in all, the dense output layer included. Each arm's learning rate was chosen out of three on validation data
# (`tune_dress_rates`); the rivals of DRESS took the largest, so that they, and not DRESS, might still gain from a wider grid. The paper also
# pre-trains the dense network and, at the end, trains the normalisation of every level with all else frozen; here training is joint from the start, and levels
# share the normalisation's scales and shifts.

# %%
levels = [0.95, 0.9, 0.8, 0.0]
arms, joint = ex.dress_arms(
    seed,
    hidden=lab.pick(ci=100, gpu=400),
    sparsities=levels,
    seeds=lab.seeds(5),
    epochs=lab.pick(ci=10, gpu=60),
    rates=ex.DRESS_RATES,
)
table = pd.DataFrame({arm: {f"{s:.0%}": float(v[k].mean()) for k, s in enumerate(levels)} for arm, v in arms.items()}).T
space = {a: stored_bytes(a, 100, 64, 10, levels) / 1000 for a in ("rows", "global", "slim", "separate")}
behind = arms["DRESS"] - arms["slimmable"]
lab.table(
    table.rename_axis("accuracy at sparsity"),
    caption=f"Means of five seeds. DRESS minus slimmable at equal weights: {ex.points(behind[0])} points at 95 %, {ex.points(behind[1])} at 90 %. "
    "Kilobytes for all levels at 100 units: " + ", ".join(f"{name} {size:.0f}" for name, size in space.items())
    + "; rows pay for column indices, of which the dense level needs a whole order.",
)  # fmt: skip

# %%
against = [paired(arms["DRESS"][k], arms["slimmable"][k]) for k in (0, 1)]
nested = [paired(arms["DRESS"][k], arms["random nested rows"][k]) for k in (0, 1)]
lower = [min(d.mean - 0.01, d.mean - 2 * d.stderr) for d in against]
order = [d.mean - 2 * d.stderr for d in nested]
apart = (arms["DRESS"] - arms["separate networks"]).mean(1).tolist()
masks_only = float((arms["DRESS"] - arms["dense, then masks"])[0].mean())
balance = float((arms["DRESS"] - arms["global masks"])[:3].mean(1).min())
measured = {f"DRESS at {s:.0%}": arms["DRESS"][k] for k, s in enumerate(levels)}
measured |= {
    "DRESS minus separate networks": lab.each(apart),
    "DRESS minus slimmable, less the margin": lab.each(lower),
}
measured |= {"prefixes against masks: error": checks["DRESS: stored prefixes against masks"]}
control = {f"{arm} at 95 %": arms[arm][0] for arm in arms if arm != "DRESS"}
control |= {"DRESS minus random nested rows, less two errors": lab.each(order)}
control |= {"DRESS minus dense, then masks, at 95 %": masks_only, "DRESS minus global masks, least": balance}

# %%
holds = {
    "a point and two standard errors above slimmable at 95 and 90 %": lab.exceeds(min(lower), 0),
    "not two points below separate networks": lab.exceeds(min(apart), -0.02),
    "above random nested rows by two standard errors": lab.exceeds(min(order), 0),
    "ten points above dense training with masks at 95 %": lab.exceeds(masks_only, 0.1),
    "balance costs less than half a point": lab.exceeds(balance, -0.005),
    "stored prefixes are the masks": lab.below(checks["DRESS: stored prefixes against masks"], 1e-10),
}
reason = (
    f"DRESS minus slimmable is {ex.points(behind[0])} points at 95 % and {ex.points(behind[1])} at 90 % once both have equally many weights; joint "
    f"training is what matters ({masks_only:+.1%} against masks after dense training at 95 %), for either kind of level; order by size is worth "
    f"{ex.points(arms['DRESS'][0] - arms['random nested rows'][0])} points over random rows"
)
# %%
lab.claim(
    "qu2022dress",
    "Nested sparse networks sampled row by row and trained together are better than switchable ones at the same cost",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="a perceptron of two hidden layers of 100 units on digits, 10 epochs, instead of ResNets on CIFAR and ImageNet",
    data="real",
)

# %% [markdown]
# (paper-orseau2020logarithmic)=
# ## Logarithmic pruning: the network was there already
#
# Can pruning alone make a network, without any training? [Orseau, Hutter and Rivasplata (2020)](https://arxiv.org/abs/2006.12156)
# prove that it can, and cheaply. Between every two layers of a target network put a layer of random neurons. One of them, with
# in-weight $a>0$ and out-weight $b$, adds $b\,\mathrm{relu}(ax) = (ab)\,x$: a random *product*. A target weight is then a sum of
# a few products, chosen as digits are chosen when a number is written down. The base is the golden ratio $\gamma = 0.618…$: with
# any $x_i \in (\gamma^{i+1}, \gamma^i]$, keep $x_i$ whenever it still fits, and
#
# $$w - \sum_{i \text{ kept}} x_i \le \gamma^k \quad\text{after } k \text{ digits, because } 1 - \gamma^2 = \gamma .$$
#
# So precision $\varepsilon$ needs $k \approx \ln(1/\varepsilon)/\ln(1/\gamma)$ digits. What does it cost to *find* the digits in a random
# heap? If magnitudes are drawn from $p(x) \propto 1/x$, all digits are equally likely and collecting them takes $k H_k$ draws. Earlier
# constructions waited for one neuron with both weights right: $1/\varepsilon^2$ draws.
#
# First the lemma, for three bases. It needs $1-b^2\le b$, so bases below the golden one must break in the worst case, and larger ones must not.

# %%
digits_tried = (5, 10, 20, 30)
lemma = {k: ge.lemma_residual(k, seed=seed) for k in digits_tried}
bases = {b: ge.lemma_residual(10, seed=seed, base=b)[1] for b in (0.5, 0.6, 0.7)}
golden = max(max(pair) for pair in lemma.values())
lab.table(
    pd.DataFrame(
        [{"base": "golden", "digits": k, "random weights": r, "worst case": w} for k, (r, w) in lemma.items()]
        + [{"base": f"{b:g}", "digits": 10, "worst case": w} for b, w in bases.items()]
    ),
    index=False,
    fmt="{:.3f}",
    caption=f"What is left of a weight, in units of base to the power of digits; the lemma says at most 1. Golden base: at most {golden:.4f}. "
    f"Base 0.6 leaves {bases[0.6]:.1f} in the worst case, base 0.7 {bases[0.7]:.2f}.",
)

# %% [markdown]
# Now the price of a single weight, for five ways to draw and choose. Lines are theory (coupon collecting with the bins'
# own probabilities, or a closed form), points are simulated and never cut short. What matters is the shape: a power law
# stays straight in this picture, a logarithm bends.

# %%
precisions = [1e-1, 1e-2, 1e-3, 1e-4]
scaling = ge.sample_scaling(precisions, repetitions=lab.pick(ci=1000, gpu=20_000), seed=seed)
subsets = ge.subset_sum_samples(precisions, seed=seed)
ways = {law: scaling.means[law] / scaling.theory[law] for law in scaling.means}
shares = {law: float(np.abs(ways[law] - 1).max()) for law in ("hyperbolic", "product", "centred product")}
local = {law: scaling.exponents(law) for law in scaling.theory}
falling = all(bool((np.diff(local[law]) < 0).all()) for law in ("hyperbolic", "product", "centred product"))

# %%
fig, axis = plt.subplots(figsize=(6.4, 4.2))
for law, theory in scaling.theory.items():
    line = axis.plot(precisions, theory, linestyle="-")[0]
    axis.plot(precisions, scaling.means[law], "o", color=line.get_color(), label=law)
reached = [(p, n) for p, n in zip(precisions, subsets) if n]
axis.plot([p for p, _ in reached], [n for _, n in reached], "kx", label="uniform, best subset")
axis.set(title="Samples that one weight needs", xlabel="precision", ylabel="samples", xscale="log", yscale="log")
axis.invert_xaxis()
axis.legend(fontsize=7)
lab.figure(
    fig,
    caption=f"From {precisions[0]:g} to {precisions[-1]:g} hyperbolic numbers go from {scaling.means['hyperbolic'][0]:.0f} to {scaling.means['hyperbolic'][-1]:.0f} samples, "
    f"products from {scaling.means['product'][0]:.0f} to {scaling.means['product'][-1]:.0f}, the nearest uniform number from {scaling.means['uniform, nearest'][0]:.0f} to "
    f"{scaling.means['uniform, nearest'][-1]:.0f}; both factors right would need {scaling.theory['uniform, both factors right'][-1]:.0e}. The best of all subsets of uniform numbers "
    f"needs {reached[-1][1]} for {reached[-1][0]:g}: choosing well is worth as much as drawing well.",
    alt="Samples against precision on logarithmic axes for hyperbolic, product and uniform laws, theory as lines and simulation as points.",
)

# %% [markdown]
# And a whole network: a trained perceptron for digits with 64 inputs and 16 hidden neurons is the target. The large network has $M$
# random intermediate neurons for each of its weights, and pruning keeps, for every weight, the largest products that fit. How large
# must $M$ be for *every* logit of *every* test image to be right to within an error, in five of five draws? The ablations use the same rule on
# uniform magnitudes, and on out-weights alone.

# %%
target, known = ge.trained_target(*data.load("digits"), seed=seed)
errors = lab.pick(ci=(0.1, 0.01), gpu=(0.05, 0.005))
laws = {
    "hyperbolic products": ("hyperbolic", True),
    "uniform products": ("uniform", True),
    "hyperbolic, no product": ("hyperbolic", False),
}
found = {}
for name, (law, products) in laws.items():
    for e in errors:
        # What is too small for the larger error is too small for the smaller one.
        start = found[name, errors[0]].samples if e < errors[0] else 8
        found[name, e] = ge.smallest_network(target, known, law=law, error=e, seed=seed, products=products, start=start)
growth = {name: found[name, errors[1]].samples / found[name, errors[0]].samples for name in laws}
summed, changed = ge.untouched(target, samples=10, seed=seed)

# %%
lab.table(
    pd.DataFrame(
        {
            name: {f"samples for {e:g}": found[name, e].samples for e in errors}
            | {"growth": growth[name], "kept a weight": found[name, errors[1]].kept, "clear labels kept": found[name, errors[1]].kept_labels}
            for name in laws
        }
    ).T.rename_axis("random weights"),
    caption=f"Random neurons for each target weight until the largest logit error over {len(known)} images is below {errors[0]:g} and {errors[1]:g}. Ten times the precision costs "
    + ", ".join(f"{name} {g:.1f} times" for name, g in growth.items()) + " the neurons.",
)  # fmt: skip

# %%
measured = {
    "golden base: largest remainder, in units of its bound": golden,
    "hyperbolic: simulated over predicted samples, largest deviation": shares["hyperbolic"],
    "products: the same": max(shares["product"], shares["centred product"]),
    "products: local exponent in the last decade": local["product"][-1],
    "decades in which the exponent does not fall": float(not falling),
    "uniform, nearest: exponent": scaling.power("uniform, nearest"),
    "uniform, both factors right: exponent": local["uniform, both factors right"].min(),
    "network of hyperbolic products: growth": growth["hyperbolic products"],
    "network: clear labels kept": min(f.kept_labels for f in found.values() if f.error < 0.05),
    "explicit neurons against summed weights": lab.rounding(summed, 1e-12),
}
control = {
    "base 0.6: remainder in the worst case": bases[0.6],
    "base 0.7: the same": bases[0.7],
    "network of uniform products: growth": growth["uniform products"],
    "largest change of a random weight": changed,
}

# %%
labels_kept = min(f.kept_labels for f in found.values() if f.error < 0.05)
holds = {
    "samples follow the collector's count, and the exponent falls below one half": (
        lab.below(max(shares["hyperbolic"], shares["product"], shares["centred product"]), 0.1)
        & lab.below(float(not falling), 0.5)
        & lab.below(local["product"][-1], 0.5)
    ),
    "waiting for one neuron is a power law": (
        lab.exceeds(scaling.power("uniform, nearest"), 0.9)
        & lab.exceeds(local["uniform, both factors right"].min(), 1.8)
    ),
    "the golden lemma is never broken, and base 0.6 is": lab.below(golden, 1 + 1e-9) & lab.exceeds(bases[0.6], 1),
    "a network ten times as exact: hyperbolic products less than 2.5 times as many, uniform ones more than 4 times": (
        lab.below(growth["hyperbolic products"], 2.5) & lab.exceeds(growth["uniform products"], 4)
    ),
    "clear labels are kept, and pruning changes no weight": lab.exceeds(labels_kept, 1 - 1e-12)
    & lab.below(changed, 1e-15),
}

# %%
reason = (
    f"Ten times the precision costs {growth['hyperbolic products']:.1f} times the hyperbolic and {growth['uniform products']:.1f} times the uniform neurons; simulated samples deviate from theory by at most "
    f"{max(shares.values()):.1%}; local exponents of the product law {', '.join(f'{v:.2f}' for v in local['product'])}."
)
lab.claim(
    "orseau2020logarithmic",
    "A random network needs only a logarithmic factor more neurons than a target network to contain it up to a small error, by pruning alone",
    measured=measured,
    control=control,
    holds=holds,
    scaled="one target network of two layers; samples are not shared between the weights of a layer, so that the paper's batch sampling is not measured",
    data=data.kind("digits"),
    reason=reason,
)

# %% [markdown]
# (paper-liu2025metapruning)=
# ## Meta-pruning: a network that prepares networks
#
# Norms are a crude criterion, but training could make it a good one: move what matters into few units, then cut the
# rest. [Liu et al. (2025)](https://arxiv.org/abs/2506.12041) let a graph network learn that move. A network becomes a
# graph (a node a neuron, an edge a weight), the *metanetwork* sends messages along and against its edges, and returns the
# weights changed by a small residual,
#
# $$\begin{gathered} W' = W + 0.01\,\mathrm{decode}\bigl(\mathrm{layers}(\mathrm{encode}(W))\bigr), \\
# \min\; L(W') + \mathrm{reg}\, \tfrac12 \sum_g \gamma_g \|w_g'\|^2, \quad \gamma_g = 16^{(I_{\max} - I_g)/(I_{\max}-I_{\min})} . \end{gathered}$$
#
# It was trained on twelve small classifiers, with three seeds, and stored (`netatlas weights train pruning_metanetworks`). It is judged on sixteen networks
# that are trained here and that nobody has looked at before: among those held out by the recipe the number had been raised from eight to sixteen after a first
# look, and a comparison that may be prolonged is no fair one. Eight wider networks (48 units for 32) ask whether the skill transfers. Every arm: fine-tune, cut units by group norm, fine-tune, with equal epochs. Controls: the same metanetwork trained on a graph
# whose weights are shuffled, noise of the same size as its change, and group decay applied to each network directly.

# %%
meta, record = weights.load("pruning_metanetworks")
unseen = meta_recipe.unseen(16, seed=seed)
result = meta_recipe.compare_arms(meta, unseen, epochs=lab.pick(ci=5, gpu=20))
wider = meta_recipe.unseen(8, sizes=(64, 48, 48, 10), seed=seed)
moved_on = meta_recipe.compare_arms(meta, wider, epochs=lab.pick(ci=5, gpu=20), only=["plain", "metanetwork"])
transferred = moved_on.after["metanetwork"] - moved_on.after["plain"]
cuts, ahead = meta_recipe.CUTS, result.after["metanetwork"] - result.after["plain"]
names = [f"{c:g}" for c in cuts]

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for axis, values, title in zip(axes, (result.before, result.after), ("before fine-tuning", "after fine-tuning")):
    for arm, marker in zip(values, "osv^x"):
        axis.plot(cuts, values[arm].mean(1), marker=marker, label=arm)
    axis.set(title=title, xlabel="times fewer multiply-adds", xscale="log", xticks=cuts, xticklabels=names)
    axis.minorticks_off()
axes[0].set_ylabel("test accuracy")
axes[0].legend(fontsize="small")
lab.figure(
    fig,
    caption=f"Sixteen unseen networks. One pass of the metanetwork changes weights by {result.moved:.0%} and the spread of group norms from "
    f"{result.spread[0]:.1f} to {result.spread[1]:.1f}; after equal fine-tuning it is ahead of plain pruning by "
    + ", ".join(f"{ex.points(a)} points at {c:g}x" for a, c in zip(ahead, cuts)) + "; on wider networks by "
    + ", ".join(f"{ex.points(a)} at {c:g}x" for a, c in zip(transferred, cuts)) + ".",
    alt="Accuracy against speed-up for five arms, before and after the last fine-tuning.",
)  # fmt: skip

# %%
loss = [float((result.after["plain"][0] - result.after["plain"][k]).mean()) for k in (1, 2)]
deciding = [k for k, lost in zip((1, 2), loss) if lost >= 0.02] or [2]
gained = [paired(result.after["metanetwork"][k], result.after["plain"][k]) for k in deciding]
beyond = [paired(result.after["metanetwork"][k], result.after["random residual"][k]) for k in deciding]
plain_gain = [d.mean - 2 * d.stderr for d in gained]
noise_gain = [d.mean - 2 * d.stderr for d in beyond]
versus = [float((result.after["metanetwork"] - result.after["direct group sparsity"])[k].mean()) for k in deciding]
wiring = [
    float((result.after["shuffled edges"] - result.after["plain"])[k].mean()) / d.mean for k, d in zip(deciding, gained)
]
area = {arm: float(v.mean()) for arm, v in result.before.items()}
rivals = max(area["plain"], area["random residual"])

# %%
measured = {f"metanetwork at {cuts[k]:g}x": result.after["metanetwork"][k] for k in (1, 2)}
measured |= {
    "gain over plain, less two errors": lab.each(plain_gain),
    "metanetwork minus direct group sparsity": lab.each(versus),
    "mean accuracy before fine-tuning": area["metanetwork"],
    "change of the weights": result.moved,
    "gain over plain at 8x, wider networks": transferred[2],
    "permutation and round trip: error": checks["metanetwork: neurons permuted before or after"],
}
control = {
    f"{arm} at {cuts[k]:g}x": result.after[arm][k] for arm in result.after if arm != "metanetwork" for k in (1, 2)
}
control |= {
    "gain over noise, less two errors": lab.each(noise_gain),
    "gain of shuffled edges over gain": lab.each(wiring),
    "mean accuracy before fine-tuning, better of plain and noise": rivals,
}

# %%
holds = {
    "above plain by two standard errors where plain loses two points": lab.exceeds(min(plain_gain), 0),
    "above noise of the same size": lab.exceeds(min(noise_gain), 0),
    "not half a point below direct group sparsity": lab.exceeds(min(versus), -0.005),
    "shuffled edges have at most half of the gain": lab.below(max(wiring), 0.5),
    "better before any fine-tuning as well": lab.exceeds(area["metanetwork"], rivals),
    "weights do change": lab.exceeds(result.moved, 0.01),
    "neurons may be permuted": lab.below(checks["metanetwork: neurons permuted before or after"], 1e-10),
}

# %%
reason = (
    "the metanetwork is ahead of plain pruning by "
    + ", ".join(f"{ex.points(ahead[k])} points at {cuts[k]:g}x" for k in (1, 2))
    + f"; {int((result.after['plain'][1] < result.after['plain'][0] - 0.2).sum())} of {len(ahead[1])} networks lose more than twenty points by plain pruning at {cuts[1]:g}x, "
    f"and carry the mean (the median gain is {100 * float(ahead[1].median()):+.1f} points)"
    + "; minus group decay applied to each network by gradient descent, for as many epochs, it is "
    + ", ".join(f"{v:+.1%} at {cuts[k]:g}x" for v, k in zip(versus, deciding))
    + "; one forward pass does not replace a training of each network"
)
# %%
lab.claim(
    "liu2025metapruning",
    "A graph network trained on a few networks changes weights so that ordinary pruning hurts much less",
    measured=measured,
    control=control,
    holds=holds,
    reason=reason,
    scaled="perceptrons of 3,500 weights and a metanetwork of three layers of width 16, instead of ResNets and VGG with eight layers of width 64",
    data="real",
)  # fmt: skip

# %% [markdown]
# (paper-hershcovitch2024zipnn)=
# ## ZipNN: prune nothing, store less
#
# The last way to make a network smaller touches no weight. [Hershcovitch and others (2024)](https://arxiv.org/abs/2411.05239) compress the *file*. A
# general compressor looks for repeats, and weights have none. But a floating-point number is three things in one,
#
# $$\text{sign} \;|\; \text{exponent} \;|\; \text{mantissa},$$
#
# and while sign and mantissa are as good as random, exponents are not: magnitudes crowd into about a dozen powers of two. Move the exponent
# into a byte of its own, collect these bytes from all weights, give them a Huffman code, and leave the rest alone. For normal weights the exponent's
# entropy is {glue:text}`zip_bits` bits out of eight, whatever their scale: a factor of two only shifts the code.
#
# A lossless codec has no right to be nearly right. Every pattern of sixteen bits, NaN, infinities, denormal numbers, odd and empty shapes
# come back bit for bit; a damaged file is refused. Four laws test the code's length. A uniform one ends somewhere between two powers of two, and where
# decides how well whole bits fit its exponents: to 0.02, where it was drawn first, even the best Huffman code without any
# header comes near the bound asked for, and the headers decide; it is drawn to 0.05 now, and the first case has a row of its own.

# %%
back, cases = ce.round_trips(seed)
refused, broken = ce.damage_found(seed)
code = ce.check_codes(seed)
entropies = gaussian_exponent_entropy(np.geomspace(0.01, 0.02, 9))
lab.glue("zip_bits", f"{entropies.min():.2f} to {entropies.max():.2f}")
million = lab.pick(ci=1_000_000, gpu=100_000_000)
laws_sizes = {law: ce.sizes(ce.draw_law(law, million, seed=seed).bfloat16()) for law in ce.LAWS}
awkward = ce.sizes(ce.draw_law("uniform", million, seed=seed, scale=0.02).bfloat16())
over_entropy = {law: s["ours"] / s["entropy of the planes"] for law, s in laws_sizes.items()}
excess, worst = max(over_entropy.values()), awkward["ours"] / awkward["entropy of the planes"]
noise = len(compress(ce.draw_law("random bits", million // 2, seed=seed))) / (2 * million)
lab.table(
    pd.DataFrame(laws_sizes | {"uniform, to 0.02": awkward}).T.rename_axis("bfloat16 drawn from"),
    caption=f"Size after compression, plain = 1. Ours stays within {excess - 1:.2%} of the entropy of the bytes (uniform to 0.02: {worst - 1:.2%}); random bits take {noise:.4f}. {back} of {cases} hard cases come back "
    f"bit for bit, {refused} of {broken} damaged files are refused. Codes cut at twelve bits are {code.excess:.2%} longer than Huffman's at most.",
)

# %% [markdown]
# These are laws, and laws test the codec. The claim is about *trained* weights. They are a perceptron trained on digits of MNIST, the same
# network as it was initialised (if that compresses as well, training is not the reason), and the networks that this book keeps.

# %%
pixels, classes = data.load("mnist", limit=lab.pick(ci=3000, gpu=60_000), stand_in=data.digit_images)
trained, initial = ce.trained_weights(pixels, classes, seed=seed, epochs=lab.pick(ci=2, gpu=20))
files = {
    "trained, bfloat16": trained.bfloat16(),
    "as initialised, bfloat16": initial.bfloat16(),
    "trained, float32": trained,
    "trained, rounded to bfloat16, float32": trained.bfloat16().float(),
}
files |= {f"{name}, float32": ce.flat_weights(weights.load(name)[0]) for name in sorted(weights.recipes())}
stored = {name: ce.sizes(w) for name, w in files.items()}
delta = ce.sizes(trained, reference=initial)["difference to the reference"]
half = stored["trained, bfloat16"]
against = half["ours"] / half["zstd"]

# %%
speeds = ce.throughput(ce.draw_law("normal", 2_000_000, seed=seed).bfloat16())
shown = pd.DataFrame(stored).T.rename_axis("weights").drop(columns="Huffman without grouping")
lab.table(
    shown,
    caption=f"Trained weights in bfloat16 take {half['ours']:.1%} of their size, {against:.2f} times what zstd leaves; initialised ones {stored['as initialised, bfloat16']['ours']:.1%}. The difference "
    f"between trained and initial weights, in float32, takes {delta:.1%}, the trained weights themselves {stored['trained, float32']['ours']:.1%}. Without the rotation of the bits "
    f"{half['without rotation']:.1%}, with zstd for Huffman {half['planes, then zstd']:.1%}.",
)

# %%
lab.table(
    pd.DataFrame([{"": name, "MB/s": lab.volatile(round(v))} for name, v in speeds.items()]),
    index=False,
    caption="Plain megabytes a second on one thread, normal weights in bfloat16. The codec here is compiled Python; the authors' is C. Times differ from run to run.",
)

# %%
measured = {
    "trained bfloat16: size": half["ours"],
    "trained bfloat16: ours / zstd": against,
    "trained float32: size": stored["trained, float32"]["ours"],
    "hard cases that come back": back,
    "damaged files that are refused": refused,
    "drawn laws: size / entropy, largest": excess,
    "uniform to 0.02: the same": worst,
    "codes cut at twelve bits: excess over Huffman": code.excess,
    "Kraft sums: largest distance from one": code.kraft,
    "streams: bits not accounted for": code.mismatch,
}
control = {
    "random bits: size": noise,
    "initialised bfloat16: size": stored["as initialised, bfloat16"]["ours"],
    "trained bfloat16, zstd on the planes: size": half["planes, then zstd"],
}

# %%
holds = {
    "trained bfloat16 shrinks to .62 to .72, and by a tenth more than with zstd": lab.within(half["ours"], 0.62, 0.72)
    & lab.below(against, 0.9),
    "trained float32 shrinks to .79 to .87": lab.within(stored["trained, float32"]["ours"], 0.79, 0.87),
    "every case comes back, every damage is found": lab.exceeds(back, cases - 0.5) & lab.exceeds(refused, broken - 0.5),
    "within 1.5 % of the entropy": lab.below(excess, 1.015),
    "codes are optimal to a thousandth, and complete": (
        lab.below(code.excess, 1e-3) & lab.below(code.kraft, 1e-12) & lab.below(code.mismatch, 0.5)
    ),
    "random bits do not shrink": lab.within(noise, 1, 1.002),
}

# %%
least_exact = max(over_entropy, key=over_entropy.get)
reason = (
    f"Farthest from the entropy is the {least_exact} law, {excess - 1:.2%} above it: signs and mantissas are stored as they are although they hold a little less than eight bits, and a Huffman code "
    f"gives every exponent a whole number of bits. Trained bfloat16 weights take {half['ours']:.3f} ({against:.3f} of zstd's size), float32 {stored['trained, float32']['ours']:.3f}; {back} of {cases} cases come "
    f"back and {refused} of {broken} damaged files are refused."
)

# %%
lab.claim(
    "hershcovitch2024zipnn",
    "Separating exponents from mantissas and entropy-coding them compresses model weights losslessly, and better than general compressors",
    measured=measured,
    control=control,
    holds=holds,
    scaled="networks of up to a few hundred thousand weights instead of billions; the claim on speed is reported, not judged",
    data=data.kind("mnist"),
    reason=reason,
)

# %% [markdown]
# ## Family portrait
#
# One network (64-100-100-10), one data set, twelve epochs for everybody. Weights count as left if they connect live units: what leads to
# a unit that nobody hears is not counted. Networks trained with normalisation (DRESS, slimmable) share theirs among levels. The metanetwork is the stored
# one, used on networks three times as wide as those it knows. Pruned agents and the robustness lottery use methods that are here under their own names (gradual, and
# the seven). Three papers have no point: the ratio of pruning spaces is one in every perceptron, logarithmic pruning chooses from a far
# larger random network and trains nothing, and ZipNN removes no weight.

# %%
portrait = ex.portrait_points(seed, seeds=lab.seeds(3), epochs=12, metanetworks=meta)
sparse = {w: [p for p in portrait if p.structured == w and float(p.remaining.mean()) < 0.15] for w in (False, True)}
kings = {w: max(group, key=ex.Point.height) for w, group in sparse.items()}

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 5.6), sharey=True, layout="constrained")
for axis, whole, title in zip(axes, (False, True), ("single weights", "whole units, tiles, widths")):
    for method, marker in zip(dict.fromkeys(p.method for p in portrait if p.structured == whole), "osv^Dx*P<>1"):
        own = sorted((p for p in portrait if p.method == method), key=ex.Point.place)
        axis.plot([p.place() for p in own], [p.height() for p in own], marker=marker, label=method)
    axis.set(title=title, xlabel="share of weights left", xscale="log", xticks=[0.03, 0.1, 0.3, 1], ylim=(0.6, 1))
    axis.set_xticklabels(["3 %", "10 %", "30 %", "100 %"])
    axis.minorticks_off()
    axis.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
axes[0].set_ylabel("test accuracy")
told = [f"“{k.method}” with {k.height():.1%} at {k.place():.1%}" for k in kings.values()]
lab.portrait(
    fig,
    caption=f"Of networks with less than 15 % of the weights, the best are {told[0]} among single weights and {told[1]} among whole units. Means of three seeds; "
    "points below the axis are not shown.",
    alt="Two panels of accuracy against the share of weights left: many methods of unstructured and structured pruning.",
)

# %% [markdown]
# ## What is scaled down
#
# Networks have thousands of weights and not millions, and are trained for seconds to minutes on digits, so a verdict says how a mechanism acts in the small. Agents are trained for three
# thousand updates on two simple tasks and are far from playing them well; populations, agents and metanetworks are stored with the code that makes them again, and only judged here. Learning rates of the lottery were chosen once, per method, those of
# agents and of DRESS per arm. The `gpu` profile lengthens and widens searches, suites and fronts; everything runs on the CPU
# whatever `device` says.
#
# ## Exercises
#
# 1. Give `sparse_speed` a `batch` of 1. How does each layout compare with the dense product now, and which of them does less work per stored weight?
# 2. Set `decays` to 1e-3, 3e-3, 1e-2. Does the choice on validation data still take the largest?
# 3. In `level_masks` a level of 0.99 leaves a row one weight. Add it to `levels`: which arm suffers most?
# 4. Let `run_suite` train twice the `epochs`. Do rewound weights catch up with the rewound rate? With hidden layers of 100 and 50 units and 3000 images, which
#    of the conditions change sides, and which do not?
# 5. Fix `meta_seeds` to a single one. How much do the arms change?
# 6. Double the `budget` of the architecture search. Where is the searched, distilled network among the arms now, and is the planted layer still missed?
