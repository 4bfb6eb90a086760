"""The peers' side: functions that prepare their input, time the work alone, and return seconds and result.

Runs in the peers' environment and answers one JSON line for one JSON line; arguments and results travel as files.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

# After the variables above: NumPy's libraries read them once, when loaded.
import numpy as np


def timed(call):
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def version(package):
    """The installed version of a package."""
    return 0.0, metadata.version(package)


@contextlib.contextmanager
def _quiet():
    """Nothing that compiled code prints is shown."""
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


@functools.lru_cache(maxsize=4)
def _pecanpy(indptr, indices, p, q, precompute):
    """A compiled walker: PecanPy compiles anew for every object, so that each is kept."""
    from pecanpy import pecanpy

    indptr, indices = np.frombuffer(indptr, np.uint32), np.frombuffer(indices, np.uint32)
    graph = (pecanpy.PreComp if precompute else pecanpy.SparseOTF)(p=p, q=q, workers=1, random_state=0)
    graph.set_node_ids([str(v) for v in range(len(indptr) - 1)])
    graph.indptr, graph.indices, graph.data = indptr, indices, np.ones(len(indices), np.float32)
    if precompute:
        graph.preprocess_transition_probs()
    move, has_neighbours = graph.get_move_forward(), graph.get_has_nbrs()

    def walk(starts, length):
        with pecanpy.ProgressBar(total=len(starts), disable=True) as progress:
            return graph._random_walks(len(starts), length - 1, 0, starts, has_neighbours, move, progress)

    walk(np.zeros(1, np.uint32), 3)
    return graph, walk


def pecanpy_walks(indptr, indices, p, q, starts, length, precompute, tables):
    """Second-order walks by PecanPy, compiled before, node names not looked up; its tables timed too if asked."""
    graph, walk = _pecanpy(indptr.astype(np.uint32).tobytes(), indices.astype(np.uint32).tobytes(), p, q, precompute)
    starts = starts.astype(np.uint32)
    building = timed(graph.preprocess_transition_probs)[0] if tables else 0.0
    seconds, walks = timed(lambda: walk(starts, length))
    return building + seconds, walks[:, :length].astype(np.int32)


def gensim_skip_gram(walks, num_nodes, dimension, window, negatives, learning_rate, seed):
    """One epoch of gensim's skip-gram on given walks; the vocabulary is built before."""
    from gensim.models import Word2Vec

    sentences = [[str(v) for v in walk] for walk in walks]
    model = Word2Vec(
        vector_size=dimension, window=window, sg=1, hs=0, negative=negatives, min_count=0, sample=0, workers=1,
        alpha=learning_rate, seed=seed,
    )  # fmt: skip
    model.build_vocab(sentences)
    seconds, _ = timed(lambda: model.train(sentences, total_examples=len(sentences), epochs=1))
    return seconds, np.stack([model.wv[str(v)] for v in range(num_nodes)])


def orca_counts(edges, num_nodes):
    """Orbit counts by a Python translation of ORCA."""
    import orca

    return timed(lambda: orca.orca_nodes(edges, num_nodes=num_nodes, graphlet_size=4))


def gradco_orbits(rows, columns, num_nodes):
    """All orbit adjacencies by GRADCO as sparse matrices; returns the row sums of each."""
    import gradco
    from scipy.sparse import csr_array

    adjacency = csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(num_nodes, num_nodes))
    keys = [
        (1, 1, 2), (1, 3, 3), (1, 4, 5), (1, 5, 5), (1, 6, 7), (1, 8, 8), (1, 9, 11), (1, 10, 10), (1, 10, 11),
        (1, 12, 13), (1, 13, 13), (1, 14, 14), (2, 1, 1), (2, 4, 5), (2, 6, 6), (2, 8, 8), (2, 9, 10), (2, 12, 12),
        (3, 4, 4),
    ]  # fmt: skip

    def run():
        counter = gradco.Counter(adjacency)
        counter.count()
        return {key: counter.get_orbit_adjacency(*key) for key in keys}

    with _quiet():
        seconds, found = timed(run)
    return seconds, {key: np.asarray(matrix.sum(1)).ravel() for key, matrix in found.items()}


def scikit_network_pagerank(indptr, indices, damping, tolerance):
    """Personalised PageRank from every node by scikit-network's power iteration."""
    from scipy.sparse import csr_matrix
    from sknetwork.ranking import PageRank

    n = len(indptr) - 1
    adjacency = csr_matrix((np.ones(len(indices)), indices, indptr), shape=(n, n))
    rank = PageRank(damping_factor=damping, solver="piteration", n_iter=1000, tol=tolerance)
    return timed(lambda: np.stack([rank.fit_predict(adjacency, weights={v: 1}) for v in range(n)]))


def igraph_pagerank(edges, num_nodes, damping):
    """Personalised PageRank from every node by igraph (PRPACK, to machine precision)."""
    import igraph

    graph = igraph.Graph(n=num_nodes, edges=edges.tolist())
    return timed(
        lambda: np.array([graph.personalized_pagerank(damping=damping, reset_vertices=[v]) for v in range(num_nodes)])
    )


@functools.lru_cache(maxsize=1)
def _jax():
    """JAX with float64 and one thread: its own flags, and one processor for whatever they miss."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    return jax


@functools.lru_cache(maxsize=4)
def _nt_kernel(kind, depth, get):
    """A compiled kernel function of neural-tangents."""
    jax = _jax()
    from neural_tangents import stax

    if kind == "dense":
        layers = [layer for _ in range(depth) for layer in (stax.Dense(1, 2**0.5, 0.1), stax.Relu())]
    else:
        conv = functools.partial(stax.Conv, 1, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.1)
        layers = [layer for _ in range(depth) for layer in (conv(), stax.Relu())] + [stax.GlobalAvgPool()]
    kernel = stax.serial(*layers, stax.Dense(1, 1.0, 0.1))[2]
    return jax.jit(lambda x, y: kernel(x, y, get))


def nt_kernel(kind, depth, x, y, get, rows):
    """Kernels by neural-tangents, compiled before; images channels first, ``rows`` of ``x`` at once for memory."""
    jax = _jax()
    if x.ndim == 4:
        x, y = x.transpose(0, 2, 3, 1), None if y is None else y.transpose(0, 2, 3, 1)
    function = _nt_kernel(kind, depth, tuple(get))
    if rows is None:
        parts = [(jax.device_put(x), None if y is None else jax.device_put(y))]
    else:
        other = jax.device_put(x if y is None else y)
        parts = [(jax.device_put(x[i : i + rows]), other) for i in range(0, len(x), rows)]
    jax.block_until_ready(function(*parts[0]))

    def run():
        return [jax.block_until_ready(function(*part)) for part in parts]

    seconds, found = timed(run)
    return seconds, [np.concatenate([np.asarray(part[i]) for part in found]) for i in range(len(get))]


@functools.lru_cache(maxsize=8)
def _nt_empirical(widths, implementation, trace):
    jax = _jax()
    import neural_tangents as nt
    from jax._src.interpreters import ad
    from neural_tangents import stax

    # Its structured derivatives look for private names where JAX 0.4.30 no longer shows them.
    for name, value in vars(ad).items():
        if name not in vars(jax.interpreters.ad):
            setattr(jax.interpreters.ad, name, value)
    jax.interpreters.ad.config = jax.config
    layers = [layer for width in widths[:-1] for layer in (stax.Dense(width, 2**0.5), stax.Relu())]
    apply = stax.serial(*layers, stax.Dense(widths[-1], 2**0.5))[1]
    choice = nt.NtkImplementation(implementation)
    axes = (-1,) if trace else ()
    return jax.jit(
        lambda x, params: nt.empirical_ntk_fn(apply, trace_axes=axes, vmap_axes=0, implementation=choice)(
            x, None, params
        )
    )


def nt_empirical(widths, weights, x, implementation, trace):
    """Empirical NTK of a dense ReLU network by neural-tangents, compiled before; weights ``[out, in]``, no biases."""
    jax = _jax()
    function = _nt_empirical(tuple(widths), implementation, trace)
    params = []
    for weight in weights:
        params += [(jax.device_put(weight.T), None), ()]
    params = params[:-1]
    points = jax.device_put(x)
    jax.block_until_ready(function(points, params))
    seconds, found = timed(lambda: jax.block_until_ready(function(points, params)))
    return seconds, np.asarray(found)


if __name__ == "__main__":
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            arguments = pickle.loads(Path(request["given"]).read_bytes())
            outcome = globals()[request["name"]](**arguments)
            Path(request["got"]).write_bytes(pickle.dumps(outcome))
            answer = {"ok": True}
        except Exception:
            answer = {"error": traceback.format_exc(limit=4)}
        print(json.dumps(answer), file=answers, flush=True)
