"""Parameterizations beside the mup package, and whole sweeps beside the loops that users write."""

from __future__ import annotations

import importlib.metadata
import sys
from functools import partial

import torch
from harness import ROOT, compare, timed
from torch import nn

from netatlas.core.nn import MLP
from netatlas.core.parameterization import Exponents, parameterize, width_exponent
from netatlas.core.train import batch_order, fit_many
from netatlas.parameterization import DepthScaledResidualMLP, NarrowNetwork, mean_field_rates, recurrent_kernel
from netatlas.parameterization.recurrent import recurrent_states

MUP = ROOT / ".bench-venv" / "mup"


def _data(count=1280, inputs=196):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, inputs, generator=generator), torch.randint(0, 10, (count,), generator=generator)


def _plain(build, x, y, seed, epochs, batch, make):
    """One run as a script would have it: an optimizer of torch.optim and a loop over batches."""
    torch.manual_seed(seed)
    model = build()
    optimizer = make(model)
    last = 0.0
    for order in batch_order(seed, len(x), epochs):
        for rows in order.split(batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            last = float(loss.detach())
    return last


def _close(a, b):
    torch.testing.assert_close(torch.as_tensor(a).float(), torch.as_tensor(b).float(), atol=2e-3, rtol=2e-2)


def _width_sweep():
    """Width x learning rate x seed, Adam with muP's rates."""
    x, y = _data()
    widths, rates, seeds = (16, 32, 64), [2.0**-k for k in range(12, 7, -1)], (0, 1, 2, 3)

    def build(width, scale):
        model = MLP([196, width, width, width, 10], bias=False)
        with torch.random.fork_rng(devices=[]):
            base = MLP([196, 16, 16, 16, 10], bias=False)
        scale.append(parameterize(model, base, "mup", optimizer="adam"))
        return model

    def ours():
        found = []
        for width in widths:
            scale = []
            with torch.random.fork_rng(devices=[]):
                build(width, scale)
            ensemble = fit_many(
                partial(build, width, scale), x, y, seeds=list(seeds) * len(rates), epochs=2, batch_size=64,
                optimizer="adam", lr=torch.tensor(rates).repeat_interleave(len(seeds)), lr_scale=scale[0].lr_scale,
            )  # fmt: skip
            found += ensemble.trace[-1].tolist()
        return found

    def theirs():
        found = []
        for width in widths:
            for rate in rates:
                for seed in seeds:
                    scale = []
                    make = lambda m, scale=scale, rate=rate: torch.optim.Adam(scale[0].groups(m, rate))  # noqa: E731
                    found.append(_plain(partial(build, width, scale), x, y, seed, 2, 64, make))
        return found

    work = "widths 16, 32, 64 x 5 rates x 4 seeds, 40 steps of 64"
    return compare(
        "fit_many",
        work,
        "loop of torch.optim.Adam",
        torch.__version__,
        lambda: timed(ours),
        lambda: timed(theirs),
        _close,
        3,
    )


def _layers(model, x):
    """Outputs of the linear layers."""
    found = []
    handles = [
        m.register_forward_hook(lambda _m, _i, out: found.append(out.detach()))
        for m in model.modules()
        if isinstance(m, nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def _depth_sweep():
    # At width 48 and batch 64 a step is nearly all arithmetic: stacking saves calls, and here there are few to save.
    x, y = _data(1600, 784)
    rates, seeds, depth, width = [2.0**k for k in range(-6, 0)], (0, 1, 2, 3), 16, 48
    build = partial(DepthScaledResidualMLP, 784, width, depth, 10)
    scale = mean_field_rates("sgd", width, depth)

    def ours():
        return fit_many(
            build, x, y, seeds=list(seeds) * len(rates), epochs=2, batch_size=64, lr_scale=scale,
            lr=torch.tensor(rates).repeat_interleave(len(seeds)),
        ).trace[-1].tolist()  # fmt: skip

    def theirs():
        return [
            _plain(build, x, y, seed, 2, 64, lambda m, rate=rate: torch.optim.SGD(m.parameters(), rate * width))
            for rate in rates
            for seed in seeds
        ]

    work = f"residual MLP, depth {depth}, width {width}: 6 rates x 4 seeds, 50 steps of 64"
    return compare(
        "fit_many",
        work,
        "loop of torch.optim.SGD",
        torch.__version__,
        lambda: timed(ours),
        lambda: timed(theirs),
        _close,
        3,
    )


def _restarts():
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-2, 2, 256)[:, None]
    y = torch.randn(256, 2, generator=generator)
    build = partial(NarrowNetwork, 1, 3, 2, 16)

    def ours():
        return fit_many(
            build, x, y, seeds=range(32), epochs=40, batch_size=256, loss="mse", optimizer="adam", lr=3e-3
        ).trace[-1].tolist()  # fmt: skip

    def theirs():
        found = []
        for seed in range(32):
            torch.manual_seed(seed)
            model = build()
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for _ in range(40):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x), y)
                loss.backward()
                optimizer.step()
            found.append(float(loss.detach()))
        return found

    return compare(
        "fit_many", "leaky ReLU, width 3, depth 16: 32 restarts, 40 steps of 256", "loop of torch.optim.Adam",
        torch.__version__, lambda: timed(ours), lambda: timed(theirs), _close, 3,
    )  # fmt: skip


def _kernel():
    torch.manual_seed(0)
    n, b, c, steps = 100, 16, 3, 8
    params = {"W": torch.randn(1, n, n) / n**0.5, "W_in": torch.randn(1, n, 3), "V": torch.randn(1, c, n) / n**0.5}
    x = torch.randn(steps, b, 3)

    def loop():
        """One backward call for every sample and output."""
        w = params["W"].clone().requires_grad_()
        out = torch.einsum("mbn,mcn->mbc", recurrent_states(params | {"W": w}, x)[:, -1], params["V"]).flatten()
        rows = [torch.autograd.grad(o, w, retain_graph=True)[0].flatten() for o in out]
        jacobian = torch.stack(rows)
        return jacobian @ jacobian.T

    def agree(a, b):
        torch.testing.assert_close(a[0], b, rtol=1e-3, atol=1e-2)

    return compare(
        "recurrent_kernel", f"{n} neurons, {steps} steps, {b} trials x {c} outputs", "loop of torch.autograd.grad",
        torch.__version__, lambda: timed(lambda: recurrent_kernel(params, x)), lambda: timed(loop), agree, 7,
    )  # fmt: skip


def _mup():
    """The package's shapes, initial rescaling and optimizer beside ours: equal slopes and losses, then times."""
    if not MUP.exists():
        print(f"bench_parameterization: no mup package under {MUP}, its row is skipped")
        return []
    sys.path.append(str(MUP))
    try:
        import mup
    except ImportError as problem:
        print(f"bench_parameterization: mup does not import ({problem}), its row is skipped")
        return []
    x, y = _data()
    rates, seeds, width, base = [2.0**-k for k in range(12, 7, -1)], (0, 1, 2, 3), 64, 16

    class Net(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.one, self.two = nn.Linear(196, n, bias=False), nn.Linear(n, n, bias=False)
            self.out = mup.MuReadout(n, 10, bias=False)

        def forward(self, x):
            return self.out(self.two(self.one(x).relu()).relu())

    def package(width=width):
        model = Net(width)
        with torch.random.fork_rng(devices=[]):
            small, large = Net(base), Net(2 * base)
        mup.set_base_shapes(model, small, delta=large)
        return model

    def build(scale, width=width):
        # The package's muP for Adam: the readout's multiplier 1/n on weights of the base's size, its rate as it is.
        model = MLP([196, width, width, 10], bias=False)
        with torch.random.fork_rng(devices=[]):
            small = MLP([196, base, base, 10], bias=False)
        rule = {"embedding": (0.0, 0.0, 0.0), "hidden": (0.0, 0.5, 1.0), "readout": (1.0, 0.0, 0.0)}
        scale.append(parameterize(model, small, {k: Exponents(*v) for k, v in rule.items()}))
        return model

    def ours():
        scale = []
        with torch.random.fork_rng(devices=[]):
            build(scale)
        return fit_many(
            partial(build, scale), x, y, seeds=list(seeds) * len(rates), epochs=2, batch_size=64, optimizer="adam",
            lr=torch.tensor(rates).repeat_interleave(len(seeds)), lr_scale=scale[0].lr_scale,
        ).trace[-1].tolist()  # fmt: skip

    def theirs():
        return [
            _plain(package, x, y, seed, 2, 64, lambda m, rate=rate: mup.MuAdam(m.parameters(), lr=rate))
            for rate in rates
            for seed in seeds
        ]

    widths = (32, 64, 128)

    def coordinates(models):
        """Root mean square of each layer's change after five steps, by width and seed: the coordinate check."""
        table = []
        for model, optimizer in models:
            before = _layers(model, x[:64])
            for _ in range(5):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[:64]), y[:64]).backward()
                optimizer.step()
            after = _layers(model, x[:64])
            table.append([float((a - b).square().mean().sqrt()) for a, b in zip(after, before)])
        return torch.tensor(table).reshape(len(widths), len(seeds), 3)

    def runs(make):
        for width in widths:
            for seed in seeds:
                torch.manual_seed(seed)
                yield make(width)

    def own(width):
        scale = []
        model = build(scale, width)
        return model, torch.optim.Adam(scale[0].groups(model, 2.0**-9))

    def peers(width):
        model = package(width)
        return model, mup.MuAdam(model.parameters(), lr=2.0**-9)

    slopes = [
        [width_exponent(widths, table[..., i]) for i in range(3)]
        for table in map(coordinates, (runs(own), runs(peers)))
    ]
    text = [", ".join(f"{v.mean:+.2f} ± {v.half_width:.2f}" for v in side) for side in slopes]
    print(f"coordinate check, slopes of embedding, hidden, readout over widths {widths}: ours {text[0]}; mup {text[1]}")
    for a, b in zip(*slopes):
        if abs(a.mean - b.mean) > 0.02:
            raise AssertionError(f"coordinate-check slopes differ: {a.mean:.3f} and {b.mean:.3f}")

    version = importlib.metadata.version("mup") if mup.__file__ else "unknown"
    work = "muP, width 64 over base 16, 5 rates x 4 seeds, 40 steps: equal slopes and losses"
    return [
        compare(
            "parameterize, fit_many",
            work,
            "mup, MuAdam",
            version,
            lambda: timed(ours),
            lambda: timed(theirs),
            _close,
            3,
        )
    ]


def rows(_):
    """Comparisons of this file."""
    return [_width_sweep(), _depth_sweep(), _restarts(), _kernel(), *_mup()]
