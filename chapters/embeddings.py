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
# # Embeddings
#
# A node of a graph is a row of zeros and ones that says who its neighbours are. Almost every method of machine learning wants
# something else: a short vector, such that nodes that matter to each other in the same way lie close together. What
# should "in the same way" mean: reached by the same walks, having the same role, carrying the same attributes? And
# once a similarity is chosen, does it matter *how* it is turned into vectors: by stochastic gradients, a singular value
# decomposition, or a throw of dice? This chapter takes methods that answer differently and lets them meet on graphs whose truth is known.

# %% tags=["parameters"]
profile, seed, device = "ci", 0, "cpu"

# %%
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
from torch_geometric.transforms import LargestConnectedComponents

import netatlas.embeddings as emb
from netatlas import data, lab
from netatlas.core.stats import loglog_slope, paired, stderr
from netatlas.embeddings import experiments as ex
from netatlas.embeddings import structure_experiments as sx
from netatlas.embeddings.irwe import train_irwe, walk_statistics
from netatlas.embeddings.orbit_planted import orbit_planted_graph
from netatlas.embeddings.portrait import family_portrait, portrait_figure

lab.begin("embeddings", profile=profile, seed=seed, device=device)

# %%
lab.papers_table()

# %% [markdown]
# ## The shared kernel: walks, counts, factors
#
# Let $A$ be the weighted adjacency matrix, $D$ the diagonal matrix of degrees, $P = D^{-1}A$ one step of a random walk and
# $\mathrm{vol} = \sum_{uv} A_{uv}$. Three objects return in every section.
#
# *Walks*, and the counts $C_{uv}$ of pairs that stand within a window of each other on them. *Pointwise mutual information*, which
# compares those counts with what chance would give; for first-order walks and a window $T$ it has a closed form,
#
# $$\mathrm{PMI}_{uv} = \log \frac{C_{uv}\,|C|}{C_u\, C_v} \;\longrightarrow\;
# \log \Bigl( \frac{\mathrm{vol}}{T} \sum_{r=1}^{T} P^r D^{-1} \Bigr)_{uv} .$$
#
# And *factors* $X Y^\top$ of such a matrix, whose rows are the embeddings. Skip-gram with negative sampling never builds the matrix, yet at
# its optimum the inner products are $\mathrm{PMI} - \log K$ for $K$ negative samples. A stopped walk gives the last kernel: its end
# points are distributed as personalised PageRank, $\Pi = \alpha\,(I - (1-\alpha)P)^{-1}$.
#
# Below, each kernel is held against its closed form on Zachary's karate club. Three of the rows compare samples with their
# limit, so their deviation is small, not zero.

# %%
checks = ex.exact_checks(seed=seed)
checks["deviation"] = [lab.rounding(e, b) if b < 1e-4 else e for e, b in zip(checks.deviation, checks.bound)]
lab.table(
    checks.rename_axis("kernel, what it must equal"),
    fmt="{:.1e}",
    caption=f"{int((checks.deviation <= checks.bound).sum())} of {len(checks)} kernels stay within the bound set for them.",
)

# %% [markdown]
# (paper-grover2016node2vec)=
# ## node2vec: walks that turn back or run away
#
# DeepWalk reads a graph as if it were text: uniform walks are sentences, nodes are words, and skip-gram learns which words
# go together. [Grover and Leskovec (2016)](https://arxiv.org/abs/1607.00653) let the walk remember one more node. Having come
# from $t$ to $v$, it goes on to $x$ with probability
#
# $$\Pr(x \mid t, v) \propto \alpha_{pq}(t, x)\, w_{vx}, \qquad
# \alpha_{pq}(t,x) = \begin{cases} 1/p & x = t \\ 1 & (t,x) \in E \\ 1/q & \text{otherwise.} \end{cases}$$
#
# A large $q$ keeps the walk near its origin, in the manner of a breadth-first search; a small $q$ drives it away, depth first. The idea is that
# different tasks on *one* graph want different walks, and that two numbers buy the choice.
#
# Tables of these probabilities for every edge would need $\sum_v d_v^2$ entries. Rejection needs none: propose a neighbour by
# weight, accept it in proportion to $\alpha_{pq}$. So the first thing to check is that the walks obey the law: count next
# steps for every directed edge and compare by $\chi^2$. The control exchanges $p$ and $1/p$ in the law, and must be rejected.

# %%
karate = nx.to_scipy_sparse_array(nx.karate_club_graph(), weight=None, dtype=float)
law = ex.check_transitions(karate, [(0.25, 4.0), (4.0, 0.25), (0.5, 1.0)], steps=200_000, seed=seed)
lab.table(
    law.set_index(["p"]),
    fmt="{:.3g}",
    caption=f"The sampler obeys the law of its own p and q (smallest p-value {law['p-value'].min():.2f}) "
    f"and not that of 1/p (largest p-value {law['p-value, 1/p for p'].max():.1g}).",
)

# %% [markdown]
# Now the mechanism. A hierarchical block model has four communities of five sub-communities each, and so two label sets on the same edges: *micro* (which
# sub-community, a tenth of the labels known) and *macro* (which community, one label in fifty known). Breadth first should suit the
# first and depth first the second.
#
# Walks have a second knob that changes their reach, the window $k$. DeepWalk therefore gets three windows where node2vec gets
# three pairs $(p, q)$, and both choose on validation nodes. Next to skip-gram, the same walks go through a second learner
# without any stochastic gradient: the positive PMI of their counts, cut off by an SVD.

# %%
settings = {
    "DeepWalk": {"p": 1, "q": 1, "window": 5},
    "DFS": {"p": 4, "q": 0.25, "window": 5},
    "BFS": {"p": 0.25, "q": 4, "window": 5},
    "window 2": {"p": 1, "q": 1, "window": 2},
    "window 10": {"p": 1, "q": 1, "window": 10},
}
size = lab.pick(ci=30, gpu=120)
fit = lab.pick(
    ci={"dimension": 20, "walks_per_node": 5, "length": 20, "epochs": 5, "learning_rate": 0.05},
    gpu={"dimension": 128, "walks_per_node": 10, "length": 80, "epochs": 2, "learning_rate": 0.025},
)

# %%
runs = []
for s in lab.seeds(5):
    graph = data.hierarchical_sbm(4, 5, size, (0.15, 0.02, 0.004), seed=s)
    labels = {"micro": graph.micro.numpy(), "macro": graph.macro.numpy()}
    scores = ex.task_dependence(graph, labels, {"micro": 0.1, "macro": 0.02}, settings, seed=s, **fit)
    runs.append(scores.assign(seed=s))
scores = pd.concat(runs, ignore_index=True)
test = scores.pivot_table(index="seed", columns=["learner", "labels", "setting"], values="test")
null = scores.pivot_table(index="seed", columns=["learner", "labels", "setting"], values="shuffled")
seen = scores.groupby("setting").pairs.mean()

# %%
difference = {k: paired(test["skip-gram", k, "DFS"], test["skip-gram", k, "BFS"]) for k in labels}
factors = {k: paired(test["PPMI-SVD", k, "DFS"], test["PPMI-SVD", k, "BFS"]) for k in labels}
lab.figure(
    ex.walk_figure(test, list(settings), list(labels)),
    caption=f"With skip-gram, depth first minus breadth first is {difference['micro'].mean:+.3f} on micro and "
    f"{difference['macro'].mean:+.3f} on macro labels; with PPMI-SVD {factors['micro'].mean:+.3f} and "
    f"{factors['macro'].mean:+.3f}. Bars: 95 % intervals over graphs.",
    alt="Macro-F1 of two learners for five kinds of walk, one panel for each of two label sets of the same graphs.",
)

# %%
tuned = ex.chosen_on_validation(scores, ["DeepWalk", "DFS", "BFS"])
windows = ex.chosen_on_validation(scores, ["DeepWalk", "window 2", "window 10"])
gains = {(a, b): paired(tuned[a, b], windows[a, b]) for a in ("skip-gram", "PPMI-SVD") for b in labels}
bias = {(a, b): paired(test[a, b, "DFS"], test[a, b, "BFS"]) for a, b in gains}
table = pd.DataFrame(
    [(*k, bias[k].mean, bias[k].stderr, gains[k].mean, gains[k].stderr) for k in gains],
    columns=["learner", "labels", "DFS - BFS", "standard error", "tuned (p, q) - tuned window", "standard error "],
)
lab.table(
    table.set_index("learner"),
    caption=f"Choosing (p, q) instead of a window changes macro-F1 by {min(g.mean for g in gains.values()):+.3f} to "
    f"{max(g.mean for g in gains.values()):+.3f}, both chosen on validation nodes.",
)

# %% [markdown]
# The paper's other task is link prediction, here with unbiased walks ($p = q = 1$): the question is the operator. A third of the edges is hidden (never so that the graph falls apart), and pairs are described by four symmetric
# combinations of their ends' embeddings.

# %%
small = {"dimension": 20, "walks_per_node": 5, "length": 20, "window": 5, "epochs": 5, "learning_rate": 0.05}
auc = pd.DataFrame(
    [
        ex.link_prediction(data.hierarchical_sbm(4, 5, 30, (0.15, 0.02, 0.004), seed=s), seed=s, **small)
        for s in lab.seeds(3)
    ]
)
lab.table(
    auc.agg(["mean", "sem"]).T.rename(columns={"mean": "AUC", "sem": "standard error"}).rename_axis("operator"),
    caption=f"AUC of the four operators runs from {auc.mean().min():.3f} ({auc.mean().idxmin()}) to {auc.mean().max():.3f} "
    f"({auc.mean().idxmax()}), with standard errors up to {auc.sem().max():.3f}.",
)

# %%
nulls = [paired(null["skip-gram", k, "DFS"], null["skip-gram", k, "BFS"]) for k in labels]
micro, macro = difference["micro"], difference["macro"]
best = max(gains["skip-gram", k].mean - 2 * gains["skip-gram", k].stderr for k in labels)
task = {
    "depth first wins on macro labels and loses on micro labels, each by 2 standard errors": lab.exceeds(
        macro.mean, 2 * macro.stderr
    )
    & lab.below(micro.mean, -2 * micro.stderr),
    "the bias matters on both label sets (2 standard errors)": lab.exceeds(abs(macro.mean), 2 * macro.stderr)
    & lab.exceeds(abs(micro.mean), 2 * micro.stderr),
}

# %%
rest = {
    "tuned (p, q) beats DeepWalk's tuned window by 2 standard errors on a label set": lab.exceeds(best, 0),
    "shuffled labels: no difference beyond 4 standard errors": lab.below(max(abs(n.mean / n.stderr) for n in nulls), 4),
    "next steps follow the law of p and q, not of 1/p": lab.exceeds(law["p-value"].min(), 0.001)
    & lab.below(law["p-value, 1/p for p"].max(), 0.001),
}

# %%
lab.claim(
    "grover2016node2vec",
    "Which walk bias is better depends on the task, and a tuned bias beats an unbiased walk",
    measured={f"{k}, {w}": test["skip-gram", k, w] for k in labels for w in ("DFS", "BFS", "DeepWalk")}
    | {f"{k}, {n}": t["skip-gram", k] for k in labels for n, t in (("tuned (p, q)", tuned), ("tuned window", windows))},
    control={f"{k}, {w}, labels shuffled": null["skip-gram", k, w] for k in labels for w in ("DFS", "BFS")}
    | {
        "chi-square p-value, own law": lab.each(law["p-value"]),
        "chi-square p-value, law of 1/p": lab.each(law["p-value, 1/p for p"]),
    },
    holds={**task, **rest},
    scaled="block models of 600 nodes and three pairs (p, q) instead of BlogCatalog, PPI and Wikipedia with 25 pairs",
    reason=f"with skip-gram, depth first minus breadth first is {micro.mean:+.3f} on micro and {macro.mean:+.3f} on macro labels. "
    f"Its windows hold {seen['DFS']:.0f} distinct pairs, those of breadth first {seen['BFS']:.0f}, of DeepWalk {seen['window 2']:.0f} "
    f"to {seen['window 10']:.0f} for windows 2 to 10. Factorised without sampling, the same counts give {factors['micro'].mean:+.3f} "
    f"on micro and {factors['macro'].mean:+.3f} on macro labels.",
)

# %% [markdown]
# (paper-chen2019fastrp)=
# ## FastRP: a good matrix and a throw of dice
#
# If an embedding is a factor of a similarity matrix, two choices are made: the matrix, and the way to reduce it.
# [Chen and colleagues (2019)](https://arxiv.org/abs/1908.11512) put all the care into the first and none into the second. Their
# matrix sums powers of the transition matrix, whose columns are scaled so that hubs attract less; the reduction is a random
# matrix $R$ that is almost entirely zero:
#
# $$\begin{gathered} N = \sum_{k=1}^{q} \alpha_k\, P^k L R, \qquad L = \mathrm{diag}\bigl((d_j / \mathrm{vol})^{\beta}\bigr), \\
# R_{ij} = \sqrt{s}\,\{+1, 0, -1\} \text{ with probabilities } \tfrac{1}{2s}, 1 - \tfrac1s, \tfrac{1}{2s}. \end{gathered}$$
#
# $P^k$ is never formed: $N_k = P N_{k-1}$ is one pass over the edges. Inner products survive on average, since
# $\mathbb E[R R^\top] = d\, I$ for $d$ columns. That is exact, and checked first over many draws of $R$; beside it, a side effect of $s = \sqrt n$:
# a node's row of $R$ is entirely zero with probability $(1 - 1/s)^d$.

# %%
draws = ex.fastrp_bias(karate, weights=(0, 0, 1, 1), beta=-0.5, dimension=16, draws=2000, seed=seed)
projection = emb.very_sparse_projection(2000, 128, seed=seed)
empty = float((np.diff(projection.indptr) == 0).mean())
expected = (1 - 2000**-0.5) ** 128
ends = emb.hop_operator(karate, weights=(0,) * 199 + (1,), beta=-1.0) @ np.eye(34)
limit = lab.rounding(np.abs(ends - 1).max(), 1e-8)

# %%
lab.table(
    pd.DataFrame(
        {
            "measured": [draws, empty, limit],
            "expected": ["below 5", f"{expected:.4f}", "at most 1e-8"],
        },
        index=[
            "largest z-score of an entry of E[N N^T]",
            "share of empty rows of R",
            "distance of P^200 L from all ones",
        ],
    ).rename_axis("check"),
    fmt="{:.2g}",
    caption=f"The projection is unbiased (largest z-score {draws:.1f}), and {empty:.1%} of the nodes start with an empty row.",
)

# %% [markdown]
# The graphs are degree-corrected block models: eight communities, power-law degrees, a tenth of the labels known. FastRP and
# DeepWalk each choose among six settings on one extra graph, and keep them. The ablations change one thing in
# FastRP: the reduction (a truncated SVD of the very same matrix), the degree exponent, the number of hops.

# %%
nodes, count = lab.pick(ci=250, gpu=1250), 5
common = {"dimension": 128, "fraction": 0.1}
walking = lab.pick(ci={"walks_per_node": 5, "length": 40}, gpu={"walks_per_node": 10, "length": 80})
graphs = {s: data.degree_corrected_sbm([nodes] * 8, 10, 0.15, 2.5, seed=s) for s in [*lab.seeds(count), 999 + seed]}
extra = graphs.pop(999 + seed)
ours = ex.tune_fastrp(extra, extra.y.numpy(), seed=seed, **common)
theirs = ex.tune_deepwalk(extra, extra.y.numpy(), seed=seed, **walking, **common)
arms = pd.concat(
    {
        s: ex.fastrp_arms(g, g.y.numpy(), projection=ours.best, walking=theirs.best, seed=s, **walking, **common)
        for s, g in graphs.items()
    },
    names=["seed", "arm"],
)

# %%
f1, shuffled = arms["macro-F1"].unstack(sort=False), arms["shuffled"].unstack(sort=False)
seconds = arms["seconds"].unstack(sort=False).median()
other = next(name for name in f1 if "beta" in name)
table = pd.DataFrame({"macro-F1": f1.mean(), "standard error": f1.sem(), "labels shuffled": shuffled.mean()})
table["seconds"] = [lab.volatile(float(seconds[name])) for name in table.index]
lab.table(
    table,
    caption=f"FastRP (beta {ours.best['beta']:g}, weight of the fourth power {ours.best['alpha']:g}) against DeepWalk (window "
    f"{theirs.best['window']}, rate {theirs.best['rate']:g}): macro-F1 {f1['FastRP'].mean():.3f} against {f1['DeepWalk'].mean():.3f}. "
    "Seconds: median of single-threaded fits.",
)

# %%
trials = pd.DataFrame([setting | {"score": score} for setting, score in ours.trials])
fig, axis = plt.subplots(figsize=(6, 3.2))
for weight, part in trials.groupby("alpha"):
    axis.plot(part.beta, part.score, marker="o", label=f"weight of the fourth power {weight:g}")
axis.set(title="FastRP on the tuning graph", xlabel="degree exponent beta", ylabel="macro-F1 on the tuning graph")
axis.legend()
lab.figure(
    fig,
    caption=f"Removing the stationary part (beta = -1) gives {trials[trials.beta == -1].score.max():.3f} at best, leaving the "
    f"hubs alone (beta = 0) {trials[trials.beta == 0].score.max():.3f}.",
    alt="Macro-F1 of FastRP on the tuning graph against the degree exponent, one line for each weight of the fourth power.",
)

# %% [markdown]
# **A real graph.** Do settings chosen on a block model serve a real one? Here every arm embeds the citations of Cora (with the
# `gpu` profile BlogCatalog, where bloggers bear several labels), with the settings from above. Only the largest component is kept: equal small
# ones have equal singular values, and an SVD may turn their vectors as it likes.

# %%
place, imitation = lab.pick(ci=("cora", data.citation_graph), gpu=("blogcatalog", data.labelled_graph))
real = LargestConnectedComponents()(data.load(place, stand_in=imitation))
real_arms = pd.concat(
    ex.fastrp_arms(real, real.y.numpy(), projection=ours.best, walking=theirs.best, seed=s, **walking, **common)
    for s in lab.seeds(3)
)
real_f1 = real_arms.groupby(level=-1, sort=False)[["macro-F1", "shuffled"]].mean()
lab.table(
    real_f1.rename(columns={"shuffled": "labels shuffled"}).rename_axis("arm"),
    fmt="{:.2f}",
    caption=f"{place} ({data.kind(place)} data), three seeds: FastRP has macro-F1 {real_f1['macro-F1']['FastRP']:.2f}, the SVD of "
    f"its matrix {real_f1['macro-F1']['same matrix, SVD']:.2f}, DeepWalk {real_f1['macro-F1']['DeepWalk']:.2f}.",
)

# %%
walk_gap, svd_gap = (paired(f1["FastRP"], f1[k]) for k in ("DeepWalk", "same matrix, SVD"))
hop_gap = paired(f1["same matrix, SVD"], f1["one hop, SVD"])
beta_gap = paired(f1["FastRP"], f1[other])
ratio = float(seconds["DeepWalk"] / seconds["FastRP"])
verdicts = {
    "FastRP is at most .03 below DeepWalk": lab.exceeds(walk_gap.mean, -0.03),
    "it is at least 50 times faster": lab.exceeds(lab.volatile(ratio), 50),
    "SVD for projection changes less than half of what hops contribute (both by SVD)": lab.below(
        abs(svd_gap.mean), hop_gap.mean / 2
    )
    & lab.exceeds(hop_gap.mean, 2 * hop_gap.stderr),
    "the projection is unbiased (5 standard errors)": lab.below(draws, 5),
}

# %%
lab.claim(
    "chen2019fastrp",
    "A sparse random projection of the right matrix equals walk-based embeddings at a small fraction of their time",
    measured={name: f1[name] for name in f1}
    | {"DeepWalk's time over FastRP's": lab.volatile(ratio), "largest z-score of the projection": draws},
    control={f"{name}, labels shuffled": shuffled[name] for name in ("FastRP", "DeepWalk")},
    holds={**verdicts},
    scaled="block models of 2000 nodes instead of networks of up to a million; our own DeepWalk is compiled, so its time is no measure of the paper's",
    reason=f"on these sparse graphs FastRP is {-walk_gap.mean:.3f} below DeepWalk; reducing the same matrix by an SVD recovers "
    f"{-svd_gap.mean:+.3f} ± {svd_gap.stderr:.3f} of it, so the projection does cost accuracy here. The chosen beta beats {other.split(', ')[1]} by {beta_gap.mean:+.3f}.",
)

# %% [markdown]
# (paper-rozemberczki2019musae)=
# ## MUSAE: what is near, and how far away it is
#
# Nodes of real graphs carry discrete features: words of a page, games a user plays.
# [Rozemberczki, Allen and Sarkar (2019)](https://arxiv.org/abs/1909.13021) embed a node by the features it meets on walks. For every pair of walk positions at
# distance $r$, each of the two nodes is paired with the features of the other; skip-gram learns node vectors $g$ and feature vectors $h$. AE
# pools the distances $r = 1, \ldots, T$; MUSAE fits one embedding for each and puts them side by side.
#
# At its optimum the learner factorises a matrix that can be written down. With $F$ the binary feature matrix and
# $E = \mathrm{diag}(\mathbf 1^\top D F)$,
#
# $$g_r(v)^\top h_r(f) = \log\bigl(\mathrm{vol}\; P^r F E^{-1}\bigr)_{vf} - \log K,
# \qquad \text{pooled: } P^r \to \tfrac1T \textstyle\sum_r P^r .$$
#
# The formula assumes that walks are stationary, so here they start in proportion to degree, and that all nodes carry equally many
# features, as here; the package's version corrects for unequal numbers. The control reads the counts at distance $r + 1$ against the
# closed form for $r$.

# %%
plain = emb.attributed_sbm(blocks=4, size=75, pool=10, seed=seed)
budget = {"steps": lab.pick(ci=2_000_000, gpu=20_000_000), "learner_steps": lab.pick(ci=200_000, gpu=2_000_000)}
agreement = ex.pmi_agreement(plain, plain.x.numpy(), seed=seed, **budget)
lab.table(
    agreement,
    caption=f"Counted PMI follows the closed form at every distance (correlation at least {agreement['counted PMI'].min():.4f}), "
    f"skip-gram nearly so where its rate decays to zero (at least {agreement['skip-gram'].min():.3f}; with the usual final "
    f"rate {agreement['skip-gram, usual final rate'].min():.3f}); the wrong distance reaches "
    f"{agreement['counted at distance + 1'].max():.3f} at most.",
)

# %% [markdown]
# The theorem speaks of the optimum. With the usual final learning rate skip-gram stops short of it, most of all at the shortest
# distance, where the correlation would miss the bound of .8 that the claim below asks for. The claim counts the rate that goes to
# zero; the card shows both.
#
# Does it matter to keep distances apart? In the *hub design* it must. Labelled nodes of class $(a, b)$ hang on hubs whose features come
# from pool $a$, and the hubs' leaves carry features from pool $b$: one step away is $a$, two steps away is $b$, and a pooled
# corpus shows classes $(0, 1)$ and $(1, 0)$ almost the same mixture. A homophilous block model is the other case: every distance tells
# the same story, and no gain is promised; a gap found there belongs to width and rank rather than to order. The learner's total dimension is equal; factors cannot be wider than the vocabulary. The closed form's own factors serve as a second learner,
# free of sampling.

# %%
walks = lab.pick(
    ci={"walks_per_node": 2, "length": 20, "epochs": 1}, gpu={"walks_per_node": 5, "length": 80, "epochs": 2}
)
hub, same = [], []
for s in lab.seeds(5):
    graph = emb.hub_attributed_graph(seed=s)
    hub.append(ex.scales_apart(graph, graph.x.numpy(), graph.y.numpy(), dimension=48, seed=s, **walks))
    graph = emb.attributed_sbm(blocks=4, size=100, seed=s)
    same.append(ex.scales_apart(graph, graph.x.numpy(), graph.y.numpy(), dimension=48, seed=s, **walks))
hub, same = pd.DataFrame(hub), pd.DataFrame(same)

# %%
gap = {k: paired(hub[k], hub[k.replace("MUSAE", "AE")]) for k in ("MUSAE", "MUSAE, factors")}
level = {k: paired(same[k], same[k.replace("MUSAE", "AE")]) for k in gap}
contrast = {k: paired(hub[k] - hub[k.replace("MUSAE", "AE")], same[k] - same[k.replace("MUSAE", "AE")]) for k in gap}
lab.figure(
    ex.accuracy_figure({"hub design": hub, "homophilous blocks": same}),
    caption=f"MUSAE minus AE on the hub design: {gap['MUSAE'].mean:+.3f} ± {gap['MUSAE'].stderr:.3f} by skip-gram, "
    f"{gap['MUSAE, factors'].mean:+.3f} ± {gap['MUSAE, factors'].stderr:.3f} by factors (standard errors over graphs); "
    f"on homophilous blocks {level['MUSAE'].mean:+.3f} and {level['MUSAE, factors'].mean:+.3f}. The node's own features alone give {hub['own features'].mean():.3f} there and {same['own features'].mean():.3f} on the blocks.",
    alt="Accuracy of five embeddings on five graphs each, for the hub design and for homophilous block models.",
)

# %% [markdown]
# Feature vectors can travel. Fit $g$ and $h$ on one graph; on a second with the same vocabulary keep $h$ and find only $g$. With $h$
# fixed, the objective is one concave problem for each node, and is solved exactly on both graphs. A probe trained on the first graph is then applied to
# the second. In the control the rows of $h$ are permuted; since one permutation may happen to map classes onto classes, several are averaged.

# %%
moved = pd.DataFrame(
    [
        ex.transfer(
            emb.hub_attributed_graph(seed=s), emb.hub_attributed_graph(seed=s + 500), dimension=48, seed=s, **walks
        )
        for s in lab.seeds(5)
    ]
)
lab.table(
    moved.agg(["mean", "sem"]).T.rename(columns={"mean": "accuracy", "sem": "standard error"}).rename_axis("probe"),
    caption=f"A probe moved to an unseen graph keeps {moved['transferred'].mean() / moved['in the first graph'].mean():.0%} of its "
    f"accuracy; with permuted feature vectors it falls to {moved['permuted features'].mean():.3f} (chance .25).",
)

# %% [markdown]
# **A real graph.** Pages of Wikipedia about chameleons link to each other, and their features are their words. How much of a
# page's monthly traffic (its logarithm) does a ridge regression read off each embedding, on the same five halvings? DeepWalk gets ten times the walks, four times as long,
# since it makes one update where a feature learner makes one for each word.

# %%
pages = data.load("musae_chameleon", stand_in=data.page_graph)
traffic = ex.real_attributed(
    pages,
    pages.x.numpy(),
    np.log(pages.y.numpy()),
    dimension=96,
    seed=seed,
    **walks | {"length": lab.pick(ci=10, gpu=80)},
)
lab.table(
    traffic.agg(["mean", "sem"]).T.rename(columns={"mean": "R²", "sem": "standard error"}).rename_axis("embedding"),
    caption=f"Wikipedia chameleon ({data.kind('musae_chameleon')} data): MUSAE explains {traffic['MUSAE'].mean():.2f} of the variance "
    f"of log traffic, AE {traffic['AE'].mean():.2f}, walks without words {traffic['DeepWalk'].mean():.2f}, a page's own words without "
    f"walks {traffic['own features'].mean():.2f}.",
)

# %%
theory = {
    "counted PMI and closed form correlate above .98, skip-gram with a rate that decays to zero above .8": lab.exceeds(
        agreement["counted PMI"].min(), 0.98
    )
    & lab.exceeds(agreement["skip-gram"].min(), 0.8),
    "the wrong distance correlates less": lab.exceeds(
        (agreement["counted PMI"] - agreement["counted at distance + 1"]).min(), 0
    ),
}

# %%
design = {
    "hub design: MUSAE beats AE by .03 and 2 standard errors, skip-gram": lab.exceeds(
        gap["MUSAE"].mean, max(0.03, 2 * gap["MUSAE"].stderr)
    ),
    "hub design: the same, factors": lab.exceeds(
        gap["MUSAE, factors"].mean, max(0.03, 2 * gap["MUSAE, factors"].stderr)
    ),
    "its gap is larger than on homophilous blocks by 2 standard errors, skip-gram": lab.exceeds(
        contrast["MUSAE"].mean, 2 * contrast["MUSAE"].stderr
    ),
    "and by factors": lab.exceeds(contrast["MUSAE, factors"].mean, 2 * contrast["MUSAE, factors"].stderr),
    "homophilous: MUSAE loses at most .02 and 2 standard errors, both learners": lab.exceeds(
        min(v.mean + 2 * v.stderr for v in level.values()), -0.02
    ),
}

# %%
travel = {
    "a transferred probe keeps 80 % of its accuracy": lab.exceeds(
        moved["transferred"].mean(), 0.8 * moved["in the first graph"].mean()
    ),
    "with permuted features it is within .1 of chance": lab.within(moved["permuted features"].mean(), 0.15, 0.35),
}

# %%
measured = (
    {f"hub design, {k}": hub[k] for k in hub}
    | {f"homophilous, {k}": same[k] for k in same}
    | {f"{k}, correlation over distances": agreement[k] for k in agreement if "+" not in k}
    | {"probe in its graph": moved["in the first graph"], "probe transferred": moved["transferred"]}
)
control = {
    "counted PMI, wrong distance": agreement["counted at distance + 1"],
    "permuted features": moved["permuted features"],
}

# %%
holds = {**theory, **design, **travel}

# %%
lab.claim(
    "rozemberczki2019musae",
    "Skip-gram on node-feature pairs factorises a PMI matrix, and keeping distances apart preserves what pooling blurs",
    measured=measured,
    control=control,
    holds=holds,
    scaled="planted graphs of up to 2880 nodes and 40 features instead of web and social graphs; two short walks a node; "
    "the theorem is tested with a rate that decays to zero, not with the usual final rate",
    reason=f"the gap by factors is {gap['MUSAE, factors'].mean:+.3f} on the hub design and {level['MUSAE, factors'].mean:+.3f} on "
    "homophilous blocks, where order carries nothing: there it belongs to width and rank. Pooling also loses less than the design intends: AE by skip-gram reaches {hub['AE'].mean():.3f} and by factors "
    f"{hub['AE, factors'].mean():.3f}, between {hub['AE'].min():.3f} and {hub['AE'].max():.3f} from graph to graph by skip-gram, so part of the "
    "order of distances leaks into the pooled counts.",
)

# %% [markdown]
# (paper-lin2019fullppr)=
# ## Full personalised PageRank: a billion walks in few rounds
#
# Personalised PageRank is the embedding before it is made small: row $u$ of $\Pi = \alpha (I - (1-\alpha)P)^{-1}$ says where a walk from $u$ ends
# that stops with probability $\alpha$ before every step. All rows of a large graph are too much for a solve, so
# [Lin (2019)](https://arxiv.org/abs/1903.11749) simulates: $\omega$ walks from every node, on many machines, one step of every walk a *round*.
# Three ideas make the rounds cheap and few. Hubs draw neighbours in constant time from alias tables. Small nodes
# hand out precomputed pieces of $\eta$ steps, *big moves*. And a pipeline starts new walks as old ones end, so that late rounds are not almost empty.
#
# How accurate is the estimate? End points are a multinomial sample, so the error is known in advance:
#
# $$\begin{gathered} \mathbb E \lVert \hat\pi_u - \pi_u \rVert_2^2 = \frac{1 - \lVert \pi_u \rVert_2^2}{\omega}, \\
# \mathbb E \lVert \hat\pi_u - \pi_u \rVert_1 = \sum_v \frac{2 m_v}{\omega} \binom{\omega}{m_v} \pi_{uv}^{m_v} (1 - \pi_{uv})^{\omega - m_v + 1},
# \quad m_v = \lfloor \omega \pi_{uv} \rfloor + 1 . \end{gathered}$$
#
# The first falls as $\omega^{-1/2}$. The second does not: entries far below $1/\omega$ are mostly never hit, and their mass is an error however it is averaged.

# %%
alpha, n = 0.2, lab.pick(ci=2000, gpu=5000)
web = emb.weighted_powerlaw_graph(n, 10 * n, sinks=False, seed=seed)
exact = emb.ppr_exact(web, alpha=alpha)
counts = [50, 100, 200, 400, 800, 1600, 3200]
errors, z = ex.ppr_errors(web, exact, counts, alpha=alpha, seed=seed)
slope = loglog_slope(counts, errors["L2"])
bias = float(z.sum() / np.sqrt(len(z)))
l2_ratio, l1_ratio = errors["L2"] / errors["L2, closed form"], errors["L1"] / errors["L1, closed form"]

# %%
cap = 20 * n
lives = emb.walk_lengths(200 * n, alpha=alpha, seed=seed) + 1
plans = {p: emb.schedule(lives, cap=cap, policy=p) for p in ("sequential", "filled")}
forms = {p: emb.expected_rounds(len(lives), cap=cap, alpha=alpha, policy=p) for p in plans}
lab.figure(
    ex.pagerank_figure(errors, plans, cap),
    caption=f"The L2 error falls with slope {slope.slope:.3f} and stays within {np.abs(l2_ratio - 1).max():.1%} of its closed form (lines); "
    f"L1 falls only from {errors['L1'].iloc[0]:.2f} to {errors['L1'].iloc[-1]:.2f}. Refilling cuts {plans['sequential'].rounds} rounds to {plans['filled'].rounds}.",
    alt="Left: L2 and L1 error against walks per node with closed-form lines. Right: walks in flight per round for two schedules.",
)

# %% [markdown]
# **Big moves.** Walk lengths are drawn first, so that the same walks are made with and without jumps. If every node is small, pieces of $\eta$ steps
# divide the number of rounds by $\eta$, rounded up, exactly. If the largest nodes step one at a time and a share $h$ of all jumps starts at them, the mean progress
# of a jump is at most $\eta - (\eta - 1)h$, which bounds the ratio of jumps to steps from below.

# %%
jumps = ex.big_move_table(
    web, exact, walks=50, alpha=alpha, etas=[1, 2, 4], shares=[0, 0.05, 0.2, 0.5], pool=200, seed=seed
)
rounds = jumps[jumps["large nodes"] == 0].set_index("eta").rounds
mixed = jumps[(jumps["large nodes"] > 0) & (jumps.eta == 4)]
pools = ex.pool_variance(web, exact, walks=50, alpha=alpha, eta=4, pools=[5, 20, 50, 200], seed=seed)
lab.table(
    jumps.set_index("large nodes"),
    caption=f"With every node small, {rounds[1]} rounds become {rounds[2]} and {rounds[4]}; with the top "
    f"{mixed['large nodes'].max():.0%} of the degrees stepping singly, pieces of four steps save {1 - mixed.ratio.max():.0%} of the jumps. "
    "Error: L2 over its closed form.",
)

# %%
lab.table(
    pools.rename_axis("pieces per node").to_frame(),
    caption=f"Sharing costs accuracy: {pools.index[0]} pieces for 50 walks a node multiply the squared error by {pools.iloc[0]:.2f}, "
    f"{pools.index[-1]} by {pools.iloc[-1]:.2f}.",
)

# %% [markdown]
# **The pipeline.** With $M$ walks allowed in flight, batches run one after another need $\frac{W}{M} H_M / \lambda$ rounds for $W$ walks, where
# $\lambda = \ln\frac{1}{1-\alpha}$ and $H_M$ is a harmonic number: each batch waits for its longest walk. Refilled, they need $W / (\alpha M)$ and one longest walk.
# The paper starts one pipeline of $\gamma$ walks per node a round; below, $\gamma$ is swept under the same cap. That rounds
# are saved is arithmetic. Whether *time* is saved depends on what a round costs, so the table after it is measured with real processes that own
# the nodes and send each other walks. On a busy machine a round costs what the slower process makes of it, so these seconds decide nothing.

# %%
sweep = [g for g in (1, 2, 4, 8, 16) if g * n <= cap]
starts = [emb.schedule(lives, cap=cap, policy="pipelined", chunk=g * n) for g in sweep]
table = pd.DataFrame(
    {"rounds": [p.rounds for p in starts], "most walks in flight / cap": [float(p.live.max() / cap) for p in starts]},
    index=pd.Index(sweep, name="walks per node and pipeline"),
)
pipelined = table.rounds
lab.table(
    table,
    caption=f"Pipelines of {sweep[int(table.rounds.argmin())]} walks per node need the fewest rounds, {table.rounds.min()}; thinner ones "
    "leave the cap unused, thicker ones wait for room.",
)

# %%
times = ex.worker_times(web, walks=lab.pick(ci=100, gpu=500), cap=2 * n, alpha=alpha, workers=2, seed=seed)
table = pd.DataFrame(
    {
        "rounds": {k: v[0] for k, v in times.items()},
        "most walks in flight": {k: v[1] for k, v in times.items()},
        "seconds, median of 3": {k: lab.volatile(float(np.median(v[2]))) for k, v in times.items()},
    }
)
lab.table(
    table.rename_axis("two worker processes"),
    caption=f"Two processes under one cap: {times['sequential'][0]} rounds in sequence, {times['pipelined'][0]} pipelined.",
)

# %%
weights = np.random.default_rng(seed).pareto(1.5, size=100_000)
draw = {
    m: emb.draw_weighted(weights, k, method=m, repeats=5)[1] / k
    for m, k in (("alias", 200_000), ("binary", 200_000), ("linear", 200))
}
nanoseconds = {m: float(np.median(t) * 1e9) for m, t in draw.items()}
lab.table(
    pd.DataFrame({"nanoseconds a draw": {m: lab.volatile(t) for m, t in nanoseconds.items()}}).rename_axis("method"),
    fmt="{:.0f}",
    caption="One weighted draw at a hub with 100 000 neighbours: alias table, binary search of cumulative sums, linear scan; median of 5.",
)

# %%
agree = {p: plans[p].rounds / forms[p] for p in plans}
sampling = {
    "L2 error within 5 % of its closed form at every number of walks": lab.below(np.abs(l2_ratio - 1).max(), 0.05),
    "slope of the L2 error": lab.within(slope.slope, -0.55, -0.45),
    "L1 error within 5 % of the binomial prediction": lab.below(np.abs(l1_ratio - 1).max(), 0.05),
    "the estimate is unbiased (z-score over 200 sources)": lab.below(abs(bias), 3),
}

# %%
jumping = {
    "big moves divide the rounds exactly (arithmetic; checks the code)": lab.within(
        max(abs(rounds[e] - np.ceil(rounds[1] / e)) for e in rounds.index), 0, 0
    ),
    "big moves leave the error within 5 %": lab.below(np.abs(jumps.error - 1).max(), 0.05),
    "with hubs, the ratio lies between its bound and 1": lab.exceeds((mixed.ratio - mixed.bound).min(), 0)
    & lab.below(mixed.ratio.max(), 1),
}

# %%
scheduling = {
    "rounds within 15 % of the closed forms": lab.within(agree["sequential"], 0.85, 1.15)
    & lab.within(agree["filled"], 0.85, 1.15),
    "the paper's pipeline, at its best width, needs fewer rounds than batches": lab.below(
        pipelined.min(), plans["sequential"].rounds
    ),
    "never more walks in flight than the cap": lab.below(
        max(p.live.max() for p in [*plans.values(), *starts]), cap + 1
    ),
    "alias draws faster than binary search": lab.below(
        lab.volatile(nanoseconds["alias"]), lab.volatile(nanoseconds["binary"])
    ),
}

# %%
measured = {
    "L2 error over its closed form": lab.each(l2_ratio),
    "L1 error over its closed form": lab.each(l1_ratio),
    "rounds over closed form": lab.each(list(agree.values())),
    "z-score of the estimate": bias,
    "rounds, every node small, eta = 1, 2, 4": lab.each(rounds),
    "rounds, batches": plans["sequential"].rounds,
    "rounds, pipelines of growing width": lab.each(pipelined),
    "walks in flight over the cap, pipelines": lab.each([float(p.live.max() / cap) for p in starts]),
    "L2 error after big moves over its closed form": lab.each(jumps.error),
    "jumps per step, eta = 4, with large nodes": lab.each(mixed.ratio),
    "nanoseconds a draw, alias": lab.volatile(nanoseconds["alias"]),
}
control = {
    "squared error, 5 shared pieces per node": [pools.iloc[0]],
    "nanoseconds a draw, binary search": lab.volatile(nanoseconds["binary"]),
}

# %%
holds = {**sampling, **jumping, **scheduling}

# %%
lab.claim(
    "lin2019fullppr",
    "Monte Carlo personalised PageRank of all sources is as accurate as predicted, big moves and pipelines make its rounds few, and alias tables its draws cheap",
    measured=measured,
    control=control,
    holds=holds,
    scaled="one machine, two processes and 2000 nodes instead of a cluster and billions of edges; wall time of the pipeline is shown, not decided",
    reason=f"rounds are {agree['sequential']:.2f} and {agree['filled']:.2f} of their closed forms, big moves change the error by up to "
    f"{np.abs(jumps.error - 1).max():.1%}, and the estimate is {bias:+.1f} standard errors from its mean",
)

# %% [markdown]
# (paper-zhu2021phusion)=
# ## PhUSION: the same matrix read as a place or as a role
#
# Who is near whom, and who looks like whom, seem to need two kinds of data.
# [Zhu et al. (2021)](https://arxiv.org/abs/2102.13582) say that they need two ways of *reading* one matrix. Take any
# proximity $M$ (random walks, diffusion, commute times), filter it, and then either factorise it or forget who the
# neighbours are and keep only the distribution of a node's entries:
#
# $$\begin{gathered} Y = U_d S_d^{1/2}\ \text{ of }\ \sigma(M) \qquad\text{or} \\
# Y_i = \Bigl(\mathrm{Re}\,\chi_i(t_k),\ \mathrm{Im}\,\chi_i(t_k)\Bigr)_k,\quad
# \chi_i(t) = \frac1n \sum_j e^{\mathrm i\, t M_{ij}} . \end{gathered}$$
#
# The first keeps *which* nodes are near, hence the community. The second is blind to names, so two nodes with the same
# role in different corners of the graph get the same row. Every $M$ is divided by its largest entry before the second
# reading, because the points $t \in [0, 100]$ presume entries below one; row $i$ belongs to node $i$.
#
# First what must hold exactly. On rings of houses without noise, turning the whole graph by one community is an
# automorphism. Proximities must commute with it, rows of the characteristic function must not notice it, and rows of the
# factorisation should.

# %%
clean = data.rings_of_houses(noise=0.0)
turned = sx.automorphism_errors(clean, 5)
worst = turned[["proximity", "CF rows"]].max().max()
still = turned["SVD rows"].min()
lab.table(
    turned,
    fmt="{:.1e}",
    caption=f"Turned by one community, seven proximities and their characteristic functions move by at most {worst:.0e}; "
    f"every factorisation moves some row by at least {still:.2f}.",
)

# %% [markdown]
# Now with noise: five communities, six roles, a ridge classifier on standardised features, three-fold cross-validation.
# Chance is 1/5 for communities and 12/42 for roles, since the walls of the houses are the most frequent role. Most of a
# role can be read off the degree, so one-hot degrees are the baseline that matters.

# %%
runs = lab.seeds(lab.pick(ci=3, gpu=10))
graphs = [data.rings_of_houses(seed=s) for s in runs]
tables = [sx.proximity_table(g, seed=s, device=lab.device()).assign(seed=s) for s, g in zip(runs, graphs)]
scores = pd.concat(tables).set_index(["function", "proximity", "seed"]).sort_index()
means = scores.groupby(level=[0, 1], sort=False).mean()
svd, cf = means.loc["SVD"], means.loc["CF"]
degree = np.array([sx.degree_accuracy(g, seed=s) for s, g in zip(runs, graphs)])
community_chance, role_chance = 1 / 5, 12 / 42

# %%
fig, axis = plt.subplots(figsize=(5.6, 4.2))
for function, found, marker in (("SVD", svd, "o"), ("characteristic function", cf, "s")):
    axis.scatter(found.community, found.role, marker=marker, label=function)
axis.annotate("Laplacian pinv", cf.loc["Laplacian pinv"], xytext=(4, 6), textcoords="offset points")
axis.axhline(degree.mean(), linestyle="--", label="degree alone")
axis.axhline(role_chance, linestyle=":", label="chance")
axis.axvline(community_chance, linestyle=":")
axis.set(xlabel="accuracy on communities", ylabel="accuracy on roles", title="Seven proximities, two readings")
axis.legend(loc="center right", bbox_to_anchor=(0.95, 0.28))
lab.figure(
    fig,
    caption=f"The reading decides. SVD: communities {svd.community.min():.2f} to {svd.community.max():.2f}, roles "
    f"{svd.role.min():.2f} to {svd.role.max():.2f}. Characteristic function: roles {cf.role.min():.2f} to "
    f"{cf.role.max():.2f}, communities up to {cf.community.drop('Laplacian pinv').max():.2f} without the pseudo-inverse, "
    f"{cf.community['Laplacian pinv']:.2f} with it.",
    alt="Scatter of community accuracy against role accuracy for seven proximities under two embedding functions.",
)

# %% [markdown]
# The pseudo-inverse of the Laplacian is the exception that explains the rule. Its diagonal and the spread of its rows
# depend on how far a node is from the bulk of the graph, and noise makes that distance a property of the community.
#
# **The filter.** Logarithms were introduced for PPMI, whose entries are ratios to chance. Entries of PageRank, heat and
# belief propagation are all at most about one, where $\log\max(M, 1)$ would erase the matrix; so they are divided by their
# value under independence first, and that division is shown as an arm of its own. The graph is harder here: a tenth more
# edges, all of them between communities.

# %%
hard = [data.rings_of_houses(noise=0.03, bridges_noise=0.1, seed=s) for s in runs]
filters = [sx.filter_table(g, seed=s, device=lab.device()) for s, g in zip(runs, hard)]
filtered = sum(filters) / len(filters)
gain = np.array([(f["log"] - f["none"]).mean() for f in filters])
gain_relative = np.array([(f["log"] - f["relative"]).mean() for f in filters])
lab.table(
    filtered,
    caption=f"Community accuracy by SVD with edges between communities added. On average over four proximities the log "
    f"filter changes the unfiltered accuracy by {gain.mean():+.3f}, and that of the rescaled matrix by "
    f"{gain_relative.mean():+.3f}.",
)

# %%
role_gap, community_gap = cf.role - svd.role, svd.community - cf.community
sixth = community_gap.sort_values(ascending=False).iloc[5]
off_chance = (svd.role - role_chance).abs().max()
leak = (cf.community.drop("Laplacian pinv") - community_chance).abs().max()
over_degree = (cf.role - degree.mean()).sort_values(ascending=False)

# %%
measured = {
    "role, CF - SVD, 7 proximities": lab.each(role_gap),
    "community, SVD - CF, 7 proximities": lab.each(community_gap),
    "role by CF, 7 proximities": lab.each(cf.role),
    "log filter, gain for positions": gain,
    "rotation, largest error": worst,
}
control = {
    "role by SVD": lab.each(svd.role),
    "community by CF": lab.each(cf.community),
    "role by degree": degree,
    "rotation, SVD rows": still,
}

# %%
holds = {
    "for every proximity, roles: CF above SVD by .2": lab.exceeds(role_gap.min(), 0.2),
    "for every proximity, communities: SVD above CF by .1": lab.exceeds(community_gap.min(), 0.1),
    "six of seven by .5": lab.exceeds(sixth, 0.5),
    "roles by SVD within .1 of chance": lab.below(off_chance, 0.1),
    "communities by CF within .15 of chance, pseudo-inverse apart": lab.below(leak, 0.15),
    "five of seven CF above degree alone by .05": lab.exceeds(over_degree.iloc[4], 0.05),
    "rotation exact for M and CF": lab.below(worst, 1e-8),
    "and not for SVD": lab.exceeds(still, 1e-8),
}

# %%
lab.claim(
    "zhu2021phusion",
    "With one and the same proximity, a factorisation gives positions and the distribution of entries gives roles",
    measured=measured,
    control=control,
    holds=holds,
    scaled=f"planted graph of {graphs[0].num_nodes} nodes instead of the paper's real graphs; nodes only, no whole graphs",
    reason=f"over the proximities the least gap is {role_gap.min():+.2f} for roles and {community_gap.min():+.2f} for communities; "
    f"roles by SVD are up to {off_chance:.2f} from chance, communities by CF {leak:.2f}",
)

# %% [markdown]
# (paper-qin2024irwe)=
# ## IRWE: roles and places of a graph never seen
#
# Factorisations must be redone for each new graph. [Qin and Yeung (2024)](https://arxiv.org/abs/2401.00651) train once and then
# only *read* a new graph. The reading is of walks. For identity: how often each *anonymous* walk occurs, the walk with
# its nodes renamed by first appearance ($s$), and which degrees are met at each step ($\delta$). For position: how often
# each node is visited ($r$), through a fixed Gaussian matrix $\Theta$. Then
#
# $$\begin{gathered} \psi(v) = \mathrm{Att}\bigl(\mathrm{MLP}[s(v), \delta(v)];\ \{\varphi_k\}\bigr),\qquad \pi(v) = r(v)\,\Theta, \\
# \gamma(v) = \mathrm{Att}\bigl(\psi(v) + \pi(v);\ \mathrm{Enc}\{\psi(u_i) + \pi(u_i) + \tau_i\}\bigr) . \end{gathered}$$
#
# $\varphi_k$ is the code that an auto-encoder gives to anonymous walk $k$, $u_0, u_1, \ldots$ are the nodes on walks from
# $v$, and $\tau_i$ is a learned code of the step. Identity is trained to reconstruct $s$ and $\delta$, position to tell
# nodes that share walks from nodes that do not, both at once.
#
# Walks of $\ell$ steps without loops have Bell-number many patterns, and on the complete graph with seven nodes every one
# of six steps occurs, with a probability that depends on its number of distinct nodes only. The sampler must match that
# law, and must not match equal frequencies.

# %%
bell = [len(sx.anonymous_patterns(steps)) for steps in range(1, 7)]
seen_patterns, fit_p, equal_p = sx.pattern_test(6, walks=200_000, seed=seed)
lab.table(
    pd.DataFrame({"anonymous walks": bell}, index=pd.RangeIndex(1, 7, name="steps")).T,
    caption=f"{seen_patterns} of {bell[-1]} patterns occur on the complete graph; chi-square p = {fit_p:.2f} for their "
    f"law, {equal_p:.1g} for equal frequencies.",
)

# %% [markdown]
# Training is on one graph of the planted family, judgement on another with other noise. A role probe is fitted on the
# first graph's $\psi$ and applied to the second as it is. Communities have no names across graphs, so $\gamma$ is
# clustered inside the second graph. DeepWalk is refitted there, and its role probe trained there too: across graphs its
# axes are rotated and the comparison would be empty.

# %%
pairs = lab.seeds(3)
houses = lab.pick(ci=6, gpu=50)
first = [data.rings_of_houses(houses=houses, seed=s) for s in pairs]
second = [data.rings_of_houses(houses=houses, seed=s + 500) for s in pairs]
known = [walk_statistics(g, seed=s, device=lab.device()) for s, g in zip(pairs, first)]
unseen = [
    walk_statistics(g, buckets=k.buckets, seed=s + 500, device=lab.device()) for s, g, k in zip(pairs, second, known)
]
budget = {"epochs": lab.pick(ci=600, gpu=3000), "lr": 3e-3}
model, short = train_irwe(known, seeds=pairs, **budget), train_irwe(known[:1], seeds=pairs[:1], epochs=150)
arms = pd.DataFrame(
    [sx.inductive_arms(model, i, first[i], second[i], known[i], unseen[i], seed=s) for i, s in enumerate(pairs)]
)

# %%
mean = arms.mean()
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for axis, kind, label in zip(axes, ("role ", "nmi "), ("role accuracy, unseen graph", "NMI with communities")):
    part = arms.loc[:, arms.columns.str.startswith(kind)]
    names = [c.removeprefix(kind) for c in part]
    axis.barh(names, part.mean(), xerr=part.sem(), capsize=2)
    axis.set(xlabel=label, ylabel="arm", xlim=(0, 1.05), title=label.split(",")[0])
lab.figure(
    fig,
    caption=f"Trained on one graph, judged on another. Roles: psi {mean['role psi']:.2f}, its own untrained statistics "
    f"{mean['role statistics']:.2f}, degree {mean['role degree']:.2f}. Communities: gamma {mean['nmi gamma']:.2f}, the "
    f"square root of the visit counts, untrained, {mean['nmi sqrt(r)']:.2f}, refitted DeepWalk {mean['nmi DeepWalk']:.2f}.",
    alt="Two bar charts: role accuracy on an unseen graph, and mutual information with communities, for each arm.",
)

# %% [markdown]
# The bars without any training tell where information is kept and where it is lost; what is learned afterwards has to be
# judged against them. For positions compare $r\,\Theta$, $\sqrt r\,\Theta$ and
# $\sqrt r$: the square root (Hellinger's geometry of frequencies) and the number of columns both matter before any
# network is trained.

# %%
brief = sx.inductive_arms(short, 0, first[0], second[0], known[0], unseen[0], seed=pairs[0])
steps = {len(short.history): brief, len(model.history): arms.loc[0]}
table = pd.DataFrame(dict(steps)).T[["role psi", "role statistics", "nmi gamma", "nmi sqrt(r)"]]
lab.table(
    table.rename_axis("steps"),
    caption=f"First pair: from {len(short.history)} to {len(model.history)} steps psi goes from {brief['role psi']:.2f} to "
    f"{arms['role psi'][0]:.2f}, gamma from {brief['nmi gamma']:.2f} to {arms['nmi gamma'][0]:.2f}.",
)

# %%
psi, gamma = arms["role psi"], arms["nmi gamma"]
added = arms["nmi gamma"] - arms["nmi r Theta"]
role_share = arms["role statistics"].mean() / psi.mean()
place_share = {a: mean[f"nmi {a}"] / mean["nmi gamma"] for a in ("r Theta", "sqrt(r) Theta", "sqrt(r)")}
lab.table(
    pd.DataFrame(
        {"roles, [s, delta]": role_share} | {f"communities, {k}": v for k, v in place_share.items()}, index=["share"]
    ),
    fmt="{:.0%}",
    caption=f"Untrained statistics against the trained embedding: {role_share:.0%} of its role accuracy, and "
    f"{place_share['sqrt(r)']:.0%} of its agreement with communities for the square root of the visits.",
)

# %%
measured = {
    "role, psi": psi,
    "NMI, gamma": gamma,
    "gamma over r Theta": added,
    "communities, linear probe inside, gamma": arms["probe gamma"],
    "patterns on K7": seen_patterns,
    "chi-square p": fit_p,
}

# %%
control = {
    "role, DeepWalk inside": arms["role DeepWalk"],
    "role, degree": arms["role degree"],
    "communities, linear probe inside, r Theta": arms["probe r Theta"],
    "role, CF": arms["role CF"],
    "role, statistics": arms["role statistics"],
    "role, shuffled labels": arms["role shuffled"],
    "NMI, DeepWalk": arms["nmi DeepWalk"],
    "NMI, psi": arms["nmi psi"],
    "NMI, r Theta": arms["nmi r Theta"],
    "NMI, sqrt(r)": arms["nmi sqrt(r)"],
    "p, equal frequencies": equal_p,
}

# %%
holds = {
    "psi above DeepWalk by .2 and gamma within .1 of DeepWalk": lab.exceeds(psi.mean(), mean["role DeepWalk"] + 0.2)
    & lab.exceeds(gamma.mean(), mean["nmi DeepWalk"] - 0.1),
    "psi above degree alone by .1": lab.exceeds(psi.mean(), mean["role degree"] + 0.1),
    "psi at most .05 below CF": lab.exceeds(psi.mean(), mean["role CF"] - 0.05),
    "gamma's NMI above psi's by .2": lab.exceeds(gamma.mean(), mean["nmi psi"] + 0.2),
    "gamma above r Theta by 2 standard errors": lab.exceeds(added.mean(), 2 * stderr(added)),
    "shuffled roles within .1 of chance": lab.below(abs(arms["role shuffled"].mean() - role_chance), 0.1),
    "patterns follow their law": lab.exceeds(fit_p, 1e-3),
}

# %%
lab.claim(
    "qin2024irwe",
    "One attribute-free model of walks gives roles and communities on unseen graphs, because walk statistics are sufficient",
    measured=measured,
    control=control,
    holds=holds,
    scaled=f"{len(pairs)} pairs of planted graphs, {first[0].num_nodes} nodes, {len(model.history)} steps of Adam, one encoder layer",
    reason=f"on the first pair psi has {brief['role psi']:.2f} after {len(short.history)} steps and {psi[0]:.2f} after {len(model.history)}, "
    f"gamma {brief['nmi gamma']:.2f} and {gamma[0]:.2f}: what psi misses may be our budget. With the same walks, the untrained statistics reach "
    f"{mean['role statistics']:.2f} on roles and sqrt(r) {mean['nmi sqrt(r)']:.2f} on communities. Inside the unseen graph a linear "
    f"classifier reads communities from gamma ({mean['probe gamma']:.2f}) and from r Theta ({mean['probe r Theta']:.2f}): position is "
    "kept, but not as distances that k-means can see",
)

# %% [markdown]
# (paper-windels2024graphlets)=
# ## Graphlets: pairs that no walk can tell apart
#
# A walk knows how many ways lead from $u$ to $v$; it does not know what *surrounds* the way.
# [Windels, Malod-Dognin and Pržulj (2024)](https://arxiv.org/abs/2405.14194) count instead, for all pairs, in how many induced
# subgraphs of up to four nodes $u$ and $v$ hold two given places (orbits) at a given distance,
#
# $$\begin{aligned} A^h_{ab}(u, v) = \#\{S \ni u, v:\ & |S| \le 4,\ G[S]\ \text{connected},\ \mathrm{dist}_{G[S]}(u, v) = h, \\
# & u \text{ at orbit } a,\ v \text{ at orbit } b\} . \end{aligned}$$
#
# There are 28 such matrices, 20 up to transposition. Walks of up to three steps are three fixed sums of them: for
# $u \neq v$, $(A^2)_{uv} = A_{1,1} + A_{3,3}$, $A_{uv}(d_u - 1) = A_{2,1} + A_{3,3}$, and the paths of three edges are
#
# $$P_4 = A_{4,4} + A^1_{8,8} + A_{9,10} + A_{10,9} + 2A_{12,12} + A_{12,13} + A_{13,12} + 2A_{14,14} .$$
#
# The counter of this chapter derives all 28 from triangles and a few sums over common neighbours. Everything is in
# integers, so everything is compared exactly.

# %%
small = [nx.gnp_random_graph(18, p, seed=seed + i) for i, p in enumerate((0.2, 0.35, 0.5))]
checks = sx.counter_checks(small)
largest = int(checks.max().max())
rank, walk_rank, residual = sx.span_ranks(nx.gnp_random_graph(22, 0.3, seed=seed))
lab.table(
    checks.rename_axis("largest deviation"),
    caption=f"Largest deviation in all checks: {largest}. On another graph the 20 matrices have rank {rank}; A, its "
    f"square and its cube have rank {walk_rank} and lie in their span to {residual:.0e}.",
)

# %%
with lab.timing("28 matrices, 1500 nodes, 6000 edges"):
    counted = sx.orbit_adjacency(nx.gnm_random_graph(1500, 6000, seed=seed))

# %% [markdown]
# Twenty against three is bookkeeping. The evidence is a graph on which walks of *any* length see two kinds of pairs and
# graphlets see more. In a strongly regular graph all powers of $A$ take one value on edges and one on non-edges.

# %%
regular = data.load("strongly_regular", family="sr251256", stand_in=data.strongly_regular_graphs)
kind = {"real": "generated"}.get(data.kind("strongly_regular"), "stand-in")
signatures = np.array([sx.pair_signatures(g) for g in regular])
finer = int((signatures[:, 1] > signatures[:, 0]).sum())
lab.table(
    pd.DataFrame(signatures, columns=["by walks up to 7 steps", "by orbit adjacencies"]).rename_axis("graph"),
    caption=f"Kinds of node pairs in {len(regular)} strongly regular graphs on 25 nodes: walks tell {signatures[:, 0].max()} "
    f"apart; orbit adjacencies {signatures[0, 1]} in the first graph, more than walks in {finer} of {len(regular)}.",
)

# %% [markdown]
# A graph in which graphlets too see only two kinds is no counterexample: it may need larger graphlets, or be so symmetric
# that its edges are truly alike.
#
# **Does it matter for labels?** Each matrix is turned into positive pointwise mutual information and factorised, just as
# DeepWalk's co-occurrences are. Both sides have 20 candidates chosen on validation nodes: 20 orbit adjacencies at one
# dimension, or ten windows at two. Three graphs: one where *which pairs share a star* shows the class and two steps favour neither class on
# average (the single entries of $P^2$ still differ, but their factors mix them); the same with stars filled without regard to class; and a plain block model where walks suffice.

# %%
five = lab.seeds(5)
block = np.full((4, 4), 0.01) + 0.09 * np.eye(4)
size = lab.pick(ci=100, gpu=400)
worlds = {
    "planted": [orbit_planted_graph(seed=s) for s in five],
    "null": [orbit_planted_graph(classes_in_hubs=False, seed=s) for s in five],
    "block model": [data.stochastic_block_model([size] * 4, block, s) for s in five],
}
found = {name: sx.run_arms(graphs, five) for name, graphs in worlds.items()}
test = {name: rows.pivot(index="seed", columns="arm", values="test") for name, rows in found.items()}

# %%
shown = pd.DataFrame({name: rows.mean() for name, rows in test.items()}).T
picked = found["planted"].query("arm == 'orbit PMI'").chosen.mode()[0]
lab.table(
    shown.rename_axis("macro-F1"),
    caption=f"Planted graph: orbits {shown['orbit PMI']['planted']:.2f}, walks {shown['walk PMI']['planted']:.2f}; most often chosen: "
    f"{picked}. Without regard to class: {shown['orbit PMI']['null']:.2f} and {shown['walk PMI']['null']:.2f}. Block "
    f"model: {shown['orbit PMI']['block model']:.2f} and {shown['walk PMI']['block model']:.2f}.",
)

# %%
ahead = test["planted"]["orbit PMI"] - test["planted"]["walk PMI"]
plain = test["block model"]["orbit PMI"] - test["block model"]["walk PMI"]
nothing = test["null"]["orbit PMI"] - test["null"]["walk PMI"]
null_best = test["null"].mean().max()

# %%
measured = {
    "planted, orbits - walks": ahead,
    "block model, orbits - walks": plain,
    "largest deviation": largest,
    "rank of orbit adjacencies": rank,
    "pair kinds by orbits, first graph": signatures[0, 1],
    "pair kinds by orbits, all graphs": signatures[:, 1],
}
control = {
    "rank of three powers": walk_rank,
    "pair kinds by walks": signatures[:, 0],
    "null, orbits - walks": nothing,
    "null, best arm": null_best,
}

# %%
holds = {
    "planted: orbits above walks by .05": lab.exceeds(ahead.mean(), 0.05),
    "block model: not below by 2 standard errors": lab.exceeds(plain.mean(), -2 * stderr(plain)),
    "null: not below by 2 standard errors": lab.exceeds(nothing.mean(), -2 * stderr(nothing)),
    "counts and identities exact": lab.within(largest, 0, 0),
    "rank 20": lab.within(rank, 20, 20),
    "rank 3": lab.within(walk_rank, 3, 3),
    "strongly regular: walks see two kinds": lab.within(signatures[:, 0].max(), 2, 2),
    "and orbits more, on the first graph": lab.exceeds(signatures[0, 1], signatures[0, 0]),
    "null: no arm above .55": lab.below(null_best, 0.55),
}

# %%
lab.claim(
    "windels2024graphlets",
    "Walks see a few sums of the orbit adjacencies; the others part pairs that no walk can, and show labels that factors of walk PMI miss",
    measured=measured,
    control=control,
    holds=holds,
    data=kind,
    scaled=f"planted graphs of {worlds['planted'][0].num_nodes} nodes instead of six real networks",
    reason=f"orbits minus walks is {ahead.mean():+.3f} on planted graphs, {plain.mean():+.3f} on the block model and "
    f"{nothing.mean():+.3f} on the null, where the best arm has {null_best:.2f}",
)

# %% [markdown]
# ## The family portrait: what each embedding keeps
#
# All seven papers embed one graph whose communities and roles are both known, and one linear classifier reads both.
# IRWE was trained on another graph. MUSAE wants attributes and there are none: it gets the node's degree as a one-hot
# feature, which favours it on roles. Times are for the embedding alone (IRWE's without its training, once for either half).

# %%
portraits = [family_portrait(second[i], model, member=i, seed=s) for i, s in enumerate(pairs)]
kept = sum(p[["community", "role"]] for p in portraits) / len(portraits)
both = kept.min(axis=1)
lab.portrait(
    portrait_figure(kept, community_chance, role_chance),
    caption=f"Of {len(kept)} rows none is first at both. Best at communities: {kept.community.idxmax()} "
    f"({kept.community.max():.2f}); best at roles: {kept.role.idxmax()} ({kept.role.max():.2f}); best at the worse of the "
    f"two: {both.idxmax()} ({both.max():.2f})."
    if kept.community.idxmax() != kept.role.idxmax()
    else f"{kept.role.idxmax()} is first at both.",
    alt="Scatter of community accuracy against role accuracy for eleven embeddings, each point named.",
)

# %%
seconds = np.median([p.seconds for p in portraits], axis=0) / second[0].num_nodes
rows = kept.assign(worse=both)
rows["microseconds a node"] = [lab.volatile(float(1e6 * s)) for s in seconds]
gap = (kept.community - community_chance) / (1 - community_chance) + (kept.role - role_chance) / (1 - role_chance)
lab.table(
    rows.rename_axis("embedding"),
    fmt="{:.2f}",
    caption=f"Share of the distance from chance to certainty, communities plus roles: {gap.max():.2f} at most "
    f"({gap.idxmax()}), median {gap.median():.2f}. An embedding that kept both would score two.",
)

# %% [markdown]
# No single paper shows this map, because each compares inside its own corner. Papers on walks compare with walks on communities, papers
# on roles with roles. Put together, no point rises far above the line from one corner to the other: what names
# its neighbours keeps places, what counts without names keeps roles. MUSAE is the same learner on the same walks as
# DeepWalk; giving its contexts a degree instead of a name carries it across the map. Which matrix is used, and whether it is sampled, projected, or factorised,
# moves a point along its own arm of the map; forgetting the names moves it to the other arm.
#
# ## What is scaled down
#
# - Nearly all graphs are planted and have hundreds to a few thousand nodes, so that the truth about communities, roles,
#   classes and scales is known. That lets one mechanism be tested at a time. It is also the limit: that a walk's bias does
#   not pay on a block model does not say that it never pays on a social network. Cora and the chameleon pages are the
#   exceptions, and no verdict rests on them.
# - Walks are fewer and shorter and dimensions smaller than in the papers; where settings are chosen (node2vec, FastRP,
#   graphlets), baseline and method choose among equally many; elsewhere each arm keeps one setting.
# - The `gpu` profile enlarges the graphs and lengthens training; the strongly regular graphs are the same in both.
# - How IRWE's statistics are scaled before they enter the network was chosen on three pilot pairs of the same family. Its
#   length of training is not converged in `ci`.
# - PhUSION's embedding of whole graphs is not part of this chapter. IRWE's layer widths are ours, and its contrastive loss
#   is taken in expectation instead of sampled.
# - Times are of one core; ratios between languages and machines of different papers are not reproduced.
#
# ## Exercises
#
# 1. Raise `noise` of `rings_of_houses` to 0.2. Which of the two readings of a proximity suffers first, and why?
# 2. Ask `characteristic_function_embedding` for a `horizon` of 1000. Which proximities lose their roles?
# 3. Pass `redraw=True` to `train_irwe`, so that the Gaussian matrix changes at each step. What happens to $\gamma$ on the unseen graph?
# 4. Give the portrait another orbit adjacency, such as `Orbits(6, 6, 2)`. Does its point move along the line or off it?
# 5. **MUSAE.** Draw a leaf's features independently from pool $b$ instead of once for each hub. Why does AE then find the labels?
# 6. **Personalised PageRank.** Raise `alpha` to .5. Which of the three ideas loses its use first?
# 7. Set `hubs=4` in `orbit_planted_graph`. Two steps now favour the own class: does DeepWalk's matrix find it?
