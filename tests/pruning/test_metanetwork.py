import pytest
import torch

from netatlas.core.nn import MLP
from netatlas.core.sparsity import apply_masks, remove_channels
from netatlas.pruning import (
    LayeredGraph,
    Metanetwork,
    aggregate,
    graph_to_network,
    group_norms,
    group_sparsity,
    initial_parameters,
    keep_for_cost,
    network_to_graph,
    stacked_logits,
    unit_masks,
)
from netatlas.pruning import meta_recipe as recipe


def nets(count=2, widths=(6, 5, 4, 3)):
    return {n: p.double() for n, p in initial_parameters(widths, list(range(count))).items()}


def build(**options):
    torch.manual_seed(0)
    return Metanetwork(8, 2, **options).double()


def permuted(params, order):
    return params | {
        "layers.0.weight": params["layers.0.weight"][:, order],
        "layers.0.bias": params["layers.0.bias"][:, order],
        "layers.1.weight": params["layers.1.weight"][:, :, order],
    }


def test_round_trip_is_bitwise_and_ratio_zero_changes_nothing():
    params = nets()
    back = graph_to_network(network_to_graph(params))
    assert all(torch.equal(back[n], params[n]) for n in params)
    same = build(ratio=0.0)(params)
    assert all(torch.equal(same[n], params[n]) for n in params)


def test_permuting_neurons_commutes_and_leaves_decisions():
    params, model, order = nets(), build(), torch.tensor([3, 0, 4, 1, 2])
    one, two = permuted(dict(model(params)), order), model(permuted(params, order))
    for n in params:
        torch.testing.assert_close(one[n], two[n], atol=1e-10, rtol=0)
    kept = keep_for_cost(group_norms(model(params)), [6, 5, 4, 3], 2.0)
    other = keep_for_cost(group_norms(two), [6, 5, 4, 3], 2.0)
    assert torch.equal(kept[0][:, order], other[0]) and torch.equal(kept[1], other[1])


def test_networks_of_a_batch_do_not_mix():
    params, model = nets(3), build()
    alone = model({n: p[1:2] for n, p in params.items()})
    for n, p in model(params).items():
        torch.testing.assert_close(p[1:2], alone[n])


def test_aggregation_by_hand():
    messages = torch.tensor([[[[1.0]], [[3.0]]]])
    assert aggregate(messages)[0, 0].tolist() == pytest.approx([2, 1, 3, 1], abs=1e-5)
    assert aggregate(torch.zeros(2, 5, 4, 3, device="meta")).shape == (2, 4, 12)


def test_group_norms_and_decay_by_hand():
    params = nets(1)
    unit = torch.cat(
        [params["layers.0.weight"][0, 2], params["layers.0.bias"][0, 2:3], params["layers.1.weight"][0, :, 2]]
    )
    torch.testing.assert_close(group_norms(params)[0][0, 2], unit.norm())
    params = {n: p.requires_grad_() for n, p in params.items()}
    grad = torch.autograd.grad(group_sparsity(params).sum(), params["layers.0.bias"])[0][0]
    size = group_norms(params)[0][0].detach()
    gamma = 16 ** ((size.max() - size) / (size.max() - size.min()))
    torch.testing.assert_close(grad, gamma * params["layers.0.bias"][0].detach())
    assert float(gamma.min()) == 1 and float(gamma.max()) == pytest.approx(16)
    equal = {n: torch.ones_like(p) for n, p in params.items()}
    assert torch.isfinite(group_sparsity(equal)).all()


def test_cost_is_reached_and_every_layer_keeps_a_unit():
    params = nets(3)
    for speedup in (1.0, 2.0, 100.0):
        kept = keep_for_cost(group_norms(params), [6, 5, 4, 3], speedup)
        for m in range(3):
            a, b = int(kept[0][m].sum()), int(kept[1][m].sum())
            assert a >= 1 and b >= 1
            assert (6 * a + a * b + 3 * b) * speedup <= 62 or (a, b) == (1, 1)
    assert all(k.all() for k in keep_for_cost(group_norms(params), [6, 5, 4, 3], 1.0))


def test_masked_network_is_the_cut_one():
    torch.manual_seed(0)
    model, x = MLP([6, 5, 4, 3]), torch.randn(7, 6)
    kept = [torch.tensor([0, 3]), torch.tensor([1, 2, 3])]
    params = {n: p.detach()[None] for n, p in model.named_parameters()}
    units = [torch.zeros(1, n, dtype=torch.bool).index_fill(1, k, True) for n, k in zip((5, 4), kept)]
    masked = stacked_logits(apply_masks(params, unit_masks(params, units)), x)[0]
    torch.testing.assert_close(masked, remove_channels(model, kept)(x), atol=1e-6, rtol=1e-5)


def test_random_residual_has_the_same_norm_and_shuffling_keeps_values():
    params = nets()
    changed = dict(build()(params))
    noise = recipe.random_residual(
        {n: p.float() for n, p in params.items()}, {n: p.float() for n, p in changed.items()}, 0
    )
    for n in params:
        torch.testing.assert_close(
            (noise[n] - params[n].float()).flatten(1).norm(dim=1),
            (changed[n] - params[n]).float().flatten(1).norm(dim=1),
        )
    mixed = recipe.shuffled_edges(params, torch.Generator().manual_seed(0))
    for n in params:
        torch.testing.assert_close(mixed[n].flatten(1).sort().values, params[n].flatten(1).sort().values)
    assert torch.equal(mixed["layers.0.bias"], params["layers.0.bias"])


def test_meta_training_and_pruning_run_small():
    params = {n: p.float() for n, p in initial_parameters([64, 6, 5, 10], [0, 1, 2, 3]).items()}
    model = recipe.meta_train(params, reg=1e-3, shuffle=True, seed=0, steps=2)
    changed = recipe.change(model, params)
    assert all(changed[n].shape == params[n].shape for n in params)
    result = recipe.tune_and_prune(changed, lr=0.1, cuts=[2.0], epochs=1, reg=1e-3)
    assert result.after.shape == (1, 4)


def test_unseen_networks_are_new_and_arms_can_be_chosen():
    nets = recipe.unseen(2, sizes=(64, 6, 5, 10))
    again = recipe.unseen(2, sizes=(64, 6, 5, 10))
    assert nets["layers.0.weight"].shape == (2, 6, 64)
    assert all(torch.equal(nets[n], again[n]) for n in nets)
    model = {f"meta/0/{n}": v for n, v in Metanetwork().state_dict().items()}
    state = model | {"lr": torch.tensor(0.1), "direct reg": torch.tensor(0.01)}
    state |= {n.replace("meta", "shuffled"): v for n, v in model.items()}
    arms = recipe.compare_arms(state, nets, meta_seeds=[0], epochs=1, only=["plain"])
    assert set(arms.after) == {"plain"} and arms.after["plain"].shape == (3, 2)
    with pytest.raises(ValueError, match="arms out of"):
        recipe.compare_arms(state, nets, meta_seeds=[0], only=["nonsense"])
    with pytest.raises(ValueError, match="at least one network"):
        recipe.unseen(0)


def test_refusals():
    params = nets()
    with pytest.raises(ValueError, match="finite values in layers"):
        network_to_graph(params | {"layers.0.weight": params["layers.0.weight"] * torch.nan})
    with pytest.raises(ValueError, match="bias in every layer"):
        network_to_graph({"layers.0.weight": torch.ones(1, 2, 2)})
    with pytest.raises(ValueError, match="2 layers of nodes"):
        graph_to_network(LayeredGraph([torch.ones(1, 2, 1)], [torch.ones(1, 2, 2, 1)]))
    with pytest.raises(ValueError, match="even width"):
        Metanetwork(5)
    with pytest.raises(ValueError, match="speedup"):
        keep_for_cost(group_norms(params), [6, 5, 4, 3], 0.5)
    with pytest.raises(ValueError, match="tensors under"):
        recipe.stored({}, "meta")
    with pytest.raises(ValueError, match="device cpu"):
        recipe.train("cuda")
