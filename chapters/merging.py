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
# # Merging
#
# Two trained networks are given, and no time to train a third. Can one network be made of them that is better than
# either, at the price of one? Averaging predictions is the customary way and costs two networks at every prediction.
# Averaging *weights* would cost one, but weights are not predictions: the same function can be written in many orders of its
# neurons, and not every weight matters to the network that holds it. This chapter takes three answers: put the neurons
# in the same order first (optimal-transport fusion), let each weight count by how much its network depends on it (Fisher
# merging), or do not mix weights at all and run the first layers of one network and the last layers of another
# (stitching).

# %% tags=["parameters"]
profile, seed, device = "ci", 0, "cpu"

# %%
import math
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import torch

from netatlas import data, lab
from netatlas.core.nn import MLP
from netatlas.core.states import parameter_distance
from netatlas.core.stats import stderr
from netatlas.core.train import fit_many
from netatlas.merging import experiments as ex
from netatlas.merging import paired_stitching_configs, pareto_front, stitching_space

lab.begin("merging", profile=profile, seed=seed, device=device)

# %%
lab.papers_table()

# %% [markdown]
# ## The shared kernel: an average with a matrix for a coefficient
#
# Write a network as a vector $\theta_i$ of weights. All weight merges in this chapter have one form,
#
# $$\theta = \Bigl(\sum_i \Lambda_i\Bigr)^{-1} \sum_i \Lambda_i\, \Pi_i\, \theta_i ,$$
#
# where $\Pi_i$ rewrites network $i$ in the neurons of a common reference and $\Lambda_i$ says how sure it is of each
# weight. The plain average has $\Pi_i = I$ and $\Lambda_i = \lambda_i I$. Optimal-transport fusion chooses $\Pi_i$; Fisher
# merging chooses a diagonal $\Lambda_i$. Stitching leaves the sum alone and joins networks in depth, through a linear map
# $S$ that carries the features of one to those of the other.
#
# Each kernel has a case in which the right answer is known exactly. All errors below but the last two must be rounding
# errors; the last two are controls that must *not* vanish, because they use a rule that is only right elsewhere: one
# transport map for networks of different widths, and Fisher matrices that were scaled before merging.

# %%
checks = {name: lab.rounding(error, 1e-12) for name, error in ex.exact_checks(seed).items()}
misplaced = ["OT: doubled neurons, published single map", "Fisher: merged least squares, normalised Fishers"]
wrong = [checks[check] for check in misplaced]
right = [checks[check] for check in checks if check not in misplaced]
table = pd.DataFrame({"largest error": checks}).rename_axis("check")
lab.table(
    table,
    fmt="{:.1e}",
    caption=f"{len(right)} closed forms are met to {max(right):.0e}; the {len(wrong)} rules used out of place miss by "
    f"{min(wrong):.2f} or more.",
)

# %% [markdown]
# (paper-singh2020otfusion)=
# ## Optimal-transport fusion: agree on an order of neurons, then average
#
# [Singh and Jaggi (2020)](https://arxiv.org/abs/1910.05653) start from a symmetry. Exchange two hidden neurons together with
# their incoming and outgoing weights, and the network computes the same function; two training runs therefore end in
# two arbitrary orders. Averaging neuron 7 of one network with neuron 7 of the other mixes things that have nothing to
# do with each other. So first find, layer by layer, which neuron of A plays the role of which neuron of B. With the
# columns of layer $\ell$ already expressed in B's neurons, the roles come from an optimal transport problem:
#
# $$\begin{aligned}
# \hat W_\ell &= W^A_\ell T_{\ell-1},\qquad
# P = \arg\min_{P\mathbf 1=\mu,\;P^\top\mathbf 1=\nu} \langle P, C\rangle,\\
# T_\ell &= P\,\mathrm{diag}(\nu)^{-1},\qquad
# W_\ell = (1-s)\,T_\ell^\top\hat W_\ell + s\,W^B_\ell .
# \end{aligned}$$
#
# The cost $C_{ij}$ is the distance between neurons $i$ and $j$, either of their incoming weights or of their pre-activations
# on a few hundred unlabelled inputs. At equal widths the plan is a permutation, so this is what later papers call weight matching and
# activation matching. Pairs of networks without biases are trained from different initialisations; the control moves A by
# a *random* permutation instead, which leaves its function just as intact. One random order is a noisy control, so at
# one half its accuracy is averaged over {glue:text}`ot_orders` orders a pair.

# %%
pairs, count = 5, lab.pick(ci=12_000, gpu=45_000)
name, architecture = lab.pick(ci=("mnist", "mlp"), gpu=("cifar10_jpeg", "vgg"))
stand_in = {"mnist": data.digit_images, "cifar10_jpeg": data.colour_images}[name]
images, labels = (part.to(lab.device()) for part in data.load(name, stand_in=stand_in))
unseen, answers = (part.to(lab.device()) for part in data.load(name, split="test", stand_in=stand_in))
images, unseen = ex.standardized(images, unseen)
train, validation = (images[:count], labels[:count]), (images[count:][:2000], labels[count:][:2000])
test = unseen[: lab.pick(ci=5000, gpu=10_000)], answers[: lab.pick(ci=5000, gpu=10_000)]
build = partial(ex.fusion_network, architecture)
recipe = lab.pick(
    ci={"epochs": 3, "batch_size": 64, "lr": 0.05, "momentum": 0.5},
    gpu={"epochs": 40, "batch_size": 128, "lr": 0.02, "momentum": 0.9, "schedule": "cosine"},
) | {"device": device}

# %%
runs = lab.seeds(2 * pairs)
networks = fit_many(build, *train, seeds=runs, **recipe)
first, second = networks[0::2], networks[1::2]
samples = train[0][:200]
aligned = ex.aligned_sources(first, second, samples, seed=seed)
alike = ex.fusion_comparison(aligned, second, [0, 0.25, 0.5, 0.75, 1], validation, test)

# %% [markdown]
# Which of the two costs to use is decided once, on validation data at $s = 1/2$; the test set is looked at afterwards.
# The function of the transported network must not have changed, and does not.

# %%
modes = ["OT, weights", "OT, activations"]
best = ex.better_mode(alike, modes, 0.5)
parents = ex.mean_accuracy([first, second], *test)
orders = 16
plain, fused = alike.middle["plain average"], alike.middle[best]
mixed = ex.random_order_accuracy(first, second, test, orders=orders, seed=seed)
together = ex.ensemble_accuracy([first, second], *test)
gap = lab.rounding(max(float(ex.function_gap(first, aligned[mode], unseen).max()) for mode in modes), 1e-5)
lab.glue("ot_gap", gap, ".1e")
lab.glue("ot_mode", best)
lab.glue("ot_orders", str(orders))

# %% [markdown]
# Largest change of any logit on any test image by moving A's neurons: at most {glue:text}`ot_gap`. Chosen cost: {glue:text}`ot_mode`.
#
# **Skill transfer.** Now the parents are unlike. A saw every example of one class (index 4, the digit four) and a tenth
# of the rest; B saw the other nine tenths and never that class. There is no reason why half and half should be best, so
# the share $s$ of B is chosen on validation data *for every arm*, the plain average included; the ends of the grid are
# the parents themselves.

# %%
specialist, generalist = ex.skill_split(train[1], seed=seed)
eight = lab.seeds(16)
skilled = fit_many(build, train[0][specialist], train[1][specialist], seeds=eight[:8], **recipe)
broad = fit_many(build, train[0][generalist], train[1][generalist], seeds=eight[8:], **recipe)
moved = ex.aligned_sources(skilled, broad, samples, seed=seed)
steps = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]
unlike = ex.fusion_comparison(moved, broad, steps, validation, test)
better = torch.maximum(skilled.accuracy(*test), broad.accuracy(*test)).cpu()
transfer = ex.better_mode(unlike, modes)
skill, surplus = unlike.test[transfer] - unlike.test["plain average"], unlike.test[transfer] - better
skill_middle = unlike.middle[transfer] - unlike.middle["plain average"]

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, outcome, title in zip(axes, [alike, unlike], ["Same data", "Skill transfer"]):
    for arm, curve in outcome.validation.items():
        spread = [stderr(row) for row in curve]
        axis.errorbar(outcome.shares, curve.mean(1), spread, marker="o", label=arm, capsize=2)
    axis.set(title=title, xlabel="share s of parent B", ylabel="validation accuracy")
axes[0].legend()
lab.figure(
    fig,
    caption="Curves: validation data, bars are standard errors over pairs, one random order a pair. Test accuracy half "
    f"way between two networks trained alike: plain average {plain.mean():.1%}, aligned {fused.mean():.1%}, random order "
    f"{mixed.mean():.1%} ({orders} orders a pair), parents {parents.mean():.1%}. Between unlike parents alignment gains "
    f"{ex.points(skill_middle)} points at one half (mean and standard error, test), and {ex.points(skill)} once every "
    f"arm has chosen its share; minus the better parent it is then {ex.points(surplus)} points.",
    alt="Two panels of accuracy against the share of parent B: plain average, random order, two kinds of alignment.",
)

# %% [markdown]
# **Different widths.** A may be wider than B; then the plan is rectangular and neurons of A are merged. The published
# algorithm moves columns and rows with the same map. But a neuron's incoming weights should be *averaged* with those of
# its likes, while outgoing weights should be *added*; averaging them too shrinks A's part of every later layer by the
# ratio of the widths. Both versions run here, against B alone and against the neurons of A with the largest weights
# averaged with B. Each arm's share is chosen on validation data.

# %%
wide = first[:3]
narrow = fit_many(partial(build, scale=0.5), *train, seeds=lab.seeds(103)[100:], **recipe)
sizes = [weight.shape[2] for weight in narrow.params.values()][1:]
squeezed = {"largest neurons of A": ex.narrowed_sources(wide, sizes)}
for word, corrected in {"single map": False, "two maps": True}.items():
    arms = ex.aligned_sources(wide, narrow, samples, corrected=corrected)
    squeezed |= {f"{mode}, {word}": state for mode, state in arms.items()}
widths = ex.fusion_comparison(squeezed, narrow, steps, validation, test)
rows = ex.comparison_rows(widths)
rows["B alone"] = {"share chosen": float(narrow.accuracy(*test).mean()), "mean share of B": 1.0}
rows["A alone, twice as wide"] = {"share chosen": float(wide.accuracy(*test).mean()), "mean share of B": 0.0}

# %%
one, two = (f"{best}, {word}" for word in ("single map", "two maps"))
ahead = {arm: widths.test[arm] - narrow.accuracy(*test).cpu() for arm in widths.test}
winners = [arm for arm, lead in ahead.items() if lead.mean() > 2 * stderr(lead)]
halves = widths.middle[two] - widths.middle[one]
lab.table(
    pd.DataFrame(rows).T.rename_axis("test accuracy"),
    caption=f"Fusing a wide network into a narrow one, {len(narrow)} pairs. "
    + (" and ".join(winners) + " beat" if winners else "No arm beats")
    + " B alone by two standard errors; minus B alone, in points: "
    + "; ".join(f"{arm} {ex.points(ahead[arm])}" for arm in (one, two))
    + f". At one half the corrected maps are {'better' if halves.mean() > 2 * stderr(halves) else 'not better'} "
    f"than the single one: {ex.points(halves)} points ({best}).",
)

# %% [markdown]
# The shares tell how to read the table: an arm whose chosen share is near one has mostly thrown A away. Shrinking A's
# part, as the single map does, may itself act like a way of leaning towards B.
#
# **Fine-tuning.** The paper's best figures come after a little training from the fused weights. Equal steps from the
# fused network, from the plain average, and from a parent that simply continues; at one learning rate, the parents',
# which was not tuned for any of them:

# %%
few, tune = lab.pick(ci=4000, gpu=45_000), recipe | {"epochs": lab.pick(ci=1, gpu=10)}
starts = {best: aligned[best], "plain average": aligned["plain average"], "parent B": second.params}
tuned, end = {}, {}
for arm, start in starts.items():
    half = ex.with_weights(second, ex.blend(start, second.params, 0.5))
    child = fit_many(build, train[0][:few], train[1][:few], seeds=runs[:pairs], init=half, **tune)
    end[arm] = child.accuracy(*test).cpu()
    tuned[arm] = {"one shot": float(half.accuracy(*test).mean()), "fine-tuned": float(end[arm].mean())}
lead = end[best] - end["parent B"]
lab.table(
    pd.DataFrame(tuned).T.rename_axis("test accuracy"),
    caption="After equal fine-tuning, in points with paired standard errors: fused network minus plain average "
    f"{ex.points(end[best] - end['plain average'])}, minus a parent that simply continues {ex.points(lead)}"
    + (". " if lead.mean() > 2 * stderr(lead) else "; no gain over the parent is seen here. ")
    + f"The ensemble of both untouched parents has {together.mean():.1%} at twice the cost.",
)

# %%
gain, lost = fused - plain, parents - plain
copies = ["permuted copy transported back, weights", "permuted copy transported back, activations"]
undone = max(checks[f"OT: {case}"] for case in [*copies, "doubled neurons, corrected maps"])

# %%
measured = {
    "parents": parents,
    "plain average": plain,
    "OT fusion": fused,
    "ensemble (twice the cost)": together,
    "skill transfer: better parent": better,
    "skill transfer: plain average, share chosen": unlike.test["plain average"],
    "skill transfer: OT fusion, share chosen": unlike.test[transfer],
    "largest change of a logit by moving A's neurons": gap,
    "exact cases: largest error of a weight": undone,
}
control = {
    f"random order, mean of {orders} orders": mixed,
    "skill transfer: random order, share chosen": unlike.test["random order"],
}

# %%
holds = {
    "OT fusion beats plain averaging by two standard errors": lab.exceeds(gain.mean(), 2 * stderr(gain)),
    "it restores more than half of what plain averaging loses": lab.exceeds(gain.mean(), lost.mean() / 2),
    "a random order gains less than half as much": lab.below((mixed - plain).mean(), gain.mean() / 2),
    "skill transfer: OT beats plain averaging by two standard errors": lab.exceeds(skill.mean(), 2 * stderr(skill)),
    "skill transfer: OT beats the better parent by two standard errors": lab.exceeds(
        surplus.mean(), 2 * stderr(surplus)
    ),
    "the transported network is the same function": lab.below(gap, 1e-4),
    "a permuted copy and doubled neurons are undone exactly": lab.below(undone, 1e-6),
}

# %%
lab.claim(
    "singh2020otfusion",
    "Aligning neurons by optimal transport before averaging keeps accuracy that plain averaging loses, "
    "and transfers a skill between unlike networks",
    measured=measured,
    control=control,
    holds=holds,
    scaled=lab.pick(
        ci="three-layer MLP on MNIST, 3 epochs, instead of VGG11 and ResNet18 on CIFAR-10",
        gpu="VGG-like network of half the width, 40 epochs on JPEG-compressed CIFAR-10",
    ),
    data=data.kind(name),
    reason="With the share tuned for every arm, the plain average may fall back on a share near one parent: in the skill "
    f"transfer alignment then adds {skill.mean():+.4f} with standard error {stderr(skill):.4f} over {len(skill)} pairs, "
    f"and is {surplus.mean():+.4f} ahead of the better parent with standard error {stderr(surplus):.4f}.",
)

# %% [markdown]
# (paper-matena2021fisher)=
# ## Fisher merging: each weight counts as much as its network needs it
#
# [Matena and Raffel (2021)](https://arxiv.org/abs/2111.09832) look at parents that share their initialisation, say one
# pre-trained network fine-tuned twice. Their neurons are still in the same order, and the question is another one:
# *whose* value of a weight to believe. If each fine-tuned network is a Gaussian belief about the weights, with a
# precision $F_i$, the best compromise is the mode of the product,
#
# $$\theta^{(j)} = \frac{\sum_i \lambda_i F_i^{(j)}\theta_i^{(j)}}{\sum_i \lambda_i F_i^{(j)}},\qquad
# F = \frac1N\sum_n\sum_y p_\theta(y\mid x_n)\,\bigl(\nabla_\theta\log p_\theta(y\mid x_n)\bigr)^2 .$$
#
# The expectation runs over the *model's* labels, example by example: a weight whose change would not move any
# prediction gets a Fisher entry near zero and yields to the other network. Equal precisions give back the plain
# average. In a dense layer the squared gradient factorises, so a layer costs one matrix product forward, one
# a class backward, and one for the squares.
#
# A base network learns upright digits; A is fine-tuned on digits turned by 45° one way, B on digits turned the other
# way. The merged network is asked for both. The control shuffles the Fisher's entries inside each tensor: the same
# histogram, no information. Each arm, the plain average and the ensemble included, chooses its own coefficient on
# validation data.

# %%
body = lab.pick(ci=partial(MLP, [784, 64, 32, 10]), gpu=partial(ex.fusion_network, "vgg", bias=True))
edges = lab.pick(ci=(4000, 7000, 10_000), gpu=(20_000, 32_000, 44_000))
family = lab.seeds(5)
base = fit_many(body, images[: edges[0]], labels[: edges[0]], seeds=family, **recipe)
parts = [slice(edges[0], edges[1]), slice(edges[1], edges[2])]
tasks = [(ex.shifted(images[part], side, seed=seed), labels[part]) for side, part in enumerate(parts)]
tuned_a, tuned_b = (fit_many(body, *task, seeds=family, init=base, **recipe) for task in tasks)
known = [(x[:1000], y[:1000]) for x, y in tasks]
weights = ex.fisher_arms(tuned_a, tuned_b, known, seed=seed)

# %%
grid = [i / 10 for i in range(11)]
check = validation[0][:1000], validation[1][:1000]
exam = unseen[:5000], answers[:5000]
both_check, both_exam = ex.both_shifts(*check, seed=seed), ex.both_shifts(*exam, seed=seed)
turned = ex.fisher_comparison(tuned_a, tuned_b, weights, grid, both_check, both_exam)
lab.glue("fisher_own", float(ex.shift_accuracy([tuned_a, tuned_b], *exam).mean()), ".1%")
lab.glue("fisher_other", float(ex.shift_accuracy([tuned_a, tuned_b], *exam, swapped=True).mean()), ".1%")
lab.glue("fisher_apart", float(parameter_distance(tuned_a.params, tuned_b.params, member_axis=True).mean()), ".2f")
lab.glue("fisher_moved", float(parameter_distance(tuned_a.params, base.params, member_axis=True).mean()), ".2f")

# %% [markdown]
# A parent has {glue:text}`fisher_own` on its own shift and {glue:text}`fisher_other` on the other's. The parents lie
# {glue:text}`fisher_apart` apart in weight space, and each {glue:text}`fisher_moved` from the base.
#
# The same machinery serves *robust fine-tuning*: merge the base with its own fine-tuned child, and trade accuracy on
# the base's domain for accuracy on the new one. To compare arms, each seed's curve is read where exactly five points are
# lost on the base's domain, between the tested coefficients.

# %%
few_x, few_y = unseen[:2000], answers[:2000]
domains = (few_x, few_y), (ex.shifted(few_x, 0, seed=seed), few_y)
trade = ex.robust_finetuning(base, tuned_a, ((images[:1000], labels[:1000]), known[0]), grid, domains, seed=seed)
at_five = {arm: ex.accuracy_at_loss(*curves, 0.05) for arm, curves in trade.items()}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6))
looks = {}
for arm in ["isotropic", "Fisher", "shuffled Fisher", "empirical Fisher", "ensemble"]:
    (line,) = axes[0].plot(grid, turned.validation[arm].mean(1), marker="o", label=arm)
    looks[arm] = {"color": line.get_color(), "linestyle": line.get_linestyle()}
axes[0].set(title="Two fine-tuned networks", xlabel="coefficient of B", ylabel="validation accuracy, both shifts")
axes[0].legend()
for arm, (old, new) in trade.items():
    axes[1].plot(old.mean(1), new.mean(1), marker="o", label=arm, **looks[arm])
axes[1].set(title="Base and its child", xlabel="test accuracy, base's domain", ylabel="test accuracy, new domain")
axes[1].legend()
shown = {arm: f"{value.mean():.1%}" for arm, value in turned.test.items()}

# %%
lab.figure(
    fig,
    caption=f"Left (curves: validation data): each at its chosen coefficient, the Fisher merge has {shown['Fisher']} on the test set, the plain "
    f"(isotropic) average {shown['isotropic']}, shuffled Fisher entries {shown['shuffled Fisher']}, the ensemble "
    f"{shown['ensemble']}. Right (first {len(few_y)} test images): where exactly five points are lost on the base's "
    "domain, the new one has "
    + ", ".join(f"{arm} {value.mean():.1%}" for arm, value in at_five.items())
    + f"; Fisher minus isotropic {ex.points(at_five['Fisher'] - at_five['isotropic'])} points, shuffled Fisher minus "
    f"isotropic {ex.points(at_five['shuffled Fisher'] - at_five['isotropic'])} (means and standard errors over seeds).",
    alt="Left: accuracy against merging coefficient for four merges and the ensemble. Right: accuracy on the new domain "
    "against accuracy on the base's domain for the plain average, the Fisher merge, the shuffled Fisher and the ensemble.",
)

# %% [markdown]
# **Two more settings, whatever they give.** In the first, A is fine-tuned on classes 0 to 4 and B on classes 5 to 9. In
# the second, five copies of one network are fine-tuned on the *same* task and differ in the order of their data only.

# %%
x, y = images[edges[0] : edges[2]], labels[edges[0] : edges[2]]
halves = [(x[mask], y[mask]) for mask in (y < 5, y >= 5)]
low, high = (fit_many(body, *half, seeds=family, init=base, **recipe) for half in halves)
named = ["isotropic", "Fisher", "shuffled Fisher"]
arms = ex.fisher_arms(low, high, [(x[:1000], y[:1000]) for x, y in halves], arms=named, seed=seed)
split = ex.fisher_comparison(low, high, arms, grid, check, exam)

# %%
groups, copies = 3, 5
start, own_exam = ex.repeat_members(base[:groups], copies), (ex.shifted(exam[0], 0, seed=seed), exam[1])
crowd = fit_many(body, *tasks[0], seeds=lab.seeds(groups * copies), init=start, **recipe)
same = {
    arm: ex.with_weights(base[:groups], ex.merge_copies(crowd, groups, fishers)).accuracy(*own_exam).cpu()
    for arm, fishers in {"isotropic": None, "Fisher": ex.stacked_fisher(crowd, known[0][0])}.items()
}
same["ensemble"] = ex.ensemble_accuracy([crowd[i::copies] for i in range(copies)], *own_exam)
same["mean parent"] = ex.mean_accuracy([crowd[i::copies] for i in range(copies)], *own_exam)

# %%
settings = {
    "opposite shifts": turned.test | {"mean parent": ex.mean_accuracy([tuned_a, tuned_b], *both_exam)},
    "disjoint classes": split.test | {"mean parent": ex.mean_accuracy([low, high], *exam)},
    "five copies, same task": same,
}
table = pd.DataFrame({key: {arm: float(v.mean()) for arm, v in arms.items()} for key, arms in settings.items()})
gains = {key: arms["Fisher"] - arms["isotropic"] for key, arms in settings.items()}
sources = {arm: turned.test[arm] - turned.test["Fisher"] for arm in ("one sampled label", "empirical Fisher")}
seen = [arm for arm, change in sources.items() if abs(float(change.mean())) > 2 * stderr(change)]

# %%
lab.table(
    table.rename_axis("test accuracy"),
    caption="Fisher minus plain (isotropic) average, in points with standard errors: "
    + "; ".join(f"{key} {ex.points(gain)}" for key, gain in gains.items())
    + ". On the opposite shifts, minus the exact Fisher: "
    + "; ".join(f"{arm} {ex.points(change)}" for arm, change in sources.items())
    + (
        f": beyond two standard errors for {' and '.join(seen)}."
        if seen
        else ": the source of the labels is not what matters here."
    ),
)

# %%
gain = gains["opposite shifts"]
nothing = turned.test["shuffled Fisher"] - turned.test["isotropic"]
logistic = checks["Fisher: logistic regression, closed form"]
summed, normalised = (checks[f"Fisher: merged least squares, {word} Fishers"] for word in ("summed", "normalised"))
arms = ["mean parent", "isotropic", "Fisher", "one sampled label", "empirical Fisher", "ensemble"]

# %%
measured = (
    {arm: settings["opposite shifts"][arm] for arm in arms}
    | {f"disjoint classes: {arm}": split.test[arm] for arm in ("isotropic", "Fisher")}
    | {f"five copies, same task: {arm}": same[arm] for arm in ("isotropic", "Fisher")}
)
control = {
    "shuffled Fisher": turned.test["shuffled Fisher"],
    "exact case: logistic regression (error)": logistic,
    "exact case: least squares with summed Fishers (error)": summed,
    "least squares with normalised Fishers (error)": normalised,
}

# %%
holds = {
    "Fisher beats the plain average by two standard errors": lab.exceeds(gain.mean(), 2 * stderr(gain)),
    "it does so on at least four of five seeds": lab.exceeds((gain > 0).sum(), 3),
    "shuffled Fisher entries gain less than half as much": lab.below(nothing.mean(), gain.mean() / 2),
    "summed Fishers merge least squares exactly": lab.below(summed, 1e-10),
    "and normalised ones do not": lab.exceeds(normalised, 1e-6),
    "the Fisher of logistic regression is the closed form": lab.below(logistic, 1e-6),
}

# %%
lab.claim(
    "matena2021fisher",
    "Weighting each parameter by its Fisher information makes the average of networks with a common initialisation "
    "better than the plain average",
    measured=measured,
    control=control,
    holds=holds,
    scaled=lab.pick(
        ci="three-layer MLPs on rotated MNIST instead of fine-tuned BERT, RoBERTa and vision transformers",
        gpu="a small VGG-like network on corrupted CIFAR-10 (JPEG) instead of BERT, RoBERTa and vision transformers",
    ),
    data=data.kind(name),
    reason=f"Fisher minus plain average is {gain.mean():+.4f} with standard error {stderr(gain):.4f} over {len(gain)} "
    f"seeds; shuffled entries give {nothing.mean():+.4f}.",
)

# %% [markdown]
# (paper-pan2023snnet)=
# ## Stitchable networks: many costs from a few anchors
#
# [Pan, Cai and Zhuang (2023)](https://arxiv.org/abs/2302.06586) merge in depth. Given trained *anchors* of rising
# width, run the first blocks of a small one, map its features by a linear layer $S$ into the stream of the next larger
# one, and finish there:
#
# $$\begin{aligned}
# f &= \mathrm{head}_b\circ\phi_{b,L-1}\circ\dots\circ\phi_{b,q}\circ S\circ\phi_{a,j}\circ\dots\circ\phi_{a,0}\circ
# \mathrm{embed}_a,\\
# S &= \arg\min_{W,b}\lVert [X_a\ \mathbf 1][W\ b]^\top - X_b\rVert_F^2 .
# \end{aligned}$$
#
# $X_a$ is what block $j$ of the small anchor puts out, $X_b$ what block $q$ of the large one expects. A window that
# slides over the blocks says which $(j, q)$ are allowed; pairs that are new in a window share one layer, which gets the
# mean of their solutions. Then everything is trained together, one configuration drawn at random a step. Stitches join
# neighbours in size only, from small to large.

# %%
kind, sizes, blocks = lab.pick(ci=("mlp", [8, 24, 64], 6), gpu=("vit", [64, 128, 256], 8))
space = stitching_space([blocks] * 3)
counts = {
    f"{depth} blocks": {
        "hand-overs of a pair": len(paired_stitching_configs(depth)),
        "stitching layers of a pair": len({layer for *_, layer in paired_stitching_configs(depth)}),
        "configurations of three anchors": len(stitching_space([depth] * 3)),
    }
    for depth in (6, 8, 12)
}
published = counts["12 blocks"].values()
lab.table(
    pd.DataFrame(counts).rename_axis("count"),
    caption="At twelve blocks: {} hand-overs, {} layers, {} configurations.".format(*published)
    + f" The experiment below has {len(space)} configurations.",
)

# %% [markdown]
# Clean digits are too easy: all anchors would be equally good, and there would be nothing to interpolate. White noise is
# therefore added to the standardised pixels.

# %%
noise, amount = lab.pick(ci=(1.0, 5000), gpu=(0.0, 45_000))
fit_y, pick_y, exam_y = labels[:amount], labels[-2000:], answers
fit_x, pick_x, exam_x = (
    ex.noisy(x, noise, seed=seed + i) for i, x in enumerate([images[:amount], images[-2000:], unseen])
)
rate, (alone, jointly) = lab.pick(ci=(2e-3, (4, 3)), gpu=(1e-3, (50, 20)))
options = {"batch_size": lab.pick(ci=64, gpu=128), "optimizer": "adamw", "schedule": "cosine", "device": device}
train_one = partial(ex.train_anchor, kind, fit_x, fit_y, lr=rate, **options)
anchors = [train_one(width, alone, seeds=lab.seeds(3)) for width in sizes]
original = torch.stack([anchor.accuracy(exam_x, exam_y).cpu() for anchor in anchors])

# %% [markdown]
# The joint phase starts from the anchors and from stitches that are either solved on 100 images or drawn at random (the
# usual initialisation of a layer). Both see the same configurations in the same order, at a quarter of the anchors'
# learning rate. A configuration is drawn about {glue:text}`stitch_steps` times: a random start has few steps to recover
# in, so the comparison speaks about short joint training.

# %%
solved, drawn = ex.stitchable(anchors, space, fit_x[:100]), ex.stitchable(anchors, space, None, seed=seed)
targets = ex.distillation_targets(anchors[-1], fit_x, fit_y, lab.pick(ci=0.0, gpu=0.5))
order = ex.configuration_schedule(len(space), seed=seed)
lab.glue("stitch_steps", jointly * math.ceil(len(fit_y) / options["batch_size"]) / len(space), ".0f")
start = ex.joined(solved, drawn)
joint = options | {"epochs": jointly, "lr": rate / 4, "per_member_data": True}
twice = {"inputs": fit_x.expand(6, *fit_x.shape), "targets": torch.cat([targets, targets]), "seeds": 2 * lab.seeds(3)}
trained = fit_many(partial(getattr, start, "module"), init=start, forward_kwargs=order, **joint, **twice)

# %% [markdown]
# Before any joint training, three states of the stitches are tried as they are: solved, drawn, and solved on *shuffled*
# samples, which leaves least squares nothing to find.

# %%
stitches = [i for i, item in enumerate(space) if not item.is_anchor]
hits, hits_drawn = ex.configuration_hits(trained, exam_x, exam_y).split(3, dim=1)
accuracy = hits.double().mean(2)
shuffled = ex.stitchable(anchors, space, fit_x[:100], seed=seed, shuffle=True)
few_x, few_y = exam_x[:1000], exam_y[:1000]
first_images = f"first {len(few_y)} images"
accuracy_solved, accuracy_drawn = (arm[..., : len(few_y)].double().mean(2) for arm in (hits, hits_drawn))
untrained = ex.configuration_accuracy(ex.joined(start, shuffled), few_x, few_y).split(3, dim=1)
raw, raw_drawn, raw_shuffled = (part[stitches].mean(0) for part in untrained)
mean, flops = accuracy.mean(1), ex.configuration_flops(solved)
cost = flops / 1e6

# %% [markdown]
# **Individually trained references.** For two stitches of each pair, fixed in advance at one and two thirds of the
# pair's range of costs, a network of intermediate width with the same number of multiply-adds is trained from scratch,
# with the anchors' learning rate and an anchor's epochs of training. A stitch's weights have seen the joint phase on
# top of that; the `gpu` profile also trains the references for both phases together, and validation data decide between
# the two lengths.

# %%
matched = ex.matched_stitches(space, flops, (1 / 3, 2 / 3))
equal = partial(ex.width_for_flops, partial(ex.stitching_anchor, kind), step=lab.pick(ci=1, gpu=4))
reference_widths = [equal(int(flops[i])) for i in matched]
groups, times = (reference_widths[:2], reference_widths[2:]), lab.pick(ci=[4], gpu=[50, 70])
references, lengths = ex.individually_trained(train_one, groups, times, (pick_x, pick_y), seeds=lab.seeds(3))
individual = torch.stack([network.accuracy(exam_x, exam_y).cpu() for network in references])
parity = (accuracy[matched] - individual).mean(0)
lab.glue("stitch_widths", ", ".join(map(str, reference_widths)))
lab.glue("stitch_lengths", ", ".join(map(str, lengths)))

# %% [markdown]
# Widths of the references: {glue:text}`stitch_widths`; epochs of training: {glue:text}`stitch_lengths`.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4.2), sharex=True)
for a in range(2):
    index = [i for i in stitches if space[i].first == a]
    left.scatter(cost[index], mean[index], s=24, label=f"stitches {sizes[a]} → {sizes[a + 1]}")
left.scatter(cost[:3], mean[:3], marker="*", s=130, label="anchors after joint training", zorder=3)
left.scatter(cost[matched], individual.mean(1), marker="x", s=50, label="trained individually", zorder=3)
front = pareto_front(cost, mean).nonzero()[:, 0]
front = front[cost[front].argsort()]
left.plot(cost[front], mean[front], color="0.5", linewidth=0.8, linestyle="-", zorder=0)
left.set(title="One network, many costs", xscale="log")
for arm, values in {"least squares": accuracy_solved, "random initialisation": accuracy_drawn}.items():
    right.scatter(cost[stitches], values.mean(1)[stitches], s=24, label=arm)
right.set(title=f"Two starts of the stitches, {first_images}", xscale="log")
for axis in (left, right):
    axis.set(xlabel="million multiply-adds an example", ylabel="test accuracy")
    axis.legend()

# %%
lab.figure(
    fig,
    caption=f"Left, all {len(exam_y)} test images: {len(stitches)} stitches between three anchors, mean of three seeds; "
    "the thin line is the Pareto front. Stitches minus individually trained networks of the same cost: "
    f"{ex.points(parity)} points. Right, {first_images} of the test set: after the same training from a random "
    f"initialisation the stitches have {accuracy_drawn[stitches].mean():.1%} instead of "
    f"{accuracy_solved[stitches].mean():.1%}.",
    alt="Left: accuracy against multiply-adds of anchors, stitches of two pairs, individually trained networks and the "
    "Pareto front. Right: stitches after training from least squares and from a random initialisation.",
)

# %% [markdown]
# Rank correlation of accuracy with cost over *all* configurations proves little: it is high already because the larger
# pair is better. Shuffling accuracies inside each pair shows how high. So the correlation is taken within each pair.

# %%
within = ex.within_pairs_spearman(space, flops, mean)
floor = torch.stack([mean[i] - mean[space[i].first] for i in stitches]).min()
steps_up = mean[1:3] - mean[:2]
highest = mean[[i for i in stitches if space[i].first == 0]].max()
lab.glue("spearman_null", ex.shuffled_spearman(space, flops, mean, seed=seed), ".2f")
lab.glue("spearman_within", " and ".join(f"{value:.2f}" for value in within.values()))
singles = [ex.within_pairs_spearman(space, flops, accuracy[:, m]).values() for m in range(3)]
lab.glue("spearman_seeds", "; ".join(" and ".join(f"{value:.2f}" for value in pair) for pair in singles))
climb = hits[1:3].double().mean(1) - hits[:2].double().mean(1)
lab.glue("anchor_steps", " and ".join(f"{ex.points(step)}" for step in climb))
mean_drawn = hits_drawn.double().mean((1, 2))
within_drawn = ex.within_pairs_spearman(space, flops, mean_drawn)
floor_drawn = torch.stack([mean_drawn[i] - mean_drawn[space[i].first] for i in stitches]).min()
lab.glue("floor", float(floor), "+.3f")
lab.glue("floor_drawn", float(floor_drawn), "+.3f")
ends = ex.bootstrap_spearman(space, flops, hits, seed=seed)
lab.glue("spearman_ends", " and ".join(f"{low:.2f} to {high:.2f}" for low, high in ends.values()))
lab.glue("spearman_drawn", " and ".join(f"{value:.2f}" for value in within_drawn.values()))

# %%
changes = accuracy[:3] - original
lab.glue("anchor_changes", ", ".join(ex.points(change) for change in changes))
before, after = {}, {}
for a in range(2):
    index = [i for i in stitches if space[i].first == a]
    pair = f"{sizes[a]} → {sizes[a + 1]}"
    before[pair], after[pair] = untrained[0][index].mean(0), accuracy_solved[index].mean(0)
lab.table(
    pd.DataFrame(
        {
            title: {pair: float(value.mean()) for pair, value in values.items()}
            for title, values in {"untrained": before, "after joint training": after}.items()
        }
    ).rename_axis("stitches"),
    caption=f"Least-squares stitches, {first_images} of the test set: joint training changes them by "
    + "; ".join(f"{pair} {ex.points(after[pair] - before[pair])}" for pair in before)
    + " points (standard errors over seeds).",
)

# %% [markdown]
# Within the pairs: {glue:text}`spearman_within` (single seeds: {glue:text}`spearman_seeds`; over resampled test images,
# 90 % of the correlations lie at {glue:text}`spearman_ends`). Over all configurations, with accuracies shuffled inside
# the pairs: {glue:text}`spearman_null`. After joint training the anchors of a pair differ by {glue:text}`anchor_steps`
# points (standard error over test images), and that is all the room in which accuracy can rise: where the difference is
# no more than a few standard errors, it is about what the test set can resolve, and the ranks inside the pair are not
# much firmer.
#
# Nor does a high rank correlation speak for the stitch. With randomly initialised stitches, on the same test images, it
# is {glue:text}`spearman_drawn`: random initialisation can pass this test too, since running more of the larger anchor
# raises accuracy whatever the stitch. The floor is the harder test. The lowest stitch minus its smaller anchor is
# {glue:text}`floor` with least squares and {glue:text}`floor_drawn` from a random start. The paper's main claim needs
# both, floor and rise.
#
# **What joint training does to the anchors.** The condition below takes the mean over the anchors, and a mean can hide
# harm to one of them. Their changes, in points, from small to large: {glue:text}`anchor_changes`.
#
# **Nearest, skipping, and downward stitches.** The paper stitches neighbours only, from small to large. Here the rule
# is relaxed, on the first seed: a second joint training with the same number of steps includes stitches that skip the middle anchor, and
# least-squares stitches from large to small are tried without training.

# %%
far = stitching_space([blocks] * 3, reach=2)
skipping = ex.stitchable([anchor[:1] for anchor in anchors], far, fit_x[:100])
once = {"seeds": lab.seeds(1), "inputs": fit_x[None], "targets": targets[:1]}
far_order = ex.configuration_schedule(len(far), seed=seed)
skip_trained = fit_many(partial(getattr, skipping, "module"), init=skipping, forward_kwargs=far_order, **joint, **once)
downward = ex.stitchable([anchor[:1] for anchor in anchors], stitching_space([blocks] * 3, downward=True), fit_x[:100])
columns = {"million multiply-adds": {}, "least squares, untrained": {}, "after joint training": {}}
for net in (skipping, downward):
    listing = net.module.configurations
    columns["million multiply-adds"] |= ex.by_pair(listing, ex.configuration_flops(net) / 1e6, sizes)
    columns["least squares, untrained"] |= ex.by_pair(
        listing, ex.configuration_accuracy(net, few_x, few_y).mean(1), sizes
    )
final = ex.configuration_accuracy(skip_trained, few_x, few_y).mean(1)
columns["after joint training"] |= ex.by_pair(far, final, sizes)

# %%
table = pd.DataFrame(columns).rename_axis("stitch")
skip, near = table.loc[f"{sizes[0]} → {sizes[2]}"], table.loc[f"{sizes[1]} → {sizes[2]}"]
lab.table(
    table,
    caption=f"Skipping stitches {skip.name} reach {skip.iloc[2]:.1%} after joint training at {skip.iloc[0]:.3f} million "
    f"multiply-adds on average, nearest ones {near.name} {near.iloc[2]:.1%} at {near.iloc[0]:.3f} million.",
)

# %%
solved_gain = (accuracy_solved[stitches] - accuracy_drawn[stitches]).mean(0)
self_stitched = checks["Stitching: anchor with itself, logits"]
correlations, correlations_drawn = ([*values.values()] for values in (within, within_drawn))
anchor_loss = (original - accuracy[:3]).mean()
effects = (
    {f"change of the anchor of width {sizes[a]} by joint training": changes[a] for a in range(3)}
    | {f"stitches {pair}, untrained, {first_images}": values for pair, values in before.items()}
    | {f"stitches {pair}, after joint training, {first_images}": values for pair, values in after.items()}
)

# %%
measured = {
    "anchors before": original.mean(0),
    "anchors after joint training": accuracy[:3].mean(0),
    "stitches, least squares": accuracy[stitches].mean(0),
    f"stitches, least squares, {first_images}": accuracy_solved[stitches].mean(0),
    f"stitches, least squares, untrained, {first_images}": raw,
    "matched stitches": accuracy[matched].mean(0),
    "individually trained": individual.mean(0),
    "lowest stitch minus its smaller anchor": floor,
    "lowest Spearman correlation within a pair": min(correlations),
} | effects

# %%
control = {
    f"stitches, random initialisation, same training, {first_images}": accuracy_drawn[stitches].mean(0),
    f"stitches, random, untrained, {first_images}": raw_drawn,
    f"stitches, least squares on shuffled samples, untrained, {first_images}": raw_shuffled,
    "lowest stitch minus its smaller anchor, random initialisation": floor_drawn,
    "lowest Spearman correlation within a pair, random initialisation": min(correlations_drawn),
    "an anchor stitched to itself (largest error of a logit)": self_stitched,
}

# %%
holds = {
    "no stitch falls .01 below the smaller anchor, and accuracy rises with cost within each pair": (
        lab.exceeds(floor, -0.01) & lab.exceeds(min(correlations), 0.43)
    ),
    "matched stitches are within .01 of individually trained networks": lab.exceeds(parity.mean(), -0.01),
    "least squares beats random initialisation by two standard errors": lab.exceeds(
        solved_gain.mean(), 2 * stderr(solved_gain)
    ),
    "anchors lose less than .01": lab.below(anchor_loss, 0.01),
    "least squares on shuffled samples is near chance": lab.below(raw_shuffled.mean(), 0.2),
    "an anchor stitched to itself is the identity": lab.below(self_stitched, 1e-3),
}

# %%
reason = (
    "Rank correlations of accuracy with cost within the pairs are "
    + " and ".join(f"{value:.2f}" for value in correlations)
    + f" (random initialisation: {' and '.join(f'{value:.2f}' for value in correlations_drawn)}), where the anchors of a "
    f"pair differ by {' and '.join(ex.points(step) for step in climb)} points. Joint training changes the anchors by "
    f"{', '.join(ex.points(change) for change in changes)} points, small to large, {ex.points(changes.mean(0))} on average. Matched stitches differ from "
    f"individually trained networks by {ex.points(parity)} points after {jointly} joint epochs that {len(space)} "
    f"configurations share. A stitch sees its input through the small anchor's embedding alone, which may be the "
    f"bottleneck: the best of the stitches {sizes[0]} → {sizes[1]} has {highest:.3f}, the anchor of width {sizes[1]} "
    f"{mean[1]:.3f}."
)

# %%
lab.claim(
    "pan2023snnet",
    "One network stitched from a family of anchors interpolates between their accuracies over their cost, on par with "
    "individually trained networks, and least-squares initialisation matters",
    measured=measured,
    control=control,
    holds=holds,
    scaled=lab.pick(
        ci="residual MLPs on noisy MNIST, 3 epochs of joint training, no teacher, instead of DeiT on ImageNet for 50",
        gpu="small vision transformers on CIFAR-10 (JPEG), the largest anchor as teacher, instead of DeiT on ImageNet",
    ),
    data=data.kind(name),
    reason=reason,
)

# %% [markdown]
# ## Family portrait: every method between the same two parents
#
# All methods now meet on one task: A knows one shift of the domain, B the other, and the merged network is tested on
# both. On the left the parents share their initialisation, as Fisher merging asks. On the right are *the very same
# networks*, paired differently: each A meets the B that was fine-tuned from *another* base. The parents' accuracies are
# therefore identical in both panels; only the common origin is gone. Stitching has two points between the parents: one
# or two of three layers come from B, and a least-squares layer joins the halves, without any training of the result.
#
# Methods are compared at one half, where each must use both parents (stitching has no point there and takes the mean of
# the two beside it). A best point along the curve would hide a collapse: a method that fails everywhere between the
# parents can still be read off next to one of them.

# %%
tested = ex.both_shifts(unseen[:500], answers[:500], seed=seed)
probes = torch.cat([task[0][:100] for task in tasks])
partners = {"Common initialisation": tuned_b, "Same networks, other partners": ex.shift_members(tuned_b)}
inputs = [x for x, _ in known]
panels = {title: ex.portrait(tuned_a, b, inputs, probes, grid, tested) for title, b in partners.items()}
half = {title: {method: ex.half_way(line) for method, line in lines.items()} for title, lines in panels.items()}
shared, apart = ({method: float(value.mean()) for method, value in arms.items()} for arms in half.values())
single = [method for method in shared if method != "ensemble"]
top, top_apart = max(single, key=shared.get), max(single, key=apart.get)
same_line = panels["Common initialisation"]
moved_by = {
    method: (same_line[method].accuracy - same_line["plain average"].accuracy).abs().max()
    for method in ("OT, weights", "OT, activations")
}
parent = float(ex.mean_accuracy([tuned_a, tuned_b], *tested).mean())
under = sum(arms["stitching"] < parent for arms in (shared, apart))
equal = [method for method, change in moved_by.items() if change < 5e-4]

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.6, 4.6), sharey=True)
for axis, (title, lines) in zip(axes, panels.items()):
    for method, line in lines.items():
        marker = {"stitching": "D", "ensemble": "s"}.get(method)
        axis.plot(line.shares, line.accuracy.mean(1), marker=marker, label=f"{method} ({line.cost:.3g}×)")
    axis.set(title=title, xlabel="share of parent B", ylabel="test accuracy, both shifts")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

# %%
lab.portrait(
    fig,
    caption=f"{len(tuned_a)} pairs, first {len(tested[1]) // 2} test images under each shift; in brackets the cost of a "
    f"prediction in forward passes. At one half, with a common initialisation the best single network is “{top}” "
    f"({shared[top]:.1%}, plain average {shared['plain average']:.1%}); without it “{top_apart}” ({apart[top_apart]:.1%}, "
    f"plain average {apart['plain average']:.1%}). The ensemble has {shared['ensemble']:.1%} and "
    f"{apart['ensemble']:.1%}, a parent {parent:.1%}. One-shot stitching has {shared['stitching']:.1%} and "
    f"{apart['stitching']:.1%}, below a parent in {under} of {len(half)} panels. "
    + (f"On the left the lines of the plain average and of {' and '.join(equal)} coincide." if equal else ""),
    alt="Two panels of accuracy against the share of parent B for plain averaging, OT fusion by weights and activations, "
    "Fisher merging, both combined, stitching, and the ensemble.",
)

# %%
table = pd.DataFrame({f"at one half: {title}": arms for title, arms in zip(panels, (shared, apart))})
for title, lines in panels.items():
    table[f"best point: {title}"] = {method: ex.best_inside(line) for method, line in lines.items()}
    table.loc["better parent alone", f"best point: {title}"] = lines["ensemble"].accuracy.mean(1)[[0, -1]].max().item()
table["cost of a prediction"] = {method: line.cost for method, line in same_line.items()} | {"better parent alone": 1.0}
falls = [half[title] for title in panels]
change = {method: falls[1][method] - falls[0][method] for method in shared}
extent = {method: abs(float(value.mean())) for method, value in change.items()}
most, least = max(extent, key=extent.get), min(extent, key=extent.get)
against = [
    "; ".join(
        f"{method} {ex.points(arms[method] - arms['plain average'])}" for method in arms if method != "plain average"
    )
    for arms in half.values()
]

# %%
lab.table(
    table.rename_axis("accuracy between the parents"),
    caption=f"At one half, losing the common initialisation changes “{most}” most ({ex.points(change[most])} points) and "
    f"“{least}” least ({ex.points(change[least])}). Minus the plain average, in points with paired standard errors: with a "
    f"common initialisation {against[0]}; without it {against[1]}.",
)

# %% [markdown]
# ## What is scaled down
#
# The networks are small and the data are digits, so the verdicts speak about the mechanisms rather than about the
# published figures. Optimal-transport fusion was published on VGG11 and ResNet18, where plain averaging loses almost
# everything; small MLPs lose less, and there is less to win back. Its skill transfer was published on an MLP and MNIST
# as well, with wider layers and longer training. Fisher merging was published on large pre-trained models; here the base
# has seen a few thousand digits. Of its settings, intermediate-task training (with the target network alone as a floor,
# and heads that are not merged), domain adaptation, and coefficients drawn from a Dirichlet distribution for more than
# two parents are not run. Stitching was published with a strong external teacher and fifty epochs of joint training; a
# few epochs without a teacher test the initialisation and the interpolation rather than the final accuracy. The
# individually trained references get one training length in `ci`, an anchor's.
# The skill-transfer experiment uses one split of the data, so its error bars cover initialisation and batch order only.
# The `gpu` profile runs convolutional networks and transformers on CIFAR-10.
#
# ## Exercises
#
# 1. Set `momentum` to 0.9 in the recipe: parents become better and farther apart. Which alignment suffers first?
# 2. Give `aligned_sources` the option `method="sinkhorn"` and vary `regularization`. Where does the transported network
#    stop being the same function?
# 3. In the `gpu` profile, set the architecture to `"resnet"`. Two streams of neurons meet at every block's end and their
#    maps are averaged; what happens to the function of the transported network?
# 4. Start both parents of the first experiment from one initialisation (`init=`). Why does alignment gain nothing now?
# 5. Fine-tune on the shifts for one epoch and for ten instead of three. At which distance of the parents does the
#    Fisher pay most?
# 6. Solve the stitches on 10, 100 and 1000 images. How many does least squares need? How much of the distance to the
#    individually trained networks do ten joint epochs close? And do the references gain from seven epochs?
