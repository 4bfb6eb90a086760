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
# # Propagation
#
# A graph network sends features along edges. Three things can go wrong on the way. The neighbours may be of another kind, so
# that averaging over them mixes what should be kept apart. Many averages in a row may leave nothing to tell nodes by.
# And a message from far away may have to pass an edge that the whole world uses, and arrive as a whisper. Are these one
# problem or three? What does each cost, and which of the many cures help against which? This chapter measures ten papers on it,
# with the same graphs and the same budget wherever two of them can be compared.

# %% tags=["parameters"]
profile, seed, device = "ci", 0, "cpu"

# %%
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd

from netatlas import data, lab
from netatlas.core import resistance
from netatlas.core.stats import mean_interval, paired
from netatlas.propagation import bottlenecks, portrait, tuning
from netatlas.propagation import experiments as ex

lab.begin("propagation", profile=profile, seed=seed, device=device)

# %%
lab.papers_table()

# %% [markdown]
# ## The shared kernel: a matrix applied many times
#
# Everything here begins with the adjacency $A$, its degrees $D$ and the propagation
#
# $$\hat A = \tilde D^{-1/2} (A + I)\, \tilde D^{-1/2}, \qquad X^{(k)} = \hat A^k X .$$
#
# Two numbers describe it. How alike neighbours have become is the *Dirichlet energy* $\operatorname{tr} X^\top (I - \hat A) X /
# \lVert X \rVert^2$. How hard two nodes are to connect is the *effective resistance* of the graph, every edge taken as a unit resistor,
#
# $$R_{uv} = (\mathbf 1_u - \mathbf 1_v)^\top L^+ (\mathbf 1_u - \mathbf 1_v), \qquad L = D - A .$$
#
# Small graphs get $L^+$ by one Cholesky factorisation, an added edge changes it by a matrix of rank one, and large graphs
# get all resistances at once from random projections: one sparse solve for each of $k$ dimensions, with a relative standard
# deviation of at most $\sqrt{2/k}$.

# %%
matrix = nx.to_scipy_sparse_array(nx.connected_watts_strogatz_graph(400, 6, 0.2, seed=seed))
exact = resistance.effective_resistance(matrix)
pairs = np.stack(np.triu_indices(400, 1), 1)
rows = []
for k in (25, 50, 200):
    ratio = resistance.resistance_sketch(matrix, k, seed=seed)(pairs) / exact[tuple(pairs.T)]
    rows.append({"dimensions": k, "mean ratio": ratio.mean(), "deviation": ratio.std(), "bound": (2 / k) ** 0.5})
sketch = pd.DataFrame(rows).set_index("dimensions")
foster = lab.rounding(abs((matrix.toarray() * exact).sum() / 2 / 399 - 1), 1e-10)
lab.table(
    sketch,
    caption=f"Sketched over exact resistances, all pairs of a graph of 400 nodes. The deviation is at most "
    f"{(sketch.deviation / sketch.bound).max():.2f} times its bound. Foster's theorem (resistances over edges add up to the nodes but one) holds to {foster:.0e}.",
)

# %% [markdown]
# Real graphs come with their own splits where they have them. All networks choose among the same settings of learning
# rate and weight decay, by validation nodes, and are judged on test nodes that no choice has seen. Features are projected
# on their leading directions, for every arm alike.

# %%
seeds = lab.seeds(lab.pick(ci=3, gpu=10))
rank = lab.pick(ci=32, gpu=300)
cora = data.load("cora", stand_in=data.citation_graph)
pages = data.load("chameleon_filtered", stand_in=data.heterophilous_graph)
texas = data.load("texas", stand_in=data.heterophilous_graph)
sparse_cora = tuning.node_task(cora, rank=rank, seeds=seeds, per_class=20)
page_task = tuning.node_task(pages, rank=rank, seeds=seeds, fixed=True)
texas_task = tuning.node_task(texas, rank=rank, seeds=seeds, fixed=True)

# %% [markdown]
# (paper-ma2021homophily)=
# ## Homophily: must neighbours be alike?
#
# It is often said that graph convolution needs *homophily*, neighbours of one's own class.
# [Ma et al. (2021)](https://arxiv.org/abs/2106.06134) deny it: what matters is whether the classes have *different*
# neighbourhoods. In a block model of two classes with a share $a$ of neighbours in the own class, class means $\Delta$ apart and unit
# noise, the mean over $d$ neighbours separates the classes better than the features do if
#
# $$d > \frac{1}{(2a - 1)^2}\ \text{(paper)}, \qquad d > \frac{1 + a (1 - a) \Delta^2}{(2a - 1)^2}\ \text{(with random labels)} .$$
#
# Only $|2a - 1|$ counts, so a share of 0.1 is as good as one of 0.9. The second form is ours. The paper's proof takes the mix of labels around a node as fixed;
# in the model it is random and adds variance. There are degrees on which the two disagree, and there a simulation can
# decide. Shares $a$ and $1 - a$ are compared in many cells at once. The largest of so many differences passes three standard errors by chance
# too often, so the bound, which was 3 in a first version, is now Bonferroni's at one per cent for all cells together.

# %%
shares = [0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 1]
draws = lab.pick(ci=20_000, gpu=200_000)
options = {"distance": 1.5, "seed": seed}
cells = ex.homophily.theorem_cells(shares, [2, 4, 10, 25], nodes=draws, band_nodes=4 * draws, **options)
theorem = ex.homophily.theorem_evidence(cells, nodes=4 * draws, **options)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.5))
for degree, colour in zip((4, 10, 25), ("C0", "C1", "C2")):
    part = cells[cells.degree == degree]
    axes[0].plot(part.share, part.neighbours, "o", ms=4, color=colour, label=f"degree {degree}")
    axes[0].plot(part.share, part.mixture, "-", color=colour)
    axes[0].plot(part.share, part.paper, ":", color=colour)
axes[0].axhline(cells.features.mean(), color="0.6")
axes[0].set(xlabel="share of neighbours in the own class", ylabel="error", title="lines: exact; dotted: paper")
axes[0].legend(fontsize=7)
band = cells[cells.band & (cells.share == 0.4)]
axes[1].errorbar(band.degree, band.features - band.neighbours, 2 * band.stderr, fmt="o", ms=3)
axes[1].axhline(0, color="0.6")
axes[1].set(xlabel="degree", ylabel="error saved by averaging", title="share 0.4: where formulas disagree")

# %%
lab.figure(
    fig,
    caption=f"Left: errors of one hyperplane on neighbours' means; grey, on the features. Right: degrees at which the paper's condition says that "
    f"averaging helps and the exact one denies it. It helps in {theorem.inside:.0%} of the {theorem.inside_cells} decided cells of that kind; "
    f"outside of the band both conditions are right in {theorem.outside:.0%}.",
    alt="Left, V-shaped error against the share of own-class neighbours for three degrees. Right, error saved against degree, with bars.",
)

# %% [markdown]
# On real features, edges are added to Cora. *Targeted* edges send every class to its two cyclic neighbours in the list of labels; the other two
# arms choose the class at random, among the others or among all. Only targeted edges give the classes neighbourhoods of their own.

# %%
dense_cora = tuning.node_task(cora, rank=lab.pick(ci=48, gpu=300), seeds=seeds)
added = lab.pick(ci=[0, 5000, 40_000], gpu=[0, 1000, 2000, 5000, 10_000, 20_000, 40_000, 60_000])
recipe = {"seeds": seeds, "hidden": lab.pick(ci=16, gpu=64), "epochs": lab.pick(ci=50, gpu=200)}
sweep = ex.homophily.edge_sweep(dense_cora, added, **recipe)
rebound = {arm: abs(float(acc[-1].mean() - acc.mean(1).min())) for arm, acc in sweep.accuracy.items()}
over_mlp = paired(sweep.accuracy["targeted"][-1], sweep.mlp)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), sharex=True)
for arm, acc in sweep.accuracy.items():
    axes[0].errorbar(added, acc.mean(1), [mean_interval(v).half_width for v in acc], marker="o", ms=4, label=arm)
    axes[1].plot(added, sweep.contrast[arm], marker="o", ms=4, label=arm)
axes[0].axhline(sweep.mlp.mean(), color="0.6", ls=":")
axes[0].set(
    xlabel="edges added",
    ylabel="test accuracy",
    title="GCN; dotted, without the graph",
    xticks=[0, added[-1] // 2, added[-1]],
)
axes[1].set(xlabel="edges added", ylabel="own minus other classes", title="contrast of the neighbourhoods")
axes[1].legend(fontsize=7)

# %%
lab.figure(
    fig,
    caption=f"With targeted edges homophily falls to {sweep.homophily['targeted'][-1]:.2f} and accuracy ends {rebound['targeted']:.2f} above its lowest; "
    f"with random ones it ends {rebound['random, other classes']:.2f} and {rebound['random, all classes']:.2f} above. "
    f"At the end targeted edges gain {over_mlp.mean:+.2f} over the network without a graph.",
    alt="Left, accuracy against added edges for three arms; right, contrast of the neighbourhoods, which follows the same course.",
)

# %%
names = lab.pick(
    ci=["chameleon_filtered", "texas", "wisconsin", "cornell"],
    gpu=["chameleon_filtered", "squirrel_filtered", "texas", "wisconsin", "cornell", "actor"],
)
loaded = {n: data.load(n, stand_in=data.heterophilous_graph) for n in names}
tasks = {n: tuning.node_task(g, rank=rank, seeds=seeds, fixed=True) for n, g in loaded.items()}
census = ex.homophily.neighbourhood_table(tasks, **recipe)
lab.table(
    census,
    caption=f"Heterophilous graphs, without the duplicated nodes that made the published Chameleon and Squirrel easy. The GCN gains over the network "
    f"without a graph on {(census.gain > 0).sum()} of {len(census)}; rank correlation of contrast and gain {census.contrast.corr(census.gain, method='spearman'):.2f}.",
)

# %%
measured = {
    "rebound with targeted edges": rebound["targeted"],
    "GCN minus MLP at the end, targeted": over_mlp.mean,
    "cells outside of the band as both formulas say": theorem.outside,
    "cells inside in which averaging helps": theorem.inside,
    "cells within three errors of the exact mixture": theorem.covered,
    "largest asymmetry of shares, in errors": theorem.asymmetry,
    "its Bonferroni bound": theorem.asymmetry_bound,
}
control = {
    "rebound, random other classes": rebound["random, other classes"],
    "rebound, random classes": rebound["random, all classes"],
    "paper's formula with fixed mixes, largest departure in errors": theorem.fixed,
    "the same with random labels": theorem.random,
}

# %%
holds = {
    "targeted edges: accuracy rises again": lab.exceeds(rebound["targeted"], 0.05),
    "random edges (others): it does not": lab.below(rebound["random, other classes"], 0.02),
    "random edges (all): it does not": lab.below(rebound["random, all classes"], 0.02),
    "the GCN beats the MLP at the lowest homophily": lab.exceeds(over_mlp.mean, 0),
    "outside of the band every cell has the predicted sign": lab.exceeds(theorem.outside, 0.999),
    "heterophily is as good as homophily": lab.below(theorem.asymmetry, theorem.asymmetry_bound),
    "the mixture describes the simulation": lab.exceeds(theorem.covered, 0.95),
    "with fixed mixes the paper's formula is exact": lab.below(theorem.fixed, 3),
    "inside the band averaging helps, as the paper's condition says": lab.exceeds(theorem.inside, 0.5),
}

# %%
lab.claim(
    "ma2021homophily",
    "Graph convolution works without homophily where classes have neighbourhoods of their own: accuracy falls and rises "
    "again as targeted edges are added, and averaging helps from a degree on that depends on |2a - 1| alone",
    measured=measured,
    control=control,
    holds=holds,
    scaled="Cora with features on a few dozen directions; the theorem by simulation of single nodes",
    data=data.kind("cora"),
    reason=f"averaging helps in {theorem.inside:.0%} of {theorem.inside_cells} cells between the paper's degree and the exact one. The neighbours' labels are random "
    f"there: with fixed mixes the paper's errors are met within {theorem.fixed:.1f} standard errors, with random ones they are missed by up to {theorem.random:.0f}",
)

# %% [markdown]
# (paper-sun2023fegnn)=
# ## Feature expansion: weights of their own for every power
#
# A polynomial filter $\sum_k \theta_k P^k X W$ is a linear model on the features $[X, PX, P^2X, \dots]$ whose weights are tied.
# [Sun et al. (2023)](https://arxiv.org/abs/2305.06142) untie them, and add columns that the features cannot give: principal components $S$ of the
# graph's matrix,
#
# $$Z = \sum_{k=0}^{K} \phi_k W_k + S W_s, \qquad S = U_r \operatorname{diag}(s_r), \quad D^{-1} A \approx U_r \operatorname{diag}(s_r) V_r^\top .$$
#
# Their reason: powers of $P$ turn all columns towards the same few directions, so deep subspaces repeat each other. The
# left panel measures this by the effective rank (the exponential of the entropy of the singular values) of the first subspaces side by side.

# %%
growth = ex.expansion.subspace_growth(dense_cora, 8, seed=seed)
wide_pages = tuning.node_task(pages, rank=lab.pick(ci=100, gpu=300), seeds=seeds, fixed=True)
options = {"order": lab.pick(ci=3, gpu=10), "rank": lab.pick(ci=64, gpu=256), "hidden": lab.pick(ci=16, gpu=64)}
options |= {"epochs": lab.pick(ci=40, gpu=200), "seeds": seeds}
arms = ["shared", "shared, wide", "flat", "flat + S", "GCN"]
real = {"Cora": dense_cora, "Chameleon": wide_pages}
expanded = {name: ex.expansion.expansion_arms(task, arms, **options) for name, task in real.items()}

# %% [markdown]
# On a block model whose features are noise, only the structure knows the labels. Two controls have just as many extra columns:
# noise, and noise propagated three times. The second has seen the graph, but has no principal components.

# %%
blocks = [[0.05 if i == j else 0.005 for j in range(5)] for i in range(5)]
graphs = [data.stochastic_block_model([200] * 5, blocks, seed=s) for s in seeds]
arms = ["shared", "flat", "flat + S", "S only", "flat + noise", "flat + propagated noise"]
options |= {"order": 3, "rank": 32, "epochs": 60}
made = [
    ex.expansion.expansion_arms(task, arms, **(options | {"seeds": [s]}))
    for task, s in zip(ex.expansion.structure_only(graphs, features=4, seeds=seeds), seeds)
]
planted = {arm: np.array([float(run[arm][0]) for run in made]) for arm in arms}

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.5), width_ratios=[1, 1.3])
axes[0].plot(range(1, 9), growth.increments, "o-", label="powers")
axes[0].plot(range(1, 9), growth.random, "s--", label="independent")
axes[0].set(xlabel="power added", ylabel="growth of the effective rank", yscale="log", title="Cora")
axes[0].legend()
axes[1].barh(
    list(planted), [v.mean() for v in planted.values()], xerr=[mean_interval(v).half_width for v in planted.values()]
)
axes[1].set(xlabel="test accuracy", ylabel="feature space", title="structure only", xlim=(0, 1.05))
axes[1].invert_yaxis()

# %%
better = paired(planted["flat + S"], planted["flat + propagated noise"])
lab.figure(
    fig,
    caption=f"Left: power 8 adds {growth.increments[-1] / growth.increments[0]:.0%} of the rank that power 1 adds; independent subspaces "
    f"{growth.random[-1] / growth.random[0]:.0%}. Right: principal components gain {(planted['flat + S'] - planted['flat']).mean():+.2f}, propagated noise with as many columns "
    f"{(planted['flat + propagated noise'] - planted['flat']).mean():+.2f}.",
    alt="Left, falling curve of rank growth beside a flat one. Right, bars of accuracy for six feature spaces on a block model.",
)

# %%
table = pd.DataFrame({name: {arm: float(v.mean()) for arm, v in run.items()} for name, run in expanded.items()})
gain = np.concatenate([(run["flat + S"] - run["shared"]).numpy() for run in expanded.values()])
wide = np.concatenate([(run["flat + S"] - run["shared, wide"]).numpy() for run in expanded.values()])
beside = np.concatenate([(run["flat + S"] - run["GCN"]).numpy() for run in expanded.values()])
untied = [float((run["flat"] - run["shared"]).mean()) for run in expanded.values()]
interval = mean_interval(gain)
lab.table(
    table.rename_axis("arm"),
    caption=f"Real graphs, all arms tuned over the same settings. Untied weights with components gain {interval.mean:+.3f} ± {interval.half_width:.3f} over "
    f"shared ones, {wide.mean():+.3f} over shared ones with as many parameters, and {beside.mean():+.3f} over a GCN.",
)

# %%
measured = {
    "flat + S minus shared, real graphs": gain,
    "flat + S minus shared, as many parameters": wide,
    "flat minus shared, by graph": lab.each(untied),
    "flat + S minus flat, structure only": planted["flat + S"] - planted["flat"],
    "flat + S minus flat + propagated noise": better.mean,
    "rank growth, power 8 over power 1": growth.increments[-1] / growth.increments[0],
}
control = {
    "flat + noise minus flat, structure only": planted["flat + noise"] - planted["flat"],
    "rank growth of independent subspaces": growth.random[-1] / growth.random[0],
    "flat + S minus GCN, real graphs": beside,
}

# %%
holds = {
    "flat + S beats shared on real graphs": lab.exceeds(gain.mean(), 0.01),
    "by more than chance": lab.exceeds(interval.low, 0),
    "also with as many parameters": lab.exceeds(mean_interval(wide).low, 0),
    "untying alone helps on half of the graphs": lab.exceeds(np.mean(np.array(untied) > 0), 0.49),
    "components help where only structure knows": lab.exceeds((planted["flat + S"] - planted["flat"]).mean(), 0.1),
    "and more than propagated noise": lab.exceeds(better.mean, 0.03),
    "noise columns do not help": lab.below((planted["flat + noise"] - planted["flat"]).mean(), 0.03),
    "deep subspaces repeat the others": lab.below(growth.increments[-1] / growth.increments[0], 0.5),
    "independent ones do not": lab.exceeds(growth.random[-1] / growth.random[0], 0.9),
}

# %%
lab.claim(
    "sun2023fegnn",
    "Giving every power of the propagation weights of its own and adding principal components of the graph beats shared "
    "weights, because the powers' subspaces repeat each other",
    measured=measured,
    control=control,
    holds=holds,
    scaled="two real graphs with features on a few dozen directions, three powers; block models of 1000 nodes",
    data=data.kind("cora"),
    reason=f"with weight decay tuned for every arm, untied weights with components gain {interval.mean:+.3f} ± {interval.half_width:.3f} on the real graphs, and untying alone "
    f"{', '.join(f'{v:+.3f}' for v in untied)}. Where the features are noise the components gain {(planted['flat + S'] - planted['flat']).mean():+.2f}; "
    f"they help where the structure holds what the features lack",
)

# %% [markdown]
# (paper-black2023resistance)=
# ## Effective resistance: whom can a node hear?
#
# The sensitivity $\partial h_v / \partial x_u$ of a network with $r$ layers is bounded by walks, and walks by resistance.
# [Black et al. (2023)](https://arxiv.org/abs/2302.06835) derive
#
# $$\Bigl\lVert \frac{\partial h_v^{(r)}}{\partial h_u^{(0)}} \Bigr\rVert \le (2 \alpha \beta)^r\, \frac{d_{\max}}{2}
# \Bigl( \frac{2}{d_{\min}} \Bigl(r + 1 + \frac{\mu^{r+1}}{1 - \mu}\Bigr) - R_{uv} \Bigr)$$
#
# and rewire: add, one after the other, the edge that lowers the total resistance most. By the Sherman-Morrison formula an edge
# $uv$ lowers it by $n B_{uv}^2 / (1 + R_{uv})$, where $B_{uv}$ is the biharmonic distance. A bound is no measurement, though: at
# large $r$ it is far too weak to forbid anything. So we measure the Jacobian of untrained networks exactly, and compare only pairs
# at equal hop distance, because distance alone would correlate with anything.

# %%
checks = [ex.rewiring.resistance_checks(nx.connected_watts_strogatz_graph(12, 4, 0.3, seed=s)) for s in seeds]
inexact = {f: lab.rounding(max(getattr(c, f) for c in checks), 1e-10) for f in ("update", "exhaustive", "foster")}
halves = nx.disjoint_union(*(nx.gnp_random_graph(15, 0.6, seed=k) for k in (1, 2)))
halves.add_edge(0, 15)

# %%
subjects = {
    "barbell": nx.barbell_graph(10, 4),
    "two blocks": halves,
    "ring": nx.cycle_graph(40),
    "Les Misérables": nx.Graph(nx.les_miserables_graph().edges),
}
totals = ex.rewiring.rewiring_totals(subjects, 10, draws=20, seed=seed)
ratio = (totals.GTR / totals.FoSR).mean()
lab.table(
    totals.rename_axis("total resistance"),
    fmt="{:.0f}",
    caption=f"Total resistance before and after ten added edges. Greedy choice ends on average at {ratio:.2f} times the resistance that FoSR leaves, which aims at the spectral gap.",
)

# %%
molecules = data.load("mutag", stand_in=data.labelled_graphs)
samples = ex.rewiring.sample_graphs(molecules, lab.pick(ci=10, gpu=30), nodes=30, seed=seed)
options = {"layers": 6, "width": 8, "draws": lab.pick(ci=4, gpu=16), "seed": seed}
heard = ex.rewiring.influence_correlations(samples, **options)
means = {c: ex.rewiring.graph_means(heard, c, 3) for c in ("plain", "partial", "null")}
upper = ex.rewiring.bootstrap_upper(means["partial"], seed=seed)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
for axis, column in zip(axes, ("plain", "partial")):
    for kind, part in heard.groupby("kind"):
        by = part.groupby("distance")[column].mean()
        axis.plot(by.index, by, "o-", ms=4, label=kind)
    axis.axhline(0, color="0.6")
    axis.set(xlabel="hops between the nodes", title={"plain": "as it is", "partial": "given the degrees"}[column])
axes[0].set_ylabel("rank correlation with resistance")
axes[0].legend(fontsize=7)

# %%
lab.figure(
    fig,
    caption=f"Measured influence against resistance over pairs of equal distance, 6 layers. From three hops on the mean over graphs is {means['plain'].mean():.2f}, given the degrees "
    f"{means['partial'].mean():.2f}, with permuted resistances {means['null'].mean():+.2f}. At one hop in molecules it is {heard[(heard.kind == 'molecules') & (heard.distance == 1)].plain.mean():+.2f}: there degrees decide.",
    alt="Two panels of rank correlation against hop distance for molecules, small worlds and scale-free graphs, mostly negative.",
)

# %% [markdown]
# Does rewiring help a network that is trained? A token must travel from one clique to another through a path. Eight residual layers reach
# six hops easily; what they must overcome is the bottleneck. Added edges get weights of their own, as in the paper. Random
# edges are the control.

# %%
arms = {"none": ("none", 0, 1), "GTR, 1 edge": ("gtr", 1, 1), "random, 1 edge": ("random", 1, lab.pick(ci=1, gpu=3))}
arms |= lab.pick(
    ci={}, gpu={"GTR, 5 edges": ("gtr", 5, 1), "FoSR, 1 edge": ("fosr", 1, 1), "random, 5 edges": ("random", 5, 5)}
)
options = {"clique": lab.pick(ci=5, gpu=8), "path": 3, "layers": 8, "width": 16, "seeds": lab.seeds(5)}
options |= {"draws": lab.pick(ci=128, gpu=400), "epochs": lab.pick(ci=20, gpu=60)}
crossing = ex.rewiring.bottleneck_run(arms, **options)

# %%
rows = {
    a: {
        "resistance": crossing.resistance[a],
        "training accuracy": crossing.train[a].mean(),
        "test accuracy": crossing.test[a].mean(),
    }
    for a in arms
}
lab.table(
    pd.DataFrame(rows).T.rename_axis("added edges"),
    caption=f"Five seeds, chance 0.25. One edge of least total resistance gains {paired(crossing.test['GTR, 1 edge'], crossing.test['none']).mean:+.2f} over none, a random one {paired(crossing.test['random, 1 edge'], crossing.test['none']).mean:+.2f}.",
)

# %%
over_none = crossing.test["GTR, 1 edge"] - crossing.test["none"]
over_random = crossing.test["GTR, 1 edge"] - crossing.test["random, 1 edge"]
excess = float((totals.GTR / totals[["FoSR", "random"]].min(axis=1)).max())
measured = {
    "correlation of influence with resistance, by graph": means["plain"],
    "the same given the degrees": means["partial"],
    "upper end of its bootstrap interval": upper,
    "errors of update, first edge, Foster": lab.each(list(inexact.values())),
    "GTR over the better of FoSR and random, worst graph": excess,
    "mean of GTR over FoSR": ratio,
    "accuracy, GTR minus none": over_none,
    "accuracy, GTR minus random": over_random,
}
control = {"correlation with permuted resistances": means["null"]}

# %%
holds = {
    "influence falls with resistance at equal distance": lab.below(means["plain"].mean(), -0.3),
    "also given the degrees": lab.below(means["partial"].mean(), -0.2),
    "by more than chance": lab.below(upper, 0),
    "not with permuted resistances": lab.within(means["null"].mean(), -0.1, 0.1),
    "identities hold": lab.below(max(inexact.values()), 1e-8),
    "greedy edges leave the least resistance on every graph": lab.below(excess, 1.0001),
    "clearly less than the spectral gap's": lab.below(ratio, 0.97),
    "one edge carries the token across": lab.exceeds(over_none.mean(), 0.05),
    "better than a random edge": lab.exceeds(over_random.mean(), 0.1),
}

# %%
lab.claim(
    "black2023resistance",
    "Effective resistance tells how much one node can influence another, and the edge that lowers total resistance most "
    "opens a bottleneck that a random edge does not",
    measured=measured,
    control=control,
    holds=holds,
    scaled="graphs of up to 77 nodes, untrained networks, a synthetic task; benchmark accuracy of rewired networks is not repeated",
    data=data.kind("mutag"),
    reason=f"plain correlation {means['plain'].mean():.2f}, partial {means['partial'].mean():.2f} (upper end {upper:.2f}), null {means['null'].mean():+.2f}; gains on the task {over_none.mean():+.2f} and {over_random.mean():+.2f}",
)

# %% [markdown]
# (paper-yang2023pdf)=
# ## Parameterised decomposition: eigenvectors of their own
#
# A spectral network writes the graph's matrix as $U \Lambda U^\top$, keeps $U$, and learns what to do with $\Lambda$.
# [Yang et al. (2023)](https://arxiv.org/abs/2305.06102) learn both. Several matrices $S_\epsilon = D^\epsilon (A + I) D^\epsilon$ and their powers give every pair of nodes a vector $b_{ij}$,
# and a small network maps it, entry by entry, to one matrix a channel:
#
# $$y_i = \sum_j f(b_{ij}) \odot v_j, \qquad f(b) = W b\ \text{(fixed decompositions)}\ \text{ or }\ f(b) = \mathrm{mlp}(b) .$$
#
# A linear $f$ on one $S_\epsilon$ gives polynomials of one matrix, which commute. A linear $f$ on several matrices, or
# a nonlinear one, gives matrices that do not share eigenvectors.

# %%
commute = ex.decomposition.commutation_checks(nodes=12, draws=10, seed=seed)
rounded = {f: lab.rounding(getattr(commute, f), 1e-12) for f in ("polynomial", "fixed")}
train = {"seeds": seeds, "hidden": lab.pick(ci=24, gpu=64), "steps": lab.pick(ci=300, gpu=2000)}
given = ex.decomposition.filter_data(lab.pick(ci=120, gpu=900), nodes=lab.pick(ci=(10, 14), gpu=(12, 20)), seed=seed)
goals = {"planted nonlinear filter": given.planted, "linear filter (control)": given.plain}
fits = {name: ex.decomposition.filter_errors(given, goal, **train) for name, goal in goals.items()}

# %%
arms = {
    "one": "one decomposition, linear",
    "least_squares": "several, linear",
    "trained": "several, linear, trained",
    "nonlinear": "several, nonlinear (PDF)",
}
table = pd.DataFrame({name: {label: getattr(f, a).mean() for a, label in arms.items()} for name, f in fits.items()})
hard, easy = fits.values()
linear = np.minimum(hard.least_squares, hard.trained)
reached = hard.nonlinear.mean() / linear.mean()
lab.table(
    table.rename_axis("error / deviation of the target").map(lambda v: lab.rounding(v, 1e-6)),
    caption=f"Held-out graphs. The target has an entry wherever two nodes have exactly two walks of two steps: no combination of the matrices makes it. The nonlinear filter's error is "
    f"{reached:.2f} times that of the best linear one, in closed form or trained. On the control a linear filter is exact.",
)

# %%
arms = list(ex.decomposition.HIERARCHY)[lab.pick(ci=1, gpu=0) :]
options = {
    "arms": arms,
    "width": lab.pick(ci=12, gpu=64),
    "layers": lab.pick(ci=2, gpu=4),
    "epochs": lab.pick(ci=20, gpu=100),
}
scores = ex.decomposition.classify_graphs(molecules, seeds=seeds, **options)
advantage = ex.decomposition.gain_over_others(scores, arms[-1])
spread = mean_interval(advantage)
lab.table(
    pd.DataFrame({"test accuracy": {a: s.test.mean() for a, s in scores.items()}}).rename_axis("arm, equal parameters"),
    caption=f"MUTAG, {len(seeds)} splits. The nonlinear filter is {spread.mean:+.3f} ± {spread.half_width:.3f} from the best of the others.",
)

# %%
measured = {
    "error of the nonlinear filter, planted target": hard.nonlinear,
    "best linear filter, planted target": linear,
    "their ratio": reached,
    "commutator of two channels, several matrices, least": commute.several,
    "commutator of two channels, nonlinear, least": commute.learned,
    "accuracy on MUTAG, nonlinear minus best other": advantage,
}

# %%
exactly = lab.rounding(easy.least_squares.mean(), 1e-6)
control = {
    "error of the nonlinear filter, linear target": easy.nonlinear,
    "several matrices, least squares, linear target": exactly,
    "one matrix, least squares, linear target": easy.one,
    "commutator on one decomposition": rounded["fixed"],
    "linear filter against its polynomial": rounded["polynomial"],
}

# %%
holds = {
    "the nonlinear filter has four fifths of the error or less": lab.below(reached, 0.8),
    "no advantage where the target is linear": lab.exceeds(easy.nonlinear.mean(), exactly),
    "there the closed form on all matrices is exact": lab.below(exactly, 0.01),
    "and one matrix is not enough": lab.exceeds(easy.one.mean(), 0.02),
    "channels of one decomposition commute": lab.below(rounded["fixed"], 1e-10),
    "they are the polynomials they should be": lab.below(rounded["polynomial"], 1e-6),
    "nonlinear channels do not commute": lab.exceeds(commute.learned, 1e-3),
    "MUTAG: not worse than the others": lab.exceeds(advantage.mean(), -0.02),
    "MUTAG: better by more than chance": lab.exceeds(spread.low, 0),
}

# %%
lab.claim(
    "yang2023pdf",
    "Learning the graph's decomposition together with the filter fits what no filter of fixed decompositions can",
    measured=measured,
    control=control,
    holds=holds,
    scaled="graphs of up to 28 nodes, one layer for the planted filter, MUTAG in place of ZINC and molpcba",
    data=data.kind("mutag"),
    reason=f"on MUTAG the nonlinear filter is {spread.mean:+.3f} ± {spread.half_width:.3f} from the best other arm, with about {len(molecules) // 5} test graphs a split; "
    f"on the planted filter its error is {reached:.2f} times the linear one's",
)

# %% [markdown]
# (paper-digiovanni2023oversquashing)=
# ## Over-squashing: width, depth or topology?
#
# [Di Giovanni et al. (2023)](https://arxiv.org/abs/2302.02941) ask what relieves a squashed message. Width does, at the price of a more sensitive network;
# depth does not; and what decides is the *commute time* $\tau$ of source and target, the expected length of a random walk there and back, which is the
# resistance times twice the number of edges. They sum what one node's state misses of another's over all layers,
#
# $$J_k(v, u) = \frac{1}{d_v} \frac{\partial h_v^{(m)}}{\partial h_v^{(k)}} - \frac{1}{\sqrt{d_v d_u}} \frac{\partial h_v^{(m)}}{\partial h_u^{(k)}} .$$
#
# For a linear network with identity weights the sum has a closed form. From one side it is the *access* time, the
# expected length of the walk one way; only both sides together, $J_k(v,u) + J_k(u,v)$, give the commute time. Below both are measured.

# %%
size = lab.pick(ci=10, gpu=20)
tracks = {
    "ring": bottlenecks.ring(size),
    "crossed ring": bottlenecks.crossed_ring(size),
    "clique and path": bottlenecks.clique_path(size),
}
tracks |= {"karate club": data.load("karate")} | lab.pick(
    ci={}, gpu={"Les Misérables": nx.Graph(nx.les_miserables_graph().edges)}
)

# %%
limits = [ex.squashing.limit_errors(g) for g in tracks.values()]
limit = lab.rounding(max(max(pair) for pair in limits), 1e-10)
options = {"layers": 40, "width": lab.pick(ci=8, gpu=32), "draws": lab.pick(ci=3, gpu=10), "seed": seed}
obstruction = ex.squashing.obstruction_table(tracks, **options)
middle = obstruction.median()
lab.table(
    obstruction.rename_axis("rank correlation with commute time"),
    caption=f"Random networks of 40 layers, all pairs. Median over graphs: both sides {middle['both sides, shared']:.2f}, one side {middle['one side, shared']:.2f}; "
    f"with independent weights for node and neighbours, whose path products cancel, {middle['both sides, independent']:.2f}. In the linear limit access and commute times are met to {limit:.0e}.",
)

# %% [markdown]
# Both papers on over-squashing also prove *bounds*, by the width $p$ and largest weight $w$ or by walks, from which the one by resistance above follows:
#
# $$\begin{aligned} \Bigl\lVert \frac{\partial h_v^{(m)}}{\partial x_u} \Bigr\rVert_1 &\le (c_\sigma w p)^m\, (S^m)_{vu}, \qquad S = c_r I + c_a \hat A, \\
# \Bigl\lVert \frac{\partial h_v^{(m)}}{\partial x_u} \Bigr\rVert_2 &\le \alpha^m \sum_{l=0}^{m} \binom{m}{l} (\hat A^l)_{vu} . \end{aligned}$$
#
# A bound can be true and empty. So each is held against the exact Jacobians of networks, with the constants of these very networks. Is it respected by every pair? How loose is it?
# Does it rank pairs, also those of equal distance? And is the bound of the same graph with *renamed* nodes broken? It is none of this network, so a bound that says
# something about pairs must break. Trained networks have learned to tell every node what the node farthest from all holds. Networks and graphs are not those of the figure with
# resistances, so the correlations need not be the same.

# %%
mazes = {"barbell": subjects["barbell"], "two blocks": halves, "karate club": tracks["karate club"]}
mazes |= {"odd ring": nx.cycle_graph(15)}
options = {"layers": 6, "width": 8, "steps": lab.pick(ci=120, gpu=400), "draws": lab.pick(ci=3, gpu=10)}
bounds = ex.squashing.bound_checks(mazes, **options, seed=seed)
kinds = ["random", "trained"]

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), sharey=True)
for axis, kind in zip(axes, kinds):
    for bound, part in bounds.hops[bounds.hops.weights == kind].groupby("bound", sort=False):
        axis.plot(part.hops, part.loose, "o-", ms=4, label=f"by {bound}")
    axis.axhline(1, color="0.6")
    axis.set(xlabel="hops between the nodes", yscale="log", title=f"{kind} weights")
axes[0].set_ylabel("bound / measured sensitivity")
axes[1].legend(fontsize=7)
slack = bounds.hops.pivot_table(index=["weights", "bound"], columns="hops", values="loose")
turn = {b: slack.loc[("random", b)].iloc[-1] / slack.loc[("random", b)].iloc[0] for b in ("walks", "resistance")}

# %%
lab.figure(
    fig,
    caption=f"Medians over the pairs of {len(mazes)} graphs and {options['draws']} networks each, {options['layers']} layers; below the grey line a bound would be broken. At {slack.columns[-1]} hops the slack with random weights is "
    f"{turn['walks']:.2g} times that at one hop for the bound by walks, and {turn['resistance']:,.0f} times for the bound by resistance.",
    alt="Two panels of bound over measured sensitivity against hops, logarithmic, for bounds by width, walks and resistance.",
)

# %%
held = bounds.table
loose = {b: f"{float(f'{v:.2g}'):,.0f}" for b, v in held.loc["random", "median bound / measured"].items()}
level, broken = held.loc["random", "at equal distance"], held.loc["random", "broken if renamed"]
worst_share = held["largest measured / bound"].max()
flat = held.set_axis([f"{k} weights, by {b}" for k, b in held.index])
lab.table(
    flat.rename_axis("bound"),
    fmt="{:.2g}",
    caption=f"All pairs: the largest measured value is {worst_share:.2f} of its bound, so {'none is' if worst_share <= 1 else 'one is'} broken. Slack with random weights: {loose['walks']} times by walks, {loose['width']} by width, "
    f"{loose['resistance']} by resistance. At equal distance the rank correlation is {level['walks']:.2f} by walks and {level['resistance']:.2f} by resistance. Renamed nodes break the bound by walks for {broken['walks']:.0%} of the pairs, "
    f"by width for {broken['width']:.0%}, by resistance for {broken['resistance']:.0%}. Training left {bounds.error:.0%} of the error of the best constant.",
)

# %% [markdown]
# Now a task. The target must name one of five classes that the source holds. There are five inputs in all, so training and test are the
# same rows, and the question is only whether training can pass the message on. Layers are as many as the distance, without residuals.

# %%
far = lab.pick(ci=4, gpu=6)
wide, narrow = lab.pick(ci=(64, 8), gpu=(128, 8))
layout = [("ring", 1, narrow, 1), *lab.pick(ci=[], gpu=[("ring", 4, wide, 4), ("ring", 4, narrow, 4)])]
layout += [("ring", far, width, far) for width in (wide, narrow)] + [("ring", far, wide, 2 * far)]
layout += [(family, far, wide, far) for family in ex.squashing.FAMILIES]
transfers = ex.squashing.transfer_cells(layout, seeds=lab.seeds(10), steps=lab.pick(ci=150, gpu=500))
columns = ["graph", "distance", "width", "layers", "accuracy", "loss", "resistance", "commute"]
frame = pd.DataFrame([(*t[:4], t.accuracy.mean(), t.loss.mean(), *t[6:]) for t in transfers], columns=columns)

# %%
cell = {key: ex.squashing.pick_cell(transfers, *key) for key in layout}
family = {f: cell[f, far, wide, far].accuracy for f in ex.squashing.FAMILIES}
by_width = paired(cell["ring", far, wide, far].accuracy, cell["ring", far, narrow, far].accuracy)
by_depth = paired(cell["ring", far, wide, 2 * far].accuracy, cell["ring", far, wide, far].accuracy)
lab.table(
    frame.set_index("graph"),
    fmt="{:.2f}",
    caption=f"Ten seeds, chance 0.2. At distance {far}: width {wide} instead of {narrow} gains {by_width.mean:+.2f}, twice the layers {by_depth.mean:+.2f}. "
    f"Accuracy by graph: {', '.join(f'{f} {v.mean():.2f}' for f, v in family.items())}.",
)

# %%
gaps = [family["crossed ring"].mean() - family["ring"].mean(), family["ring"].mean() - family["clique and path"].mean()]
reach = cell["ring", 1, narrow, 1].accuracy
measured = {
    "correlation of the obstruction with commute time, by graph": lab.each(obstruction["both sides, shared"]),
    "the same from one side": lab.each(obstruction["one side, shared"]),
    "error of the linear limits": limit,
    "accuracy, wide minus narrow": by_width.mean,
    "accuracy, twice the layers minus once": by_depth.mean,
    "upper end of that interval": by_depth.interval.high,
    "accuracy, crossed ring minus ring, ring minus clique": lab.each(gaps),
}
control = {
    "independent weights, by graph": lab.each(obstruction["both sides, independent"]),
    "narrow network at distance 1": reach,
}

# %%
holds = {
    "obstruction follows commute time": lab.exceeds(middle["both sides, shared"], 0.8),
    "better than from one side": lab.exceeds(middle["both sides, shared"], middle["one side, shared"]),
    "not with independent weights": lab.below(middle["both sides, independent"], middle["both sides, shared"] - 0.1),
    "the linear limits are exact": lab.below(limit, 1e-8),
    "width helps": lab.exceeds(by_width.mean, 0.1),
    "it is not capacity: the narrow network masters distance 1": lab.exceeds(reach.mean(), 0.9),
    "depth does not help": lab.below(by_depth.interval.high, 0.1),
    "crossed ring at least as good as ring": lab.exceeds(gaps[0], -0.05),
    "ring at least as good as clique and path": lab.exceeds(gaps[1], -0.05),
    "topology matters": lab.exceeds(max(gaps), 0.2),
}

# %%
lab.claim(
    "digiovanni2023oversquashing",
    "Over-squashing happens between nodes of high commute time; width relieves it, depth does not, topology decides",
    measured=measured,
    control=control,
    holds=holds,
    scaled=f"graphs of up to 34 nodes, distance {far}, one architecture (GIN); Jacobians are exact",
    reason=f"width gains {by_width.mean:+.2f}, twice the depth {by_depth.mean:+.2f} (upper end {by_depth.interval.high:+.2f}), a narrow network reaches {reach.mean():.2f} at distance 1, gaps between graphs {gaps[0]:+.2f} and {gaps[1]:+.2f}",
)

# %% [markdown]
# Resistance or commute time? The two disagree on the crossed ring: it has half the resistance of the ring and, with more edges for
# the walk to lose itself in, a longer commute. The table above has both columns, and the accuracies side with one of them.

# %% [markdown]
# (paper-zeng2023mowst)=
# ## Weak and strong experts
#
# Some nodes know themselves; others are known by their neighbours. [Zeng et al. (2023)](https://arxiv.org/abs/2311.05185) give the first to a *weak*
# expert, a network on features alone with prediction $p$, and the others to a *strong* one on the graph with $p'$. The gate is the weak
# expert's confidence, its dispersion between uniform and one-hot:
#
# $$\begin{gathered} C = \Bigl(\frac{\operatorname{var}(p)}{\operatorname{var}(\text{one-hot})}\Bigr)^{\alpha}, \\
# \ell = C\,\ell(p) + (1 - C)\,\ell(p')\ \text{(Mowst)} \quad\text{or}\quad \ell\bigl(C p + (1 - C) p'\bigr)\ \text{(Mowst*)} . \end{gathered}$$
#
# The experts are trained in turns. Two networks beat one for many reasons, so the baselines are other pairs: a GCN with the
# MLP's logits added, the plain mean of both experts, and the same gate on experts that were trained apart. All get the
# same number of steps. The first graph is made so that half of the nodes are of each kind.

# %%
five = lab.seeds(lab.pick(ci=5, gpu=10))
options = {"hidden": 16, "epochs": lab.pick(ci=40, gpu=150), "turns": lab.pick(ci=2, gpu=3), "steps": 20}
runs = []
for s in five:
    graph = ex.experts.self_and_structure(lab.pick(ci=1000, gpu=3000), seed=s)
    task = tuning.node_task(graph, rank=8, seeds=[s])
    runs.append(
        ex.experts.expert_run(
            task, seeds=[s], structural=graph.structural, ablations=lab.pick(ci=False, gpu=True), **options
        )
    )

# %%
known = {arm: np.concatenate([r.test[arm] for r in runs]) for arm in runs[0].test}
chosen = np.concatenate([r.chosen for r in runs])
rivals = np.stack([known[arm] for arm in ("GCN + skip", "mean of experts", "frozen gate")])
rival = rivals[rivals.mean(1).argmax()]
better = paired(chosen, rival)
gap = {arm: np.concatenate([r.gap[arm] for r in runs]) for arm in runs[0].gap}

# %%
options = {"hidden": lab.pick(ci=16, gpu=64), "epochs": lab.pick(ci=30, gpu=150), "steps": lab.pick(ci=10, gpu=20)}
places = {"Cora": sparse_cora, "Chameleon": page_task, "Texas": texas_task}
places |= lab.pick(ci={}, gpu={"Actor": tasks.get("actor")})
found = {name: ex.experts.expert_run(task, seeds=seeds, **options) for name, task in places.items()}
over_gcn = np.concatenate([r.test["Mowst*"] - r.test["GCN"] for r in found.values()])
over_mean = np.concatenate([r.test["Mowst*"] - r.test["mean of experts"] for r in found.values()])
over_skip = np.concatenate([r.test["Mowst*"] - r.test["GCN + skip"] for r in found.values()])

# %%
table = pd.DataFrame(
    {"half and half": {a: v.mean() for a, v in known.items()}}
    | {n: {a: v.mean() for a, v in r.test.items()} for n, r in found.items()}
)
lab.table(
    table.rename_axis("arm"),
    caption=f"On the planted graph the mixture is {better.mean:+.3f} ± {better.interval.half_width:.3f} from the best other pair. On the real ones Mowst* is {over_gcn.mean():+.3f} from the GCN, "
    f"{over_mean.mean():+.3f} from the mean of both experts and {over_skip.mean():+.3f} from the GCN with added logits.",
)

# %%
last = np.where([r.test["Mowst"][0] == r.chosen[0] for r in runs], gap["Mowst"], gap["Mowst*"])
apart = paired(last, gap["frozen gate"])
lost = chosen - np.concatenate([r.permuted for r in runs])
measured = {
    "accuracy, mixture minus best other pair, planted": chosen - rival,
    "confidence gap of the kinds, mixture minus separate MLP": last - gap["frozen gate"],
    "accuracy lost when confidences are permuted": lost,
    "real graphs: Mowst* minus GCN": over_gcn,
    "real graphs: Mowst* minus mean of experts": over_mean,
}
control = {
    "confidence gap of the separate MLP": gap["frozen gate"],
    "mean of experts minus GCN, planted": known["mean of experts"] - known["GCN"],
    "GCN + skip minus GCN, planted": known["GCN + skip"] - known["GCN"],
}

# %%
holds = {
    "the mixture beats every other pair": lab.exceeds((chosen - rival).mean(), 0.01),
    "by more than chance": lab.exceeds(better.interval.low, 0),
    "training together makes the experts specialise": lab.exceeds(apart.mean, 0.05),
    "the gate is used": lab.exceeds(lost.mean(), 0.02),
    "real graphs: better than the GCN, by more than chance": lab.exceeds(mean_interval(over_gcn).low, 0),
    "real graphs: not worse than the mean of both": lab.exceeds(over_mean.mean(), -0.002),
}

# %%
lab.claim(
    "zeng2023mowst",
    "A weak expert on features and a strong one on the graph, joined by the weak one's confidence and trained in turns, "
    "beat one network and other pairs of the same size",
    measured=measured,
    control=control,
    holds=holds,
    scaled="graphs of one to three thousand nodes in place of millions, hidden width 16",
    data=data.kind("cora"),
    reason=f"over the best other pair the mixture gains {better.mean:+.3f} ± {better.interval.half_width:.3f} where half of the nodes know themselves. Permuting its confidences costs {lost.mean():.3f}, "
    f"and that other pair alone gains {(rival - known['GCN']).mean():+.3f} over a GCN; confidence gaps differ by {apart.mean:+.3f} between experts trained together and apart",
)

# %% [markdown]
# (paper-zeng2021shadow)=
# ## Depth apart from scope
#
# How many layers a network has and how far it looks are usually one number. [Zeng et al. (2021)](https://arxiv.org/abs/2201.07858) separate them: around every target a
# small subgraph is cut out, by personalised PageRank for instance, and a network of any depth runs there. On a connected graph infinitely
# many propagations leave of a node nothing but its degree. In a scope $G_{[v]}$ they leave
#
# $$m_{[v]} = \delta_v(v) \sum_{u \in G_{[v]}} \delta_v(u)\, x_u, \qquad \delta_v(u) = \sqrt{\frac{d_u^{[v]} + 1}{2 |E_{[v]}| + |V_{[v]}|}},$$
#
# which differs from target to target as their scopes differ. Linear networks show the effect without any trouble of training.

# %%
scopes = ex.shadow.make_scopes(sparse_cora, size=32, budget=8, seed=seed)
forms = ex.shadow.limit_errors(sparse_cora, scopes["two hops"], steps=6000, columns=3, seed=seed)
worst = lab.rounding(max(forms.whole, forms.scopes), 1e-6)
unit = lab.rounding(forms.normalisation, 1e-14)
depths = [2, 5, 8, 16, 128, None]
linear = ex.shadow.linear_depths(sparse_cora, scopes, depths, seeds=seeds, epochs=lab.pick(ci=30, gpu=200))
tests = {name: {d: run[0] for d, run in by.items()} for name, by in linear.items()}

# %%
fig, axis = plt.subplots(figsize=(6.2, 3.6))
places = {d: k for k, d in enumerate(depths)}
for name, by in tests.items():
    known_depths = [d for d in depths if d in by]
    axis.errorbar(
        [places[d] for d in known_depths],
        [by[d].mean() for d in known_depths],
        [mean_interval(by[d]).half_width for d in known_depths],
        marker="o",
        ms=4,
        label=name,
    )

# %%
axis.set(
    xticks=range(len(depths)),
    xticklabels=["∞" if d is None else d for d in depths],
    xlabel="propagations",
    ylabel="test accuracy",
)
axis.legend(fontsize=7)

# %%
shallow = np.stack([tests["whole graph"][d] for d in (2, 4)])
shallow = shallow[shallow.mean(1).argmax()]
deep = {d: paired(tests["PPR"][d], tests["whole graph"][d]) for d in (16, 128)}
choice = {d: paired(tests["PPR"][d], tests["random"][d]) for d in (8, 128)}
lab.figure(
    fig,
    caption=f"Linear networks on Cora, {len(seeds)} splits. At 128 propagations scopes by PageRank are {deep[128].mean:+.2f} above the whole graph, at 16 {deep[16].mean:+.2f}. "
    f"Over random scopes of the same size they gain {choice[8].mean:+.2f} at 8 and {choice[128].mean:+.2f} at 128. All pairs of limits on the whole graph have one direction; of scopes {forms.same_scopes:.1%} do.",
    alt="Accuracy against number of propagations for the whole graph, which falls, and for three kinds of scope, which stay level.",
)

# %% [markdown]
# Scopes also tell apart what the whole graph confuses. In two triangles and in a hexagon every node has two neighbours, so that no message passing on the whole graph
# sees a difference; one hop around a node does.

# %%
confused, told = ex.shadow.triangles_and_hexagon(width=8, layers=4, seed=seed)
confused = lab.rounding(confused, 1e-12)
finite = {n: [d for d in by if d is not None] for n, by in linear.items()}
tuned = max(finite["whole graph"], key=lambda d: linear["whole graph"][d][1].mean())
against = paired(tests["PPR"][5], tests["whole graph"][tuned])

# %% [markdown]
# With weights and rectifiers between the propagations, five layers with residuals run on both sides: in scopes, read out at the target and as the mean, and on the whole graph. The paper's gains are those of such networks.

# %%
options = {"size": lab.pick(ci=16, gpu=32), "held": lab.pick(ci=250, gpu=1000), "layers": 5}
options |= {"hidden": lab.pick(ci=16, gpu=64), "epochs": lab.pick(ci=30, gpu=100)}
deepened = ex.shadow.deep_gcn(sparse_cora, seeds=seeds, **options)
by_scope = paired(deepened.scoped, deepened.whole)

# %%
measured = {
    "limit in scopes minus best shallow whole graph": tests["PPR"][None] - shallow,
    "PPR minus whole graph at 128": tests["PPR"][128] - tests["whole graph"][128],
    "PPR minus random scopes at 128": tests["PPR"][128] - tests["random"][128],
    "PPR at 5 minus the whole graph at its best depth": against.mean,
    "residual GCN of 5 layers, scopes minus whole graph": deepened.scoped - deepened.whole,
    "error of the closed forms": worst,
    "sum of squared weights, from one": unit,
    "two triangles and hexagon in scopes": told,
}
control = {
    "PPR minus whole graph at 16, not smoothed yet": deep[16].mean,
    "PPR minus random scopes at 8": tests["PPR"][8] - tests["random"][8],
    "two triangles and hexagon, whole graphs": confused,
}

# %%
holds = {
    "infinite depth in scopes keeps the accuracy of shallow networks": lab.exceeds(
        measured["limit in scopes minus best shallow whole graph"].mean(), -0.03
    ),
    "at 128 the whole graph has lost it": lab.exceeds(deep[128].mean, 0.05),
    "at 16 there is no gap yet": lab.within(deep[16].mean, -0.05, 0.05),
    "the choice of scope matters at 128": lab.exceeds(choice[128].mean, 0.03),
    "closed forms": lab.below(worst, 1e-4),
    "weights are normalised": lab.below(unit, 1e-12),
    "whole graphs are confused": lab.below(confused, 1e-6),
    "scopes are told apart": lab.exceeds(told, 1e-2),
    "five layers in scopes beat the best depth on the whole graph": lab.exceeds(against.mean, 0),
}

# %%
lab.claim(
    "zeng2021shadow",
    "A network of any depth on a small scope around each node keeps its accuracy where the whole graph smooths it away, "
    "and is more accurate than shallow networks",
    measured=measured,
    control=control,
    holds=holds,
    scaled="linear networks and small GCNs on Cora; scopes of up to 32 nodes",
    data=data.kind("cora"),
    reason=f"the limit in scopes is {(tests['PPR'][None] - shallow).mean():+.3f} from the best shallow network, and five layers in scopes {against.mean:+.3f} ± {against.interval.half_width:.3f} from the whole graph at its "
    f"best validated depth, {tuned}: scopes protect depth, but depth gains nothing on this graph that they could keep. A residual GCN of five layers is {by_scope.mean:+.3f} ± {by_scope.interval.half_width:.3f} in scopes",
)

# %% [markdown]
# (paper-bodnar2022sheaf)=
# ## Sheaf diffusion: neighbours compared through maps
#
# Diffusion makes neighbours equal. [Bodnar et al. (2022)](https://arxiv.org/abs/2202.04579) change what *equal* means. A sheaf gives every node a space and every
# edge two maps into a space of its own, and diffusion with $L_F = \delta^\top \delta$ makes neighbours agree after the maps:
#
# $$(\delta x)_e = F_{v \trianglelefteq e}\, x_v - F_{u \trianglelefteq e}\, x_u, \qquad \dot X = -\Delta_F X, \quad \Delta_F = D^{-1/2} L_F D^{-1/2} .$$
#
# With maps 1 and -1 neighbours of two classes agree when they are opposite. The limit is the projection on the kernel of
# $\Delta_F$. Theory says which sheaves can separate how many classes there; a linear programme decides it for every random start.

# %%
classes = [2, 3, 4]
options = {"nodes": 60, "graphs": lab.pick(ci=5, gpu=20), "starts": lab.pick(ci=4, gpu=10), "channels": 4, "seed": seed}
separation = ex.sheaf.separation_table(classes, **options)
wide = separation.pivot(index="sheaf", columns="classes", values="separated")
kernel = separation.pivot(index="sheaf", columns="classes", values="largest kernel")
lab.table(
    wide.rename(columns=lambda c: f"{c} classes"),
    fmt="{:.2f}",
    caption=f"Share of random starts whose limit separates every class from the rest, on heterophilous graphs. Sheaves that depend on the classes; with permuted labels "
    f"the largest share is {separation['permuted labels'].max():.2f}. Projections on the class's coordinate separate nothing here: their kernel has {kernel.loc['projection'].min():.0f} dimensions or more.",
)

# %%
able = [("signed", 2)] + [(kind, c) for kind in ("diagonal", "rotation") for c in classes]
unable = [(kind, c) for kind in ("trivial", "weighted") for c in classes] + [("signed", c) for c in classes[1:]]
least = float(min(wide.loc[pair] for pair in able))
most = float(max(wide.loc[pair] for pair in unable))
null = float(separation["permuted labels"].max())

# %%
line = separation[separation.sheaf.isin(["trivial", "weighted", "signed"])]
dimensions = {"trivial": 1, "signed": 1, "rotation": 2}
wrong = int(
    sum(
        abs(separation[separation.sheaf == k][["least kernel", "largest kernel"]] - d).to_numpy().sum()
        for k, d in dimensions.items()
    )
)
diagonal = separation[separation.sheaf == "diagonal"]
wrong += int(
    abs(diagonal["least kernel"] - diagonal.classes).sum() + abs(diagonal["largest kernel"] - diagonal.classes).sum()
)
line_rank = int(line["largest rank"].max())

# %% [markdown]
# Whether a network *learns* such maps is another question. The trivial sheaf is the control: the same network with identity maps, residual
# and all. Graphs of growing homophily with weak features, and Texas. Dropout, which the paper tunes, is off; because in a trial the sign of the difference depended on it, the comparison is repeated with
# a dropout of one half and reported beside it.

# %%
levels = lab.pick(ci=[0.1, 0.9], gpu=[0.1, 0.3, 0.5, 0.7, 0.9])
weak = {
    f"homophily {h}": ex.sheaf.noisy_heterophily(lab.pick(ci=200, gpu=400), 3, h, features=8, signal=0.5, seed=seed)
    for h in levels
}
grounds = {n: tuning.node_task(g, rank=8, seeds=seeds, shares=(0.5, 0.2)) for n, g in weak.items()} | {
    "Texas": texas_task
}
grounds |= lab.pick(ci={}, gpu={"Wisconsin": tasks["wisconsin"], "Cornell": tasks["cornell"], "Chameleon": page_task})
arms = ["trivial", "diagonal", "orthogonal", "general", "GCN", "GCN residual", "MLP"]
options = {"width": lab.pick(ci=8, gpu=16), "epochs": lab.pick(ci=30, gpu=150), "seeds": seeds}
sheaves = {n: ex.sheaf.sheaf_arms(t, arms, layers=2, **options) for n, t in grounds.items()}
learned = {n: ex.sheaf.best_sheaf(run) for n, run in sheaves.items()}

# %%
steep = ex.sheaf.sheaf_arms(texas_task, ["trivial", "diagonal", "orthogonal", "GCN residual"], layers=16, **options)
drop = {a: (sheaves["Texas"][a].test - steep[a].test).numpy() for a in steep}
learned_drop = learned["Texas"] - ex.sheaf.best_sheaf(steep)
apart = [n for n in grounds if n not in [f"homophily {h}" for h in levels if h > 0.3]]
thin = {n: ex.sheaf.sheaf_arms(grounds[n], arms[:4], layers=2, dropout=0.5, **options) for n in apart}
dropped = np.concatenate([ex.sheaf.best_sheaf(r) - r["trivial"].test.numpy() for r in thin.values()])

# %%
over_trivial = np.concatenate([learned[n] - sheaves[n]["trivial"].test.numpy() for n in apart])
over_mlp = np.concatenate([learned[n] - sheaves[n]["MLP"].test.numpy() for n in apart])
table = pd.DataFrame(
    {n: ex.sheaf.mean_accuracy(r) | {"learned, chosen": learned[n].mean()} for n, r in sheaves.items()}
)
table["Texas, 16 layers"] = pd.Series(ex.sheaf.mean_accuracy(steep))
lab.table(
    table.rename_axis("two layers"),
    caption=f"Learned maps are {over_trivial.mean():+.3f} from identity maps on the heterophilous graphs, and {over_mlp.mean():+.3f} from the network without a graph. With 16 layers on Texas learned sheaves lose {learned_drop.mean():+.3f}, "
    f"the trivial one {drop['trivial'].mean():+.3f}, a residual GCN {drop['GCN residual'].mean():+.3f}.",
)

# %%
measured = {
    "least share separated where theory says yes": least,
    "largest share where theory says no": most,
    "departure of kernel dimensions": wrong,
    "largest rank of a limit with stalks of dimension 1": line_rank,
    "learned minus trivial sheaf, heterophilous graphs": over_trivial,
    "learned minus trivial sheaf, with dropout": dropped,
    "learned sheaf minus MLP": over_mlp,
    "loss with 16 layers, learned sheaf": learned_drop,
}

# %%
control = {
    "permuted labels, largest share": null,
    "loss with 16 layers, trivial sheaf": drop["trivial"],
    "loss with 16 layers, GCN + residual": drop["GCN residual"],
    "learned minus trivial sheaf, homophily 0.9": learned["homophily 0.9"]
    - sheaves["homophily 0.9"]["trivial"].test.numpy(),
}

# %%
spared = {a: paired(drop[a], learned_drop) for a in ("trivial", "GCN residual")}
holds = {
    "separated wherever theory says so": lab.exceeds(least, 0.949),
    "never where it is impossible": lab.below(most, 0.05),
    "not with permuted labels": lab.below(null, 0.05),
    "kernels have the dimensions of the theorems": lab.below(wrong, 1),
    "limits of one-dimensional stalks have rank 1": lab.below(line_rank, 2),
    "learned sheaves beat the trivial one": lab.exceeds(over_trivial.mean(), 0.03),
    "by more than chance": lab.exceeds(mean_interval(over_trivial).low, 0),
    "and are not below the MLP": lab.exceeds(over_mlp.mean(), -0.01),
    "16 layers cost them less than the trivial sheaf": lab.exceeds(spared["trivial"].mean, 0.05),
    "and less than a residual GCN": lab.exceeds(spared["GCN residual"].mean, 0.05),
}

# %%
lab.claim(
    "bodnar2022sheaf",
    "Diffusion on a suitable sheaf separates heterophilous classes that no diffusion on the graph can, and learned sheaves profit",
    measured=measured,
    control=control,
    holds=holds,
    scaled="graphs of 60 to 200 nodes and Texas, stalks of dimension 2, short training",
    data=data.kind("texas"),
    reason=f"theory holds to the letter, but learned maps are {over_trivial.mean():+.3f} ± {mean_interval(over_trivial).half_width:.3f} ({dropped.mean():+.3f} ± {mean_interval(dropped).half_width:.3f} with dropout) from the same network with identity maps, whose residual and nonlinearity already free it from averaging "
    f"({np.mean([float((sheaves[n]['trivial'].test - sheaves[n]['GCN'].test).mean()) for n in apart]):+.2f} over a GCN); with 16 layers the trivial sheaf loses {drop['trivial'].mean():+.3f}, the learned {learned_drop.mean():+.3f}",
)

# %% [markdown]
# (paper-sun2024directed)=
# ## Directed graphs: is direction information?
#
# Most graph networks make a directed graph undirected first. The survey by [Sun et al. (2024)](https://arxiv.org/abs/2412.01849) calls this a loss, and asks to decide by the
# *data* how direction is represented. It reports no experiment of its own; we test its core. A directed network has weights of their own for
# both directions,
#
# $$x \leftarrow \sigma\bigl(\alpha\, S^\top x\, W_{\text{in}} + (1 - \alpha)\, S x\, W_{\text{out}} + x W_{\text{self}}\bigr), \qquad S_{uv} = A_{uv} / \sqrt{d^{\text{out}}_u d^{\text{in}}_v},$$
#
# and so differs from a GCN also in its separate self weight. Its fair rival is therefore its own *twin*: the same modules with the symmetrised graph in both places.
# On a cyclic block model edges run from class $c$ to $c + 1$ with probability $\beta$; at $\beta = 1/2$ direction means nothing.
# A third arm has one weight for both directions on directed edges; it tells whether a difference comes from the second weight or from the normalisation.
# How many edges run both ways tells how much direction there is to forget.
# Before any training a selector looks at the training labels: does ridge regression predict them better from directed neighbourhoods than from undirected ones, by 0.02 of explained variance?

# %%
beta = lab.pick(ci=[0.5, 0.8], gpu=[0.5, 0.6, 0.8, 0.95])
models = lab.pick(ci=["Dir-GNN"], gpu=["Dir-GNN", "MagNet", "two hops"])
widths = {"hidden": lab.pick(ci=16, gpu=32), "epochs": lab.pick(ci=50, gpu=150)}
options = {"models": models} | widths
four = lab.seeds(lab.pick(ci=4, gpu=10))
flow = ex.directed.flow_runs(beta, classes=4, nodes=lab.pick(ci=600, gpu=1000), seeds=four, **options)
names = lab.pick(ci=["chameleon_filtered"], gpu=["chameleon_filtered", "squirrel_filtered"])
links = {n: data.load(n, directed=True, stand_in=data.heterophilous_graph) for n in names}
ten = lab.seeds(lab.pick(ci=5, gpu=10))
directed_tasks = {n: tuning.node_task(g, rank=rank, seeds=ten, fixed=True) for n, g in links.items()}
direct = {
    n: ex.directed.direction_run(directed_tasks[n], g, seeds=ten, shuffle=False, **options) for n, g in links.items()
}
oriented = ex.directed.oriented_control(sparse_cora, seeds=seeds, **options)

# %%
last = {"classes": 4, "nodes": lab.pick(ci=600, gpu=1000), "seeds": four[: lab.pick(ci=2, gpu=10)], "shuffle": False}
others = {m: ex.directed.flow_runs(beta[-1:], models=[m], **last, **widths)[beta[-1]] for m in ("MagNet", "two hops")}

# %%
everything = {f"flow, β = {b}": run for b, run in flow.items()} | direct | {"Cora, random directions": oriented}
rows = {}
for name, run in everything.items():
    interval = mean_interval(run.gain)
    rows[name] = {
        "directed - twin": interval.mean,
        "half width": interval.half_width,
    }
    rows[name] |= {
        "edges both ways": run.reciprocity.mean(),
        "selector's statistic": run.advantage.mean(),
        "selector says": "keep" if run.selector.mean() > 0.5 else "forget",
    }

# %%
agreed, decided = ex.directed.agreement(everything)
lab.table(
    pd.DataFrame(rows).T.infer_objects(),
    caption=f"Gain of direction over the twin. The selector, which has seen training labels only, agrees with the measured gain in {agreed:.0%} of the {decided} cells that are decided. "
    f"A comparison with a GCN would mix in what the self weight gains, {(flow[0.5].test['Dir-GNN, twin'] - flow[0.5].test['GCN']).mean():+.2f} where direction means nothing. "
    f"Other directed models over their twins at β = {beta[-1]}, {len(last['seeds'])} graphs: {', '.join(f'{m} {r.gain.mean():+.3f}' for m, r in others.items())}.",
)

# %%
strong, zero = flow[beta[-1]], flow[0.5]
none, much = mean_interval(zero.gain), mean_interval(strong.gain)
real_gain = np.concatenate([run.gain for run in direct.values()])
noise = max(float(run.shuffled.mean()) for run in flow.values())
price = paired(zero.test["Dir-GNN"], zero.test["Dir-GNN, tied"])
shape = paired(zero.test["Dir-GNN, tied"], zero.test["Dir-GNN, twin"])
refused = 1 - max(zero.selector.mean(), oriented.selector.mean())

# %%
measured = {
    f"directed minus twin, β = {beta[-1]}": strong.gain,
    "directed minus twin, filtered directed graphs": real_gain,
    "agreement of the selector": agreed,
    "growth of the gain with β": much.mean - none.mean,
    "gain of other models, by model": lab.each([float(r.gain.mean()) for r in others.values()]),
}
control = {
    "directed minus twin, β = 0.5": zero.gain,
    "there, two weights minus one": price.mean,
    "there, one weight on directed edges minus twin": shape.mean,
    "shuffled directions minus twin, largest": noise,
    "directed minus twin, Cora with random directions": oriented.gain,
    "selector refuses at β = 0.5 and on Cora": refused,
}

# %%
holds = {
    "direction helps where it means something": lab.exceeds(much.mean, lab.pick(ci=0.05, gpu=0.1)),
    "by more than chance": lab.exceeds(much.low, 0),
    "not where it means nothing": lab.within(none.mean, -0.03, 0.03),
    "there the interval covers zero": lab.below(abs(none.mean) - none.half_width, 0),
    "the gain grows with β": lab.exceeds(much.mean - none.mean, 0),
    "shuffled directions do not help": lab.below(noise, 0.01),
    "random directions on Cora do not help": lab.below(oriented.gain.mean(), 0.01),
    "filtered directed graphs: direction helps": lab.exceeds(mean_interval(real_gain).low, 0),
    "the selector agrees with the gains": lab.exceeds(agreed, 0.79),
    "the selector refuses where direction means nothing": lab.exceeds(refused, 0.99),
}

# %%
lab.claim(
    "sun2024directed",
    "Direction is information that an undirected graph loses, and a statistic of the data tells when to keep it",
    measured=measured,
    control=control,
    holds=holds,
    scaled="a survey without experiments of its own; our test of its core on block models and Wikipedia links",
    data=data.kind("chameleon_filtered"),
    reason=f"gains over the twin are {much.mean:+.3f} ± {much.half_width:.3f} at β = {beta[-1]}, {none.mean:+.3f} ± {none.half_width:.3f} at 0.5, {real_gain.mean():+.3f} ± {mean_interval(real_gain).half_width:.3f} on the filtered graphs, "
    f"where the selector's statistic was {np.mean([r.advantage.mean() for r in direct.values()]):+.3f}, and {oriented.gain.mean():+.3f} on Cora with random directions. "
    f"A useless direction has a price: with one weight for both directions the model on directed edges is {shape.mean:+.3f} from the twin, with two {price.mean:+.3f} from that",
)

# %% [markdown]
# (paper-zhang2021dgmlp)=
# ## Depth: propagation or transformation?
#
# A deep GCN multiplies by $\hat A$ often and by weights often. Which of the two ruins it?
# [Zhang et al. (2021)](https://arxiv.org/abs/2108.00955) count them apart, $D_p$ propagations and $D_t$ transformations, and blame $D_t$. Their own model, DGMLP, weights the propagation steps node by node,
#
# $$\tilde x_v = \sum_k w_v(k)\, x^{(k)}_v, \quad w_v(k) = \operatorname{softmax}_k\Bigl( \cos\bigl(x_v^{(0)}, x_v^{(k)}\bigr) \bigl(1 - \cos(x_v^{(\infty)}, x_v^{(k)})\bigr) \Bigr) .$$
#
# The training accuracy tells degradation from overfitting: a network that cannot fit 140 nodes is broken, not too smooth. A first version tuned the dropout (0 or one half)
# over 40 steps, in which sixteen transformations hardly learned anything, with skips or without, and least of all with dropout. The `ci` profile now trains longer and without dropout,
# all arms alike; the `gpu` profile tunes it.

# %%
big = lab.pick(ci=16, gpu=32)
arms = {"GCN, 2": (2, 2, False), f"GCN, {big}": (big, big, False)}
arms |= lab.pick(ci={}, gpu={f"GCN, {big}, skips": (big, big, True)})
arms |= {
    f"D_p {big}, D_t 2": (big, 2, False),
    f"D_p 2, D_t {big}": (2, big, False),
    f"D_p 2, D_t {big}, skips": (2, big, True),
}
options = {"hidden": lab.pick(ci=16, gpu=32), "epochs": lab.pick(ci=80, gpu=200)}
options |= {"dropouts": lab.pick(ci=(0.0,), gpu=(0.0, 0.5))}

# %%
counted = ex.depth.depth_arms(sparse_cora, arms, seeds=seeds, **options)
again = ex.depth.depth_arms(sparse_cora, {"again": (2, 2, False)}, seeds=[s + 100 for s in seeds], **options)["again"]

# %%
lab.table(
    pd.DataFrame(
        {
            a: {"training accuracy": r.train.mean().item(), "test accuracy": r.test.mean().item()}
            for a, r in counted.items()
        }
    ).T.rename_axis("propagations and transformations"),
    caption=f"Cora, 20 labels a class, {len(seeds)} splits; settings chosen on validation nodes for every arm. Training accuracy is {counted[f'D_p 2, D_t {big}'].train.mean():.2f} after {big} transformations, "
    f"{counted[f'D_p 2, D_t {big}, skips'].train.mean():.2f} with skips, and {counted[f'D_p {big}, D_t 2'].train.mean():.2f} after {big} propagations with two transformations.",
)

# %%
more = lab.seeds(5)
task = tuning.node_task(cora, rank=rank, seeds=more, per_class=20)
heads = {f"SGC, {k}": ("last", k) for k in (2, 8, 16)} | {"S2GC, 20": ("uniform", 20)}
heads |= {f"DGMLP, {k}": ("adaptive", k) for k in (2, 8, 20)} | {
    "own only": ("own", 20),
    "unsmoothed only": ("unsmoothed", 20),
}
epochs = lab.pick(ci=25, gpu=200)
weighed = ex.depth.head_run(task, heads, epochs=epochs, seeds=more)
kinds = ["full", "again", "edges", "labels", "features"]
few = ex.depth.sparsity_gains(task, kinds, shallow=2, deep=big, epochs=epochs, seeds=more, per_class=20)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.5))
axes[0].errorbar(
    [weighed.test[h].mean() for h in heads],
    list(heads),
    xerr=[mean_interval(weighed.test[h]).half_width for h in heads],
    fmt="o",
)
axes[0].invert_yaxis()
axes[0].set(xlabel="test accuracy", ylabel="features", title="linear heads")

# %%
intervals = {k: mean_interval(few[k]) for k in kinds}
titles = ["full", "full again", "30 % of edges", "5 labels a class", "half of features"]
axes[1].errorbar([intervals[k].mean for k in kinds], range(5), xerr=[intervals[k].half_width for k in kinds], fmt="o")
axes[1].set(
    yticks=range(5),
    yticklabels=titles,
    ylabel="graph",
    xlabel=f"accuracy, {big} propagations minus 2",
    title="when depth pays",
)
axes[1].axvline(0, color="0.6")
axes[1].locator_params(axis="x", nbins=5)

# %%
best_k = max((2, 8, 16), key=lambda k: weighed.validation[f"SGC, {k}"].mean())
adaptive = paired(weighed.test["DGMLP, 20"], weighed.test["S2GC, 20"])
lab.figure(
    fig,
    caption=f"Left: node-adaptive weights are {adaptive.mean:+.3f} ± {adaptive.interval.half_width:.3f} from uniform ones; their entropy is {weighed.entropy:.1%} of the largest possible. "
    f"Right: what deep propagation gains, with 95 % intervals over {len(more)} draws.",
    alt="Left, accuracy with intervals for nine linear heads. Right, gain of deep over shallow propagation for five conditions.",
)

# %%
score = {a: r.test.mean().item() for a, r in counted.items()}
lost = score[f"D_p {big}, D_t 2"] - score[f"D_p 2, D_t {big}"]
recovered = (score[f"D_p 2, D_t {big}, skips"] - score[f"D_p 2, D_t {big}"]) / lost
slump = max(weighed.test[f"DGMLP, {k}"].mean() for k in (2, 8, 20)) - weighed.test["DGMLP, 20"].mean()
beside = paired(weighed.test["DGMLP, 20"], weighed.test[f"SGC, {best_k}"])
extra = {k: mean_interval(few[k] - few["full"]) for k in ("edges", "labels", "features")}
same = mean_interval(few["again"] - few["full"])
paying = sum(i.low > 0 for i in extra.values())

# %%
measured = {
    "deep propagation minus deep GCN": (counted[f"D_p {big}, D_t 2"].test - counted[f"GCN, {big}"].test).numpy(),
    "deep propagation minus deep transformation": (
        counted[f"D_p {big}, D_t 2"].test - counted[f"D_p 2, D_t {big}"].test
    ).numpy(),
    "share of that loss that skips recover": recovered,
    "DGMLP minus SGC at its validated depth": beside.mean,
    "DGMLP, fall from its best depth to 20": slump,
    "DGMLP minus uniform weights": adaptive.mean,
    "kinds of scarcity in which depth pays more": paying,
}
control = {
    "two-layer GCN from other seeds minus the first": (again.test - counted["GCN, 2"].test).numpy(),
    "full graph again minus full graph": few["again"] - few["full"],
}

# %%
holds = {
    "many propagations beat the deep GCN": lab.exceeds(score[f"D_p {big}, D_t 2"] - score[f"GCN, {big}"], 0.1),
    "many transformations alone ruin it": lab.exceeds(lost, 0.1),
    "skips recover more than half": lab.exceeds(recovered, 0.5),
    "other seeds change little": lab.within((again.test - counted["GCN, 2"].test).mean(), -0.02, 0.02),
    "DGMLP is not below SGC": lab.exceeds(beside.mean, -0.005),
    "DGMLP does not fall with depth": lab.below(slump, 0.02),
    "node-adaptive weights beat uniform ones": lab.exceeds(adaptive.mean, 0.005),
    "by more than chance": lab.exceeds(adaptive.interval.low, 0),
    "depth pays more in two of three kinds of scarcity": lab.exceeds(paying, 1.5),
    "not on a second full graph": lab.below(abs(same.mean) - same.half_width, 0),
}

# %%
lab.claim(
    "zhang2021dgmlp",
    "Deep graph networks fail from many transformations rather than from many propagations; weighting propagation steps by "
    "node keeps depth harmless",
    measured=measured,
    control=control,
    holds=holds,
    scaled="Cora with features on a few dozen directions, hidden width 16, linear heads",
    data=data.kind("cora"),
    reason=f"skips recover {recovered:.0%} of what transformations lose (training accuracy {counted[f'D_p 2, D_t {big}, skips'].train.mean():.2f}, without them {counted[f'D_p 2, D_t {big}'].train.mean():.2f}); node-adaptive weights differ from uniform ones by {adaptive.mean:+.3f} ± {adaptive.interval.half_width:.3f}, as a softmax of numbers below one "
    f"hardly can ({weighed.entropy:.1%} of the largest entropy); depth pays more with few "
    + (", ".join(k for k, i in extra.items() if i.low > 0) or "nothing"),
)

# %% [markdown]
# ## The family portrait
#
# Every node model of the chapter on the same three graphs with the same settings to choose from, once, at depth 4: a connected part of Cora (homophilous), Texas (heterophilous), and
# dumbbells, in which a token must cross a path between two cliques (chance one half). Three numbers for each depth: test accuracy, Dirichlet energy of the last representation
# of the trained network, and the *far share* of its sensitivity: how much of the exact Jacobian at test nodes belongs to nodes three hops away or more. A sheaf layer looks
# two hops far, as its normalisation and maps depend on the neighbours' neighbours; scopes by PageRank look as far as they reach. Rewiring adds greedy edges to the two small graphs.
# Two methods are not here: the parameterised decomposition classifies graphs, and a mixture of experts wraps any of these models.

# %%
two = lab.seeds(lab.pick(ci=2, gpu=10))
citations = tuning.node_task(cora, rank=rank, seeds=two, per_class=20)
corner = portrait.neighbourhood_of(citations, lab.pick(ci=400, gpu=10_000), seed=seed)
copies, between = lab.pick(ci=100, gpu=400), lab.pick(ci=1, gpu=3)
bells = portrait.bottleneck_task(copies, clique=4, path=between, tokens=2, seeds=two)
campus = tuning.node_task(texas, rank=rank, seeds=two, fixed=True)
sides = {"Cora": (corner, 0), "Texas": (campus, 10), "dumbbells": (bells, 1)}

# %%
options = {"hidden": lab.pick(ci=16, gpu=64), "epochs": lab.pick(ci=25, gpu=200), "seeds": two}
options |= {"scope": lab.pick(ci=12, gpu=16), "targets": lab.pick(ci=2, gpu=4)}
options |= {"tuned_at": 4}
depths = lab.pick(ci=[2, 4, 8], gpu=[2, 4, 8, 16, 32])
parts = [portrait.portrait_rows(n, t, depths, rewired=extra_edges, **options) for n, (t, extra_edges) in sides.items()]
whole = pd.concat(parts, ignore_index=True)

# %%
fig, axes = plt.subplots(3, 3, figsize=(8.6, 8), sharex=True, sharey="row")
lines = [m for m in whole.model.unique() if m != "MLP"]
for column, name in enumerate(sides):
    part = whole[whole.graph == name]
    for k, model in enumerate(lines):
        own = part[part.model == model]
        for row, value in enumerate(("accuracy", "energy", "far share")):
            style = {"marker": "osv^Dx+*P"[k % 9], "ms": 4, "color": f"C{k % 7}", "ls": "-" if k < 7 else "--"}
            axes[row, column].plot(own.depth, own[value], label=model if column == 0 and row == 0 else None, **style)
    axes[0, column].axhline(part[part.model == "MLP"].accuracy.iloc[0], color="0.6", ls=":")
    axes[0, column].set_title(name)
    for axis in axes[:, column]:
        axis.set(xscale="log", xticks=depths, xticklabels=depths)
        axis.minorticks_off()

# %%
for axis, label in zip(axes[:, 0], ("test accuracy", "Dirichlet energy", "far share")):
    axis.set_ylabel(label)
for axis in (axes[0, 0], axes[2, 1]):
    axis.set_xlabel("depth (propagations)")
axes[0, 0].xaxis.label.set_visible(False)
axes[1, 0].set_yscale("log")
fig.legend(loc="outside lower center", ncols=3, fontsize=7)

# %%
deepest = whole[(whole.depth == depths[-1]) & (whole.model != "MLP")]
tops = {n: deepest[deepest.graph == n].set_index("model").accuracy for n in sides}
together = {n: part.energy.corr(part.accuracy, method="spearman") for n, part in deepest.groupby("graph")}
lab.portrait(
    fig,
    caption=f"{len(two)} splits; dotted, the network without a graph. Most accurate at depth {depths[-1]}: "
    + ", ".join(f"{n}: {top.idxmax()} ({top.max():.2f})" for n, top in tops.items())
    + ". Least energy there: "
    + ", ".join(f"{n}: {deepest[deepest.graph == n].set_index('model').energy.idxmin()}" for n in sides)
    + ". Rank correlation of energy and accuracy over the models there: "
    + ", ".join(f"{n} {r:.2f}" for n, r in together.items())
    + ".",
    alt="Nine panels: accuracy, Dirichlet energy and far share against depth, for three graphs, one line a model.",
)

# %% [markdown]
# ## What is scaled down
#
# Real graphs have at most a few thousand nodes, features are projected on a few dozen directions and hidden layers have sixteen units, so accuracies lie below published ones;
# all comparisons are between arms with the same handicap. Dropout is used only where it is tuned. Two to five splits make intervals wide: a claim about one or two points of accuracy
# can fail here and hold at scale. Verdicts on identities, limits, kernels and Jacobians do not depend on size. The trained bottleneck and transfer tasks are at the smallest
# distances at which they mean anything. In the `ci` profile the magnetic and the two-hop model are run in one cell on two graphs; the `gpu` profile runs them everywhere and adds more graphs, the ablations of the gate, dropout in the deep arms, and larger
# networks; everything in this chapter is computed on the CPU whatever `device` says.
#
# ## Exercises
#
# 1. Set `distance=3.0` in the cells of the theorem. Does the band between the two conditions widen, and where do the errors of the paper's formula go?
# 2. Give `edge_sweep` the argument `targets=np.roll(np.eye(7), 3, axis=1)`, partners three classes away. Is the V still there? And with `np.eye(7)[::-1]`, where one class is its own partner?
# 3. Ask for ten edges in the arm of random edges instead of one. From how many on does chance open the bottleneck as well as the greedy edge?
# 4. Set the default `residual=0.1` in `PathNetwork`, so that networks listen to their neighbours almost only. What happens to the correlation on the ring, which is bipartite?
# 5. Take scopes of 8 nodes instead of 32. At which depth does the choice of the scope begin to matter?
# 6. Let `class_sheaf` rotate with five classes in the plane. The theorems that we know of promise nothing there; what does the linear programme say? (Add 5 to `classes`.)
# 7. Set the default `threshold=0.2` in `direction_score`. On which graphs does the selector now forget a direction that it should keep?
