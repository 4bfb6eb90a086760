"""Curvature beside PyHessian on a ResNet, exact Hessians beside autograd's, Fastfood beside dense projections."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import sys

import numpy as np
import scipy
import scipy.linalg
import torch
from harness import ROOT, compare, timed
from torch import nn
from torch.func import functional_call

from netatlas.core.curvature import (
    extreme_eigenvalues,
    flatten_params,
    hessian_operator,
    hutch_plus_plus,
    hutchinson,
    stochastic_lanczos_quadrature,
    unflatten_params,
)
from netatlas.core.nn import MLP, ResNet
from netatlas.landscapes import dense_projection, fastfood_projection, matrix_projection, two_layer_hessian

PYHESSIAN = ROOT / ".bench-venv" / "landscapes"


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _resnet():
    """A ResNet without normalisation, trained for a moment, its data, and its loss as a function."""
    torch.manual_seed(0)
    model = ResNet(8, 1, 10, norm="none").eval()
    x, y = torch.randn(16, 3, 16, 16), torch.arange(16) % 10
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    params = {k: v.detach() for k, v in model.named_parameters()}
    return model, params, x, y, lambda p: nn.functional.cross_entropy(functional_call(model, p, (x,)), y)


def _pyhessian():
    """Eigenvalues, trace and density of one network by both."""
    if not PYHESSIAN.exists():
        print(f"bench_landscapes: no pyhessian package under {PYHESSIAN}, its rows are skipped")
        return []
    sys.path.append(str(PYHESSIAN))
    try:
        from pyhessian import hessian
    except ImportError as problem:
        print(f"bench_landscapes: pyhessian does not import ({problem}), its rows are skipped")
        return []
    model, params, x, y, loss = _resnet()
    version = importlib.metadata.version("pyhessian")
    size = sum(p.numel() for p in params.values())

    def peer():
        model.zero_grad()
        return hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)

    def quiet(call):
        with contextlib.redirect_stdout(io.StringIO()):
            return call()

    def tops():
        ends = extreme_eigenvalues(hessian_operator(loss, params), 3, steps=30)
        return sorted([*ends.largest.tolist(), *ends.smallest.tolist()], key=abs, reverse=True)[:3]

    def their_tops():
        return peer().eigenvalues(maxIter=200, tol=1e-4, top_n=3)[0]

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-2)

    exact = hutchinson(hessian_operator(loss, params), probes=2000, generator=_generator(9))
    scale = float(exact.mean)

    # Both sides stop at one standard error of 2 %: ours chooses its products, the peer one probe after the other.
    spread = float(exact.stderr) * 2000**0.5
    needed = int((spread / (0.02 * scale)) ** 2)

    def trace():
        return float(hutch_plus_plus(hessian_operator(loss, params), products=90, generator=_generator()).mean)

    def their_trace():
        torch.manual_seed(0)
        return float(np.mean(peer().trace(maxIter=needed, tol=0)))

    def near(a, b):
        np.testing.assert_allclose([a, b], scale, rtol=0.1)

    def density():
        q = stochastic_lanczos_quadrature(hessian_operator(loss, params), probes=4, steps=40, generator=_generator())
        return q.nodes.double().numpy(), q.weights.double().numpy()

    def old_eig(matrix, eigenvectors):
        values, vectors = torch.linalg.eig(matrix)
        return torch.view_as_real(values), vectors.real

    def their_density():
        torch.manual_seed(0)
        # The package calls a function that torch has removed; its own two lines are given back, nothing else.
        torch.eig = old_eig
        nodes, weights = peer().density(iter=40, n_v=4)
        return np.array(nodes), np.array(weights)

    def same_density(a, b):
        """Ends of the spectrum and its second moment over D, to the probes' noise."""
        for _, weights in (a, b):
            np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-3)
        np.testing.assert_allclose(a[0].max(), b[0].max(), rtol=1e-2)
        moments = [(w * t**2).sum(1).mean() for t, w in (a, b)]
        np.testing.assert_allclose(*moments, rtol=0.5)

    name = f"ResNet of {size} parameters, 16 images of 16 x 16"
    args = ("PyHessian", version)
    quiet(their_tops)
    return [
        compare(
            "extreme_eigenvalues", f"{name}: three eigenvalues of largest modulus, to 1 %", *args,
            lambda: timed(tops), lambda: timed(lambda: quiet(their_tops)), close, 5,
        ),
        compare(
            "hutch_plus_plus", f"{name}: trace to a standard error of 2 % (90 and {needed} products)", *args,
            lambda: timed(trace), lambda: timed(lambda: quiet(their_trace)), near, 5,
        ),
        compare(
            "stochastic_lanczos_quadrature", f"{name}: density, 4 probes of 40 steps", *args,
            lambda: timed(density), lambda: timed(lambda: quiet(their_density)), same_density, 5,
        ),
    ]  # fmt: skip


def _exact():
    torch.manual_seed(0)
    module = MLP([16, 24, 4]).double()
    params = {k: v.detach() for k, v in module.named_parameters()}
    x, y = torch.randn(500, 16, dtype=torch.float64), torch.arange(500) % 4
    flat = flatten_params(params)

    def ours():
        return sum(two_layer_hessian(params, x, y))

    def theirs():
        return torch.autograd.functional.hessian(
            lambda f: nn.functional.cross_entropy(functional_call(module, unflatten_params(f, params), (x,)), y),
            flat,
            vectorize=True,
        )

    def agree(a, b):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)

    return compare(
        "two_layer_hessian", f"exact Hessian, {len(flat)} parameters, 500 examples", "torch.autograd hessian",
        torch.__version__, lambda: timed(ours), lambda: timed(theirs), agree, 5,
    )  # fmt: skip


def _fastfood():
    rows, columns = 2**16, 2**10
    fast = fastfood_projection(rows, columns, generator=_generator())
    v = torch.randn(columns, generator=_generator(1))
    # The same map as a matrix, so that both sides give the same numbers; and any dense matrix costs the same.
    matrix = fast(torch.eye(columns)).T.contiguous()
    plain, dense = matrix_projection(matrix), dense_projection(rows, columns, generator=_generator())
    lengths = dense.apply(torch.eye(columns)[:5]).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5))
    array, vector = matrix.numpy(), v.numpy()

    def blas():
        return scipy.linalg.blas.sgemv(1.0, array.T, vector, trans=1)

    def agree(a, b):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-3, atol=1e-4)

    return [
        compare(
            "fastfood_projection", "P v, D = 65536, d = 1024", "dense torch product", torch.__version__,
            lambda: timed(lambda: fast(v)), lambda: timed(lambda: plain(v)), agree, 15,
        ),
        compare(
            "fastfood_projection", "P v, D = 65536, d = 1024", "dense product, scipy's BLAS", scipy.__version__,
            lambda: timed(lambda: fast(v)), lambda: timed(blas),
            agree, 15,
        ),
    ]  # fmt: skip


def rows(_):
    """Comparisons of this file."""
    return [*_pyhessian(), _exact(), *_fastfood()]
