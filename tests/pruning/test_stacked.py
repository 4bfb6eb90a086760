import pytest
import torch

from netatlas.core.nn import MLP
from netatlas.core.train import fit_many
from netatlas.pruning import (
    initial_parameters,
    member_cross_entropy,
    stacked_accuracy,
    stacked_logits,
    train_stacked,
    weight_names,
)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(70, 5, generator=generator)
    return x, (x @ torch.randn(5, 3, generator=generator)).argmax(-1)


def test_logits_are_those_of_the_modules():
    x, _ = data()
    params = initial_parameters([5, 6, 3], [0, 7])
    for m, seed in enumerate((0, 7)):
        torch.manual_seed(seed)
        torch.testing.assert_close(stacked_logits(params, x)[m], MLP([5, 6, 3])(x))
    assert stacked_logits({n: p.to("meta") for n, p in params.items()}, x.to("meta")).shape == (2, 70, 3)


def test_dense_training_is_that_of_the_common_loop():
    x, y = data()
    options = {"seeds": [3, 4], "epochs": 2, "batch_size": 16, "lr": 0.1, "momentum": 0.9, "schedule": "cosine"}
    ours, _ = train_stacked(initial_parameters([5, 6, 3], [3, 4]), x, y, **options)
    theirs = fit_many(lambda: MLP([5, 6, 3]), x, y, **options)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs.params[name], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(stacked_accuracy(ours, x, y), theirs.accuracy(x, y))


def test_masked_weights_are_zero_and_do_not_learn():
    x, y = data()
    start = initial_parameters([5, 6, 3], [0])
    mask = {"layers.0.weight": torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0)) > 0.5}
    for optimizer in ("sgd", "adam"):
        options = {"optimizer": optimizer, "momentum": 0.9 if optimizer == "sgd" else 0.0}
        params, _ = train_stacked(start, x, y, seeds=[0], epochs=2, batch_size=16, lr=0.05, masks=mask, **options)
        assert (params["layers.0.weight"][~mask["layers.0.weight"]] == 0).all()
        assert (params["layers.0.weight"] != start["layers.0.weight"])[mask["layers.0.weight"]].all()


def test_names_and_loss():
    params = initial_parameters([5, 6, 3], [0], bias=False) | {"norm.0.weight": torch.ones(1, 6)}
    assert weight_names(params) == ["layers.0.weight", "layers.1.weight"]
    logits, y = torch.randn(2, 9, 4), torch.randint(4, (9,))
    expected = torch.stack([torch.nn.functional.cross_entropy(row, y) for row in logits])
    torch.testing.assert_close(member_cross_entropy(logits, y), expected)


def test_refusals():
    x, y = data()
    params = initial_parameters([5, 6, 3], [0, 1])
    with pytest.raises(ValueError, match="2 seeds"):
        train_stacked(params, x, y, seeds=[0], epochs=1, batch_size=4, lr=0.1)
    with pytest.raises(ValueError, match="as many targets"):
        train_stacked(params, x, y[:3], seeds=[0, 1], epochs=1, batch_size=4, lr=0.1)
    with pytest.raises(ValueError, match="as many targets"):
        train_stacked(params, x[:0], y[:0], seeds=[0, 1], epochs=1, batch_size=4, lr=0.1)
