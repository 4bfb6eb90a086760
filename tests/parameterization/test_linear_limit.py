"""The infinite linear network against wide finite ones; the tasks against brute force."""

import pytest
import torch

from netatlas.core.train import minimize
from netatlas.parameterization import (
    analogy_accuracy,
    analogy_corpus,
    cbow,
    draw_tasks,
    kernel_step,
    limit_gap,
    linear_network,
    meta_train,
)


def test_finite_networks_approach_the_limit_like_the_root():
    gaps = torch.stack([limit_gap([256, 4096], seed=s) for s in range(6)]).mean(0)
    assert 2.5 < float(gaps[0] / gaps[1]) < 6.5, "the root of 16 is 4"


def test_orthonormal_finite_columns_are_the_limit_exactly():
    d, k, n = 3, 2, 50
    z = torch.linalg.qr(torch.randn(n, d + k, dtype=torch.float64))[0] * n**0.5
    x, y = torch.randn(7, d, dtype=torch.float64), torch.randn(7, k, dtype=torch.float64)

    def run(start, scale, factor):
        return minimize(
            lambda p, s, g: (scale * (x @ p["U"].T) @ p["V"] - y).square().mean(),
            start,
            steps=30,
            optimizer="sgd",
            lr=0.2 * factor,
        )[1]

    limit = run(*linear_network(None, d, k, dtype=torch.float64))
    finite = run({"U": z[:, :d], "V": z[:, d:]}, 1 / n, float(n))
    torch.testing.assert_close(limit, finite, rtol=1e-10, atol=0)


def test_analogies_of_additive_vectors_are_all_right():
    corpus = analogy_corpus(attributes=4, entities=6, windows=10, questions=50)
    kind, name = torch.randn(4, 1, 30), torch.randn(1, 6, 30)
    assert analogy_accuracy((kind + name).reshape(-1, 30).T, corpus.questions) > 0.9
    assert analogy_accuracy(torch.randn(30, 24), corpus.questions) < 0.3
    a, b, c, d = corpus.questions.T
    assert torch.equal(a - b, c - d) and corpus.contexts.shape == (10, 4)


def test_cbow_learns():
    corpus = analogy_corpus(attributes=4, entities=6, windows=4000)
    start, end = (cbow(corpus, None, lr=8.0, steps=s)["U"] for s in (0, 150))
    assert analogy_accuracy(end, corpus.questions) > analogy_accuracy(start, corpus.questions) + 0.1


def test_cbow_step_is_that_of_the_loss_by_gathering():
    corpus = analogy_corpus(attributes=3, entities=4, windows=200)
    start, end = (cbow(corpus, 5, lr=0.5, steps=s, batch=16, seed=3) for s in (0, 1))
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(200, (16,), generator=generator)
    asked = torch.cat([corpus.targets[rows][:, None], torch.randint(12, (16, 5), generator=generator)], 1)
    u, v = (start[k].T.clone().requires_grad_() for k in ("U", "V"))
    score = (v[asked] @ u[corpus.contexts[rows]].mean(1)[:, :, None])[:, :, 0] / 5
    loss = -(torch.nn.functional.logsigmoid(score[:, 0]) + torch.nn.functional.logsigmoid(-score[:, 1:]).sum(1)).mean()
    gradient = torch.autograd.grad(loss, u)[0]
    torch.testing.assert_close(end["U"].T, (u - 0.5 * 5 * gradient).detach(), rtol=1e-5, atol=1e-6)


def test_tasks_and_the_inner_step():
    images, labels = torch.randn(60, 5), torch.arange(60) % 3
    tasks = draw_tasks(images, labels, [0, 1, 2], tasks=4, queries=2, seed=0)
    assert tasks.support.shape == (4, 3, 5) and tasks.queries.shape == (4, 6, 5)
    torch.testing.assert_close(tasks.labels.sum(-1), torch.zeros(4, 3), atol=1e-6, rtol=0)
    f = kernel_step(tasks.support, tasks.labels, tasks.queries, torch.tensor(2.0))
    brute = sum(2.0 * tasks.queries[1, 3] @ tasks.support[1, s] * tasks.labels[1, s] for s in range(3))
    torch.testing.assert_close(f[1, 3], brute)
    # The untrained limit's step has the kernel 2 <x, x'> to first order in the rate: same ranking of classes.
    accuracy = meta_train(lambda s: tasks, None, 5, 3, inner=1e-3, lr=0.1, steps=0)(tasks)
    assert accuracy == pytest.approx(float((f.argmax(-1) == tasks.answers).double().mean()), abs=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: linear_network(0, 2, 2), "sizes of at least 1"),
        (lambda: linear_network(None, 2, 2, rule="ntk"), "a finite width"),
        (lambda: linear_network(3, 2, 2, rule="sp"), "a rule out of"),
        (lambda: analogy_corpus(attributes=1), "two attributes"),
        (lambda: analogy_accuracy(torch.ones(2, 5), torch.zeros(0, 4, dtype=torch.int64)), "one question"),
        (lambda: draw_tasks(torch.ones(4, 2), torch.zeros(4).long(), [0], tasks=1, queries=1, seed=0), "two classes"),
        (
            lambda: draw_tasks(torch.ones(4, 2), torch.zeros(4).long(), [0, 1], tasks=1, queries=1, seed=0),
            "examples a class",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
