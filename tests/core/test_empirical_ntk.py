"""The empirical kernel: three ways agree, closed forms, torch's recipe, refusals."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from netatlas.core import empirical_ntk as ntk_module
from netatlas.core.empirical_ntk import empirical_ntk, ntk_vector_product
from netatlas.core.infinite import AvgPool, Conv, Dense, Flatten, LayerNorm, Relu, residual, serial
from netatlas.core.nn import MLP, ConvNet, ResNet


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def recipe(model, x, y):
    params = {k: v.detach() for k, v in model.named_parameters()}
    jacobians = [
        vmap(jacrev(lambda p, z: functional_call(model, p, (z[None],))[0]), (None, 0))(params, part) for part in (x, y)
    ]
    return sum(
        torch.einsum("nap,mbp->nmab", a.flatten(2), b.flatten(2)) for a, b in zip(*(j.values() for j in jacobians))
    )


class Shared(nn.Module):
    """One layer used twice, and a parameter of no layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.gain = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)) * self.gain)


MODELS = [
    (lambda: MLP([4, 16, 8, 3], activation="gelu"), (4,)),
    (lambda: ConvNet([4, 5], 3), (3, 8, 8)),
    (lambda: ResNet(4, 1, 3, norm="layer"), (3, 8, 8)),
    (lambda: Shared(), (4,)),
    (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)), (2, 8)),
    (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)), (2, 4, 4)),
    (
        lambda: serial(
            Conv(6, 1.4, 0.1, stride=2), Relu(), Conv(5, padding="circular"), Relu(), AvgPool(2),
            residual(Conv(5)), LayerNorm(), Relu(), Flatten(), Dense(3),
        ).module((3, 8, 8), seed=0),
        (3, 8, 8),
    ),
]  # fmt: skip


@pytest.mark.parametrize("build, shape", MODELS)
@pytest.mark.parametrize("method", ["structured", "jacobian", "ntk_vector"])
def test_every_method_equals_torchs_recipe(build, shape, method):
    torch.manual_seed(0)
    model, x, y = build().double(), draw(3, *shape), draw(2, *shape) + 0.1
    right = recipe(model, x, y)
    tolerance = {"atol": 1e-9 * float(right.abs().max()), "rtol": 1e-9}
    mine = empirical_ntk(model, x, y, method=method, chunk=2)
    assert torch.allclose(mine, right, **tolerance)
    own = empirical_ntk(model, x, method=method)
    assert torch.allclose(own, recipe(model, x, x), **tolerance)
    o = right.shape[-1]
    assert torch.allclose(
        empirical_ntk(model, x, y, method=method, outputs="trace"), right.diagonal(dim1=2, dim2=3).mean(-1), **tolerance
    )
    assert torch.allclose(
        empirical_ntk(model, x, y, method=method, outputs="sum_of_logits"), right.sum((2, 3)) / o, **tolerance
    )
    assert torch.allclose(empirical_ntk(model, x, y, method=method, outputs="first"), right[..., 0, 0], **tolerance)
    mix = draw(2, o)
    assert torch.allclose(
        empirical_ntk(model, x, y, method=method, outputs=mix),
        torch.einsum("ra,nmab,sb->nmrs", mix, right, mix),
        **tolerance,
    )


def test_linear_model_in_closed_form():
    x = draw(5, 3)
    kernel = empirical_ntk(nn.Linear(3, 2).double(), x)
    assert torch.allclose(kernel, (x @ x.mT + 1)[..., None, None] * torch.eye(2).double())


def test_outputs_without_an_axis_and_one_sample():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3).double())

        def forward(self, x):
            return x @ self.w

    x = draw(1, 3)
    for method in ("structured", "jacobian", "ntk_vector"):
        assert torch.allclose(empirical_ntk(Norm(), x, method=method, outputs="trace"), x @ x.mT)


def test_vector_product_and_training_mode():
    model = MLP([4, 8, 3]).double().train()
    x, v = draw(5, 4), draw(5, 3)
    kernel = empirical_ntk(model, x)
    assert model.training
    assert torch.allclose(ntk_vector_product(model, x, v), torch.einsum("nmab,mb->na", kernel, v))
    with pytest.raises(ValueError, match="a vector of shape"):
        ntk_vector_product(model, x, v[:2])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"method": "magic"}, "a method out of"),
        ({"outputs": "max"}, "outputs out of"),
        ({"outputs": torch.ones(2, 5)}, r"combinations \[R, 3\]"),
        ({"chunk": 0}, "a chunk of at least 1"),
        ({"x2": torch.ones(2, 5)}, "x2 like x1"),
        ({"x2": torch.ones(2, 4, device="meta")}, "one device"),
        ({"x1": torch.full((2, 4), float("nan"))}, "finite values in x1"),
        ({"x1": torch.ones(0, 4)}, "n >= 1"),
        ({"model": nn.ReLU()}, "a model with parameters"),
        ({"model": nn.Conv1d(1, 1, 1), "x1": torch.ones(2, 1, 4)}, "outputs of shape"),
    ],
)
def test_refusals(change, words):
    given = {"model": MLP([4, 8, 3]), "x1": torch.ones(2, 4)} | change
    with pytest.raises(ValueError, match=words):
        empirical_ntk(**given)


@pytest.mark.parametrize("tile", [1, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiles_and_symmetry_change_nothing(monkeypatch, tile, dtype):
    model, x = MLP([4, 8, 6, 3]).to(dtype), draw(7, 4).to(dtype)
    right = recipe(model, x, x)
    monkeypatch.setattr(ntk_module, "_TILE", tile)
    tolerance = {"atol": 1e-5 if dtype == torch.float32 else 1e-12}
    own, copy = empirical_ntk(model, x), empirical_ntk(model, x, x.clone())
    assert torch.allclose(own, right, **tolerance) and torch.allclose(copy, right, **tolerance)
    assert torch.equal(own, own.permute(1, 0, 3, 2))
    mean = empirical_ntk(model, x, outputs="trace")
    assert torch.equal(mean, mean.mT)


def test_precision_without_a_numpy_type():
    model, x = MLP([4, 8, 3]).to(torch.bfloat16), draw(5, 4).to(torch.bfloat16)
    kernel = empirical_ntk(model, x).float()
    right = empirical_ntk(model.float(), x.float())
    assert torch.allclose(kernel, right, atol=0.05 * float(right.abs().max()))
