r"""Symbolic synthesis of networks: programs of a small language build graphs, and graphs become modules."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require


class Instruction(NamedTuple):
    """One instruction of the language, a name and a number.

    ``("new", p)`` grows a node from the current one by port p and moves there; ``("link", k)`` joins the current node
    to the one numbered k less; ``("back", k)`` moves there; ``("repeat", j)`` runs the j instructions before it two
    more times.

    Attributes:
        name: ``"new"``, ``"link"``, ``"back"`` or ``"repeat"``.
        value: Its argument.
    """

    name: str
    value: int


LANGUAGE = tuple(
    Instruction(name, value)
    for name, values in (("new", (0, 1)), ("link", (2, 3, 4)), ("back", (1, 2)), ("repeat", (1, 2, 3)))
    for value in values
)


class ProgramGraph(NamedTuple):
    """The graph that a program builds.

    Attributes:
        nodes: Number of nodes.
        edges: (sender, receiver, port), in order of creation.
    """

    nodes: int
    edges: tuple[tuple[int, int, int], ...]

    @property
    def elements(self) -> int:
        """Nodes and edges together, the number of chunks that the input is cut into."""
        return self.nodes + len(self.edges)


def run_program(program: Sequence[Instruction]) -> ProgramGraph:
    """Interpret a program like a turtle on a graph that starts at one node.

    Args:
        program: Instructions; a link or a step back that leads before the first node, a second edge between the same
            nodes, and a repetition of more than is there do nothing.

    Raises:
        ValueError: For an unknown instruction or a negative argument.

    Source: whitehouse2023gssnn (the language is a stand-in for the paper's).
    """
    for name, value in program:
        known = name in ("new", "link", "back", "repeat") and value >= 0
        require(known, "instructions new, link, back, repeat with arguments of at least 0", (name, value))
    flat: list[Instruction] = []
    for i, step in enumerate(program):
        if step.name == "repeat":
            body = [s for s in program[max(0, i - step.value) : i] if s.name != "repeat"]
            flat += body * 2 if step.value <= i else []
        else:
            flat.append(step)
    here, nodes = 0, 1
    edges: list[tuple[int, int, int]] = []
    seen: set[tuple[int, int]] = set()
    for name, value in flat:
        target = nodes if name == "new" else here - value
        if target < 0 or (name != "back" and (min(here, target), max(here, target)) in seen) or target == here:
            continue
        if name != "back":
            seen.add((min(here, target), max(here, target)))
            edges.append((here, target, value if name == "new" else 2))
        if name == "new":
            nodes += 1
        if name != "link":
            here = target
    return ProgramGraph(nodes, tuple(edges))


class Synthesized(NamedTuple):
    """A program with its graph.

    Attributes:
        program: The instructions.
        graph: What they build.
    """

    program: tuple[Instruction, ...]
    graph: ProgramGraph


def enumerate_programs(
    count: int,
    *,
    length: int = 8,
    weights: Sequence[float] | None = None,
    known: Sequence[ProgramGraph] = (),
    largest: int = 24,
    seed: int = 0,
) -> list[Synthesized]:
    r"""Draw programs by description length under the unigram weights of the language, one for each graph.

    An instruction i costs :math:`-\log w_i`, so a program is drawn with probability :math:`\prod_i w_i`; lengths are
    uniform from 2 to ``length``.

    Args:
        count: Number of programs.
        length: Largest number of instructions.
        weights: One for each instruction of ``LANGUAGE``; default: equal.
        known: Graphs that are taken already.
        largest: Largest number of nodes and edges of a graph; graphs without an edge are left out too.
        seed: Seeds the draw.

    Raises:
        ValueError: For weights that do not fit, a length below 2, or more programs than are found in 10^5 draws.

    Source: whitehouse2023gssnn.
    """
    require(count >= 0 and length >= 2, "a count of at least 0 and a length of at least 2", (count, length))
    values = np.ones(len(LANGUAGE)) if weights is None else np.asarray(weights, dtype=float)
    sound = values.shape == (len(LANGUAGE),) and bool((values >= 0).all()) and values.sum() > 0
    require(sound, f"{len(LANGUAGE)} non-negative weights that are not all zero", values)
    rng = np.random.default_rng(seed)
    taken, found = set(known), []
    for _ in range(100_000):
        if len(found) == count:
            return found
        steps = rng.choice(len(LANGUAGE), size=rng.integers(2, length + 1), p=values / values.sum())
        program = tuple(LANGUAGE[i] for i in steps)
        graph = run_program(program)
        if graph in taken or not graph.edges or graph.elements > largest:
            continue
        taken.add(graph)
        found.append(Synthesized(program, graph))
    require(len(found) == count, f"{count} programs with graphs of their own", f"{len(found)} in 100000 draws")
    return found


def unigram_weights(programs: Sequence[Synthesized], smoothing: float = 1.0) -> Float[np.ndarray, " L"]:
    """How often each instruction occurs in programs, plus a constant: what survives becomes shorter to describe.

    Args:
        programs: The survivors.
        smoothing: Added to every count.

    Raises:
        ValueError: For a negative constant.
    """
    require(smoothing >= 0, "a non-negative smoothing", smoothing)
    counts = Counter(step for item in programs for step in item.program)
    return np.array([counts[step] + smoothing for step in LANGUAGE], dtype=float)


def sincos_position_2d(
    positions: Float[Tensor, "N 2"], dim: int, temperature: float = 10_000.0
) -> Float[Tensor, "N dim"]:
    r"""Sine and cosine code of two coordinates, a quarter of the width for each.

    .. math:: \bigl[\sin(x \omega), \cos(x \omega), \sin(y \omega), \cos(y \omega)\bigr], \qquad
        \omega_i = T^{-i / (\mathrm{dim}/4)}

    Args:
        positions: Coordinates.
        dim: Width, a multiple of 4.
        temperature: The constant T.

    Raises:
        ValueError: For a width that is no multiple of 4.

    Source: whitehouse2023gssnn.
    """
    require(dim >= 4 and dim % 4 == 0, "a width that is a multiple of 4", dim)
    require(positions.ndim == 2 and positions.shape[1] == 2, "positions [N, 2]", tuple(positions.shape))
    omega = temperature ** (-torch.arange(dim // 4, dtype=positions.dtype, device=positions.device) / (dim // 4))
    x, y = (positions[:, i : i + 1] * omega for i in range(2))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


class GraphTensors(NamedTuple):
    """A program's graph as padded tensors.

    Attributes:
        incidence: ``[2, E, V]`` 0/1: senders and receivers of each edge.
        code: Positions of nodes and edges in sine and cosine, ``[V + E, dim]``, zero on padding.
        chunk: ``[V + E, dim, dim]`` 0/1: which input each entry of the tiled chunk of an element copies.
        nodes: 1 for nodes, 0 for padding, ``[V]``.
        edges: 1 for edges, 0 for padding, ``[E]``.
    """

    incidence: Tensor
    code: Tensor
    chunk: Tensor
    nodes: Tensor
    edges: Tensor


def graph_tensors(
    graph: ProgramGraph, dim: int, *, nodes: int | None = None, edges: int | None = None, shuffle: int | None = None
) -> GraphTensors:
    """Tensors of a graph for :class:`GraphStructuredModule`.

    The input of width ``dim`` is cut into as many consecutive chunks as the graph has nodes and edges, the remainder
    going to the first; each element gets its chunk, repeated to the full width.

    Args:
        graph: A graph with an edge and no more elements than ``dim``.
        dim: Width, a multiple of 4.
        nodes: Pad to so many nodes.
        edges: Pad to so many edges.
        shuffle: Seed of a fixed random assignment of chunks to elements; default: in order of creation.

    Raises:
        ValueError: For a graph without an edge or with more elements than inputs, or padding that is too small.

    Source: whitehouse2023gssnn.
    """
    v, e, total = graph.nodes, len(graph.edges), graph.elements
    require(e > 0, "a graph with an edge", e)
    require(total <= dim, f"at most {dim} nodes and edges, one input each", total)
    nodes, edges = v if nodes is None else nodes, e if edges is None else edges
    require(nodes >= v and edges >= e, f"padding to at least {v} nodes and {e} edges", (nodes, edges))
    incidence = torch.zeros(2, edges, nodes)
    for j, (a, b, _) in enumerate(graph.edges):
        incidence[0, j, a] = incidence[1, j, b] = 1
    order = torch.tensor([[i, 0.0] for i in range(v)] + [[v + j, p + 1.0] for j, (_, _, p) in enumerate(graph.edges)])
    size = dim // total
    starts = [0, *(dim - size * (total - k) for k in range(1, total))]
    lengths = [dim - size * (total - 1), *[size] * (total - 1)]
    places = list(range(v)) + [nodes + j for j in range(e)]
    code, chunk = torch.zeros(nodes + edges, dim), torch.zeros(nodes + edges, dim, dim)
    code[places] = sincos_position_2d(order, dim)
    owner = list(range(total)) if shuffle is None else np.random.default_rng(shuffle).permutation(total).tolist()
    columns = np.arange(dim)
    for place, k in zip(places, owner):
        chunk[place, columns, starts[k] + columns % lengths[k]] = 1
    node_mask, edge_mask = (torch.arange(n) < k for n, k in ((nodes, v), (edges, e)))
    return GraphTensors(incidence, code, chunk, node_mask.float(), edge_mask.float())


class GraphStructuredModule(nn.Module):
    r"""A module wired by a program: the input is spread over the graph's nodes and edges, and convolutions mix it.

    .. math:: h_i \leftarrow W \Bigl(h_i + \sum_{j \in N(i)} \mathrm{relu}(h_j + e_{ij})\Bigr) + b, \qquad
        y = U\, \tfrac{1}{|V|} \textstyle\sum_i h_i + c

    with nodes and edges starting as their position's code plus their chunk of the input. Edges carry both ways.

    Args:
        tensors: The graph's tensors.
        outputs: Width of the output.
        depth: Number of convolutions.

    Raises:
        ValueError: For no convolution.

    Source: whitehouse2023gssnn.
    """

    def __init__(self, tensors: GraphTensors, outputs: int = 1, depth: int = 2) -> None:
        super().__init__()
        require(depth >= 1 and outputs >= 1, "at least one convolution and one output", (depth, outputs))
        for name, value in zip(GraphTensors._fields, tensors):
            self.register_buffer(name, value.clone())
        dim = tensors.code.shape[1]
        self.convs = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.read = nn.Linear(dim, outputs)

    def forward(self, x: Float[Tensor, "*B dim"]) -> Float[Tensor, "*B C"]:
        """Outputs of encoded inputs."""
        flat = x.reshape(-1, x.shape[-1])
        # Elements come first and the batch lies beside the features: each convolution is then one product a graph.
        elements = torch.einsum("kij,bj->kbi", self.chunk, flat) + self.code[:, None]
        count, inside = self.nodes.shape[0], self.nodes[:, None, None]
        h, e = elements[:count] * inside, elements[count:]
        for conv in self.convs:
            total = h
            for a, b in ((0, 1), (1, 0)):
                heard = (self.incidence[a] @ h.flatten(1)).unflatten(1, h.shape[1:])
                message = torch.relu(heard + e) * self.edges[:, None, None]
                total = total + (self.incidence[b].mT @ message.flatten(1)).unflatten(1, h.shape[1:])
            h = conv(total) * inside
        return self.read(h.sum(0) / self.nodes.sum()).reshape(*x.shape[:-1], -1)


def complete_program_graph(nodes: int) -> ProgramGraph:
    """The complete graph, a control without a program.

    Raises:
        ValueError: For fewer than two nodes.
    """
    require(nodes >= 2, "at least two nodes", nodes)
    return ProgramGraph(nodes, tuple((a, b, 0) for a, b in itertools.combinations(range(nodes), 2)))


def random_program_graph(nodes: int, edges: int, seed: int) -> ProgramGraph:
    """A connected random graph of given size, a control without a program.

    Args:
        nodes: Number of nodes, at least 2.
        edges: Number of edges, at least ``nodes - 1``.
        seed: Seeds the draw.

    Raises:
        ValueError: For a number of edges that no connected simple graph has.
    """
    require(
        nodes >= 2 and nodes - 1 <= edges <= math.comb(nodes, 2), "edges of a connected simple graph", (nodes, edges)
    )
    rng = np.random.default_rng(seed)
    chosen = {(int(rng.integers(i)), i) for i in range(1, nodes)}
    rest = [pair for pair in itertools.combinations(range(nodes), 2) if pair not in chosen]
    picked = rng.permutation(len(rest))[: edges - len(chosen)]
    pairs = sorted(chosen) + [rest[i] for i in picked]
    return ProgramGraph(nodes, tuple((a, b, int(rng.integers(3))) for a, b in pairs))


def colour_rule_puzzles(
    count: int, seed: int, *, noise: float = 0.3
) -> tuple[Float[Tensor, "N 144"], Float[Tensor, " N"]]:
    """Grids of 3 x 3 panels of 4 x 4 pixels; the label says whether the colour is constant within every row.

    Each panel shows one of three shapes, large or small, in one of three grey levels. Where the rule is broken, a
    row shows all three levels.

    Args:
        count: Number of puzzles, half of each label on average.
        seed: Seeds the draw.
        noise: Standard deviation of pixel noise.

    Returns:
        Images as rows of 144 pixels, and labels 0 or 1.

    Raises:
        ValueError: For no puzzle or negative noise.

    Source: whitehouse2023gssnn (a small relative of its matrices).
    """
    require(count >= 1 and noise >= 0, "at least one puzzle and non-negative noise", (count, noise))
    rng = np.random.default_rng(seed)
    edge = np.pad(np.zeros((2, 2)), 1, constant_values=1.0)
    diagonal = np.eye(4) + np.eye(4)[::-1]
    shapes = np.stack(
        [np.ones((4, 4)), edge, diagonal, *(np.pad(x, 1) for x in (np.ones((2, 2)), np.eye(2), np.eye(2)[::-1]))]
    )
    labels = rng.random(count) < 0.5
    colour = rng.integers(3, size=(count, 3, 1)).repeat(3, 2)
    # A broken row shows its three panels in different colours.
    mixed = rng.permuted(np.broadcast_to(np.arange(3), (count, 3, 3)), axis=2)
    colour = np.where(labels[:, None, None], colour, mixed)
    level = np.array([0.3, 0.65, 1.0])[colour]
    panels = shapes[rng.integers(len(shapes), size=(count, 3, 3))] * level[..., None, None]
    image = panels.transpose(0, 1, 3, 2, 4).reshape(count, 144)
    image = image + noise * rng.normal(size=image.shape)
    return torch.from_numpy(image).float(), torch.from_numpy(labels.astype(np.float32))
