"""Dispersions at their ends, losses against their definitions, and training that never loses a validation node."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.message_passing import GCN, fit_nodes, gcn_operator
from netatlas.data import contextual_sbm
from netatlas.propagation import (
    ConfidenceGate,
    dispersion_entropy,
    dispersion_variance,
    fit_mixture,
    masked_accuracy,
    mix,
    mixture_loss,
    random_splits,
)


@pytest.mark.parametrize("spread", [dispersion_variance, dispersion_entropy])
@settings(deadline=None, max_examples=20)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_dispersions(spread, classes, seed):
    p = torch.rand(50, classes, generator=torch.Generator().manual_seed(seed)).double()
    p = p / p.sum(-1, keepdim=True)
    value = spread(p)
    assert (value >= -1e-12).all() and (value <= 1 + 1e-12).all()
    ends = spread(torch.stack([torch.full((classes,), 1 / classes).double(), torch.eye(classes).double()[0]]))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0]).double(), atol=1e-6, rtol=0)
    sharper = spread(p.square() / p.square().sum(-1, keepdim=True))
    assert (sharper >= value - 1e-12).all()


def test_gate():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]], requires_grad=True)
    for kind in ("variance", "entropy", "learned", "constant"):
        c = ConfidenceGate(kind)(p)
        assert ((c >= 0) & (c <= 1)).all()
    sharp = ConfidenceGate("variance", power=0.5)(p)
    sharp.sum().backward()
    assert torch.isfinite(p.grad).all() and sharp[2].item() == pytest.approx(1)
    with pytest.raises(ValueError, match="kind"):
        ConfidenceGate("vote")
    with pytest.raises(ValueError, match="power"):
        ConfidenceGate(power=0.0)
    with pytest.raises(ValueError, match="two classes"):
        dispersion_variance(torch.ones(3, 1))


def test_losses_by_definition_and_convexity():
    g = torch.Generator().manual_seed(0)
    weak, strong = (torch.randn(30, 4, generator=g).double().log_softmax(-1) for _ in range(2))
    c, y = torch.rand(30, generator=g).double(), torch.randint(4, (30,), generator=g)
    mixed = mixture_loss(weak, strong, c, y, "mixed")
    torch.testing.assert_close(mixed, -mix(weak.exp(), strong.exp(), c)[torch.arange(30), y].log())
    assert (mixed <= mixture_loss(weak, strong, c, y, "expected") + 1e-12).all()
    ends = torch.tensor([0.0, 1.0]).double().repeat(15)
    only = torch.where(ends == 1, weak[torch.arange(30), y], strong[torch.arange(30), y])
    for objective in ("mixed", "expected"):
        torch.testing.assert_close(mixture_loss(weak, strong, ends, y, objective), -only)
    with pytest.raises(ValueError, match="objective"):
        mixture_loss(weak, strong, c, y, "hard")
    with pytest.raises(ValueError, match="shape"):
        mix(weak, strong[:3], c)
    with pytest.raises(ValueError, match="confidences"):
        mix(weak, strong, c[:3])


@pytest.fixture(scope="module")
def trained():
    data = contextual_sbm([40, 40, 40], 6, 0.3, 8, 0.7, 0)
    masks = random_splits(data.y, (0.4, 0.3), seeds=[0, 1])
    nets = []
    for operator in (None, gcn_operator(data)):
        nets.append(
            fit_nodes(lambda op=operator: GCN([8, 6, 3], op), data.x, data.y, *masks[:2], seeds=[0, 1], epochs=15)
        )
    return data, masks, nets


@pytest.mark.parametrize("options", [{}, {"objective": "expected", "gate": "learned"}, {"alternate": False}])
def test_training_in_turns_never_loses_validation(trained, options):
    data, masks, (weak, strong) = trained
    fit = fit_mixture(weak, strong, data.x, data.y, *masks[:2], turns=1, steps=10, **options)
    assert (fit.history.diff(dim=0) >= 0).all()
    torch.testing.assert_close(masked_accuracy(fit.mixture, data.y, masks[1]), fit.validation)
    torch.testing.assert_close(fit.mixture.sum(-1), torch.ones(2, 120))


def test_no_turns_is_the_gate_alone(trained):
    data, masks, (weak, strong) = trained
    fit = fit_mixture(weak, strong, data.x, data.y, *masks[:2], turns=0)
    torch.testing.assert_close(fit.weak, weak.logits.softmax(-1))
    torch.testing.assert_close(fit.confidence, dispersion_variance(fit.weak))
    again = fit_mixture(weak, strong, data.x, data.y, *masks[:2], turns=1, steps=5, seed=3)
    same = fit_mixture(weak, strong, data.x, data.y, *masks[:2], turns=1, steps=5, seed=3)
    torch.testing.assert_close(again.confidence, same.confidence, rtol=0, atol=0)
    with pytest.raises(ValueError, match="turns"):
        fit_mixture(weak, strong, data.x, data.y, *masks[:2], turns=-1)
    with pytest.raises(ValueError, match="at least one node"):
        masked_accuracy(fit.mixture, data.y, torch.zeros(2, 120, dtype=torch.bool))
