"""Masks, sparse products, surgery and searches beside torch.nn.utils.prune, torch-pruning, SciPy and plain loops."""

from __future__ import annotations

import copy
import sys
import zlib

import scipy
import scipy.sparse
import torch
import torch_geometric
import zstandard
from harness import ROOT, compare, timed
from torch import nn
from torch.nn.utils import prune
from torch_geometric.utils import scatter

from netatlas.core.nn import MLP, ResNet
from netatlas.core.sparsity import (
    SparseLinear,
    Unstructured,
    global_masks,
    magnitude_scores,
    polynomial_sparsity,
    prunable_units,
    remove_channels,
)
from netatlas.core.train import batch_order
from netatlas.pruning import (
    MetanetworkLayer,
    channel_wise_interpolation,
    compress,
    decompress,
    largest_threshold,
    train_sparse,
)
from netatlas.pruning.codec_experiments import as_bytes, draw_law, same_bits
from netatlas.pruning.stacked import member_cross_entropy, stacked_logits

PEERS = ROOT / ".bench-venv" / "pruning"


def _masks():
    def equal(a, b):
        assert torch.equal(a, b)

    found = []
    for size in (10**6, 10**7):
        weight = torch.randn(size // 1000, 1000, generator=torch.Generator().manual_seed(0))

        def theirs(weight=weight):
            module = nn.Module()
            module.weight = nn.Parameter(weight.clone())
            seconds, _ = timed(lambda: prune.l1_unstructured(module, "weight", amount=0.95))
            return seconds, module.weight_mask.bool()

        found.append(
            compare(
                "Unstructured.mask", f"95 % of {size:.0e} weights by magnitude", "torch.nn.utils.prune.l1_unstructured",
                torch.__version__,
                lambda weight=weight: timed(lambda: Unstructured().mask(magnitude_scores(weight), 0.95)),
                theirs, equal, 5,
            )
        )  # fmt: skip
    parts = {f"w{i}": torch.randn(1000, 500, generator=torch.Generator().manual_seed(i)) for i in range(8)}

    def together():
        modules = []
        for part in parts.values():
            module = nn.Module()
            module.weight = nn.Parameter(part.clone())
            modules.append((module, "weight"))
        run = lambda: prune.global_unstructured(modules, prune.L1Unstructured, amount=0.9)  # noqa: E731
        seconds, _ = timed(run)
        return seconds, torch.cat([m.weight_mask.bool() for m, _ in modules])

    def ours():
        seconds, masks = timed(lambda: global_masks({n: magnitude_scores(p) for n, p in parts.items()}, 0.9))
        return seconds, torch.cat(list(masks.values()))

    found.append(
        compare("global_masks", "90 % of 8 matrices of 5e5 weights", "torch.nn.utils.prune.global_unstructured",
                torch.__version__, ours, together, equal, 5)
    )  # fmt: skip
    return found


def _products():
    def close(a, b):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=1e-3, rtol=1e-3)

    found = []
    for sparsity in (0.9, 0.95):
        generator = torch.Generator().manual_seed(0)
        weight, x = torch.randn(1024, 1024, generator=generator), torch.randn(64, 1024, generator=generator)
        weight = weight * Unstructured().mask(weight.abs(), sparsity)
        product, csr, torch_csr = SparseLinear(weight), scipy.sparse.csr_array(weight.numpy()), weight.to_sparse_csr()
        product(x)
        columns = x.T.contiguous()
        peers = (
            ("scipy.sparse.csr_array", scipy.__version__, lambda csr=csr, c=columns: csr @ c.numpy()),
            ("torch.sparse_csr", torch.__version__, lambda t=torch_csr, c=columns: t @ c),
            ("dense product", torch.__version__, lambda w=weight, c=columns: w @ c),
        )
        for peer, version, run in peers:
            found.append(
                compare(
                    "SparseLinear", f"1024 x 1024 at {sparsity:.0%}, batch 64", peer, version,
                    lambda product=product, x=x: (lambda s, y: (s, y.T))(*timed(lambda: product(x))),
                    lambda run=run: timed(run), close, 25,
                )
            )  # fmt: skip
    return found


def _surgery():
    """Half of the inner channels of every block of a ResNet, cut by a dependency graph and by hand."""
    if not PEERS.exists():
        return []
    sys.path.insert(0, str(PEERS))
    import torch_pruning

    torch.manual_seed(0)
    model, image = ResNet(32, 3, 10).eval(), torch.randn(1, 3, 32, 32)
    kept = [torch.arange(n // 2) for n in prunable_units(model)]

    def theirs():
        net = copy.deepcopy(model)

        def run():
            graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=image)
            for block in net.blocks:
                count = block.first.out_channels
                cut = torch_pruning.prune_conv_out_channels
                graph.get_pruning_group(block.first, cut, idxs=list(range(count // 2, count))).prune()
            return net

        seconds, net = timed(run)
        with torch.no_grad():
            return seconds, net(image)

    def ours():
        seconds, net = timed(lambda: remove_channels(model, kept))
        with torch.no_grad():
            return seconds, net(image)

    return [
        compare("remove_channels", "9 blocks of a ResNet, half of the inner channels", "torch-pruning",
                torch_pruning.__version__, ours, theirs, torch.testing.assert_close, 5)
    ]  # fmt: skip


def _training():
    """Gradual magnitude pruning of eight seeds: a loop over seeds with a mask object a layer, and all at once."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    widths, seeds, epochs, batch = [64, 64, 32, 10], list(range(8)), 4, 50
    steps = epochs * len(x) // batch

    def theirs():
        losses = []
        for seed in seeds:
            torch.manual_seed(seed)
            model = MLP(widths)
            optimizer = torch.optim.SGD(model.parameters(), 0.3, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            order, step = batch_order(seed, len(x), epochs), 0
            for epoch in order:
                for rows in epoch.split(batch):
                    if step % 5 == 0:
                        level = polynomial_sparsity(step, start=steps // 5, end=4 * steps // 5, final=0.9)
                        for layer in model.layers[:-1]:
                            with torch.no_grad():
                                count = int(level * layer.weight.numel() + 1e-9)
                                size = (layer.weight * getattr(layer, "mask", 1)).abs().flatten()
                                mask = torch.ones_like(size)
                                mask[size.argsort(stable=True)[:count]] = 0
                                layer.mask = mask.reshape(layer.weight.shape)
                    optimizer.zero_grad()
                    h = x[rows]
                    for i, layer in enumerate(model.layers):
                        h = nn.functional.linear(h, layer.weight * getattr(layer, "mask", 1), layer.bias)
                        h = h.relu() if i < 2 else h
                    nn.functional.cross_entropy(h, y[rows]).backward()
                    optimizer.step()
                    schedule.step()
                    step += 1
            with torch.no_grad():
                h = x
                for i, layer in enumerate(model.layers):
                    h = nn.functional.linear(h, layer.weight * getattr(layer, "mask", 1), layer.bias)
                    h = h.relu() if i < 2 else h
            losses.append(float(nn.functional.cross_entropy(h, y)))
        return torch.tensor(losses)

    def ours():
        params, _ = train_sparse(
            "gradual", 0.9, (x, y), widths=widths, seeds=seeds, epochs=epochs, batch_size=batch, lr=0.3
        )
        return member_cross_entropy(stacked_logits(params, x), y)

    def alike(a, b):
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)

    return [
        compare("train_sparse", f"8 seeds, {steps} steps of 50, masks every 5 steps", "loop of torch.optim.SGD",
                torch.__version__, lambda: timed(ours), lambda: timed(theirs), alike, 3)
    ]  # fmt: skip


def _threshold():
    """Twenty networks' thresholds by bisection, one after the other and together."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    params, _ = train_sparse("dense", 0.0, (x, y), widths=[64, 40, 20, 10], seeds=list(range(20)), epochs=6, lr=0.1)
    names = ["layers.0.weight", "layers.1.weight", "layers.2.weight"]

    def one(member):
        model = MLP([64, 40, 20, 10])
        model.load_state_dict({n: p[member] for n, p in params.items()})
        sizes = [layer.weight.detach().clone() for layer in model.layers]

        @torch.no_grad()
        def loss(threshold):
            for layer, weight in zip(model.layers, sizes):
                layer.weight.copy_(weight * (weight.abs() >= threshold))
            return float(nn.functional.cross_entropy(model(x), y))

        low, high = 0.0, max(float(w.abs().max()) for w in sizes) * (1 + 1e-6)
        bound = 1.05 * loss(0.0)
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if loss(middle) <= bound else (low, middle)
        return low

    def alike(a, b):
        # A loss within rounding of its bound may fall to either side and change the whole path.
        assert float(((a - b).abs() < 1e-4).double().mean()) >= 0.9

    return [
        compare("largest_threshold", "20 networks, 20 probes, 400 examples", "loop over networks", torch.__version__,
                lambda: timed(lambda: largest_threshold(params, names, x, y, tolerance=0.05)),
                lambda: timed(lambda: torch.tensor([one(m) for m in range(20)])), alike, 5)
    ]  # fmt: skip


def _interpolation():
    """Channel-wise interpolation, forward and backward, beside a loop over channels and three-dimensional pooling."""
    x = torch.randn(128, 64, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def loop():
        parts = [x[:, i * 64 // 48 : -(-(i + 1) * 64 // 48)].mean(1) for i in range(48)]
        return torch.stack(parts, 1)

    def gradient(run):
        out = run()
        return out.detach(), torch.autograd.grad(out.square().sum(), x)[0]

    peers = (
        ("loop over channels", loop),
        ("adaptive_avg_pool3d", lambda: nn.functional.adaptive_avg_pool3d(x, (48, 16, 16))),
    )
    return [
        compare("channel_wise_interpolation", "128 x 64 x 16 x 16 to 48, forward and backward", peer, torch.__version__,
                lambda: timed(lambda: gradient(lambda: channel_wise_interpolation(x, 48))),
                lambda run=run: timed(lambda: gradient(run)),
                lambda a, b: [torch.testing.assert_close(u, v, atol=1e-4, rtol=1e-4) for u, v in zip(a, b)], 5)
        for peer, run in peers
    ]  # fmt: skip


def _metanetwork():
    """One layer of messages on the graph of a perceptron, beside PyG's scatter over an edge list."""
    torch.manual_seed(0)
    layer, sizes, width = MetanetworkLayer(16), (64, 64, 64, 10), 16
    nodes = [torch.randn(1, n, width) for n in sizes]
    edges = [torch.randn(1, a, b, width) for a, b in zip(sizes, sizes[1:])]
    offsets = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    pairs = [torch.cartesian_prod(torch.arange(a), torch.arange(b)) for a, b in zip(sizes, sizes[1:])]
    index = torch.cat([p + torch.tensor(offsets[i : i + 2]) for i, p in enumerate(pairs)]).T
    flat = torch.cat([e.reshape(-1, width) for e in edges])

    def directed(x, e, source, target):
        act = nn.functional.silu
        send, receive = act(layer.sender(x)), act(layer.receiver(x))
        message = receive[target] * send[source] * e
        count = len(x)
        mean = scatter(message, target, 0, count, "mean")
        spread = scatter((message - mean[target]).square(), target, 0, count, "mean").add(1e-6).sqrt()
        parts = [mean, spread, scatter(message, target, 0, count, "max"), scatter(message, target, 0, count, "min")]
        change = act(layer.edge_sender(x))[source] * act(layer.edge_receiver(x))[target] * e
        reached = scatter(torch.ones(len(target), 1), target, 0, count, "max")
        return layer.merge(torch.cat(parts, -1)) * reached, change

    def theirs():
        x = layer.norm(torch.cat([n[0] for n in nodes]))
        ahead, change = directed(x, flat, index[0], index[1])
        back, reverse = directed(x, flat * layer.inverter, index[1], index[0])
        new = torch.cat([n[0] for n in nodes]) + ahead + back
        return new, flat + change + layer.inverter * reverse

    def ours():
        new, changed = layer(nodes, edges)
        return torch.cat([n[0] for n in new]), torch.cat([e.reshape(-1, width) for e in changed])

    def gradient(run):
        layer.zero_grad()
        new, changed = run()
        (new.square().sum() + changed.square().sum()).backward()
        return new.detach(), changed.detach()

    return [
        compare("MetanetworkLayer", f"perceptron with {len(flat)} edges, width 16, forward and backward",
                "torch_geometric.utils.scatter, four aggregations", torch_geometric.__version__,
                lambda: timed(lambda: gradient(ours)), lambda: timed(lambda: gradient(theirs)),
                lambda a, b: [torch.testing.assert_close(u, v, atol=1e-3, rtol=1e-3) for u, v in zip(a, b)], 5)
    ]  # fmt: skip


def _codecs(raw):
    """Peers as ``name, version, compress, decompress`` on bytes of bfloat16 weights, each on one thread."""
    found = [
        ("zstandard, level 3", zstandard.__version__, lambda: zstandard.ZstdCompressor(level=3).compress(raw),
         lambda data: zstandard.ZstdDecompressor().decompress(data)),
        ("zlib, level 6", zlib.ZLIB_RUNTIME_VERSION, lambda: zlib.compress(raw, 6), zlib.decompress),
    ]  # fmt: skip
    if not PEERS.exists():
        return found
    sys.path.insert(0, str(PEERS))
    from importlib.metadata import Distribution

    import lz4.frame
    from zipnn import ZipNN

    def version(name):
        return next(iter(Distribution.discover(name=name, path=[str(PEERS)]))).version

    # The package takes what it is given for scratch, so that every call gets bytes of its own.
    make = {"input_format": "byte", "bytearray_dtype": "bfloat16", "threads": 1}
    return [
        *found,
        ("lz4, frame", version("lz4"), lambda: lz4.frame.compress(raw), lz4.frame.decompress),
        ("zipnn (C)", version("zipnn"), lambda: bytes(ZipNN(**make).compress(bytearray(raw))),
         lambda data: bytes(ZipNN(**make).decompress(bytearray(data)))),
    ]  # fmt: skip


def _compression():
    """Lossless codecs on weights in bfloat16: times are compared, ratios and speeds are in the row's text."""
    weights = draw_law("normal", 8_000_000, seed=0).bfloat16()
    raw = as_bytes(weights)
    packed, found = compress(weights), []
    back = decompress(packed)

    def exact(a, b):
        assert same_bits(a, weights) and b == raw

    for peer, version, press, expand in _codecs(raw):
        theirs = press()
        sizes = f"ours to {len(packed) / len(raw):.1%}, peer to {len(theirs) / len(raw):.1%} of the size"
        for name, mine, other, equal in (
            ("compress", lambda: compress(weights), press, lambda a, b, e=expand: exact(decompress(a), e(b))),
            ("decompress", lambda: decompress(packed), lambda e=expand, t=theirs: e(t), exact),
        ):
            speeds = [len(raw) / min(timed(run)[0] for _ in range(2)) / 1e6 for run in (mine, other)]
            work = (
                f"16 MB of normal bfloat16 weights, {sizes}; ours (compiled Python) {speeds[0]:.0f} MB/s, "
                f"peer (C) {speeds[1]:.0f} MB/s"
            )
            run = (lambda m=mine: timed(m), lambda o=other: timed(o))
            found.append(compare(name, work, peer, version, *run, equal, 5))
    assert same_bits(back, weights)
    return found


def rows(_):
    """Comparisons of this file."""
    return [
        row
        for part in (_masks, _products, _surgery, _training, _threshold, _interpolation, _metanetwork, _compression)
        for row in part()
    ]
