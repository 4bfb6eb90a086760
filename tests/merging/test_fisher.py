import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.core.nn import MLP, ConvNet
from netatlas.core.states import stack
from netatlas.merging import (
    average_weights,
    diagonal_fisher,
    fisher_merge,
    mlp_diagonal_fisher,
    shuffled_entries,
)


def network(seed=0, bias=True, activation="relu"):
    torch.manual_seed(seed)
    return MLP([5, 8, 6, 3], bias=bias, activation=activation).double()


def state_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def examples(n=12, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop_fisher(model, x, weights):
    """One backward pass an example and class: the definition, written out."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for n in range(len(x)):
        logp = model(x[n : n + 1]).log_softmax(-1)[0]
        for y in range(len(logp)):
            grads = torch.autograd.grad(logp[y], list(model.parameters()), retain_graph=True)
            for (name, _), g in zip(model.named_parameters(), grads):
                total[name] += weights(logp, n, y) * g**2 / len(x)
    return {name: value.detach() for name, value in total.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_exact_fisher_against_the_definition(activation, bias):
    model, x = network(bias=bias, activation=activation), examples()
    expected = loop_fisher(model, x, lambda logp, n, y: logp[y].exp())
    general = diagonal_fisher(model, x, chunk=5)
    factorised = mlp_diagonal_fisher(state_of(model), x, activation=activation)
    for name, value in expected.items():
        torch.testing.assert_close(general[name], value)
        torch.testing.assert_close(factorised[name], value)


def test_empirical_fisher_against_the_definition():
    model, x = network(), examples()
    truth = torch.arange(12) % 3
    expected = loop_fisher(model, x, lambda logp, n, y: float(truth[n] == y))
    general = diagonal_fisher(model, x, labels="empirical", truth=truth)
    factorised = mlp_diagonal_fisher(state_of(model), x, labels="empirical", truth=truth)
    for name, value in expected.items():
        torch.testing.assert_close(general[name], value)
        torch.testing.assert_close(factorised[name], value)


def test_sampled_labels_converge_to_the_expectation():
    model, x = network(), examples()
    exact = mlp_diagonal_fisher(state_of(model), x)
    generator = torch.Generator().manual_seed(0)
    sampled = mlp_diagonal_fisher(state_of(model), x, labels="sampled", samples=20_000, generator=generator)
    for name in exact:
        torch.testing.assert_close(sampled[name], exact[name], rtol=0.05, atol=1e-4)
    few = diagonal_fisher(model, x, labels="sampled", samples=2, generator=generator)
    assert all(bool((value >= 0).all()) for value in few.values())


def test_logistic_regression_closed_form():
    torch.manual_seed(0)
    model = nn.Linear(5, 4).double()
    x = examples(50)
    p = model(x).softmax(-1).detach()
    expected = (p * (1 - p)).T @ x**2 / len(x)
    fisher = diagonal_fisher(model, x)
    torch.testing.assert_close(fisher["weight"], expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(fisher["bias"], (p * (1 - p)).mean(0), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(mlp_diagonal_fisher(state_of(model), x)["weight"], expected, rtol=1e-6, atol=1e-9)


def test_convolutional_network_against_the_definition():
    torch.manual_seed(0)
    model = ConvNet([4, 5], 3, norm="group").double()
    x = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    expected = loop_fisher(model, x, lambda logp, n, y: logp[y].exp())
    for name, value in diagonal_fisher(model, x).items():
        torch.testing.assert_close(value, expected[name])


class Twice(nn.Module):
    """One layer used twice; with ``tied`` its transpose is used as well."""

    def __init__(self, tied=False):
        super().__init__()
        self.a, self.b, self.tied = nn.Linear(5, 5, bias=not tied), nn.Linear(5, 3), tied

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.b(h @ self.a.weight if self.tied else torch.tanh(self.a(h)))


class Tokens(nn.Module):
    """Tokens through one layer, kept as an axis or flattened into the batch, and averaged."""

    def __init__(self, flat=False):
        super().__init__()
        self.a, self.b, self.flat = nn.Linear(5, 4), nn.Linear(4, 3), flat

    def forward(self, x):
        h = torch.tanh(self.a(x.reshape(-1, 5) if self.flat else x))
        return self.b(h.reshape(len(x), -1, 4).mean(1))


SHARED = {
    "a layer used twice": (Twice, (7, 5)),
    "a tied layer": (lambda: Twice(tied=True), (7, 5)),
    "tokens": (Tokens, (7, 6, 5)),
    "tokens flattened into the batch": (lambda: Tokens(flat=True), (7, 6, 5)),
    "activation in place": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), (7, 5)),
    "strided convolution without bias": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        ),
        (7, 2, 4, 4),
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_layers_that_are_not_used_once_and_plainly(case):
    build, shape = SHARED[case]
    torch.manual_seed(0)
    model, x = build().double(), torch.randn(shape, dtype=torch.float64)
    expected = loop_fisher(model, x, lambda logp, n, y: logp[y].exp().detach())
    for name, value in diagonal_fisher(model, x, chunk=3).items():
        torch.testing.assert_close(value, expected[name])


class Tied(nn.Module):
    """A layer whose weight is used twice, one whose output is changed in place, and one called on positions."""

    def __init__(self):
        super().__init__()
        self.tied = nn.Linear(5, 5)
        self.rectified = nn.Linear(5, 4)
        self.mixed = nn.Linear(2, 3)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        h = torch.tanh(self.tied(x)) @ self.tied.weight
        h = torch.relu_(self.rectified(h))
        return self.norm(self.mixed(h.reshape(len(x), 2, 2)).flatten(1))


def test_layers_used_in_unusual_ways_against_the_definition():
    torch.manual_seed(0)
    model, x = Tied().double(), examples()
    expected = loop_fisher(model, x, lambda logp, n, y: logp[y].exp())
    for name, value in diagonal_fisher(model, x, chunk=5).items():
        torch.testing.assert_close(value, expected[name])


def test_parameters_can_be_given_and_training_mode_is_restored():
    model, other, x = network(0), network(1), examples()
    model.train()
    given_params = diagonal_fisher(model, x, params=state_of(other))
    assert model.training
    torch.testing.assert_close(given_params["layers.0.weight"], diagonal_fisher(other, x)["layers.0.weight"])


def test_unit_fisher_is_the_isotropic_average():
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        states = [{k: v.to(dtype) for k, v in state_of(network(seed)).items()} for seed in range(3)]
        ones = [{k: torch.ones_like(v) for k, v in state.items()} for state in states]
        merged = fisher_merge(states, ones, [0.2, 0.3, 0.5])
        plain = average_weights(states, [0.2, 0.3, 0.5])
        for name in plain:
            torch.testing.assert_close(merged[name], plain[name], rtol=0, atol=tolerance)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_linear_gaussian_merge_is_the_joint_solution_only_with_summed_fishers(seed, ridge):
    generator = torch.Generator().manual_seed(seed)
    designs, targets = [], []
    for rows in (20, 60):
        q = torch.linalg.qr(torch.randn(rows, 4, generator=generator, dtype=torch.float64)).Q
        designs.append(q * (0.5 + 2 * torch.rand(4, generator=generator, dtype=torch.float64)))
        targets.append(torch.randn(rows, generator=generator, dtype=torch.float64))
    eye = torch.eye(4, dtype=torch.float64)

    def solve(x, y, penalty):
        return torch.linalg.solve(x.T @ x + penalty * eye, x.T @ y)

    def merge(penalty, divide, normalize):
        fishers = [{"w": ((x**2).sum(0) + penalty) / (len(x) if divide else 1)} for x in designs]
        states = [{"w": solve(x, y, penalty)} for x, y in zip(designs, targets)]
        return fisher_merge(states, fishers, normalize=normalize, floor=0.0)["w"]

    x, y = torch.cat(designs), torch.cat(targets)
    torch.testing.assert_close(merge(0.0, False, False), solve(x, y, 0.0), rtol=0, atol=1e-10)
    torch.testing.assert_close(merge(ridge, False, False), solve(x, y, 2 * ridge), rtol=0, atol=1e-10)
    assert (merge(0.0, True, False) - solve(x, y, 0.0)).abs().max() > 1e-6
    assert (merge(0.0, False, True) - solve(x, y, 0.0)).abs().max() > 1e-6


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(0, 1))
def test_merge_lies_between_the_parents_and_forgets_the_scale_of_a_fisher(seed, scale, share):
    states = [state_of(network(seed)), state_of(network(seed + 1))]
    generator = torch.Generator().manual_seed(seed)
    fishers = [{k: torch.rand(v.shape, generator=generator).double() for k, v in s.items()} for s in states]
    merged = fisher_merge(states, fishers, [share, 1 - share], floor=0.0)
    scaled = [fishers[0], {k: scale * v for k, v in fishers[1].items()}]
    again = fisher_merge(states, scaled, [share, 1 - share], floor=0.0)
    for name, value in merged.items():
        torch.testing.assert_close(value, again[name])
        low, high = torch.minimum(states[0][name], states[1][name]), torch.maximum(states[0][name], states[1][name])
        assert (value >= low - 1e-9).all() and (value <= high + 1e-9).all()


def test_floor_of_the_target_keeps_its_value_where_nothing_is_known():
    states = [{"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([3.0, 3.0])}]
    fishers = [{"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([0.0, 1.0])}]
    torch.testing.assert_close(
        fisher_merge(states, fishers, floor_target_only=True)["w"], torch.tensor([1.0, 2.0]), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(fisher_merge(states, fishers)["w"], torch.tensor([2.0, 2.0]), rtol=0, atol=1e-6)
    donor = fisher_merge(states, fishers, [0, 1], floor_target_only=True)["w"]
    torch.testing.assert_close(donor, states[1]["w"])


def test_head_without_fisher_is_kept_and_members_are_merged_one_by_one():
    states = [{"body": torch.randn(3), "head": torch.randn(2)} for _ in range(2)]
    fishers = [{"body": torch.rand(3) + 0.1} for _ in range(2)]
    merged = fisher_merge(states, fishers)
    assert torch.equal(merged["head"], states[0]["head"])
    many = [stack([states[i], states[1 - i]]) for i in range(2)]
    scales = [stack([fishers[i], fishers[1 - i]]) for i in range(2)]
    together = fisher_merge(many, scales, member_axis=True)
    torch.testing.assert_close(together["body"][0], merged["body"])
    torch.testing.assert_close(together["body"][1], fisher_merge(states[::-1], fishers[::-1])["body"])


def test_shuffling_keeps_the_histogram():
    fisher = mlp_diagonal_fisher(state_of(network()), examples())
    shuffled = shuffled_entries(fisher, seed=1)
    for name, value in fisher.items():
        torch.testing.assert_close(shuffled[name].flatten().sort().values, value.flatten().sort().values)
    assert not torch.equal(shuffled["layers.0.weight"], fisher["layers.0.weight"])
    pair = shuffled_entries(stack([fisher, fisher]), seed=1, member_axis=True)
    for name, value in fisher.items():
        torch.testing.assert_close(pair[name][1].flatten().sort().values, value.flatten().sort().values)


def test_refusals():
    model, x = network(), examples()
    state = state_of(model)
    fisher = mlp_diagonal_fisher(state, x)
    for call in (lambda **k: diagonal_fisher(model, **k), lambda **k: mlp_diagonal_fisher(state, **k)):
        with pytest.raises(ValueError, match="at least one example"):
            call(inputs=x[:0])
        with pytest.raises(ValueError, match="NaN"):
            call(inputs=x * float("nan"))
        with pytest.raises(ValueError, match="one of"):
            call(inputs=x, labels="true")
        with pytest.raises(ValueError, match="truth"):
            call(inputs=x, labels="empirical")
        with pytest.raises(ValueError, match="shape"):
            call(inputs=x, labels="empirical", truth=torch.zeros(3, dtype=torch.long))
        with pytest.raises(ValueError, match="sampled label"):
            call(inputs=x, labels="sampled", samples=0)
    with pytest.raises(ValueError, match="chunk"):
        diagonal_fisher(model, x, chunk=0)
    with pytest.raises(ValueError, match="activation"):
        mlp_diagonal_fisher(state, x, activation="sine")
    with pytest.raises(ValueError, match="fully connected"):
        mlp_diagonal_fisher({"weight": torch.randn(3, 2, 3, 3)}, x)
    with pytest.raises(ValueError, match="one Fisher a network"):
        fisher_merge([state, state], [fisher])
    with pytest.raises(ValueError, match="negative entries"):
        fisher_merge([state, state], [fisher, {k: v - 1 for k, v in fisher.items()}])
    with pytest.raises(ValueError, match="vanishes"):
        fisher_merge([state, state], [fisher, {k: 0 * v for k, v in fisher.items()}])
    with pytest.raises(ValueError, match="floor"):
        fisher_merge([state, state], [fisher, fisher], floor=-1.0)
    with pytest.raises(ValueError, match="parameter's shape"):
        fisher_merge([state, state], [{"other": torch.ones(2)}] * 2)


def test_meta_device():
    meta = {name: value.to("meta") for name, value in state_of(network()).items()}
    fisher = mlp_diagonal_fisher(meta, torch.empty(4, 5, device="meta", dtype=torch.float64))
    assert {n: v.shape for n, v in fisher.items()} == {n: v.shape for n, v in meta.items()}
    merged = fisher_merge([meta, meta], [fisher, fisher])
    assert merged["layers.0.weight"].shape == (8, 5)
    assert average_weights([meta, meta])["layers.0.weight"].is_meta
