"""Personalised PageRank from every source: exact, by power iteration, and by random walks in rounds.

Convention: a walk stops with probability :math:`\\alpha` before each move, the first included; at a node without
out-neighbours it stops at once. Entry (u, v) is the probability that a walk from u ends at v.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from numba import njit
from scipy.special import digamma, gammaln

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.embeddings._random import advance, below, check_seed, low_unit, stream_state, unit
from netatlas.embeddings.walks import alias_table, draw_neighbour, uniform_walks, walk_graph

# Sources whose power iterations advance together.
_SIDE_BY_SIDE = 64


def _check_alpha(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    return float(alpha)


def _check_sources(sources, n: int) -> np.ndarray:
    sources = np.arange(n) if sources is None else np.asarray(sources)
    if sources.ndim != 1 or sources.size == 0 or not np.issubdtype(sources.dtype, np.integer):
        raise ValueError(f"sources must be a non-empty vector of node indices, got {sources.dtype} {sources.shape}")
    if sources.min() < 0 or sources.max() >= n:
        raise ValueError(f"sources must lie in 0..{n - 1}, got {sources.min()}..{sources.max()}")
    return sources.astype(np.int64)


def _stop_probability(step: sp.csr_array, alpha: float) -> np.ndarray:
    return np.where(np.diff(step.indptr) > 0, alpha, 1.0)


def ppr_exact(graph, *, alpha: float = 0.2, sources: Int[np.ndarray, " s"] | None = None) -> Float[np.ndarray, "s n"]:
    r"""Personalised PageRank by a dense solve.

    .. math:: \Pi = \big(I - (1 - \alpha) P\big)^{-1} \,\mathrm{diag}(a), \qquad
        a_v = \alpha \text{, or } 1 \text{ without out-neighbours}

    Args:
        graph: directed or not, weighted or not; anything that ``netatlas.core.graph.as_csr`` reads.
        alpha: stopping probability, in (0, 1).
        sources: rows wanted; all by default.

    Returns:
        ``[sources, n]``; every row sums to one.

    Raises:
        ValueError: for a bad graph, alpha outside (0, 1), sources outside the graph.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    alpha, step = _check_alpha(alpha), normalized_adjacency(as_csr(graph), "row")
    n = step.shape[0]
    sources = _check_sources(sources, n)
    right = np.zeros((n, len(sources)))
    right[sources, np.arange(len(sources))] = 1.0
    visits = np.linalg.solve(np.eye(n) - (1 - alpha) * step.toarray().T, right).T
    return visits * _stop_probability(step, alpha)


@njit(cache=True, fastmath=True, nogil=True)
def _series(indptr, indices, weights, stop, sources, tolerance, work, out):
    """Power series of the matrix with these rows, a block of sources at a time so that their columns stay in cache."""
    n, width = work.shape[1:]
    mass = np.empty(width)
    for start in range(0, len(sources), width):
        count = min(width, len(sources) - start)
        walking, moved, visits = work[0], work[1], work[2]
        walking[:] = 0.0
        for k in range(count):
            walking[sources[start + k], k] = 1.0
        visits[:] = walking
        while True:
            mass[:] = 0.0
            for v in range(n):
                row, total = moved[v], visits[v]
                for k in range(width):
                    row[k] = 0.0
                e, last = indptr[v], indptr[v + 1]
                # Four neighbours a pass, so that the accumulator is read and written a quarter as often.
                while e + 4 <= last:
                    x0, x1 = walking[indices[e]], walking[indices[e + 1]]
                    x2, x3 = walking[indices[e + 2]], walking[indices[e + 3]]
                    w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                    for k in range(width):
                        row[k] += (w0 * x0[k] + w1 * x1[k]) + (w2 * x2[k] + w3 * x3[k])
                    e += 4
                while e < last:
                    x0, w0 = walking[indices[e]], weights[e]
                    for k in range(width):
                        row[k] += w0 * x0[k]
                    e += 1
                for k in range(width):
                    mass[k] += row[k]
                    total[k] += row[k]
            if mass.max() < tolerance:
                break
            walking, moved = moved, walking
        for k in range(count):
            for v in range(n):
                out[start + k, v] = visits[v, k] * stop[v]


def ppr_power(
    graph, *, alpha: float = 0.2, sources: Int[np.ndarray, " s"] | None = None, tolerance: float = 1e-10
) -> Float[np.ndarray, "s n"]:
    r"""Personalised PageRank by power iteration, all sources side by side.

    .. math:: \Pi = \sum_{t \ge 0} \big((1 - \alpha) P\big)^t \,\mathrm{diag}(a)

    cut when the mass still walking is below the tolerance, so that every row's L1 error is below it too.

    Args:
        graph, alpha, sources: as in :func:`ppr_exact`.
        tolerance: largest mass left out of a row.

    Raises:
        ValueError: as :func:`ppr_exact`, and for a tolerance outside (0, 1).

    Source: ``lin2019fullppr`` (baseline).
    """
    alpha, step = _check_alpha(alpha), normalized_adjacency(as_csr(graph), "row")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
    n = step.shape[0]
    sources = _check_sources(sources, n)
    back = sp.csr_array((1 - alpha) * step.T)
    out = np.empty((len(sources), n))
    _series(
        back.indptr.astype(np.int64), back.indices.astype(np.int32), back.data, _stop_probability(step, alpha), sources,
        tolerance, np.empty((3, n, min(_SIDE_BY_SIDE, len(sources)))), out,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _endpoints(indptr, indices, threshold, alias, weighted, sources, alpha, seed, out):
    count = out.shape[1]
    node = np.empty(count, np.int32)
    slot = np.empty(count, np.int32)
    for i in range(len(sources)):
        state = stream_state(seed, i)
        for k in range(count):
            node[k] = sources[i]
            slot[k] = k
        live = count
        # All walks of a source advance together: consecutive draws do not wait for each other's memory.
        while live > 0:
            kept = 0
            for k in range(live):
                v = node[k]
                state = advance(state)
                if unit(state) < alpha or indptr[v] == indptr[v + 1]:
                    out[i, slot[k]] = v
                    continue
                state = advance(state)
                node[kept] = indices[draw_neighbour(indptr, indices, threshold, alias, weighted, v, state)]
                slot[kept] = slot[k]
                kept += 1
            live = kept


def walk_endpoints(
    graph, *, walks: int, alpha: float = 0.2, sources: Int[np.ndarray, " s"] | None = None, seed: int = 0
) -> Int[np.ndarray, "s walks"]:
    r"""End points of independent stopping walks, a number of them from every source.

    Their frequencies are an unbiased estimate of :math:`\Pi`, with
    :math:`\mathbb E \lVert \hat\pi_u - \pi_u \rVert_2^2 = (1 - \lVert \pi_u \rVert_2^2) / \omega` for :math:`\omega`
    walks.

    Args:
        graph, alpha, sources: as in :func:`ppr_exact`.
        walks: :math:`\omega`.
        seed: every source has its own stream, so the result does not depend on how sources are shared out.

    Returns:
        End nodes, ``int32 [sources, walks]``; any prefix of the columns is an independent sample too.

    Raises:
        ValueError: as :func:`ppr_exact`, and for fewer than one walk.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    g, alpha, seed = walk_graph(graph), _check_alpha(alpha), check_seed(seed)
    if walks < 1:
        raise ValueError(f"walks must be at least 1, got {walks}")
    sources = _check_sources(sources, g.num_nodes)
    out = np.empty((len(sources), walks), np.int32)
    _endpoints(g.indptr, g.indices, g.threshold, g.alias, g.weighted, sources, alpha, seed, out)
    return out


@njit(cache=True, nogil=True)
def _frequencies(endpoints, out):
    share = 1.0 / endpoints.shape[1]
    for i in range(endpoints.shape[0]):
        for k in range(endpoints.shape[1]):
            out[i, endpoints[i, k]] += share


def endpoint_frequencies(endpoints: Int[np.ndarray, "s walks"], n: int) -> Float[np.ndarray, "s n"]:
    r"""Share of a source's walks that end at each node, the Monte Carlo estimate of personalised PageRank.

    Args:
        endpoints: end nodes ``[sources, walks]``.
        n: number of nodes.

    Raises:
        ValueError: for an array that is not two-dimensional, is empty, or holds nodes outside 0..n-1.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    endpoints = np.asarray(endpoints)
    if endpoints.ndim != 2 or endpoints.size == 0:
        raise ValueError(f"endpoints must be a non-empty array [sources, walks], got {endpoints.shape}")
    if endpoints.min() < 0 or endpoints.max() >= n:
        raise ValueError(f"endpoints must lie in 0..{n - 1}, got {endpoints.min()}..{endpoints.max()}")
    out = np.zeros((len(endpoints), n))
    _frequencies(endpoints, out)
    return out


def expected_l2(exact: Float[np.ndarray, "s n"], walks: int) -> float:
    r"""Root mean squared L2 error of the estimate over sources, in closed form.

    .. math:: \Big( \frac1{|S|} \sum_{u \in S} \frac{1 - \lVert \pi_u \rVert_2^2}{\omega} \Big)^{1/2}

    Args:
        exact: rows of :math:`\Pi`.
        walks: :math:`\omega`.

    Source: ``lin2019fullppr`` (variance of its estimator).
    """
    return float(np.sqrt((1 - (np.asarray(exact) ** 2).sum(axis=1)).mean() / walks))


def expected_l1(exact: Float[np.ndarray, "s n"], walks: int) -> float:
    r"""Mean L1 error of the estimate over sources, in closed form: the mean absolute deviation of a binomial, summed.

    .. math::
        \sum_v \mathbb E \Big| \frac{X_v}{\omega} - \pi_v \Big|
        = \sum_v \frac{2\, m_v}{\omega} \binom{\omega}{m_v} \pi_v^{m_v} (1 - \pi_v)^{\omega - m_v + 1},
        \qquad m_v = \lfloor \omega \pi_v \rfloor + 1

    Args:
        exact: rows of :math:`\Pi`.
        walks: :math:`\omega`.

    Source: ``lin2019fullppr`` (error of its estimator; the identity is de Moivre's).
    """
    exact = np.asarray(exact)
    pi = exact[(exact > 0) & (exact < 1)]
    m = np.floor(walks * pi) + 1
    log = gammaln(walks + 1) - gammaln(m + 1) - gammaln(walks - m + 1)
    log += m * np.log(pi) + (walks - m + 1) * np.log1p(-pi)
    return float((2 * m / walks * np.exp(log)).sum() / len(exact))


def walk_lengths(count: int, *, alpha: float = 0.2, seed: int = 0) -> Int[np.ndarray, " count"]:
    r"""Numbers of moves before stopping, :math:`\Pr(L = l) = \alpha (1 - \alpha)^l`.

    Args:
        count: how many.
        alpha: stopping probability.
        seed: random seed.

    Raises:
        ValueError: for a count below 1 or alpha outside (0, 1).

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return np.random.default_rng(check_seed(seed)).geometric(_check_alpha(alpha), size=count) - 1


class BigMoves(NamedTuple):
    """Walks that jump over small nodes by precomputed pieces.

    Attributes:
        endpoints: where each walk ended, ``int32 [walks]``.
        jumps: rounds in which each walk moved, ``int64 [walks]``; the number of rounds is their maximum, the number of
            messages their sum.
        from_large: share of the jumps that started at a large node.
    """

    endpoints: np.ndarray
    jumps: np.ndarray
    from_large: float


@njit(cache=True, nogil=True)
def _big_moves(indptr, indices, threshold, alias, weighted, starts, lengths, pieces, position, seed, ends, jumps):
    pool, eta = pieces.shape[1], pieces.shape[2] - 1
    cursor = np.zeros(pieces.shape[0], np.int64)
    large = 0
    for w in range(len(starts)):
        state = stream_state(seed, w)
        v = np.int64(starts[w])
        left = lengths[w]
        while left > 0 and indptr[v] < indptr[v + 1]:
            row = position[v]
            jumps[w] += 1
            if row < 0:
                state = advance(state)
                v = np.int64(indices[draw_neighbour(indptr, indices, threshold, alias, weighted, v, state)])
                left -= 1
                large += 1
                continue
            piece = pieces[row, cursor[row]]
            cursor[row] = (cursor[row] + 1) % pool
            step = 0
            # A walk that is to stop inside the piece uses its beginning only.
            while step < eta and left > 0 and piece[step + 1] >= 0:
                step += 1
                left -= 1
                v = np.int64(piece[step])
        ends[w] = v
    return large


def big_moves(
    graph,
    *,
    starts: Int[np.ndarray, " w"],
    lengths: Int[np.ndarray, " w"],
    eta: int,
    pool: int,
    large: Bool[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> BigMoves:
    r"""Walks of given lengths that leave small nodes by precomputed pieces of :math:`\eta` steps.

    Every small node owns a pool of pieces, drawn without stopping and handed out in turn; a piece is used again only
    when the pool is exhausted, which correlates the walks that share it. Large nodes move one step at a time. With
    every node small and no dead end the number of rounds is :math:`\lceil \max_w L_w / \eta \rceil` exactly.

    Args:
        graph: anything that :func:`netatlas.embeddings.walks.walk_graph` reads.
        starts: root of every walk.
        lengths: moves of every walk, see :func:`walk_lengths`.
        eta: steps of a piece, at least 1.
        pool: pieces of every small node, at least 1.
        large: mask of the nodes that have no pieces; none by default.
        seed: random seed.

    Returns:
        :class:`BigMoves`.

    Raises:
        ValueError: for a bad graph, starts and lengths of different size, negative lengths, eta or pool below 1, a mask
            of the wrong size.

    Source: ``lin2019fullppr`` (big moves on small nodes).
    """
    g, seed = walk_graph(graph), check_seed(seed)
    n = g.num_nodes
    starts, lengths = _check_sources(starts, n), np.asarray(lengths)
    if lengths.shape != starts.shape or lengths.min() < 0:
        raise ValueError(f"expected one length >= 0 a start, got shapes {starts.shape} and {lengths.shape}")
    if eta < 1 or pool < 1:
        raise ValueError(f"eta and pool must be at least 1, got {eta} and {pool}")
    large = np.zeros(n, bool) if large is None else np.asarray(large, dtype=bool)
    if large.shape != (n,):
        raise ValueError(f"large must be a mask of {n} nodes, got shape {large.shape}")
    small = np.flatnonzero(~large)
    position = np.full(n, -1, np.int64)
    position[small] = np.arange(len(small))
    pieces = np.empty((0, pool, eta + 1), np.int32)
    if len(small):
        roots = np.repeat(small, pool)
        pieces = uniform_walks(g, starts=roots, length=eta + 1, seed=seed + 1).reshape(len(small), pool, eta + 1)
    ends, jumps = np.empty(len(starts), np.int32), np.zeros(len(starts), np.int64)
    count = _big_moves(
        g.indptr, g.indices, g.threshold, g.alias, g.weighted, starts, lengths.astype(np.int64), pieces, position,
        seed, ends, jumps,
    )  # fmt: skip
    return BigMoves(ends, jumps, float(count / max(jumps.sum(), 1)))


class Schedule(NamedTuple):
    """How a number of walks was fitted into rounds.

    Attributes:
        rounds: number of rounds.
        live: walks in flight in every round, ``int64 [rounds]``.
    """

    rounds: int
    live: np.ndarray


@njit(cache=True)
def _schedule(durations, cap, chunk, mode):
    walks = len(durations)
    longest = 0
    for d in durations:
        longest = max(longest, d)
    ending = np.zeros((walks // chunk + 2) * (longest + 1) + 1, np.int64)
    live = np.zeros(len(ending), np.int64)
    started = 0
    now = 0
    alive = 0
    while started < walks or alive > 0:
        room = cap - alive
        if mode == 0 and alive > 0:
            room = 0
        most = chunk if mode == 1 else walks
        begin = min(walks - started, most)
        begin = (begin if begin <= room else 0) if mode == 1 else min(begin, room)
        for w in range(started, started + begin):
            ending[now + durations[w]] += 1
        started += begin
        alive += begin
        live[now] = alive
        now += 1
        alive -= ending[now]
    return now, live


def schedule(
    durations: Int[np.ndarray, " w"],
    *,
    cap: int,
    policy: Literal["sequential", "pipelined", "filled"] = "filled",
    chunk: int | None = None,
) -> Schedule:
    r"""Rounds needed for all walks when at most a fixed number may be in flight.

    ``sequential`` starts a batch of ``cap`` walks when the last one is finished; ``pipelined`` starts at most one
    pipeline of ``chunk`` walks a round, if it fits; ``filled`` starts as many walks as fit. Expected rounds for W
    walks of geometric duration and cap M:

    .. math::
        \frac{W}{M} \frac{H_M}{\lambda} \text{ (sequential)}, \qquad
        \frac{W}{\alpha M} + \frac{H_M}{\lambda} \text{ (filled)},
        \qquad \lambda = \ln \frac{1}{1 - \alpha},\quad H_M = \sum_{i=1}^{M} \frac1i

    Args:
        durations: rounds that each walk lives, at least 1; they start in this order.
        cap: M.
        policy: one of the three.
        chunk: walks in a pipeline (``pipelined`` only), at most ``cap``.

    Raises:
        ValueError: for durations below 1, a cap below 1, an unknown policy, a chunk outside 1..cap.

    Source: ``lin2019fullppr`` (parallel pipeline).
    """
    durations = np.asarray(durations)
    if durations.ndim != 1 or durations.size == 0 or durations.min() < 1:
        raise ValueError("durations must be a non-empty vector of numbers of at least 1")
    if cap < 1:
        raise ValueError(f"cap must be at least 1, got {cap}")
    if policy not in ("sequential", "pipelined", "filled"):
        raise ValueError(f"policy must be 'sequential', 'pipelined' or 'filled', got {policy!r}")
    if policy == "pipelined" and (chunk is None or not 1 <= chunk <= cap):
        raise ValueError(f"a pipeline needs a chunk of 1..{cap} walks, got {chunk}")
    mode = {"sequential": 0, "pipelined": 1, "filled": 2}[policy]
    rounds, live = _schedule(durations.astype(np.int64), cap, chunk if mode == 1 else cap, mode)
    return Schedule(int(rounds), live[:rounds].copy())


def expected_rounds(walks: int, *, cap: int, alpha: float, policy: Literal["sequential", "filled"]) -> float:
    """Closed form of the rounds of :func:`schedule` for geometric durations.

    Args:
        walks: number of walks W.
        cap: largest number in flight M.
        alpha: stopping probability.
        policy: ``"sequential"`` or ``"filled"``.

    Raises:
        ValueError: for an unknown policy or alpha outside (0, 1).

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    longest = float(digamma(cap + 1) + np.euler_gamma) / -np.log1p(-_check_alpha(alpha))
    if policy == "sequential":
        return walks / cap * longest
    if policy == "filled":
        return walks / (alpha * cap) + longest
    raise ValueError(f"policy must be 'sequential' or 'filled', got {policy!r}")


@njit(cache=True, nogil=True)
def _round(keys, n, indptr, indices, threshold, alias, weighted, alpha, workers, state, outbox, counts):
    """Advance a worker's walks by one round; the keys of those that end move to the front, and their number returns."""
    s = state[0]
    ended = 0
    counts[:] = 0
    for k in range(len(keys)):
        key = keys[k]
        v = key % n
        s = advance(s)
        if unit(s) < alpha or indptr[v] == indptr[v + 1]:
            keys[ended] = key
            ended += 1
            continue
        s = advance(s)
        x = np.int64(indices[draw_neighbour(indptr, indices, threshold, alias, weighted, v, s)])
        owner = x % workers
        outbox[owner, counts[owner]] = key - v + x
        counts[owner] += 1
    state[0] = s
    return ended


class WorkerRun(NamedTuple):
    """Result of :func:`run_workers`.

    Attributes:
        frequencies: estimate of personalised PageRank ``[n, n]``.
        rounds: communication rounds.
        peak: largest number of walks in flight.
        seconds: wall time from the first round to the last.
    """

    frequencies: np.ndarray
    rounds: int
    peak: int
    seconds: float


def _worker(rank, workers, links, result, graph, walks, alpha, cap, pipelined, seed):
    g, n = graph, graph.num_nodes
    own = np.arange(rank, n, workers, dtype=np.int64)
    # Walk k of this worker starts at own[k % len(own)]: every round's new walks are spread over the sources.
    started = 0
    state = np.array([stream_state(seed, rank)], np.uint64)
    live = np.empty(0, np.int64)
    finished = []
    outbox, counts = np.empty((workers, cap + workers), np.int64), np.zeros(workers, np.int64)
    left = [len(range(r, n, workers)) * walks for r in range(workers)]
    alive, rounds, peak = 0, 0, 0
    clock = time.perf_counter()
    while True:
        room = cap - alive if (pipelined or alive == 0) else 0
        # Shares are computed alike everywhere, so no coordinator is needed and the cap holds exactly.
        share = [room // workers + (r < room % workers) for r in range(workers)]
        fresh = [min(share[r], left[r]) for r in range(workers)]
        left = [left[r] - fresh[r] for r in range(workers)]
        alive += sum(fresh)
        peak = max(peak, alive)
        new = own[(started + np.arange(fresh[rank])) % len(own)]
        started += fresh[rank]
        live = np.concatenate([live, new * n + new])
        ended = _round(
            live, n, g.indptr, g.indices, g.threshold, g.alias, g.weighted, alpha, workers, state, outbox, counts
        )
        finished.append(live[:ended].copy())
        mine = int(counts.sum())
        parts, alive = [outbox[rank, : counts[rank]].copy()], mine
        for peer in range(workers):
            if peer == rank:
                continue
            message = np.concatenate([[mine], outbox[peer, : counts[peer]]])
            # Of each pair the lower rank sends first: two full pipes can then not wait for each other.
            if rank < peer:
                links[peer].send_bytes(message.tobytes())
            received = np.frombuffer(links[peer].recv_bytes(), np.int64)
            if rank > peer:
                links[peer].send_bytes(message.tobytes())
            alive += int(received[0])
            parts.append(received[1:])
        live = np.concatenate(parts)
        rounds += 1
        if alive == 0 and not any(left):
            break
    seconds = time.perf_counter() - clock
    result.send((np.concatenate(finished), rounds, peak, seconds))


def run_workers(
    graph,
    *,
    walks: int,
    cap: int,
    pipelined: bool,
    alpha: float = 0.2,
    workers: int = 2,
    seed: int = 0,
) -> WorkerRun:
    r"""Fully personalised PageRank by worker processes that own the nodes and pass walks to each other, round by round.

    Node v belongs to worker :math:`v \bmod W`. In a round every worker starts new walks if the policy lets it, moves
    each of its walks by one step or ends it, and exchanges with every other worker the walks that changed hands. At
    most ``cap`` walks are in flight over all workers.

    Args:
        graph: anything that :func:`netatlas.embeddings.walks.walk_graph` reads.
        walks: walks from every node.
        cap: largest number of walks in flight, at least the number of workers.
        pipelined: refill whenever walks have ended; otherwise wait until all have.
        alpha: stopping probability.
        workers: number of processes, at least 1.
        seed: every worker has its own stream; the estimate is a function of seed, cap, policy and number of workers.

    Returns:
        :class:`WorkerRun`.

    Raises:
        ValueError: for a bad graph, fewer than one walk or worker, more workers than nodes, or a cap below the workers.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    g, alpha, seed = walk_graph(graph), _check_alpha(alpha), check_seed(seed)
    if walks < 1 or not 1 <= workers <= g.num_nodes:
        raise ValueError(f"expected walks >= 1 and 1..{g.num_nodes} workers, got {walks} and {workers}")
    if cap < workers:
        raise ValueError(f"cap must be at least the {workers} workers, got {cap}")
    # The parent compiles, so that the forked children find the code in memory.
    _round(
        np.zeros(0, np.int64), g.num_nodes, g.indptr, g.indices, g.threshold, g.alias, g.weighted, alpha, workers,
        np.ones(1, np.uint64), np.zeros((workers, 1), np.int64), np.zeros(workers, np.int64),
    )  # fmt: skip
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    links = [[None] * workers for _ in range(workers)]
    for i in range(workers):
        for j in range(i + 1, workers):
            links[i][j], links[j][i] = context.Pipe()
    results = [context.Pipe(duplex=False) for _ in range(workers)]
    jobs = [
        context.Process(
            target=_worker,
            args=(r, workers, links[r], results[r][1], g, walks, alpha, cap, pipelined, seed),
            daemon=True,
        )
        for r in range(workers)
    ]
    with warnings.catch_warnings():
        # Forking a threaded parent is safe here: the children use neither its threads nor its locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        for job in jobs:
            job.start()
    for _, sender in results:
        sender.close()
    try:
        answers = [receiver.recv() for receiver, _ in results]
    except EOFError as error:
        raise RuntimeError("a worker process ended without a result") from error
    finally:
        for job in jobs:
            job.join(timeout=5)
    keys = np.concatenate([answer[0] for answer in answers])
    n = g.num_nodes
    frequencies = np.bincount(keys, minlength=n * n).reshape(n, n) / walks
    return WorkerRun(frequencies, answers[0][1], answers[0][2], max(answer[3] for answer in answers))


@njit(cache=True)
def _draw_alias(threshold, alias, out, state):
    s = state[0]
    for i in range(len(out)):
        s = advance(s)
        cell = below(s, len(threshold))
        out[i] = cell if low_unit(s) < threshold[cell] else np.int64(alias[cell])
    state[0] = s


@njit(cache=True)
def _draw_binary(cumulative, out, state):
    total = cumulative[-1]
    s = state[0]
    for i in range(len(out)):
        s = advance(s)
        x = unit(s) * total
        low, high = 0, len(cumulative) - 1
        while low < high:
            middle = (low + high) >> 1
            if cumulative[middle] <= x:
                low = middle + 1
            else:
                high = middle
        out[i] = low
    state[0] = s


@njit(cache=True)
def _draw_linear(weights, total, out, state):
    s = state[0]
    for i in range(len(out)):
        s = advance(s)
        x = unit(s) * total
        k = 0
        while k < len(weights) - 1 and x >= weights[k]:
            x -= weights[k]
            k += 1
        out[i] = k
    state[0] = s


def draw_weighted(
    weights: Float[np.ndarray, " k"],
    count: int,
    *,
    method: Literal["alias", "binary", "linear"] = "alias",
    repeats: int = 1,
    seed: int = 0,
) -> tuple[Int[np.ndarray, " count"], Float[np.ndarray, " repeats"]]:
    r"""Draw neighbours of one node by weight, and time it: alias table, binary search of cumulative sums, or a scan.

    Cost of a draw for k neighbours: :math:`O(1)`, :math:`O(\log k)`, :math:`O(k)`. Building the table is not timed.

    Args:
        weights: non-negative, not all zero, ``[k]``.
        count: number of draws.
        method: one of the three.
        repeats: timed repetitions; the draws of the last are returned.
        seed: random seed.

    Returns:
        Indices ``[count]`` and seconds of every repetition.

    Raises:
        ValueError: for bad weights, a count or repeats below 1, an unknown method.

    Source: ``lin2019fullppr`` (alias structures at large nodes).
    """
    if method not in ("alias", "binary", "linear"):
        raise ValueError(f"method must be 'alias', 'binary' or 'linear', got {method!r}")
    if count < 1 or repeats < 1:
        raise ValueError(f"count and repeats must be at least 1, got {count} and {repeats}")
    threshold, alias = alias_table(weights)
    weights = np.asarray(weights, dtype=np.float64)
    out = np.empty(count, np.int64)
    state = np.array([stream_state(check_seed(seed), 0)], np.uint64)
    cumulative, total = np.cumsum(weights), float(weights.sum())
    run = {
        "alias": lambda target, s: _draw_alias(threshold, alias, target, s),
        "binary": lambda target, s: _draw_binary(cumulative, target, s),
        "linear": lambda target, s: _draw_linear(weights, total, target, s),
    }[method]
    run(out[:1], state)
    seconds = []
    for _ in range(repeats):
        clock = time.perf_counter()
        run(out, state)
        seconds.append(time.perf_counter() - clock)
    return out, np.array(seconds)
