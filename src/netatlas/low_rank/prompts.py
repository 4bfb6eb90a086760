"""Prompts of one template, ``family facts ? query``, and their one-word answers: the language of the foundation model.

Facts, queries and answers are made of the same words in all families: names and numbers. A generic family asks about a
list of them; the telecom families of :mod:`netatlas.low_rank.telecom` ask with words that the generic ones never use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from netatlas.core.checks import require

LENGTH = 20
NAMES = [f"name{i}" for i in range(24)]
NUMBERS = [str(i) for i in range(24)]
GENERIC = ["lookup", "reverse", "after", "largest", "smallest", "equal", "greater", "successor", "argmax", "item"]
TEXT = ["order", "more", "follows", "topic"]
TELECOM = [
    "next-hop", "label-swap", "port-vlan", "address-host", "cell-site", "user-slice", "backup-hop", "uplink",
    "least-cost", "busiest", "strongest", "path-cost", "failed-cost", "same-vlan", "admit", "overload", "root-cause",
    "two-hops", "detour", "tunnel-end",
]  # fmt: skip
WORDS = ["[pad]", "?", "yes", "no", *NAMES, *NUMBERS, *GENERIC, *TEXT, *TELECOM]
TOKEN = {word: index for index, word in enumerate(WORDS)}
NAME0, NUMBER0 = TOKEN[NAMES[0]], TOKEN[NUMBERS[0]]


class Prompts(NamedTuple):
    """Prompts ``[N, 20]`` padded on the left, answers ``[N]``, and the index of each prompt's family ``[N]``."""

    tokens: Int[Tensor, "N T"]
    answers: Int[Tensor, " N"]
    family: Int[Tensor, " N"]


def _distinct(rng: np.random.Generator, count: int, size: int, first: int, pool: int = 24) -> np.ndarray:
    return first + rng.permuted(np.tile(np.arange(pool), (count, 1)), axis=1)[:, :size]


def _rows(family: str, facts: np.ndarray, query: np.ndarray | None) -> np.ndarray:
    count = len(facts)
    word = lambda name: np.full((count, 1), TOKEN[name])  # noqa: E731
    parts = [word(family), facts, word("?"), *([] if query is None else [query.reshape(count, -1)])]
    row = np.concatenate(parts, axis=1)
    require(row.shape[1] <= LENGTH, f"prompts of at most {LENGTH} words", row.shape[1])
    return np.concatenate([np.zeros((count, LENGTH - row.shape[1]), int), row], axis=1)


def _pick(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, index[:, None], axis=1)[:, 0]


def _mixed_table(rng: np.random.Generator, n: int, pairs: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values, of names or of numbers alike, so that a table's kind says nothing."""
    kinds = rng.integers(0, 2, (2, n, 1)).astype(bool)
    both = [np.where(kind, _distinct(rng, n, pairs, NAME0), _distinct(rng, n, pairs, NUMBER0)) for kind in kinds]
    # Keys and values never share a word: a name would otherwise be asked for that is also an answer.
    clash = (both[0][:, :, None] == both[1][:, None, :]).any((1, 2))
    both[1][clash] = _distinct(rng, int(clash.sum()), pairs, NAME0)
    both[0][clash] = _distinct(rng, int(clash.sum()), pairs, NUMBER0)
    return both[0], both[1]


def _lookup(rng: np.random.Generator, n: int, reverse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    keys, values = _mixed_table(rng, n)
    at = rng.integers(0, keys.shape[1], n)
    facts = np.stack([keys, values], 2).reshape(n, -1)
    asked, told = (values, keys) if reverse else (keys, values)
    return _rows("reverse" if reverse else "lookup", facts, _pick(asked, at)), _pick(told, at)


def _after(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    items = _distinct(rng, n, 8, NAME0)
    at = rng.integers(0, 7, n)
    return _rows("after", items, _pick(items, at)), _pick(items, at + 1)


def _extreme(rng: np.random.Generator, n: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    values = _distinct(rng, n, 3, NUMBER0)
    return _rows("largest" if largest else "smallest", values, None), values.max(1) if largest else values.min(1)


def _yes(truth: np.ndarray) -> np.ndarray:
    return np.where(truth, TOKEN["yes"], TOKEN["no"])


def _equal(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    pair = _distinct(rng, n, 2, NAME0)
    pair[:, 1] = np.where(rng.random(n) < 0.5, pair[:, 0], pair[:, 1])
    return _rows("equal", pair, None), _yes(pair[:, 0] == pair[:, 1])


def _greater(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    pair = _distinct(rng, n, 2, NUMBER0)
    return _rows("greater", pair, None), _yes(pair[:, 0] > pair[:, 1])


def _successor(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    value = rng.integers(0, 23, (n, 1))
    return _rows("successor", value + NUMBER0, None), value[:, 0] + 1 + NUMBER0


def _argmax(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    names, values = _distinct(rng, n, 3, NAME0), _distinct(rng, n, 3, NUMBER0)
    return _rows("argmax", np.stack([names, values], 2).reshape(n, -1), None), _pick(names, values.argmax(1))


def _item(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    items, at = _distinct(rng, n, 6, NAME0), rng.integers(0, 6, n)
    return _rows("item", items, at + NUMBER0), _pick(items, at)


_GENERIC: dict[str, Callable] = {
    "lookup": _lookup,
    "reverse": lambda rng, n: _lookup(rng, n, reverse=True),
    "after": _after,
    "largest": lambda rng, n: _extreme(rng, n, True),
    "smallest": lambda rng, n: _extreme(rng, n, False),
    "equal": _equal,
    "greater": _greater,
    "successor": _successor,
    "argmax": _argmax,
    "item": _item,
}


def _chain(rng: np.random.Generator, n: int, length: int, topics: np.ndarray) -> np.ndarray:
    """Words of a Markov chain whose transition depends on the topic: step by one of two topic's strides."""
    strides = np.array([[1, 2], [5, 7], [10, 11], [16, 18]])
    words = np.empty((n, length), int)
    words[:, 0] = rng.integers(0, 24, n)
    for step in range(1, length):
        stride = strides[topics, rng.integers(0, 2, n)]
        jump = rng.random(n) < 0.15
        words[:, step] = np.where(jump, rng.integers(0, 24, n), (words[:, step - 1] + stride) % 24)
    return words + NAME0


def _text(task: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    topics = rng.integers(0, 4, n)
    words = _chain(rng, n, 13, topics)
    first, second = TOKEN["3"], TOKEN["4"]
    places = rng.permuted(np.tile(np.arange(12), (n, 1)), axis=1)
    rows = np.arange(n)
    if task == "order":
        words[rows, places[:, 0]], words[rows, places[:, 1]] = first, second
        return _rows(task, words, None), _yes(places[:, 0] < places[:, 1])
    if task == "more":
        share = rng.integers(0, 2, n)
        for at in range(5):
            words[rows, places[:, at]] = np.where(at < 2 + share, first, second)
        return _rows(task, words, None), _yes(share == 1)
    if task == "follows":
        words[rows, places[:, 0]] = first
        return _rows(task, words, None), words[rows, places[:, 0] + 1]
    return _rows(task, words, None), topics + NUMBER0


def _assemble(made: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> Prompts:
    tokens, answers = (np.concatenate(part) for part in zip(*made))
    family = np.concatenate([np.full(len(rows), index) for index, (rows, _) in enumerate(made)])
    order = rng.permutation(len(tokens))
    return Prompts(*(torch.from_numpy(part[order].astype(np.int64)) for part in (tokens, answers, family)))


def generic_prompts(count: int, *, seed: int, families: Sequence[str] = tuple(GENERIC)) -> Prompts:
    """Questions of the generic families: tables, lists, comparisons of numbers.

    Args:
        count: Prompts a family.
        seed: Draws them.
        families: Names out of ``GENERIC``.

    Raises:
        ValueError: For an unknown family or fewer than one prompt.
    """
    require(count >= 1, "at least one prompt a family", count)
    unknown = set(families) - set(GENERIC)
    require(not unknown and len(families) > 0, f"families out of {GENERIC}", sorted(unknown))
    rng = np.random.default_rng(seed)
    return _assemble([_GENERIC[name](rng, count) for name in families], rng)


def text_prompts(task: str, count: int, *, seed: int) -> Prompts:
    """Questions on a text drawn from a Markov chain of four topics: a grammar that the generic families do not have.

    Args:
        task: ``"order"`` (does marker 3 come before marker 4?), ``"more"`` (is marker 3 the more frequent one?),
            ``"follows"`` (which word follows marker 3?) or ``"topic"`` (which chain drew the text?).
        count: Prompts.
        seed: Draws them.

    Raises:
        ValueError: For an unknown task or fewer than one prompt.
    """
    require(task in TEXT, f"a task out of {TEXT}", repr(task))
    require(count >= 1, "at least one prompt", count)
    rng = np.random.default_rng(seed)
    return _assemble([_text(task, rng, count)], rng)


def trimmed(prompts: Prompts) -> Prompts:
    """The prompts without the columns that are padding in all of them.

    A causal transformer whose positions are counted from the end gives the same logits for them, in less time.

    Args:
        prompts: Padded on the left.
    """
    used = (prompts.tokens != 0).any(0)
    first = int(used.to(torch.int64).argmax()) if bool(used.any()) else 0
    return prompts._replace(tokens=prompts.tokens[:, first:])


def words_of(tokens: Int[Tensor, " T"]) -> str:
    """A prompt as text, without its padding."""
    return " ".join(WORDS[int(t)] for t in tokens if int(t) != 0)
