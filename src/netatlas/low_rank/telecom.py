"""A digital twin of a small network, and twenty families of questions that an operator would ask about it.

A twin is a random connected topology of twelve nodes with link costs; its routes, labels, alarms and loads are
simulated. Training and test questions come from different twins, so that no answer can be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from netatlas.core.checks import require

from .prompts import LENGTH, NAME0, NUMBER0, TELECOM, TOKEN, Prompts

Question = tuple[list[int], list[int], int]
LOOKUP_FAMILIES = TELECOM[:8]
YES, NO = TOKEN["yes"], TOKEN["no"]


class Twin(NamedTuple):
    """A simulated network.

    Attributes:
        graph: connected topology; edges have a ``cost`` from 1 to 9.
        names: word of each node.
        paths: a cheapest path for each pair of nodes.
        costs: its cost.
    """

    graph: nx.Graph
    names: list[int]
    paths: dict[int, dict[int, list[int]]]
    costs: dict[int, dict[int, int]]


def telecom_twin(seed: int, *, nodes: int = 12, extra_links: int = 6) -> Twin:
    """Draw a network: a random tree with a few more links, a cost on each.

    Args:
        seed: Draws it.
        nodes: Nodes, from 3 to 24.
        extra_links: Links beyond the tree.

    Raises:
        ValueError: For a number of nodes out of range or a negative number of links.
    """
    require(3 <= nodes <= 24, "3 to 24 nodes", nodes)
    require(extra_links >= 0, "a non-negative number of extra links", extra_links)
    rng = np.random.default_rng(seed)
    graph = nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from((node, int(rng.integers(0, node))) for node in range(1, nodes))
    missing = list(nx.non_edges(graph))
    for at in rng.permutation(len(missing))[:extra_links]:
        graph.add_edge(*missing[at])
    for link in graph.edges:
        graph.edges[link]["cost"] = int(rng.integers(1, 10))
    names = [int(i) + NAME0 for i in rng.permutation(24)[:nodes]]
    paths = dict(nx.all_pairs_dijkstra_path(graph, weight="cost"))
    costs = {a: {b: int(nx.path_weight(graph, p, "cost")) for b, p in to.items()} for a, to in paths.items()}
    return Twin(graph, names, paths, costs)


def _some(rng: np.random.Generator, pool: int, count: int) -> list[int]:
    return [int(i) for i in rng.permutation(pool)[:count]]


def _numbers(rng: np.random.Generator, count: int) -> list[int]:
    return [NUMBER0 + i for i in _some(rng, 24, count)]


def _table(keys: list[int], values: list[int], at: int) -> Question:
    return [word for pair in zip(keys, values) for word in pair], [keys[at]], values[at]


def _nodes(twin: Twin, rng: np.random.Generator, count: int) -> list[int]:
    return _some(rng, len(twin.names), count)


def _next_hop(twin: Twin, rng: np.random.Generator) -> Question:
    source, *targets = _nodes(twin, rng, 6)
    hops = [twin.names[twin.paths[source][t][1]] for t in targets]
    return _table([twin.names[t] for t in targets], hops, int(rng.integers(5)))


def _label_swap(twin: Twin, rng: np.random.Generator) -> Question:
    labels = _numbers(rng, 10)
    return _table(labels[:5], labels[5:], int(rng.integers(5)))


def _port_vlan(twin: Twin, rng: np.random.Generator) -> Question:
    names = [twin.names[i] for i in _nodes(twin, rng, 5)]
    return _table(names, _numbers(rng, 5), int(rng.integers(5)))


def _address_host(twin: Twin, rng: np.random.Generator) -> Question:
    names = [twin.names[i] for i in _nodes(twin, rng, 5)]
    return _table(_numbers(rng, 5), names, int(rng.integers(5)))


def _cell_site(twin: Twin, rng: np.random.Generator) -> Question:
    names = [twin.names[i] for i in _nodes(twin, rng, 10)]
    return _table(names[:5], names[5:], int(rng.integers(5)))


def _user_slice(twin: Twin, rng: np.random.Generator) -> Question:
    names = [twin.names[i] for i in _nodes(twin, rng, 5)]
    slices = [NUMBER0 + int(i) for i in rng.integers(0, 8, 5)]
    return _table(names, slices, int(rng.integers(5)))


def _backup_hop(twin: Twin, rng: np.random.Generator) -> Question:
    names = [twin.names[i] for i in _nodes(twin, rng, 9)]
    at = int(rng.integers(3))
    facts = [word for i in range(3) for word in (names[i], names[3 + i], names[6 + i])]
    return facts, [names[at], names[3 + at]], names[6 + at]


def _uplink(twin: Twin, rng: np.random.Generator) -> Question:
    tree = nx.bfs_predecessors(twin.graph, 0)
    pairs = [(child, parent) for child, parent in tree]
    chosen = [pairs[i] for i in _some(rng, len(pairs), 5)]
    return _table([twin.names[c] for c, _ in chosen], [twin.names[p] for _, p in chosen], int(rng.integers(5)))


def _best(twin: Twin, rng: np.random.Generator, largest: bool, count: int = 4) -> Question:
    names, values = [twin.names[i] for i in _nodes(twin, rng, count)], _numbers(rng, count)
    best = values.index(max(values) if largest else min(values))
    return [word for pair in zip(names, values) for word in pair], [], names[best]


def _path_cost(twin: Twin, rng: np.random.Generator) -> Question:
    """The cost of two links that meet in one node."""
    centres = [n for n in twin.graph if twin.graph.degree[n] >= 2]
    centre = centres[int(rng.integers(len(centres)))]
    neighbours = list(twin.graph.adj[centre])
    first, last = (neighbours[i] for i in _some(rng, len(neighbours), 2))
    costs = [twin.graph.edges[first, centre]["cost"], twin.graph.edges[centre, last]["cost"]]
    facts = [twin.names[first], NUMBER0 + costs[0], twin.names[centre], NUMBER0 + costs[1], twin.names[last]]
    return facts, [], NUMBER0 + sum(costs)


def _failed_cost(twin: Twin, rng: np.random.Generator) -> Question:
    primary, backup = (NUMBER0 + v for v in sorted(_some(rng, 24, 2)))
    a, b = (twin.names[i] for i in _nodes(twin, rng, 2))
    failed = bool(rng.integers(2))
    return [a, primary, b, backup], [a if failed else b], backup if failed else primary


def _same_vlan(twin: Twin, rng: np.random.Generator) -> Question:
    names = [twin.names[i] for i in _nodes(twin, rng, 4)]
    tags = [NUMBER0 + int(i) for i in rng.integers(0, 2, 4)]
    a, b = _some(rng, 4, 2)
    facts = [word for pair in zip(names, tags) for word in pair]
    return facts, [names[a], names[b]], YES if tags[a] == tags[b] else NO


def _admit(twin: Twin, rng: np.random.Generator) -> Question:
    capacity, demand = _numbers(rng, 2)
    return [capacity], [demand], YES if demand < capacity else NO


def _overload(twin: Twin, rng: np.random.Generator) -> Question:
    limit, load = _numbers(rng, 2)
    return [limit, twin.names[0], load], [], YES if load > limit else NO


def _root_cause(twin: Twin, rng: np.random.Generator) -> Question:
    """Alarms spread down the tree: the cause is the alarming node whose parent does not alarm."""
    parents = dict(nx.bfs_predecessors(twin.graph, 0))
    deep = [n for n in parents if parents[n] in parents]
    leaf = deep[int(rng.integers(len(deep)))] if deep else next(iter(parents))
    chain = [leaf, parents[leaf]]
    other = [n for n in parents if n not in chain]
    chosen = [*chain, *[other[i] for i in _some(rng, len(other), 2)]]
    facts = [
        w for i in _some(rng, len(chosen), len(chosen)) for w in (twin.names[chosen[i]], twin.names[parents[chosen[i]]])
    ]
    alarms = [twin.names[n] for n in (chain if rng.integers(2) else chain[::-1])]
    return facts, alarms, twin.names[chain[1]]


def _two_hops(twin: Twin, rng: np.random.Generator) -> Question:
    source = int(rng.integers(len(twin.names)))
    far = [p for p in twin.paths[source].values() if len(p) >= 3]
    path = far[int(rng.integers(len(far)))] if far else None
    if path is None:
        return _next_hop(twin, rng)
    links = [(path[0], path[1]), (path[1], path[2])]
    others = [e for e in twin.graph.edges if path[0] not in e and path[1] not in e]
    links += [others[i] for i in _some(rng, len(others), 2)]
    facts = [w for i in _some(rng, len(links), len(links)) for w in (twin.names[links[i][0]], twin.names[links[i][1]])]
    return facts, [twin.names[path[0]]], twin.names[path[2]]


def _detour(twin: Twin, rng: np.random.Generator) -> Question:
    names, values = [twin.names[i] for i in _nodes(twin, rng, 3)], _numbers(rng, 3)
    order = sorted(range(3), key=lambda i: values[i])
    facts = [word for pair in zip(names, values) for word in pair]
    return facts, [names[order[0]]], names[order[1]]


def _tunnel_end(twin: Twin, rng: np.random.Generator) -> Question:
    path = max(twin.paths[int(rng.integers(len(twin.names)))].values(), key=len)
    return [twin.names[n] for n in path][:12], [], twin.names[path[:12][-1]]


_FAMILIES: dict[str, Callable[[Twin, np.random.Generator], Question]] = {
    "next-hop": _next_hop,
    "label-swap": _label_swap,
    "port-vlan": _port_vlan,
    "address-host": _address_host,
    "cell-site": _cell_site,
    "user-slice": _user_slice,
    "backup-hop": _backup_hop,
    "uplink": _uplink,
    "least-cost": lambda twin, rng: _best(twin, rng, False),
    "busiest": lambda twin, rng: _best(twin, rng, True),
    "strongest": lambda twin, rng: _best(twin, rng, True, 5),
    "path-cost": _path_cost,
    "failed-cost": _failed_cost,
    "same-vlan": _same_vlan,
    "admit": _admit,
    "overload": _overload,
    "root-cause": _root_cause,
    "two-hops": _two_hops,
    "detour": _detour,
    "tunnel-end": _tunnel_end,
}


def telecom_prompts(count: int, *, seed: int, families: Sequence[str] = tuple(TELECOM), per_twin: int = 4) -> Prompts:
    """Questions about simulated networks.

    Args:
        count: Prompts a family.
        seed: Draws twins and questions; other seeds give other twins.
        families: Names out of ``TELECOM``.
        per_twin: Prompts a family asked about one twin.

    Raises:
        ValueError: For an unknown family or a number below 1.
    """
    unknown = set(families) - set(TELECOM)
    require(not unknown and len(families) > 0, f"families out of {TELECOM}", sorted(unknown))
    require(count >= 1 and per_twin >= 1, "at least one prompt a family", (count, per_twin))
    rng = np.random.default_rng([seed, 1])
    tokens, answers, family = [], [], []
    for number in range(-(-count // per_twin)):
        twin = telecom_twin(int(np.random.default_rng([seed, 2, number]).integers(2**31)))
        for index, name in enumerate(families):
            for _ in range(min(per_twin, count - number * per_twin)):
                facts, query, answer = _FAMILIES[name](twin, rng)
                row = [TOKEN[name], *facts, TOKEN["?"], *query]
                tokens.append([0] * (LENGTH - len(row)) + row)
                answers.append(answer)
                family.append(index)
    order = rng.permutation(len(tokens))
    return Prompts(*(torch.tensor(part)[order] for part in (tokens, answers, family)))


def exact_match_by_family(
    predicted: Int[Tensor, " N"], prompts: Prompts, families: Sequence[str] = tuple(TELECOM)
) -> dict[str, float]:
    """Share of prompts answered by exactly the right word, in each family.

    Args:
        predicted: Answer words ``[N]``.
        prompts: What was asked.
        families: Their names, in the order of ``prompts.family``.

    Raises:
        ValueError: For another number of answers than prompts.
    """
    require(predicted.shape == prompts.answers.shape, f"{len(prompts.answers)} answers", tuple(predicted.shape))
    right = (predicted == prompts.answers).double()
    return {name: float(right[prompts.family == i].mean()) for i, name in enumerate(families)}


def majority_answers(train: Prompts, test: Prompts) -> Int[Tensor, " N"]:
    """Each prompt answered by its family's most frequent training answer: skill without reading.

    Args:
        train: Where the most frequent answers are counted.
        test: What is asked; the same families.

    Raises:
        ValueError: For a family that is not in the training prompts.
    """
    known = train.family.unique().tolist()
    unknown = set(test.family.tolist()) - set(known)
    require(not unknown, "families that are in the training prompts", sorted(unknown))
    best = {f: int(torch.bincount(train.answers[train.family == f]).argmax()) for f in known}
    return torch.tensor([best[f] for f in test.family.tolist()])


def majority_answer_match(train: Prompts, test: Prompts) -> float:
    """Share answered exactly by always giving the family's most frequent training answer.

    Args:
        train, test: As in :func:`majority_answers`.
    """
    return float((majority_answers(train, test) == test.answers).double().mean())
