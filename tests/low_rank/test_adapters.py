"""Adapters: unchanged at the start, merged exactly, counted, prefix attention as a gate, learning-rate groups."""

import pytest
import torch
from torch import nn

from netatlas.core.transformer import Transformer, attend
from netatlas.low_rank import (
    Adapted,
    Adapter,
    BottleneckAdapter,
    HeadwiseAdapter,
    LoRALinear,
    Prefix,
    adapt,
    count_trainable,
    freeze,
    loraplus_param_groups,
    loraplus_scales,
    mam_adapter,
    output_change,
    prefix_gate,
    replace_linear,
    steps_to_reach,
)
from netatlas.low_rank import adapter_experiments as ax


def base():
    torch.manual_seed(0)
    return freeze(Transformer(20, 16, 2, 4, 9))


TOKENS = torch.randint(1, 20, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{}, {"train": "B"}, {"train": "A", "random": "B"}, {"start": "orthonormal"}])
def test_lora_starts_as_the_base_and_merges_exactly(options):
    torch.manual_seed(0)
    dense = nn.Linear(6, 5).double()
    layer = LoRALinear(freeze(dense), 3, alpha=6, **options).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense(x))
    assert count_trainable(layer) == {"both": 33, "A": 18, "B": 15}[options.get("train", "both")]
    with torch.no_grad():
        (layer.A if options.get("random") == "B" else layer.B).normal_()
    expected = x @ (dense.weight + 2 * layer.B @ layer.A).T + dense.bias
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merged().double()(x), expected, atol=1e-5, rtol=1e-5)
    if options.get("start") == "orthonormal":
        torch.testing.assert_close(layer.A @ layer.A.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=1e-6)


FORMS = [
    Adapter("sequential", "ffn"), Adapter("parallel", "ffn", scale=4, learned=True), Adapter("sequential", "attention"),
    Adapter("parallel", "attention"), Adapter("heads", "attention"), Adapter("lora", "qv"), Adapter("lora", "ffn"),
    Adapter("lora", "all"),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.form}-{f.place}")
def test_fresh_adapters_change_nothing_and_share_the_base(form):
    frozen = base()
    model = adapt(frozen, [form])
    torch.testing.assert_close(model(TOKENS), frozen(TOKENS))
    torch.testing.assert_close(model(TOKENS, last_only=True), frozen(TOKENS, last_only=True))
    assert model.embedding.weight is frozen.embedding.weight and count_trainable(model) > 0
    model(TOKENS).square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    torch.testing.assert_close(model(TOKENS, last_only=True), model(TOKENS)[:, -1], atol=1e-4, rtol=1e-3)


def test_prefix_is_attention_over_joined_keys_and_a_gate():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 4, dtype=torch.float64, generator=g) for _ in range(3))
    pk, pv = (torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=g) for _ in range(2))
    out, gate = prefix_gate(q, k, v, pk, pv)
    torch.testing.assert_close(out, attend(q, torch.cat([pk, k], -2), torch.cat([pv, v], -2)))
    weights = (q @ torch.cat([pk, k], -2).mT / 2).softmax(-1)
    torch.testing.assert_close(gate[..., 0], weights[..., :5].sum(-1))


def test_prefix_of_the_model_sees_every_query_and_adds_no_output():
    model = adapt(base(), [Adapter("prefix", "attention", 4)])
    assert count_trainable(model) == 2 * 2 * 4 * 16 and model(TOKENS).shape == (3, 9, 20)
    far = adapt(base(), [Adapter("prefix", "attention", 4)])
    with torch.no_grad():
        for block in far.blocks:
            block.attention.prefix.values.zero_()
            block.attention.prefix.keys.zero_()
    assert not torch.allclose(far(TOKENS), base()(TOKENS))


def test_mix_and_match_is_both():
    model = adapt(base(), mam_adapter(3, 5))
    assert count_trainable(model) == 2 * (2 * 3 * 16 + 2 * 5 * 16)


def test_scale_multiplies_the_branch():
    torch.manual_seed(0)
    branch = BottleneckAdapter(4, 4, 2, activation="identity")
    nn.init.normal_(branch.up.weight)
    x = torch.randn(2, 3, 4)
    double = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        double.weight.copy_(2 * torch.eye(4))
    for insertion, source in (("parallel", x), ("sequential", 2 * x)):
        layer = Adapted(double, branch, insertion=insertion, scale=3.0)
        torch.testing.assert_close(layer(x), 2 * x + 3 * branch(source))


def test_headwise_adapter_is_one_branch_a_head():
    torch.manual_seed(0)
    adapter = HeadwiseAdapter(8, 2, 3)
    for b in adapter.branches:
        nn.init.normal_(b.up.weight)
    x = torch.randn(5, 8)
    torch.testing.assert_close(adapter(x)[:, 4:], adapter.branches[1](x))


def test_replace_linear_and_freeze():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    replace_linear(net, lambda name, layer: LoRALinear(freeze(layer), 1) if name == "0" else None)
    assert isinstance(net[0], LoRALinear) and isinstance(net[2], nn.Linear)
    stacked = freeze(nn.Linear(3, 4), stacked=True)
    assert set(dict(stacked.named_buffers())) == {"weight", "bias"} and count_trainable(stacked) == 0


def test_loraplus_rates():
    scales = loraplus_scales(["a.A", "a.B", "bias"], 16)
    assert scales == {"a.A": 0.25, "a.B": 4.0, "bias": 4.0}
    layer = LoRALinear(nn.Linear(3, 4), 2)
    groups = loraplus_param_groups(layer, 0.1, 8.0, weight_decay=0.5)
    assert [round(g["lr"], 6) for g in groups] == [0.1, 0.8, 0.8] and [g["weight_decay"] for g in groups] == [
        0.5,
        0.5,
        0,
    ]
    assert groups[0]["params"][0] is layer.A and len(groups[2]["params"]) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_parts_of_a_change_add_up_to_the_change(optimizer):
    """The closed forms against a step of autograd on the model itself."""
    g = torch.Generator().manual_seed(0)
    change = output_change(12, (0.01, 0.02), draws=1, generator=g, optimizer=optimizer)
    g = torch.Generator().manual_seed(0)
    x, a = (
        torch.randn(1, 12, dtype=torch.float64, generator=g)[0],
        torch.randn(1, 1, 12, dtype=torch.float64, generator=g)[0] / 12**0.5,
    )
    b, error = torch.randn(1, 1, dtype=torch.float64, generator=g)[0], torch.randn(1, dtype=torch.float64, generator=g)
    a, b = a.requires_grad_(), b.requires_grad_()
    before = b @ (a @ x)
    grad_a, grad_b = torch.autograd.grad((before - (before - error).detach()).square().sum() / 2, (a, b))
    if optimizer == "adam":
        grad_a, grad_b = grad_a.sign(), grad_b.sign()
    after = (b - 0.02 * grad_b) @ ((a - 0.01 * grad_a) @ x)
    torch.testing.assert_close(change.first + change.second + change.both, (after - before)[None].detach())


def test_steps_to_reach():
    losses = torch.tensor([[3.0, 3.0], [1.0, 2.5], [2.0, 2.4]])
    assert steps_to_reach(losses, 2.0, every=5).tolist() == [10.0, float("inf")]


def test_experiments_at_tiny_sizes():
    g = torch.Generator().manual_seed(0)
    data = torch.randn(64, 12, generator=g), torch.randint(10, (64,), generator=g)
    bases = ax.pretrained(data, [12, 8, 8, 10], [0, 1], steps=4, batch=16)
    many = ax.adapt_many(bases, data, seeds=[0, 1], rates=[1e-3, 1e-2], steps=12, batch=16, ratio=4, rank=2)
    head = many.buffers["layers.2.weight"]
    torch.testing.assert_close(head[0], bases.params["layers.2.weight"][0])
    found = ax.tuned(many, [1e-3, 1e-2], 2, data, data, data)
    assert found.test.shape == (2,) and found.at_edge and found.trainable == 2 * (12 + 8) + 2 * 16
    assert ax.speed_up(found, found).tolist() == [1, 1]
    a, b = ax.factor_similarity(found.ensemble, found.ensemble, 1)
    torch.testing.assert_close(a, torch.ones(2)), torch.testing.assert_close(b, torch.ones(2))


def test_tied_layers_stay_tied():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    x = torch.randn(3, 4)
    before = net(x)
    replace_linear(net, lambda _, layer: LoRALinear(freeze(layer), 2))
    assert net[0] is net[2] and count_trainable(net) == 2 * 2 * 4
    torch.testing.assert_close(net(x), before)


def test_full_rank_adapters_reach_any_matrix():
    layer = LoRALinear(freeze(nn.Linear(4, 3)), 3)
    wanted = torch.randn(3, 4)
    with torch.no_grad():
        layer.B.copy_((wanted - layer.base.weight) @ torch.linalg.pinv(layer.A))
        layer.A.copy_(torch.linalg.pinv(layer.B) @ (wanted - layer.base.weight))
    torch.testing.assert_close(layer.merged().weight, wanted, atol=1e-4, rtol=1e-4)


def test_refusals():
    with pytest.raises(ValueError, match="frozen base"):
        adapt(Transformer(20, 16, 2, 4, 9), [Adapter("lora", "qv")])
    with pytest.raises(ValueError, match="rank from 1"):
        LoRALinear(nn.Linear(3, 4), 4)
    with pytest.raises(ValueError, match="rank from 1"):
        LoRALinear(nn.Linear(3, 4), 0)
    with pytest.raises(ValueError, match="starts random"):
        LoRALinear(nn.Linear(3, 4), 2, train="A")
    with pytest.raises(ValueError, match="place of LoRA"):
        adapt(base(), [Adapter("lora", "everywhere")])
    with pytest.raises(ValueError, match="lora, parallel"):
        adapt(base(), [Adapter("bias")])
    with pytest.raises(ValueError, match="ffn, attention"):
        adapt(base(), [Adapter("parallel", "head")])
    with pytest.raises(ValueError, match="one position"):
        Prefix(4, 0)
    with pytest.raises(ValueError, match="parallel or sequential"):
        Adapted(nn.Identity(), nn.Identity(), insertion="above")
    with pytest.raises(ValueError, match="divide the width"):
        HeadwiseAdapter(8, 3, 2)
    with pytest.raises(ValueError, match="relu, identity"):
        BottleneckAdapter(3, 3, 1, activation="gelu")
    with pytest.raises(ValueError, match="positive ratio"):
        loraplus_scales(["A"], 0)
    with pytest.raises(ValueError, match="trainable"):
        loraplus_param_groups(freeze(nn.Linear(2, 2)), 0.1, 2)
    with pytest.raises(ValueError, match="sgd, adam"):
        output_change(4, (1, 1), draws=1, generator=torch.Generator(), optimizer="lion")
