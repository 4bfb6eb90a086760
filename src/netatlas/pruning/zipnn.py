r"""Lossless compression of weights: the exponents to themselves, then a Huffman code.

The bits of trained weights look random, but for one part: the exponents take few values. ZipNN moves the exponent into
a byte of its own, gathers equal bytes of all weights in one plane, and gives each plane the code that suits it. Nothing
is rounded: what is read back has the same bits, whatever they mean.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import struct
from collections.abc import Mapping

import numba
import numpy as np
import torch
import zstandard
from jaxtyping import Float, Int, UInt8
from scipy.stats import norm
from torch import Tensor

from netatlas.core.checks import require

CODE_BITS = 12
CHUNK_VALUES = 1 << 17
STREAMS = 4
MAGIC = b"NAW1"
DIGEST = 16
RAW, HUFFMAN, CONSTANT, ZSTD = range(4)
# A plane is coded only if it gets smaller than this share; the time to decode a plane is not worth less.
WORTHWHILE = 0.95
# Planes are tested in one chunk out of this many; between tests, a plane that did not shrink is stored as it is.
TEST_EVERY = 10

DTYPES: dict[str, tuple[torch.dtype, int]] = {
    "float32": (torch.float32, 4),
    "bfloat16": (torch.bfloat16, 2),
    "float16": (torch.float16, 2),
}


class CorruptWeightsError(ValueError):
    """Compressed weights were cut short or changed: the checksum does not fit, and nothing is decoded."""


def _name(dtype: torch.dtype) -> str:
    names = [name for name, (known, _) in DTYPES.items() if known == dtype]
    require(bool(names), f"weights of a dtype out of {', '.join(DTYPES)}", dtype)
    return names[0]


def _words(weights: Tensor) -> np.ndarray:
    width = weights.element_size()
    plain = weights.detach().cpu().contiguous().flatten()
    integers = plain.view(torch.int32 if width == 4 else torch.int16).numpy()
    return integers.view(np.uint32 if width == 4 else np.uint16)


def byte_planes(weights: Tensor, *, rotate: bool = True) -> list[UInt8[np.ndarray, " N"]]:
    r"""Weights as planes of bytes, the exponents first.

    With :math:`u` the bits of a value, sign first, the word is rotated so that the exponent fills the first byte:

    .. math:: u = s\,e_{7..0}\,m \;\longrightarrow\; e_{7..0}\,s\,m

    Half precision has five exponent bits only, and its two bytes are taken as they are.

    Args:
        weights: ``float32``, ``bfloat16`` or ``float16``, of any shape.
        rotate: Whether to rotate; without, the sign stays in the exponent's byte and one exponent bit outside (the
            ablation).

    Returns:
        Two or four planes of one byte a weight, the most significant first.

    Raises:
        ValueError: For another dtype.

    Source:
        hershcovitch2024zipnn.
    """
    name, words = _name(weights.dtype), _words(weights)
    width = words.dtype.itemsize
    planes = np.empty((width, len(words)), np.uint8)
    if rotate and name != "float16":
        (_rotate_out32 if width == 4 else _rotate_out16)(words, planes)
    else:
        planes[:] = words.view(np.uint8).reshape(-1, width).T[::-1]
    return list(planes)


@numba.njit(cache=True, nogil=True)
def _rotate_out16(words, planes):
    for i in range(len(words)):
        u = np.uint32(words[i])
        planes[0, i] = (u >> 7) & 255
        planes[1, i] = ((u >> 8) & 128) | (u & 127)


@numba.njit(cache=True, nogil=True)
def _rotate_out32(words, planes):
    for i in range(len(words)):
        u = np.uint32(words[i])
        planes[0, i] = (u >> 23) & 255
        planes[1, i] = ((u >> 24) & 128) | ((u >> 16) & 127)
        planes[2, i] = (u >> 8) & 255
        planes[3, i] = u & 255


@numba.njit(cache=True, nogil=True)
def _rotate_in16(first, second, words):
    for i in range(len(words)):
        e, m = np.uint32(first[i]), np.uint32(second[i])
        words[i] = ((m & 128) << 8) | (e << 7) | (m & 127)


@numba.njit(cache=True, nogil=True)
def _rotate_in32(first, second, third, fourth, words):
    for i in range(len(words)):
        e, m = np.uint32(first[i]), np.uint32(second[i])
        low = (np.uint32(third[i]) << 8) | np.uint32(fourth[i])
        words[i] = ((m & 128) << 24) | (e << 23) | ((m & 127) << 16) | low


def join_planes(planes: list[np.ndarray], dtype: torch.dtype, shape: tuple[int, ...], *, rotate: bool = True) -> Tensor:
    """The inverse of :func:`byte_planes`.

    Args:
        planes: Planes of one byte a weight, the most significant first.
        dtype: Of the weights.
        shape: Of the weights.
        rotate: As it was split.

    Raises:
        ValueError: For a wrong number of planes, or planes that do not fill the shape.
    """
    name = _name(dtype)
    width = DTYPES[name][1]
    count = int(np.prod(shape, dtype=np.int64))
    sizes = [len(plane) for plane in planes]
    require(len(planes) == width and set(sizes) == {count}, f"{width} planes of {count} bytes", sizes)
    words = np.empty(count, np.uint32 if width == 4 else np.uint16)
    if rotate and name != "float16":
        (_rotate_in32 if width == 4 else _rotate_in16)(*planes, words)
    else:
        words.view(np.uint8).reshape(-1, width)[:] = np.stack(planes[::-1], 1)
    signed = words.view(np.int32 if width == 4 else np.int16)
    return torch.from_numpy(signed).view(dtype).reshape(shape)


def huffman_lengths(counts: Int[np.ndarray, " 256"], *, limit: int | None = CODE_BITS) -> UInt8[np.ndarray, " 256"]:
    r"""Code lengths of an optimal prefix code, with a limit on the longest or without one.

    Minimises :math:`\sum_i n_i \ell_i` subject to Kraft's :math:`\sum_i 2^{-\ell_i} \le 1` and
    :math:`\ell_i \le L`, by the package-merge algorithm; without a limit by Huffman's heap.

    Args:
        counts: How often each symbol occurs.
        limit: The longest code, or ``None``.

    Returns:
        Bits of each symbol, 0 for symbols that do not occur. A single symbol gets one bit.

    Raises:
        ValueError: For negative counts, no symbols, or a limit too small for the number of symbols.

    Source:
        hershcovitch2024zipnn; package-merge of Larmore and Hirschberg (1990).
    """
    counts = np.asarray(counts, dtype=np.int64)
    require(counts.ndim == 1 and bool((counts >= 0).all()), "non-negative counts", counts.min(initial=0))
    used = np.flatnonzero(counts)
    require(len(used) > 0, "at least one symbol that occurs", 0)
    lengths = np.zeros(len(counts), dtype=np.uint8)
    if len(used) == 1:
        lengths[used] = 1
        return lengths
    if limit is None:
        heap = [(int(counts[s]), int(s), (int(s),)) for s in used]
        heapq.heapify(heap)
        while len(heap) > 1:
            first, second = heapq.heappop(heap), heapq.heappop(heap)
            joined = first[2] + second[2]
            lengths[list(joined)] += 1
            heapq.heappush(heap, (first[0] + second[0], min(first[1], second[1]), joined))
        return lengths
    require(len(used) <= 2**limit, f"at most {2**limit} symbols for codes of {limit} bits", len(used))
    singles = sorted((int(counts[s]), (int(s),)) for s in used)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(limit):
        row = sorted(singles + packages)
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(row[::2], row[1::2])]
    for _, members in packages[: len(used) - 1]:
        np.add.at(lengths, list(members), 1)
    return lengths


def canonical_codes(lengths: UInt8[np.ndarray, " S"]) -> Int[np.ndarray, " S"]:
    """Code words from their lengths alone: shorter codes first, equal lengths in the order of the symbols.

    Args:
        lengths: Bits of each symbol, 0 for none.

    Raises:
        ValueError: If no prefix code has these lengths.
    """
    lengths = np.asarray(lengths)
    used = np.flatnonzero(lengths)
    kraft = sum(2.0 ** -int(lengths[s]) for s in used)
    require(kraft <= 1, "lengths that satisfy Kraft's inequality", f"a sum of {kraft}")
    codes = np.zeros(len(lengths), dtype=np.int64)
    code, before = 0, 0
    for symbol in sorted(used, key=lambda s: (lengths[s], s)):
        code <<= int(lengths[symbol]) - before
        codes[symbol], before = code, int(lengths[symbol])
        code += 1
    return codes


@numba.njit(cache=True, nogil=True)
def _count(symbols):
    table = np.zeros((4, 256), np.int64)
    end = len(symbols) // 4 * 4
    for i in range(0, end, 4):
        table[0, symbols[i]] += 1
        table[1, symbols[i + 1]] += 1
        table[2, symbols[i + 2]] += 1
        table[3, symbols[i + 3]] += 1
    for i in range(end, len(symbols)):
        table[0, symbols[i]] += 1
    return table[0] + table[1] + table[2] + table[3]


@numba.njit(cache=True, nogil=True)
def _encode(symbols, packed, out):
    """Codes one after the other into words of 32 bits; returns how many bits there are."""
    held = np.uint64(0)
    bits = np.uint64(0)
    place = 0
    for symbol in symbols:
        entry = packed[symbol]
        held = (held << (entry & np.uint64(15))) | (entry >> np.uint64(4))
        bits += entry & np.uint64(15)
        if bits >= np.uint64(32):
            bits -= np.uint64(32)
            out[place] = np.uint32(held >> bits)
            place += 1
    if bits > np.uint64(0):
        out[place] = np.uint32(held << (np.uint64(32) - bits))
    return 32 * place + np.int64(bits)


@numba.njit(cache=True, nogil=True)
def _decode(data, starts, table, sizes, out):
    """Four streams side by side, one or two symbols a look-up: the processor decodes one while it waits for another."""
    mask = (1 << CODE_BITS) - 1
    shift = 24 - CODE_BITS
    place = starts * 8
    write = np.zeros(4, np.int64)
    ends = np.zeros(4, np.int64)
    total = 0
    for s in range(4):
        write[s] = total
        total += sizes[s]
        ends[s] = total
    p0, p1, p2, p3 = place[0], place[1], place[2], place[3]
    w0, w1, w2, w3 = write[0], write[1], write[2], write[3]
    while w0 < ends[0] - 1 and w1 < ends[1] - 1 and w2 < ends[2] - 1 and w3 < ends[3] - 1:
        b = p0 >> 3
        e0 = table[
            (((np.int64(data[b]) << 16) | (np.int64(data[b + 1]) << 8) | data[b + 2]) >> (shift - (p0 & 7))) & mask
        ]
        b = p1 >> 3
        e1 = table[
            (((np.int64(data[b]) << 16) | (np.int64(data[b + 1]) << 8) | data[b + 2]) >> (shift - (p1 & 7))) & mask
        ]
        b = p2 >> 3
        e2 = table[
            (((np.int64(data[b]) << 16) | (np.int64(data[b + 1]) << 8) | data[b + 2]) >> (shift - (p2 & 7))) & mask
        ]
        b = p3 >> 3
        e3 = table[
            (((np.int64(data[b]) << 16) | (np.int64(data[b + 1]) << 8) | data[b + 2]) >> (shift - (p3 & 7))) & mask
        ]
        out[w0] = e0 & 255
        out[w0 + 1] = (e0 >> 8) & 255
        out[w1] = e1 & 255
        out[w1 + 1] = (e1 >> 8) & 255
        out[w2] = e2 & 255
        out[w2 + 1] = (e2 >> 8) & 255
        out[w3] = e3 & 255
        out[w3 + 1] = (e3 >> 8) & 255
        w0 += 1 + ((e0 >> 16) & 1)
        w1 += 1 + ((e1 >> 16) & 1)
        w2 += 1 + ((e2 >> 16) & 1)
        w3 += 1 + ((e3 >> 16) & 1)
        p0 += (e0 >> 17) & 15
        p1 += (e1 >> 17) & 15
        p2 += (e2 >> 17) & 15
        p3 += (e3 >> 17) & 15
    place[0], place[1], place[2], place[3] = p0, p1, p2, p3
    write[0], write[1], write[2], write[3] = w0, w1, w2, w3
    for s in range(4):
        p = place[s]
        for i in range(write[s], ends[s]):
            b = p >> 3
            window = (np.int64(data[b]) << 16) | (np.int64(data[b + 1]) << 8) | data[b + 2]
            e = table[(window >> (shift - (p & 7))) & mask]
            out[i] = e & 255
            p += (e >> 21) & 15


def _stream_sizes(count: int) -> list[int]:
    return [count // STREAMS + (s < count % STREAMS) for s in range(STREAMS)]


def huffman_encode(symbols: UInt8[np.ndarray, " N"], lengths: UInt8[np.ndarray, " 256"]) -> list[bytes]:
    r"""Encode bytes by a canonical code, in four streams of equal parts.

    Args:
        symbols: The bytes.
        lengths: Bits of each symbol, at most 12; every symbol that occurs needs a code.

    Returns:
        The four streams: :math:`\sum_i n_i \ell_i` bits in all, each filled up to a byte.

    Raises:
        ValueError: For a symbol without a code, or codes that are too long.
    """
    lengths = np.asarray(lengths, dtype=np.uint8)
    require(int(lengths.max(initial=0)) <= CODE_BITS, f"codes of at most {CODE_BITS} bits", int(lengths.max(initial=0)))
    counts = _count(np.asarray(symbols, dtype=np.uint8))
    missing = np.flatnonzero((counts > 0) & (lengths == 0))
    require(len(missing) == 0, "a code for every symbol that occurs", f"none for {missing}")
    packed = canonical_codes(lengths).astype(np.uint64) << np.uint64(4) | lengths.astype(np.uint64)
    streams, start = [], 0
    for size in _stream_sizes(len(symbols)):
        part = np.asarray(symbols[start : start + size], dtype=np.uint8)
        out = np.empty(size * CODE_BITS // 32 + 2, np.uint32)
        bits = int(_encode(part, packed, out))
        streams.append(out[: -(-bits // 32)].byteswap().tobytes()[: -(-bits // 8)])
        start += size
    return streams


def huffman_decode(streams: list[bytes], lengths: UInt8[np.ndarray, " 256"], count: int) -> UInt8[np.ndarray, " N"]:
    """The inverse of :func:`huffman_encode`, by a table with an entry for every twelve bits.

    Args:
        streams: The four streams.
        lengths: Bits of each symbol.
        count: How many bytes were encoded.

    Raises:
        ValueError: For a wrong number of streams or lengths of no prefix code.
    """
    require(len(streams) == STREAMS, f"{STREAMS} streams", len(streams))
    lengths = np.asarray(lengths, dtype=np.uint8)
    table = _decode_table(lengths)
    starts = np.cumsum([0, *(len(s) for s in streams[:-1])]).astype(np.int64)
    # Reading looks two bytes ahead of the last code.
    data = np.frombuffer(b"".join(streams) + b"\0\0\0", np.uint8)
    out = np.empty(count, np.uint8)
    _decode(data, starts, table, np.array(_stream_sizes(count), np.int64), out)
    return out


def _decode_table(lengths: np.ndarray) -> np.ndarray:
    """For every twelve bits: one or two symbols, whether there are two, their bits, and the bits of the first."""
    codes = canonical_codes(lengths)
    symbols, bits = np.zeros(1 << CODE_BITS, np.int64), np.zeros(1 << CODE_BITS, np.int64)
    for symbol in np.flatnonzero(lengths):
        free = CODE_BITS - int(lengths[symbol])
        first = int(codes[symbol]) << free
        symbols[first : first + (1 << free)], bits[first : first + (1 << free)] = symbol, lengths[symbol]
    window = np.arange(1 << CODE_BITS)
    rest = (window << bits) & ((1 << CODE_BITS) - 1)
    two = (bits > 0) & (bits[rest] > 0) & (bits + bits[rest] <= CODE_BITS)
    second, both = np.where(two, symbols[rest], 0), np.where(two, bits + bits[rest], bits)
    return symbols | (second << 8) | (two.astype(np.int64) << 16) | (both << 17) | (bits << 21)


def _pack_lengths(lengths: np.ndarray) -> bytes:
    used = np.flatnonzero(lengths)
    low, high = int(used[0]), int(used[-1])
    inside = lengths[low : high + 1]
    padded = np.append(inside, [0] * (len(inside) % 2)).astype(np.uint8)
    return bytes([low, high]) + (padded[::2] << 4 | padded[1::2]).astype(np.uint8).tobytes()


def _unpack_lengths(data: memoryview) -> tuple[np.ndarray, int]:
    low, high = data[0], data[1]
    size = (high - low + 2) // 2
    packed = np.frombuffer(data[2 : 2 + size], np.uint8)
    both = np.stack([packed >> 4, packed & 15], 1).reshape(-1)[: high - low + 1]
    lengths = np.zeros(256, np.uint8)
    lengths[low : high + 1] = both
    return lengths, 2 + size


def _encode_plane(plane: np.ndarray) -> tuple[int, bytes]:
    counts = _count(plane)
    if counts.max() == len(plane):
        return CONSTANT, bytes([int(plane[0])])
    raw = len(plane)
    # Huffman cannot go below one bit a symbol; where one symbol rules, repeats are worth looking for.
    if counts.max() > 0.9 * raw:
        packed = zstandard.ZstdCompressor(level=3).compress(plane.tobytes())
        return (ZSTD, packed) if len(packed) < WORTHWHILE * raw else (RAW, plane.tobytes())
    shares = counts[counts > 0] / raw
    if -(shares * np.log2(shares)).sum() >= 8 * WORTHWHILE:
        return RAW, plane.tobytes()
    lengths = huffman_lengths(counts)
    size = int((counts * lengths).sum()) / 8
    if size >= WORTHWHILE * raw:
        return RAW, plane.tobytes()
    streams = huffman_encode(plane, lengths)
    sizes = struct.pack("<4I", *(len(s) for s in streams))
    return HUFFMAN, _pack_lengths(lengths) + sizes + b"".join(streams)


def _decode_plane(kind: int, data: memoryview, count: int) -> np.ndarray:
    if kind == CONSTANT:
        return np.full(count, data[0], np.uint8)
    if kind == RAW:
        return np.frombuffer(data, np.uint8)
    if kind == ZSTD:
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(bytes(data), max_output_size=count), np.uint8)
    lengths, start = _unpack_lengths(data)
    sizes = struct.unpack_from("<4I", data, start)
    start += 16
    streams = []
    for size in sizes:
        streams.append(bytes(data[start : start + size]))
        start += size
    return huffman_decode(streams, lengths, count)


def xor_delta(weights: Tensor, reference: Tensor) -> Tensor:
    """Bits in which two checkpoints differ, as weights of the same dtype; applied twice it gives the first back.

    Args:
        weights: A checkpoint.
        reference: Another, of the same dtype and shape.

    Raises:
        ValueError: If they do not correspond.

    Source:
        hershcovitch2024zipnn (delta compression).
    """
    same = weights.dtype == reference.dtype and weights.shape == reference.shape
    require(same, f"a reference of {weights.dtype} and shape {tuple(weights.shape)}",
            (reference.dtype, tuple(reference.shape)))  # fmt: skip
    name = _name(weights.dtype)
    difference = _words(weights) ^ _words(reference)
    signed = difference.view(np.int32 if DTYPES[name][1] == 4 else np.int16)
    return torch.from_numpy(signed.copy()).view(weights.dtype).reshape(weights.shape)


def compress(weights: Tensor, *, reference: Tensor | None = None, rotate: bool = True) -> bytes:
    """Compress weights without loss.

    Chunks of 131,072 values; in each, every plane of bytes is stored as it is, as one symbol, by a Huffman code of its
    own, or (where one symbol rules, as in rounded models) by zstd. Planes that do not shrink are tested again in every
    tenth chunk only. A BLAKE2 digest guards the whole.

    Args:
        weights: ``float32``, ``bfloat16`` or ``float16``, of any shape, also empty, with any bits.
        reference: Another checkpoint; only the difference of the bits is stored, and reading needs it again.
        rotate: Whether exponents get a byte of their own (see :func:`byte_planes`).

    Returns:
        The bytes that :func:`decompress` reads.

    Raises:
        ValueError: For another dtype, or a reference that does not correspond.

    Source:
        hershcovitch2024zipnn.
    """
    name, shape = _name(weights.dtype), tuple(weights.shape)
    if reference is not None:
        weights = xor_delta(weights, reference)
    planes = byte_planes(weights, rotate=rotate)
    body: list[bytes] = []
    stored: list[bool] = [False] * len(planes)
    for number, start in enumerate(range(0, len(planes[0]), CHUNK_VALUES)):
        for index, plane in enumerate(planes):
            part = plane[start : start + CHUNK_VALUES]
            if stored[index] and number % TEST_EVERY:
                kind, data = RAW, part.tobytes()
            else:
                kind, data = _encode_plane(part)
                stored[index] = kind == RAW
            body += [struct.pack("<BI", kind, len(data)), data]
    head = json.dumps({"dtype": name, "shape": shape, "rotate": rotate, "delta": reference is not None}).encode()
    payload = b"".join([struct.pack("<I", len(head)), head, *body])
    return MAGIC + hashlib.blake2b(payload, digest_size=DIGEST).digest() + payload


def decompress(data: bytes, *, reference: Tensor | None = None) -> Tensor:
    """Read what :func:`compress` wrote, bit for bit.

    Args:
        data: Compressed weights.
        reference: The checkpoint against which they were written, if they were.

    Raises:
        CorruptWeightsError: If the bytes are not those that were written: cut short, changed, or something else.
        ValueError: If a reference is missing, not asked for, or does not correspond.
    """
    start = len(MAGIC) + DIGEST
    if len(data) < start + 4 or data[: len(MAGIC)] != MAGIC:
        raise CorruptWeightsError(f"expected compressed weights, got {len(data)} bytes that do not begin as such")
    payload = memoryview(data)[start:]
    if hashlib.blake2b(payload, digest_size=DIGEST).digest() != data[len(MAGIC) : start]:
        raise CorruptWeightsError("the checksum does not fit: the compressed weights were cut short or changed")
    (length,) = struct.unpack_from("<I", payload)
    head = json.loads(bytes(payload[4 : 4 + length]))
    require((reference is not None) == head["delta"], f"{'a' if head['delta'] else 'no'} reference checkpoint",
            "one" if reference is not None else "none")  # fmt: skip
    dtype, width = DTYPES[head["dtype"]]
    count = int(np.prod(head["shape"], dtype=np.int64))
    planes = [np.empty(count, np.uint8) for _ in range(width)]
    place = 4 + length
    for begin in range(0, count, CHUNK_VALUES):
        size = min(CHUNK_VALUES, count - begin)
        for plane in planes:
            kind, stored = struct.unpack_from("<BI", payload, place)
            place += 5
            plane[begin : begin + size] = _decode_plane(kind, payload[place : place + stored], size)
            place += stored
    weights = join_planes(planes, dtype, tuple(head["shape"]), rotate=head["rotate"])
    return weights if reference is None else xor_delta(weights, reference)


def compress_state(state: Mapping[str, Tensor]) -> bytes:
    """Compress a network's tensors together, so that small ones share tables and headers.

    Args:
        state: Tensors by name, of the dtypes that :func:`compress` takes.

    Raises:
        ValueError: For no tensors or another dtype.
    """
    require(len(state) > 0, "at least one tensor", 0)
    order = [[name, _name(value.dtype), list(value.shape)] for name, value in state.items()]
    kinds = sorted({kind for _, kind, _ in order})
    parts = [
        compress(torch.cat([state[name].detach().cpu().flatten() for name, kind, _ in order if kind == wanted]))
        for wanted in kinds
    ]
    head = json.dumps({"order": order, "kinds": kinds, "sizes": [len(p) for p in parts]}).encode()
    payload = struct.pack("<I", len(head)) + head + b"".join(parts)
    return MAGIC + hashlib.blake2b(payload, digest_size=DIGEST).digest() + payload


def decompress_state(data: bytes) -> dict[str, Tensor]:
    """Read what :func:`compress_state` wrote.

    Args:
        data: The compressed tensors.

    Raises:
        CorruptWeightsError: If the bytes are not those that were written.
    """
    start = len(MAGIC) + DIGEST
    if len(data) < start + 4 or data[: len(MAGIC)] != MAGIC:
        raise CorruptWeightsError(f"expected a compressed state, got {len(data)} bytes that do not begin as such")
    payload = data[start:]
    if hashlib.blake2b(payload, digest_size=DIGEST).digest() != data[len(MAGIC) : start]:
        raise CorruptWeightsError("the checksum does not fit: the compressed state was cut short or changed")
    (length,) = struct.unpack_from("<I", payload)
    head = json.loads(payload[4 : 4 + length])
    place, flat, used = 4 + length, {}, {}
    for kind, size in zip(head["kinds"], head["sizes"]):
        flat[kind], used[kind] = decompress(payload[place : place + size]), 0
        place += size
    state = {}
    for name, kind, shape in head["order"]:
        count = int(np.prod(shape, dtype=np.int64))
        state[name] = flat[kind][used[kind] : used[kind] + count].reshape(shape)
        used[kind] += count
    return state


def plane_entropy(plane: UInt8[np.ndarray, " N"]) -> float:
    r"""Zero-order entropy of a plane of bytes, :math:`-\sum_i p_i \log_2 p_i`, in bits a byte.

    Args:
        plane: The bytes.

    Raises:
        ValueError: For an empty plane.
    """
    require(len(plane) > 0, "at least one byte", 0)
    shares = _count(np.asarray(plane, dtype=np.uint8)) / len(plane)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def gaussian_exponent_entropy(scale: Float[np.ndarray, "*S"] | float) -> Float[np.ndarray, "*S"] | float:
    r"""Entropy of the exponent of a normal weight, in bits.

    .. math:: P(e) = 2\bigl[\Phi(2^{e+1}/s) - \Phi(2^e/s)\bigr]

    Args:
        scale: Standard deviation :math:`s`; only its place between two powers of two matters, and that hardly.

    Returns:
        The entropy of :math:`e`, over exponents from -126 to 127.

    Raises:
        ValueError: For a scale that is not positive.

    Source:
        hershcovitch2024zipnn measures it; the formula is our own.
    """
    scale = np.asarray(scale, dtype=float)
    require(bool((scale > 0).all()), "positive scales", scale)
    edges = 2.0 ** np.arange(-126, 129) / scale[..., None]
    shares = 2 * (norm.cdf(edges[..., 1:]) - norm.cdf(edges[..., :-1]))
    found = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(-1)
    return float(found) if found.ndim == 0 else found
