import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from netatlas.core.graph import normalized_adjacency
from netatlas.core.train import minimize
from netatlas.graph_trust import link_prediction as lp


def graphs(members=2, n=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    upper = torch.triu(torch.rand(members, n, n, generator=generator) < 0.3, 1).double()
    return upper + upper.transpose(1, 2), torch.randn(members, n, 4, generator=generator).double()


def test_operator_against_the_sparse_one():
    a, _ = graphs()
    expected = normalized_adjacency(a[0].numpy(), "sym", self_loops=True).toarray()
    torch.testing.assert_close(lp.dense_operator(a)[0], torch.from_numpy(expected))


def test_a_predictor_trains_as_it_would_alone_and_learns():
    a, x = graphs()
    model, params = lp.fit_link_predictors(a, x, seeds=[0, 1], steps=60)
    torch.manual_seed(1)
    alone = lp.DenseGAE(4).double()
    s = lp.dense_operator(a[1])
    truth, off = a[1], ~torch.eye(14, dtype=torch.bool)
    weight = torch.where(truth > 0, (1 - truth.mean()) / truth.mean(), torch.ones(()).double())[off]

    def loss(p, step, generator):
        logits = torch.func.functional_call(alone, p, (s, x[1]))[off]
        return (F.binary_cross_entropy_with_logits(logits, truth[off], reduction="none") * weight).sum() / weight.sum()

    single, history = minimize(loss, {k: v.detach() for k, v in alone.named_parameters()}, steps=60, lr=0.01)
    torch.testing.assert_close(params["second.weight"][1], single["second.weight"])
    assert history[-1] < history[0]
    scores = lp.link_scores(model, params, a, x)
    torch.testing.assert_close(scores, scores.transpose(1, 2))
    one = lp.link_scores(model, params, a[0], x[0])
    torch.testing.assert_close(one[0], scores[0])
    assert not torch.allclose(one[1], scores[1])


def test_auc_against_scikit_learn_with_ties():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 8, (3, 60), generator=generator).double()
    truth = torch.rand(3, 60, generator=generator) < 0.3
    found = lp.pair_auc(scores, truth)
    assert found.tolist() == pytest.approx([roc_auc_score(t, s) for t, s in zip(truth, scores)])


def test_gaps_by_hand():
    scores = torch.tensor([0.9, 0.5, 0.4, 0.2])
    same = torch.tensor([True, True, False, False])
    truth = torch.tensor([True, False, True, False])
    gaps = lp.dyadic_fairness_gaps(scores, same, truth)
    assert float(gaps.parity) == pytest.approx(0.4) and float(gaps.opportunity) == pytest.approx(0.5)


A, X = graphs()
T = torch.tensor([True, False])
BAD = {
    "width": lambda: lp.DenseGAE(0),
    "square": lambda: lp.dense_operator(A[:, :3]),
    "negative": lambda: lp.dense_operator(-A),
    "NaN": lambda: lp.dense_operator(A * math.nan),
    "seeds": lambda: lp.fit_link_predictors(A, X, seeds=[0]),
    "attributes": lambda: lp.fit_link_predictors(A, X[:, :3], seeds=[0, 1]),
    "NaN attributes": lambda: lp.fit_link_predictors(A, X * math.nan, seeds=[0, 1]),
    "empty graph": lambda: lp.fit_link_predictors(0 * A, X, seeds=[0, 1]),
    "one kind": lambda: lp.pair_auc(torch.rand(2), torch.ones(2) > 0),
    "truth": lambda: lp.pair_auc(torch.rand(3), T),
    "NaN scores": lambda: lp.pair_auc(torch.full((2,), math.nan), T),
    "groups": lambda: lp.dyadic_fairness_gaps(torch.rand(2), T[:1], T),
    "one group": lambda: lp.dyadic_fairness_gaps(torch.rand(2), T | True, T),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()
