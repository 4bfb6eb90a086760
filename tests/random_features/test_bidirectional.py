"""Design losses against direct formulas, encoders against counts, the language model against a known grammar."""

import math
from collections import Counter

import pytest
import torch

from netatlas.core.infinite import Dense, Relu, serial
from netatlas.random_features import bidirectional as bi
from netatlas.random_features import bidirectional_experiments as ex


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def words(n=6, length=8, seed=0):
    return torch.randint(4, (n, length), generator=gen(seed))


def test_design_checks():
    found = ex.design_checks(seed=3)
    assert found.primal < 1e-8 and found.primal_small_ridge < 1e-5 and found.derivative < 1e-3


def test_batched_heads_equal_single_ones():
    phi, y = (
        torch.randn(2, 40, 6, generator=gen(), dtype=torch.float64),
        torch.randn(2, 40, generator=gen(1), dtype=torch.float64),
    )
    both, one = bi.fit_head(phi, y), bi.fit_head(phi[1], y[1])
    new = torch.randn(2, 3, 6, generator=gen(2), dtype=torch.float64)
    torch.testing.assert_close(bi.forward_loss(both, new, 5.0)[1], bi.forward_loss(one, new[1], 5.0))
    torch.testing.assert_close(bi.backward_loss(both, new, 5.0)[1], bi.backward_loss(one, new[1], 5.0))


def test_straight_through_is_hard_forward_and_soft_backward():
    z = torch.randn(2, 8, 4, generator=gen(), dtype=torch.float64, requires_grad=True)
    x = bi.straight_through(z)
    torch.testing.assert_close(x.detach(), bi.one_hot(z.argmax(-1)))
    weights = torch.randn(2, 8, 4, generator=gen(1), dtype=torch.float64)
    hard = torch.autograd.grad((x * weights).sum(), z)[0]
    soft = torch.autograd.grad((z.softmax(-1) * weights).sum(), z)[0]
    torch.testing.assert_close(hard, soft)


def test_kmers_are_counts_of_words():
    s = words()
    found = bi.kmer_features(bi.one_hot(s), 3)
    for row, counts in zip(s.tolist(), found):
        expected = Counter(16 * a + 4 * b + c for a, b, c in zip(row, row[1:], row[2:]))
        assert {i: int(v) for i, v in enumerate(counts) if v} == expected


def test_tangent_kernel_equals_the_expression_language():
    x = bi.one_hot(words()).flatten(1)
    net = serial(Dense(1), Relu(), Dense(1))
    ours = bi.ntk_of_sequences(x @ x.T, 8)
    torch.testing.assert_close(ours, net.kernel(x, get="ntk") * 32 * 2, rtol=1e-3, atol=1e-3)


def test_landscapes_are_complete_and_indexed():
    table = bi.landscapes(2, length=4, seed=0)
    assert table.scores.shape == (2, 256)
    assert float(table.scores.min()) == 0 and float(table.scores.max()) == 1
    assert bool((bi.sequence_index(table.sequences) == torch.arange(256)).all())


def test_design_with_the_truth_as_features_finds_a_better_sequence():
    table = bi.landscapes(2, seed=1)
    offline = ex.offline_set(table, worst=5000, sample=400, designs=6, seed=0)
    assert bool((table.scores.gather(1, bi.sequence_index(offline.starts)) <= offline.highest[:, None] + 1e-12).all())
    scorer = ex.make_scorer(offline, heads=2, features=16, seed=0)
    found = ex.run_arms(table, offline, ex.flat_encoder, scorer, steps=15, seed=0)
    before = table.scores.gather(1, bi.sequence_index(offline.starts)).median(1).values
    assert bool((found.median["forward only"] > before + 0.1).all())
    for name, course in found.gamma.items():
        assert bool(((course >= 0) & (course <= 1)).all())
        if name == "forward only":
            assert bool((course == 1).all())
    assert bool((found.gamma["adaptive balance"].diff().abs() > 0).any())


def test_initial_logits_decode_to_the_start():
    table = bi.landscapes(1, seed=2)
    offline = ex.offline_set(table, worst=500, sample=100, designs=4, seed=0)
    head = bi.fit_head(ex.flat_encoder(bi.one_hot(offline.sequences)), offline.labels)
    shape = offline.starts.shape[:2]
    still = bi.design(
        offline.starts,
        ex.flat_encoder,
        head,
        lambda x: x.sum((-1, -2)),
        gamma=torch.ones(shape).double(),
        adapt_gamma=torch.zeros(shape).bool(),
        eta=torch.full(shape, 1e-12).double(),
        adapt_eta=torch.zeros(shape).bool(),
        steps=1,
        generator=gen(),
    )
    assert bool((still.sequences == offline.starts).all())


def test_language_model_learns_a_simple_grammar_and_members_do_not_mix():
    g = gen(3)
    # The second half repeats the first.
    half = torch.randint(4, (2, 600, 4), generator=g)
    corpora = torch.cat([half, half], 2)
    corpora[1] = torch.randint(4, (600, 8), generator=g)
    start = bi.masked_lm_start(2, width=16, seed=0)
    _, right = bi.train_masked_lm(start, corpora, steps=250, rate=1e-2, seed=0)
    assert float(right[0]) > 0.6 and 0.1 < float(right[1]) < 0.45
    x = bi.one_hot(corpora[:, :3], dtype=torch.float32)
    hidden = bi.masked_lm_hidden(start, x)
    alone = bi.masked_lm_hidden({k: v[1:] for k, v in start.items()}, x[1:])
    torch.testing.assert_close(hidden[1:], alone, rtol=1e-4, atol=1e-5)


def test_climbing_a_perfect_proxy_reaches_higher_scores():
    table = bi.landscapes(1, seed=4)
    offline = ex.offline_set(table, worst=3000, sample=100, designs=5, seed=0)

    def proxy(x):
        return table.scores.gather(1, bi.sequence_index(x.argmax(-1)))

    assert float(ex.climbed(table, offline, proxy, steps=100, seed=0)) > float(offline.highest) + 0.1


def test_refusals():
    x = torch.zeros(5, 3, dtype=torch.float64)
    y = torch.zeros(5, dtype=torch.float64)
    head = bi.fit_head(torch.randn(5, 3, generator=gen(), dtype=torch.float64), y)
    starts, two = words(2)[None], torch.ones(1, 2, dtype=torch.float64)
    for call, found in (
        (lambda: bi.one_hot(torch.tensor([4])), "letters"),
        (lambda: bi.fit_head(x, y[:2]), "labels"),
        (lambda: bi.fit_head(x, y, ridge=0.0), "ridge"),
        (lambda: bi.fit_head(x * math.nan, y), "finite"),
        (lambda: bi.kmer_features(torch.zeros(2, 4), 5), "words"),
        (lambda: bi.landscapes(0, seed=0), "table"),
        (lambda: bi.masked_lm_start(0, seed=0), "sizes"),
        (lambda: bi.masked_lm_hidden(bi.masked_lm_start(2, seed=0), torch.zeros(1, 2, 8, 4)), "members"),
        (lambda: bi.train_masked_lm(bi.masked_lm_start(1, seed=0), words(5)[None], steps=1, seed=0), "ten or more"),
        (
            lambda: bi.design(
                starts,
                ex.flat_encoder,
                head,
                ex.flat_encoder,
                gamma=2 * two,
                adapt_gamma=two > 0,
                eta=two,
                adapt_eta=two > 0,
                steps=1,
                generator=gen(),
            ),
            "balance",
        ),
        (
            lambda: bi.design(
                starts,
                ex.flat_encoder,
                head,
                ex.flat_encoder,
                gamma=two,
                adapt_gamma=two > 0,
                eta=0 * two,
                adapt_eta=two > 0,
                steps=1,
                generator=gen(),
            ),
            "step sizes",
        ),
    ):
        with pytest.raises(ValueError, match=found):
            call()
