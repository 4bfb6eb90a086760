"""Experiments on lossless compression: laws, trained networks, ablations, speed."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import zstandard
from torch import Tensor

from netatlas.core.nn import MLP
from netatlas.core.train import fit

from .zipnn import (
    CODE_BITS,
    byte_planes,
    compress,
    decompress,
    huffman_decode,
    huffman_encode,
    huffman_lengths,
    plane_entropy,
)

LAWS = {"normal": 0.02, "uniform": 0.05, "Laplace": 0.02, "Student t": 0.02}


def draw_law(law: str, count: int, *, seed: int, scale: float | None = None) -> Tensor:
    """Weights of a known law, in single precision.

    Args:
        law: ``"normal"``, ``"uniform"``, ``"Laplace"``, ``"Student t"`` (three degrees) or ``"random bits"``.
        count: How many.
        seed: Seeds them.
        scale: Standard deviation or half-width; default that of :data:`LAWS`.
    """
    generator = np.random.default_rng(seed)
    if law == "random bits":
        return torch.from_numpy(generator.integers(-(2**31), 2**31, count, dtype=np.int32)).view(torch.float32)
    values = {
        "normal": generator.standard_normal,
        "uniform": lambda n: generator.uniform(-1, 1, n),
        "Laplace": lambda n: generator.laplace(size=n),
        "Student t": lambda n: generator.standard_t(3, n),
    }[law](count)
    return torch.from_numpy(((LAWS[law] if scale is None else scale) * values).astype(np.float32))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits (NaN is equal to itself here)."""
    kind = torch.int32 if a.element_size() == 4 else torch.int16
    return (
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))
    )


def as_bytes(weights: Tensor) -> bytes:
    """The bytes of weights as they lie in memory."""
    return weights.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def sizes(weights: Tensor, *, reference: Tensor | None = None) -> dict[str, float]:
    """Sizes after compression, as shares of the plain bytes, for ours, its ablations and general compressors.

    Args:
        weights: What is compressed.
        reference: For the delta mode, added if given.
    """
    raw = as_bytes(weights)
    planes = byte_planes(weights)
    grouped = b"".join(plane.tobytes() for plane in planes)
    zstd = zstandard.ZstdCompressor(level=3)
    found = {
        "ours": len(compress(weights)),
        "entropy of the planes": sum(plane_entropy(p) * len(p) / 8 for p in planes),
        "without rotation": len(compress(weights, rotate=False)),
        "Huffman without grouping": _huffman_bytes(raw),
        "planes, then zstd": len(zstd.compress(grouped)),
        "zstd": len(zstd.compress(raw)),
        "zlib": len(zlib.compress(raw, 6)),
    }
    if reference is not None:
        found["difference to the reference"] = len(compress(weights, reference=reference))
    return {name: size / len(raw) for name, size in found.items()}


def _huffman_bytes(data: bytes) -> float:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return float((counts * huffman_lengths(counts)).sum()) / 8


def hard_cases(seed: int) -> dict[str, Tensor]:
    """Weights that a careless codec would change: every pattern of 16 bits, special values, odd and empty shapes."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, -1e-40, 3.4e38])
    cases = {
        "every bfloat16": patterns.view(torch.bfloat16),
        "every float16": patterns.view(torch.float16),
        "special float32": special,
        "empty": torch.zeros(0, 3),
        "a scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "odd shape": draw_law("normal", 3 * 7 * 11, seed=seed).reshape(3, 7, 11).half(),
        "two chunks and a rest": draw_law("normal", 300_001, seed=seed).bfloat16(),
        "one value": torch.full((1000,), 0.5),
        "rounded": draw_law("normal", 5000, seed=seed).bfloat16().float(),
    }
    return cases | {"random bits": draw_law("random bits", 4096, seed=seed)}


def round_trips(seed: int) -> tuple[int, int]:
    """How many of the hard cases come back bit for bit, and how many there are."""
    cases = hard_cases(seed)
    return sum(same_bits(decompress(compress(w)), w) for w in cases.values()), len(cases)


def damage_found(seed: int, *, tries: int = 200) -> tuple[int, int]:
    """How many damaged files are refused: single bits turned over, and files cut short.

    Returns:
        Refusals, and tries.
    """
    data = compress(draw_law("normal", 5000, seed=seed).bfloat16())
    generator = np.random.default_rng(seed)
    refused = 0
    for number in range(tries):
        broken = bytearray(data)
        if number % 2:
            broken = broken[: int(generator.integers(0, len(data)))]
        else:
            broken[int(generator.integers(0, len(data)))] ^= 1 << int(generator.integers(0, 8))
        try:
            decompress(bytes(broken))
        except ValueError:
            refused += 1
    return refused, tries


class CodeCheck(NamedTuple):
    """What must hold of a code exactly.

    Attributes:
        excess: Bits of the limited code over those of an unlimited Huffman code, minus one.
        kraft: Largest distance of a Kraft sum from one.
        mismatch: Largest difference between the bits written and the bits counted, in bits beyond the filling.
    """

    excess: float
    kraft: float
    mismatch: int


def check_codes(seed: int, *, count: int = 1 << 17) -> CodeCheck:
    """Length-limited codes of exponents under each law, against a heap-built Huffman code.

    Args:
        seed: Seeds the weights.
        count: Weights a law: one chunk.
    """
    excess, kraft, mismatch = 0.0, 0.0, 0
    for law in LAWS:
        plane = byte_planes(draw_law(law, count, seed=seed).bfloat16())[0]
        counts = np.bincount(plane, minlength=256)
        limited, free = huffman_lengths(counts), huffman_lengths(counts, limit=None)
        bits, least = int((counts * limited).sum()), int((counts * free.astype(np.int64)).sum())
        excess = max(excess, bits / least - 1)
        kraft = max(kraft, abs(float((2.0 ** -limited[limited > 0].astype(float)).sum()) - 1))
        streams = huffman_encode(plane, limited)
        written = 8 * sum(len(s) for s in streams)
        mismatch = max(mismatch, 0 if bits <= written < bits + 32 else abs(written - bits))
        if not np.array_equal(huffman_decode(streams, limited, len(plane)), plane):
            mismatch = max(mismatch, len(plane))
        assert limited.max() <= CODE_BITS
    return CodeCheck(excess, kraft, mismatch)


def throughput(weights: Tensor, *, repetitions: int = 3) -> dict[str, float]:
    """Megabytes a second of plain weights, compression and decompression, ours and zstd's, on one thread.

    Args:
        weights: What is compressed.
        repetitions: The best of these counts.
    """
    raw = as_bytes(weights)
    ours, theirs = compress(weights), zstandard.ZstdCompressor(level=3).compress(raw)
    decompress(ours)

    def speed(call: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(repetitions):
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        return len(raw) / best / 1e6

    return {
        "ours, compress": speed(lambda: compress(weights)),
        "ours, decompress": speed(lambda: decompress(ours)),
        "zstd, compress": speed(lambda: zstandard.ZstdCompressor(level=3).compress(raw)),
        "zstd, decompress": speed(lambda: zstandard.ZstdDecompressor().decompress(theirs)),
    }


def flat_weights(state: Mapping[str, Tensor]) -> Tensor:
    """All floating-point tensors of a network in one vector."""
    return torch.cat([value.detach().cpu().float().flatten() for value in state.values() if value.is_floating_point()])


def trained_weights(images: Tensor, labels: Tensor, *, seed: int, epochs: int) -> tuple[Tensor, Tensor]:
    """Weights of a perceptron 784-300-100-10 after training and before it, each in one vector.

    Args:
        images: ``[N, ...]``.
        labels: ``[N]``.
        seed: Seeds start and batches.
        epochs: Passes over the data.
    """
    torch.manual_seed(seed)
    network = MLP([images[0].numel(), 300, 100, 10])
    before = flat_weights(network.state_dict())
    fit(network, images, labels, seed=seed, epochs=epochs, batch_size=100, optimizer="adam", lr=1e-3)
    return flat_weights(network.state_dict()), before
