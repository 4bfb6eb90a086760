"""The codec: every bit comes back, codes are optimal, damage is refused."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from netatlas.pruning import codec_experiments as ce
from netatlas.pruning.zipnn import (
    CorruptWeightsError,
    byte_planes,
    canonical_codes,
    compress,
    compress_state,
    decompress,
    decompress_state,
    gaussian_exponent_entropy,
    huffman_decode,
    huffman_encode,
    huffman_lengths,
    join_planes,
    plane_entropy,
    xor_delta,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def bits(count, dtype, seed):
    words = np.random.default_rng(seed).integers(-(2**31), 2**31, count, dtype=np.int32)
    if dtype == torch.float32:
        return torch.from_numpy(words).view(dtype)
    return torch.from_numpy(words.astype(np.int16)).view(dtype)


@pytest.mark.parametrize("name", sorted(ce.hard_cases(0)))
def test_hard_cases_come_back_bit_for_bit(name):
    weights = ce.hard_cases(0)[name]
    again = decompress(compress(weights))
    assert ce.same_bits(again, weights)
    assert ce.same_bits(decompress(compress(weights, rotate=False)), weights)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 400), seed=st.integers(0, 10_000), dtype=st.sampled_from(DTYPES), rotate=st.booleans())
def test_random_bits_come_back_as_planes_and_as_files(count, seed, dtype, rotate):
    weights = bits(count, dtype, seed)
    planes = byte_planes(weights, rotate=rotate)
    assert ce.same_bits(join_planes(planes, dtype, (count,), rotate=rotate), weights)
    assert ce.same_bits(decompress(compress(weights, rotate=rotate)), weights)


def test_the_first_plane_is_the_exponent():
    values = torch.tensor([1.0, -1.0, 0.5, 3.0, float("inf"), 0.0])
    expected = [127, 127, 126, 128, 255, 0]
    assert byte_planes(values)[0].tolist() == expected
    assert byte_planes(values.bfloat16())[0].tolist() == expected
    assert byte_planes(values.bfloat16())[1].tolist() == [0, 128, 0, 64, 0, 0]


@settings(deadline=None, max_examples=25)
@given(counts=st.lists(st.integers(0, 5000), min_size=2, max_size=60), limit=st.integers(6, 12))
def test_limited_codes_are_complete_and_unlimited_ones_are_huffman(counts, limit):
    counts = np.array(counts)
    if (counts > 0).sum() < 2:
        return
    limited, free = huffman_lengths(counts, limit=limit), huffman_lengths(counts, limit=None)
    for lengths in (limited, free):
        assert sum(2.0 ** -int(n) for n in lengths[lengths > 0]) == 1.0
        assert ((lengths > 0) == (counts > 0)).all()
    heap = [int(c) for c in counts if c]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    assert (counts * free.astype(int)).sum() == cost
    assert limited.max() <= limit
    assert (counts * limited.astype(int)).sum() >= cost
    if free.max() <= limit:
        assert (counts * limited.astype(int)).sum() == cost


def test_a_limit_that_binds_is_optimal_by_trying_all_lengths():
    import itertools

    counts = np.array([1, 1, 2, 4, 8, 16])
    best = min(
        sum(c * n for c, n in zip(counts, lengths))
        for lengths in itertools.product(range(1, 5), repeat=6)
        if sum(2.0**-n for n in lengths) <= 1
    )
    assert (counts * huffman_lengths(counts, limit=4).astype(int)).sum() == best


def test_canonical_codes_have_no_prefix_of_another():
    lengths = huffman_lengths(np.array([50, 20, 10, 5, 5, 3, 1]))
    codes = canonical_codes(lengths)
    words = [format(int(c), f"0{n}b") for c, n in zip(codes, lengths)]
    assert all(not b.startswith(a) for i, a in enumerate(words) for j, b in enumerate(words) if i != j)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 3000), symbols=st.integers(1, 256), seed=st.integers(0, 999), skew=st.floats(0.0, 3.0))
def test_streams_decode_to_what_was_encoded(count, symbols, seed, skew):
    shares = np.arange(1, symbols + 1.0) ** -skew
    data = np.random.default_rng(seed).choice(symbols, count, p=shares / shares.sum()).astype(np.uint8)
    lengths = huffman_lengths(np.bincount(data, minlength=256))
    streams = huffman_encode(data, lengths)
    total = int(lengths[data].astype(int).sum())
    assert total <= 8 * sum(len(s) for s in streams) < total + 32
    assert np.array_equal(huffman_decode(streams, lengths, count), data)


def test_sizes_stay_near_the_entropy_and_random_bits_do_not_grow():
    weights = ce.draw_law("normal", 400_000, seed=0).bfloat16()
    size = len(compress(weights)) / (2 * len(weights))
    bound = sum(plane_entropy(p) for p in byte_planes(weights)) / 16
    assert bound < size < 1.015 * bound
    assert len(compress(ce.draw_law("random bits", 200_000, seed=0))) / 800_000 < 1.002


def test_entropies_agree_with_scipy_and_with_the_normal_law():
    plane = byte_planes(ce.draw_law("normal", 300_000, seed=1).bfloat16())[0]
    assert plane_entropy(plane) == pytest.approx(entropy(np.bincount(plane), base=2))
    assert gaussian_exponent_entropy(0.02) == pytest.approx(plane_entropy(plane), abs=0.01)
    assert gaussian_exponent_entropy(0.02) == pytest.approx(gaussian_exponent_entropy(0.04))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_one_turned_bit_or_a_cut_is_always_refused(seed, data):
    packed = compress(ce.draw_law("normal", 500, seed=seed).bfloat16())
    place = data.draw(st.integers(0, len(packed) - 1))
    turned = bytearray(packed)
    turned[place] ^= 1 << data.draw(st.integers(0, 7))
    for broken in (bytes(turned), packed[:place], packed + b"\0"):
        with pytest.raises(CorruptWeightsError):
            decompress(broken)


def test_a_difference_needs_its_reference_and_is_small_for_near_checkpoints():
    first = ce.draw_law("normal", 100_000, seed=0)
    second = first + 1e-6 * ce.draw_law("normal", 100_000, seed=1)
    packed = compress(second, reference=first)
    assert len(packed) < len(compress(second))
    assert ce.same_bits(decompress(packed, reference=first), second)
    assert ce.same_bits(xor_delta(xor_delta(second, first), first), second)
    with pytest.raises(ValueError, match="expected a reference checkpoint"):
        decompress(packed)
    with pytest.raises(ValueError, match="expected no reference checkpoint"):
        decompress(compress(second), reference=first)
    with pytest.raises(ValueError, match="a reference of"):
        compress(second, reference=first[:10])


def test_a_network_is_packed_together():
    state = {"a.weight": torch.randn(20, 30), "a.bias": torch.randn(20).bfloat16(), "empty": torch.zeros(0, 2)}
    again = decompress_state(compress_state(state))
    assert list(again) == list(state)
    assert all(ce.same_bits(again[name], state[name]) for name in state)
    packed = compress_state(state)
    for broken in (packed[:-1], b"", packed[:30] + bytes([packed[30] ^ 1]) + packed[31:]):
        with pytest.raises(CorruptWeightsError):
            decompress_state(broken)


def test_bad_input_is_refused():
    for wrong in (torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.float64)):
        with pytest.raises(ValueError, match="weights of a dtype"):
            compress(wrong)
    with pytest.raises(ValueError, match="at least one symbol"):
        huffman_lengths(np.zeros(4, int))
    with pytest.raises(ValueError, match="non-negative counts"):
        huffman_lengths(np.array([1, -1]))
    with pytest.raises(ValueError, match="at most 4 symbols"):
        huffman_lengths(np.ones(5, int), limit=2)
    with pytest.raises(ValueError, match="Kraft"):
        canonical_codes(np.array([1, 1, 1]))
    with pytest.raises(ValueError, match="a code for every symbol"):
        huffman_encode(np.array([0, 1], np.uint8), huffman_lengths(np.bincount([0, 0, 2], minlength=256)))
    with pytest.raises(ValueError, match="planes of 3 bytes"):
        join_planes([np.zeros(3, np.uint8)], torch.float32, (3,))
    with pytest.raises(ValueError, match="at least one byte"):
        plane_entropy(np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="positive scales"):
        gaussian_exponent_entropy(0.0)
    with pytest.raises(ValueError, match="at least one tensor"):
        compress_state({})
    assert huffman_lengths(np.array([0, 7, 0])).tolist() == [0, 1, 0]
