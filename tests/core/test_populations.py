import pytest
import torch
from scipy.stats import kendalltau

from netatlas.core.populations import Architecture, MaskedMLP, architecture_grid, kendall_tau, train_population
from netatlas.core.train import fit_many


def problem(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def test_a_masked_layer_is_the_identity():
    torch.manual_seed(0)
    deep = MaskedMLP(6, Architecture(1, 8, "tanh"), 3, depth=3)
    x, _ = problem()
    direct = deep.head(deep.layers[0](x).tanh())
    torch.testing.assert_close(deep(x), direct)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_network_is_what_it_says(activation, skip, norm):
    torch.manual_seed(1)
    model, (x, _) = MaskedMLP(6, Architecture(2, 8, activation, skip, norm), 3), problem()
    phi = {"relu": torch.relu, "tanh": torch.tanh}[activation]

    def layer(linear, h):
        z = linear(h)
        return phi(
            (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            if norm == "layer"
            else z
        )

    first = layer(model.layers[0], x)
    second = layer(model.layers[1], first) + (first if skip else 0)
    torch.testing.assert_close(model(x), model.head(second), atol=1e-5, rtol=1e-4)


def test_a_member_trains_as_it_would_alone():
    x, y = problem()
    grid = architecture_grid([1, 2], [4, 8], ["relu", "tanh"])
    options = {"epochs": 3, "batch_size": 16, "optimizer": "adam", "lr": 1e-2}
    found = train_population(grid, x, y, [x], seeds=[3, 4], **options)
    assert len(found.architectures) == 16 and found.outputs[0].shape == (16, 64, 3)
    assert found.column("width")[:4] == [4] * 4
    i = found.architectures.index(Architecture(2, 8, "tanh")) + 1
    alone = fit_many(lambda: MaskedMLP(6, Architecture(2, 8, "tanh"), 3, depth=2), x, y, seeds=[4], **options)
    torch.testing.assert_close(found.outputs[0][i], alone.predict(x)[0], atol=1e-5, rtol=1e-4)


def test_kendall_against_scipy_with_ties():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 6, (4, 20), generator=generator).float()
    b = torch.randint(0, 6, (4, 20), generator=generator).float()
    for i in range(4):
        assert float(kendall_tau(a, b)[i]) == pytest.approx(kendalltau(a[i], b[i]).statistic)
    assert kendall_tau(a[:, None], b[None]).shape == (4, 4)
    assert torch.isnan(kendall_tau(torch.ones(3), torch.arange(3.0)))


def train(x, y, evaluate=(), classes=None):
    return train_population([Architecture(1, 4)], x, y, evaluate, seeds=[0], epochs=1, batch_size=4, classes=classes)


BAD = {
    "depth": lambda: architecture_grid([0], [4]),
    "activation": lambda: architecture_grid([1], [4], ["elu"]),
    "norm": lambda: architecture_grid([1], [4], norms=["batch"]),
    "nothing": lambda: architecture_grid([], [4]),
    "shallow stack": lambda: MaskedMLP(3, Architecture(3, 4), 2, depth=1),
    "no input": lambda: MaskedMLP(0, Architecture(1, 4), 2),
    "no member": lambda: train_population([], *problem(), [], seeds=[0], epochs=1, batch_size=4),
    "one object": lambda: kendall_tau(torch.ones(1), torch.ones(1)),
    "objects": lambda: kendall_tau(torch.ones(3), torch.ones(2)),
    "NaN": lambda: kendall_tau(torch.tensor([1.0, float("nan")]), torch.ones(2)),
    "width": lambda: architecture_grid([1], [0]),
    "no seed": lambda: train_population([Architecture(1, 4)], *problem(), [], seeds=[], epochs=1, batch_size=4),
    "nobody": lambda: train(torch.zeros(0, 6), torch.zeros(0).long()),
    "NaN inputs": lambda: train(problem()[0] * float("nan"), problem()[1]),
    "NaN to evaluate": lambda: train(*problem(), evaluate=[problem()[0] * float("nan")]),
    "features to evaluate": lambda: train(*problem(), evaluate=[torch.zeros(3, 5)]),
    "label out of range": lambda: train(*problem(), classes=2),
    "negative label": lambda: train(problem()[0], problem()[1] - 1),
    "floating labels": lambda: train(problem()[0], problem()[1].float()),
    "features": lambda: MaskedMLP(6, Architecture(1, 4), 2)(torch.zeros(3, 5)),
    "a number": lambda: kendall_tau(torch.ones(2), torch.tensor(1.0)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


def test_one_class_has_one_answer():
    x = problem(8)[0]
    assert train(x, torch.zeros(8).long(), [x]).outputs[0].shape == (1, 8, 1)
