"""The training loop against an ordinary torch.optim loop, and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from netatlas.core.nn import MLP, ConvNet, ResNet
from netatlas.core.train import batch_order, fit, fit_many, learning_rate_factor, minimize, stack_members

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(60, 5, generator=GENERATOR)
LABELS = torch.randint(0, 3, (60,), generator=GENERATOR)


def sequential(build, seed, make_optimizer, epochs, batch_size, factor=lambda step, steps: 1.0, inputs=INPUTS):
    """The loop that anyone would write."""
    torch.manual_seed(seed)
    model = build()
    optimizer = make_optimizer(model.parameters())
    base = [group["lr"] for group in optimizer.param_groups]
    order, step = batch_order(seed, len(inputs), epochs), 0
    steps = epochs * -(-len(inputs) // batch_size)
    for epoch in order:
        for batch in epoch.split(batch_size):
            for group, lr in zip(optimizer.param_groups, base):
                group["lr"] = lr * factor(step, steps)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), LABELS[batch]).backward()
            optimizer.step()
            step += 1
    return model.eval()


OPTIMIZERS = {
    "sgd": ({"optimizer": "sgd"}, lambda lr: lambda p: torch.optim.SGD(p, lr)),
    "momentum": ({"optimizer": "sgd", "momentum": 0.9}, lambda lr: lambda p: torch.optim.SGD(p, lr, momentum=0.9)),
    "nesterov": (
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        lambda lr: lambda p: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
    ),
    "decay": (
        {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.1},
        lambda lr: lambda p: torch.optim.SGD(p, lr, momentum=0.5, weight_decay=0.1),
    ),
    "adam": ({"optimizer": "adam"}, lambda lr: lambda p: torch.optim.Adam(p, lr)),
    "adamw": (
        {"optimizer": "adamw", "weight_decay": 0.1},
        lambda lr: lambda p: torch.optim.AdamW(p, lr, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_every_member_takes_the_steps_it_would_take_alone(name, schedule):
    options, make = OPTIMIZERS[name]
    rates, seeds = [0.05, 0.01, 0.02], [0, 1, 1]
    together = fit_many(
        lambda: MLP([5, 7, 3]),
        INPUTS,
        LABELS,
        seeds=seeds,
        epochs=3,
        batch_size=16,
        lr=rates,
        schedule=schedule,
        **options,
    )
    for member, (seed, rate) in enumerate(zip(seeds, rates)):
        alone = sequential(
            lambda: MLP([5, 7, 3]), seed, make(rate), 3, 16, lambda t, n: learning_rate_factor(t, n, schedule)
        )
        for key, value in alone.named_parameters():
            torch.testing.assert_close(together.params[key][member], value.detach(), atol=1e-5, rtol=0)
        torch.testing.assert_close(together.predict(INPUTS)[member], alone(INPUTS).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("network", ["convnet", "resnet"])
def test_networks_with_every_norm_train_alike_together_and_alone(norm, network):
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def build():
        return ConvNet([4, 8], 3, norm=norm) if network == "convnet" else ResNet(4, 1, 3, norm=norm)

    together = fit_many(build, images, LABELS[:24], seeds=[3, 4], epochs=2, batch_size=8, lr=0.05)
    for member, seed in enumerate([3, 4]):
        alone = sequential(build, seed, lambda p: torch.optim.SGD(p, 0.05), 2, 8, inputs=images)
        torch.testing.assert_close(together.predict(images)[member], alone(images).detach(), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.member(member)(images), together.predict(images)[member], atol=1e-5, rtol=0)


def test_fit_trains_in_place_and_goes_on_from_given_weights():
    torch.manual_seed(5)
    model = MLP([5, 7, 3])
    fit(model, INPUTS, LABELS, seed=5, epochs=2, batch_size=16, lr=0.05)
    alone = sequential(lambda: MLP([5, 7, 3]), 5, lambda p: torch.optim.SGD(p, 0.05), 2, 16)
    torch.testing.assert_close(model(INPUTS), alone(INPUTS), atol=1e-5, rtol=0)
    first = fit_many(lambda: MLP([5, 7, 3]), INPUTS, LABELS, seeds=[0, 1], epochs=1, batch_size=16, lr=0.05)
    still = fit_many(lambda: MLP([5, 7, 3]), INPUTS, LABELS, seeds=[0, 1], epochs=1, batch_size=16, lr=0.0, init=first)
    for key in first.params:
        torch.testing.assert_close(still.params[key], first.params[key], atol=0, rtol=0)


def test_members_may_have_data_of_their_own():
    own = torch.stack([INPUTS, 2 * INPUTS])
    labels = torch.stack([LABELS, LABELS])
    together = fit_many(
        lambda: MLP([5, 7, 3]), own, labels, seeds=[0, 0], epochs=2, batch_size=16, lr=0.05, per_member_data=True
    )
    single = fit_many(lambda: MLP([5, 7, 3]), 2 * INPUTS, LABELS, seeds=[0], epochs=2, batch_size=16, lr=0.05)
    torch.testing.assert_close(together.params["layers.0.weight"][1], single.params["layers.0.weight"][0])
    accuracy = together.accuracy(own, labels, per_member_data=True)
    assert accuracy.shape == (2,) and together[1:].accuracy(2 * INPUTS, LABELS)[0] == accuracy[1]


def test_extra_arguments_of_the_forward_pass_reach_every_step():
    seen = []

    class Scaled(MLP):
        def forward(self, x, factor=1.0):
            return factor * super().forward(x)

    def schedule(step):
        seen.append(step)
        return {"factor": 1.0 + step}

    trained = fit_many(
        lambda: Scaled([5, 3]), INPUTS, LABELS, seeds=[0, 1], epochs=1, batch_size=20, lr=0.0, forward_kwargs=schedule
    )
    assert seen == [0, 1, 2]
    torch.testing.assert_close(trained.predict(INPUTS, factor=2.0), 2 * trained.predict(INPUTS))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.floats(0.05, 0.4), st.integers(0, 99))
def test_gradient_descent_on_a_quadratic_is_its_closed_form(dim, rate, seed):
    start = torch.randn(3, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found, history = minimize(
        lambda p, step, g: 0.5 * (p["x"] ** 2).sum(1), {"x": start}, steps=7, optimizer="sgd", lr=[rate, rate / 2, 0.0]
    )
    factors = torch.tensor([(1 - rate) ** 7, (1 - rate / 2) ** 7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found["x"], factors[:, None] * start)
    torch.testing.assert_close(history[0], 0.5 * (start**2).sum(1))


def test_a_loss_that_diverges_names_its_step():
    with pytest.raises(ValueError, match="at step"):
        minimize(lambda p, t, g: (p["x"] ** 4).sum(), {"x": torch.tensor([1e30])}, steps=9, optimizer="sgd", lr=1.0)


BAD = {
    "no seeds": {"seeds": []},
    "no epochs": {"epochs": 0},
    "NaN inputs": {"inputs": torch.full((60, 5), float("nan"))},
    "too few targets": {"targets": LABELS[:5]},
    "no examples": {"inputs": INPUTS[:0], "targets": LABELS[:0]},
    "wrong number of rates": {"lr": [0.1, 0.2, 0.3]},
    "unknown optimizer": {"optimizer": "adagrad"},
    "unknown schedule": {"schedule": "stairs"},
    "own data for other members": {"per_member_data": True, "inputs": INPUTS[None], "targets": LABELS[None]},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    options = {"inputs": INPUTS, "targets": LABELS, "seeds": [0, 1], "epochs": 1, "batch_size": 16, "lr": 0.1} | BAD[
        name
    ]
    with pytest.raises(ValueError, match="expected"):
        fit_many(lambda: MLP([5, 3]), options.pop("inputs"), options.pop("targets"), **options)


def test_members_must_be_of_one_architecture():
    with pytest.raises(ValueError, match="one architecture"):
        stack_members([MLP([5, 3]), MLP([5, 4])])
    with pytest.raises(ValueError, match="at least one module"):
        stack_members([])


@pytest.mark.parametrize("build", [lambda: MLP([12, 4, 3]), lambda: ConvNet([4, 4], 3), lambda: ResNet(4, 1, 3)])
def test_networks_run_on_the_meta_device(build):
    with torch.device("meta"):
        model = build()
        shape = (2, 12) if isinstance(model, MLP) else (2, 3, 8, 8)
        assert model(torch.empty(shape)).shape == (2, 3)


def test_preactivations_are_every_layers_value():
    model = MLP([5, 7, 3])
    values = model(INPUTS, return_preactivations=True)
    assert [v.shape[1] for v in values] == [7, 3]
    torch.testing.assert_close(values[-1], model(INPUTS))
    torch.testing.assert_close(values[0], INPUTS @ model.layers[0].weight.T + model.layers[0].bias)


@pytest.mark.parametrize(
    "make", [lambda: MLP([3]), lambda: MLP([3, 0]), lambda: MLP([3, 2], activation="sine"), lambda: ConvNet([], 3)]
)
def test_impossible_networks_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_members_with_one_order_stay_together_until_it_parts():
    x, y = torch.randn(24, 3), torch.randint(0, 2, (24,))
    shared, apart = batch_order(0, 24, 1), torch.stack([batch_order(s, 24, 1) for s in (1, 2)], 1)
    order = torch.cat([shared[:, None].expand(1, 2, 24), apart])
    seen = {}
    fit_many(
        lambda: torch.nn.Linear(3, 2), x, y, seeds=[5, 5], epochs=2, batch_size=8, lr=0.1, momentum=0.9, order=order,
        observe=lambda step, params: seen.__setitem__(step, params["weight"].detach().clone()),
    )  # fmt: skip
    assert sorted(seen) == list(range(7))
    assert all(torch.equal(seen[step][0], seen[step][1]) for step in range(4))
    assert not torch.allclose(seen[4][0], seen[4][1])


def test_the_default_order_is_the_order_of_the_seeds():
    x, y = torch.randn(20, 3), torch.randint(0, 2, (20,))
    options = {"seeds": [3, 4], "epochs": 2, "batch_size": 6}
    order = torch.stack([batch_order(s, 20, 2) for s in (3, 4)], 1)
    ours = fit_many(lambda: torch.nn.Linear(3, 2), x, y, **options)
    same = fit_many(lambda: torch.nn.Linear(3, 2), x, y, order=order, **options)
    assert torch.equal(ours.params["weight"], same.params["weight"])
    with pytest.raises(ValueError, match="an order of shape"):
        fit_many(lambda: torch.nn.Linear(3, 2), x, y, order=order[:1], **options)
    with pytest.raises(ValueError, match="every example once"):
        fit_many(lambda: torch.nn.Linear(3, 2), x, y, order=torch.zeros_like(order), **options)


def test_clipping_counts_scalar_parameters_of_every_member():
    start = {"scale": torch.tensor([3.0, 0.1]), "weight": torch.tensor([[4.0, 0.0], [0.1, 0.0]])}
    found, _ = minimize(
        lambda p, step, generator: 0.5 * (p["scale"].square() + p["weight"].square().sum(1)),
        start,
        steps=1,
        optimizer="sgd",
        lr=1.0,
        clip_norm=1.0,
    )
    # The first member's gradient is (3, 4, 0), of length 5; the second's is short and goes through.
    torch.testing.assert_close(found["scale"], torch.tensor([3 - 0.6, 0.0]))
    torch.testing.assert_close(found["weight"], torch.tensor([[4 - 0.8, 0.0], [0.0, 0.0]]))
