"""Low-rank kernels beside peft, bitsandbytes, torchao, scikit-learn and the loops that users write."""

from __future__ import annotations

import importlib.metadata
import sys

import torch
from harness import ROOT, compare, timed
from torch import nn

from netatlas.core.nn import MLP
from netatlas.low_rank import (
    NF4_LEVELS,
    LoRALinear,
    activation_gram,
    codes_of,
    dequantize,
    freeze,
    principal_directions,
    quantize,
    svd_truncation,
    truncate_energy,
)
from netatlas.low_rank import adapter_experiments as ax

PEERS = ROOT / ".bench-venv" / "low_rank"


def _peers():
    """Whether the peers' folder is there; it goes behind our own packages."""
    if not PEERS.exists():
        print(f"bench_low_rank: no peers under {PEERS}, their rows are skipped")
        return False
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    return True


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _close(a, b):
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-3)


def _lora():
    """One adapted layer, forward and backward, with the same factors in both."""
    from peft import LoraConfig, inject_adapter_in_model

    found = []
    for width, rank, rows in ((256, 8, 64), (1024, 8, 256), (2048, 16, 256)):
        torch.manual_seed(0)
        dense = nn.Linear(width, width)

        class Net(nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.layer = layer

            def forward(self, x):
                return self.layer(x)

        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["layer"], lora_dropout=0.0)
        copy = nn.Linear(width, width)
        copy.load_state_dict(dense.state_dict())
        peer = inject_adapter_in_model(config, Net(copy)).layer
        ours = LoRALinear(freeze(dense), rank, alpha=2 * rank)
        with torch.no_grad():
            nn.init.normal_(ours.B, std=0.1)
            peer.lora_A["default"].weight.copy_(ours.A)
            peer.lora_B["default"].weight.copy_(ours.B)
        x = torch.randn(rows, width)

        def step(layer, factors, x=x, width=width):
            for _ in range(max(1, 2**22 // width**2)):
                given = x.clone().requires_grad_()
                out = layer(given)
                grads = torch.autograd.grad(out.square().mean(), (*factors, given))
            return out.detach(), *grads

        own, theirs = (ours.A, ours.B), (peer.lora_A["default"].weight, peer.lora_B["default"].weight)
        found.append(
            compare(
                "LoRALinear",
                f"forward and backward, width {width}, rank {rank}, {rows} rows: equal results; both spend their "
                "time in the same dense product, so that ratios lie around 1",
                "peft LoRA layer",
                _version("peft"),
                lambda step=step, ours=ours, own=own: timed(lambda: step(ours, own)),
                lambda step=step, peer=peer, theirs=theirs: timed(lambda: step(peer, theirs)),
                _close,
                7,
            )
        )
    return found


def _lora_sweep():
    """Rates x seeds of an adapted perceptron: one stack beside a loop over peft models."""
    from peft import LoraConfig, inject_adapter_in_model

    g = torch.Generator().manual_seed(0)
    data = torch.randn(1280, 196, generator=g), torch.randint(0, 10, (1280,), generator=g)
    seeds, rates = [0, 1, 2], [0.003, 0.01, 0.03, 0.1]
    bases = ax.pretrained(data, [196, 64, 64, 10], seeds, steps=20)
    start = ax.adapted_stack(bases, seeds, 1, rank=4)

    def ours():
        return ax.adapt_many(bases, data, seeds=seeds, rates=rates, steps=60, rank=4).trace[-1].tolist()

    def theirs():
        from netatlas.core.train import batch_order, learning_rate_factor

        found = []
        for rate in rates:
            for index, seed in enumerate(seeds):
                config = LoraConfig(r=4, lora_alpha=4, target_modules=["layers.0", "layers.1"], lora_dropout=0.0)
                net = MLP([196, 64, 64, 10])
                net.load_state_dict(bases.member(index).state_dict())
                net = inject_adapter_in_model(config, net).train()
                for depth in (0, 1):
                    with torch.no_grad():
                        net.layers[depth].lora_A["default"].weight.copy_(start.params[f"layers.{depth}.A"][index])
                params = [p for n, p in net.named_parameters() if "lora_" in n]
                optimizer = torch.optim.Adam(params, rate)
                step, epochs = 0, 3
                for order in batch_order(seed, 1280, epochs):
                    for rows in order.split(64):
                        for group in optimizer.param_groups:
                            group["lr"] = rate * learning_rate_factor(step, 60, "linear")
                        optimizer.zero_grad()
                        loss = nn.functional.cross_entropy(net(data[0][rows]), data[1][rows])
                        loss.backward()
                        optimizer.step()
                        step += 1
                found.append(float(loss.detach()))
        return found

    def agree(a, b):
        torch.testing.assert_close(torch.tensor(a), torch.tensor(b), atol=2e-2, rtol=2e-2)

    return compare(
        "fit_many, LoRALinear", "4 rates x 3 seeds, 60 steps of 64, width 64, rank 4: equal losses",
        "loop over peft models",
        _version("peft"), lambda: timed(ours), lambda: timed(theirs), agree, 3,
    )  # fmt: skip


def _nf4():
    """Codes of bitsandbytes' CPU kernels, and of torchao's tensor."""
    found = []
    w = torch.randn(4096, 1024, generator=torch.Generator().manual_seed(0))
    try:
        import bitsandbytes.functional as bnb

        def theirs():
            packed, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=False)
            return packed.flatten(), bnb.dequantize_4bit(packed, state)

        def ours():
            stored = quantize(w, double=False)
            return stored.packed, dequantize(stored)

        def agree(a, b):
            share = float((a[0] == b[0].flatten()).double().mean())
            print(f"NF4: {share:.6f} of bytes equal bitsandbytes'; one differs where a weight is on a midpoint")
            assert share > 0.9999, share
            assert float((a[1] - b[1]).abs().mean()) < 1e-5

        found.append(
            compare(
                "quantize, dequantize (NF4)",
                "4 million weights, blocks of 64: equal codes",
                "bitsandbytes 4-bit on CPU",
                _version("bitsandbytes"),
                lambda: timed(ours),
                lambda: timed(theirs),
                agree,
                5,
            )
        )
    except (ImportError, RuntimeError, NotImplementedError, AttributeError) as problem:
        print(f"bench_low_rank: bitsandbytes does not run here ({problem}), its row is skipped")
    try:
        from torchao.dtypes.nf4tensor import NF4Tensor

        small = w[:1024]

        def ao():
            tensor = NF4Tensor.from_tensor(small, 64, 256)
            return tensor.get_original_weight()

        def own():
            return dequantize(quantize(small))

        def near(a, b):
            error = [(x - small).square().mean().sqrt() for x in (a, b)]
            print(f"NF4 with double quantisation, root mean square error: ours {error[0]:.5f}, torchao {error[1]:.5f}")
            torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)

        found.append(
            compare(
                "quantize, dequantize (NF4, double)",
                "1 million weights, blocks of 64 and 256: weights to 5 %",
                "torchao NF4Tensor",
                _version("torchao"),
                lambda: timed(own),
                lambda: timed(ao),
                near,
                5,
            )
        )
    except (ImportError, RuntimeError, NotImplementedError, AttributeError, AssertionError) as problem:
        print(f"bench_low_rank: torchao's NF4 does not run here ({problem}), its row is skipped")
    return found


def _svd():
    """Truncation of a stack of equal layers beside a loop of scikit-learn's TruncatedSVD, exact solver."""
    import sklearn
    from sklearn.decomposition import TruncatedSVD

    found = []
    for count, size, rank in ((24, 128, 16), (64, 72, 12)):
        stack = torch.randn(count, size, size, generator=torch.Generator().manual_seed(0))

        def theirs(stack=stack, rank=rank):
            made = []
            for matrix in stack.numpy():
                model = TruncatedSVD(rank, algorithm="arpack", random_state=0)
                made.append(torch.from_numpy(model.fit_transform(matrix) @ model.components_))
            return torch.stack(made)

        found.append(
            compare(
                "svd_truncation",
                f"{count} matrices of {size} x {size} to rank {rank}: equal matrices",
                "sklearn TruncatedSVD (arpack)",
                sklearn.__version__,
                lambda stack=stack, rank=rank: timed(lambda: svd_truncation(stack, rank)),
                lambda theirs=theirs: timed(theirs),
                lambda a, b: torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3),
                5,
            )
        )
    return found


def _truncation():
    """Ranks by energy for all members and layers of a trained-rank-pruning step."""
    stack = torch.randn(27, 72, 72, generator=torch.Generator().manual_seed(0))

    def loop():
        made = []
        for w in stack:
            u, s, v = torch.linalg.svd(w)
            kept = s.square().cumsum(0) / s.square().sum()
            k = int((kept < 0.95).sum()) + 1
            made.append(u[:, :k] @ torch.diag(s[:k]) @ v[:k])
        return torch.stack(made)

    return compare(
        "truncate_energy", "27 kernels of 72 x 72, 5 % energy: equal, by the same LAPACK", "loop of torch.linalg.svd",
        torch.__version__, lambda: timed(lambda: truncate_energy(stack, 0.05)[0]), lambda: timed(loop),
        lambda a, b: torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4), 7,
    )  # fmt: skip


def _subspaces():
    """Directions that hold the energy of 20 000 inputs: a Gram matrix beside IncrementalPCA over the activations."""
    import sklearn
    from sklearn.decomposition import IncrementalPCA

    x = torch.randn(20_000, 512, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.arange(1, 513).float() ** -0.5
    )
    x = x - x.mean(0)

    def ours():
        values, vectors = principal_directions(activation_gram(x.split(2000)))
        return values[:64], vectors[:, :64]

    def theirs():
        model = IncrementalPCA(64, batch_size=2000).fit(x.numpy())
        return torch.from_numpy(model.explained_variance_ * (len(x) - 1)), torch.from_numpy(model.components_.T)

    def agree(a, b):
        energy = [float((x.double() @ v.double()).square().sum()) for v in (a[1], b[1])]
        print(f"energy kept by 64 directions: ours {energy[0]:.1f}, incremental {energy[1]:.1f}")
        assert energy[0] >= energy[1] * (1 - 1e-6) and energy[1] > 0.98 * energy[0]

    return compare(
        "activation_gram, principal_directions",
        "20 000 inputs of width 512 in 10 batches, 64 directions: ours keep no less energy",
        "sklearn IncrementalPCA", sklearn.__version__, lambda: timed(ours), lambda: timed(theirs), agree, 3,
    )  # fmt: skip


def rows(_):
    """Comparisons of this file."""
    assert len(NF4_LEVELS) == 16 and int(codes_of(quantize(torch.ones(64)))[0]) == 15
    found = [*_svd(), _truncation(), _subspaces()]
    if _peers():
        try:
            import peft  # noqa: F401
        except ImportError as problem:
            print(f"bench_low_rank: peft does not import ({problem}), its rows are skipped")
        else:
            found += [*_lora(), _lora_sweep()]
        found += _nf4()
    return found
