from functools import partial

import pytest
import torch

from netatlas.core.nn import MLP, ResNet
from netatlas.core.states import member
from netatlas.core.symmetry import permute_network, random_permutations, residual_wiring
from netatlas.core.train import Ensemble, stack_members
from netatlas.merging import (
    ResidualMLP,
    average_weights,
    diagonal_fisher,
    fuse,
    paired_stitching_configs,
    stitching_space,
    transport_network,
)
from netatlas.merging import experiments as ex


def mlps(seeds, widths=(6, 8, 7, 4)):
    modules = []
    for seed in seeds:
        torch.manual_seed(seed)
        modules.append(MLP(list(widths)))
    return Ensemble(modules[0], *stack_members(modules))


def anchors(widths=(4, 6, 8), depth=2):
    torch.manual_seed(0)
    family = []
    for width in widths:
        modules = [ResidualMLP(10, width, depth, 5) for _ in range(2)]
        family.append(Ensemble(modules[0], *stack_members(modules)))
    return family


def labelled(n=40, d=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randint(0, classes, (n,), generator=generator)


def test_exact_checks_separate_right_from_wrong():
    errors = list(ex.exact_checks(3).values())
    assert max(errors[:-2]) < 1e-10 and min(errors[-2:]) > 1e-3


def test_residual_wiring_of_the_core_network():
    torch.manual_seed(0)
    model = ResNet(4, 2, 3, norm="none")
    state = {name: value.detach() for name, value in model.named_parameters()}
    wiring = residual_wiring(state)
    copy = permute_network(state, random_permutations(state, seed=1, wiring=wiring), wiring=wiring)
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.functional_call(model, copy, (x,)), model(x), rtol=1e-4, atol=1e-5)
    fused = fuse([copy, state], wiring=wiring)
    assert all(torch.allclose(fused[name], state[name], atol=1e-6) for name in state)
    with pytest.raises(ValueError, match="convolutions and a head only"):
        residual_wiring({**state, "norm.weight": torch.ones(4)})
    with pytest.raises(ValueError, match="stem"):
        residual_wiring({"layers.0.weight": torch.ones(3, 3)})
    assert ex.wiring_for(model) == wiring and ex.wiring_for(MLP([2, 2])) is None


def test_skill_split_partitions_the_examples():
    labels = torch.arange(1000) % 10
    a, b = ex.skill_split(labels, digit=4, share=0.1)
    assert sorted(torch.cat([a, b]).tolist()) == list(range(1000))
    assert (labels[a] == 4).sum() == 100 and len(a) == 190 and not (labels[b] == 4).any()
    with pytest.raises(ValueError, match="share"):
        ex.skill_split(labels, share=1.0)
    with pytest.raises(ValueError, match="class 12"):
        ex.skill_split(labels, digit=12)


def test_rotation_by_a_right_angle_moves_pixels():
    images = torch.rand(2, 1, 6, 6) - 0.5
    torch.testing.assert_close(ex.rotate(images, 0), images, atol=1e-5, rtol=0)
    turned = ex.rotate(images, 90)
    either = [torch.rot90(images, k, (2, 3)) for k in (1, -1)]
    assert min(float((turned - expected).abs().max()) for expected in either) < 1e-4
    torch.testing.assert_close(ex.rotate(turned, -90), images, atol=1e-4, rtol=0)
    assert ex.rotate(torch.full((1, 1, 8, 8), 2.0), 45).min() > 1.99


def test_shifts_by_colour():
    grey, colour = torch.rand(3, 1, 8, 8), torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(ex.shifted(grey, 1), ex.rotate(grey, 45))
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(ex.shifted(flat, 0), flat)
    assert ex.shifted(colour, 1, seed=1).shape == colour.shape
    x, y = ex.both_shifts(grey, torch.arange(3))
    assert x.shape == (6, 1, 8, 8) and y.tolist() == [0, 1, 2, 0, 1, 2]


def test_blend_gives_each_member_its_own_share():
    a, b = mlps([0, 1]).params, mlps([2, 3]).params
    blended = ex.blend(a, b, torch.tensor([0.0, 0.25]))
    for name in a:
        torch.testing.assert_close(blended[name][0], a[name][0])
        torch.testing.assert_close(blended[name][1], 0.75 * a[name][1] + 0.25 * b[name][1])


def test_fusion_comparison_ends_at_the_parents():
    first, second, data = mlps([0, 1]), mlps([2, 3]), labelled()
    arms = ex.aligned_sources(first, second, data[0])
    result = ex.fusion_comparison(arms, second, [0, 0.5, 1], data, data)
    for arm in arms:
        torch.testing.assert_close(result.validation[arm][0], first.accuracy(*data))
        torch.testing.assert_close(result.validation[arm][2], second.accuracy(*data))
        torch.testing.assert_close(result.test[arm], result.validation[arm].amax(0))
    assert ex.function_gap(first, arms["OT, weights"], data[0]).max() < 1e-5
    assert set(ex.comparison_rows(result)) == set(arms)
    assert ex.better_mode(result, list(arms), 1.0) == next(iter(arms))


def test_random_orders_are_averaged_and_leave_a_parent_alone():
    first, second, data = mlps([0, 1]), mlps([2, 3]), labelled()
    torch.testing.assert_close(ex.random_order_accuracy(first, second, data, share=0.0), first.accuracy(*data))
    single = [ex.random_order_accuracy(first, second, data, orders=1, seed=2 * k) for k in range(3)]
    three = ex.random_order_accuracy(first, second, data, orders=3)
    torch.testing.assert_close(three, torch.stack(single).mean(0))
    with pytest.raises(ValueError, match="one order"):
        ex.random_order_accuracy(first, second, data, orders=0)


def test_points_show_no_negative_zero():
    assert ex.points(torch.tensor([-0.0001, -0.0001])) == "+0.0 ± 0.0"
    assert ex.points(torch.tensor([-0.02, -0.04])) == "-3.0 ± 1.0"


def test_half_way_is_the_point_at_one_half_or_the_mean_beside_it():
    accuracy = torch.arange(8.0).reshape(4, 2)
    line = ex.PortraitLine([0.0, 1 / 3, 2 / 3, 1.0], accuracy, 1.0)
    torch.testing.assert_close(ex.half_way(line), accuracy[1:3].mean(0))
    line = ex.PortraitLine([0.0, 0.5, 0.75, 1.0], accuracy, 1.0)
    torch.testing.assert_close(ex.half_way(line), accuracy[1])


def test_accuracy_at_an_exact_loss_is_interpolated():
    old = torch.tensor([[0.9, 0.9], [0.88, 0.95], [0.8, 0.9]], dtype=torch.float64)
    new = torch.tensor([[0.1, 0.1], [0.3, 0.2], [0.5, 0.4]], dtype=torch.float64)
    expected = torch.tensor([0.3 + 0.2 * 3 / 8, 0.4], dtype=torch.float64)
    torch.testing.assert_close(ex.accuracy_at_loss(old, new, 0.05), expected)
    with pytest.raises(ValueError, match="curves"):
        ex.accuracy_at_loss(old, new[:2])


def test_robust_finetuning_starts_at_the_base_and_ends_at_the_child():
    base, child, data = mlps([0, 1]), mlps([2, 3]), labelled()
    other = labelled(seed=1)
    trade = ex.robust_finetuning(base, child, (data, other), [0.0, 0.5, 1.0], (data, other))
    assert set(trade) == {"isotropic", "Fisher", "shuffled Fisher", "ensemble"}
    for old, new in trade.values():
        torch.testing.assert_close(old[0], base.accuracy(*data))
        torch.testing.assert_close(new[-1], child.accuracy(*other))


def test_different_widths_and_largest_neurons_have_the_narrow_shapes():
    wide, narrow, data = mlps([0, 1], (6, 16, 14, 4)), mlps([2, 3]), labelled()
    arms = ex.aligned_sources(wide, narrow, data[0], corrected=True)
    arms["largest"] = ex.narrowed_sources(wide, [8, 7])
    assert "plain average" not in arms
    for state in arms.values():
        assert {n: v.shape for n, v in state.items()} == {n: v.shape for n, v in narrow.params.items()}


def test_fisher_comparison_with_unit_fishers_is_the_plain_average():
    first, second, data = mlps([0, 1]), mlps([2, 3]), labelled()
    arms = ex.fisher_arms(first, second, (data, data))
    assert set(arms) == {"isotropic", "Fisher", "shuffled Fisher", "one sampled label", "empirical Fisher"}
    expected = diagonal_fisher(first.member(1), data[0])
    torch.testing.assert_close(member(arms["Fisher"][0], 1), expected, rtol=1e-4, atol=1e-7)
    result = ex.fisher_comparison(first, second, arms, [0, 0.5, 1], data, data)
    middle = ex.with_weights(first, average_weights([first.params, second.params]))
    torch.testing.assert_close(result.validation["isotropic"][1], middle.accuracy(*data))
    for arm, curve in result.validation.items():
        torch.testing.assert_close(result.test[arm], curve.amax(0))
    with pytest.raises(ValueError, match="arms out of"):
        ex.fisher_arms(first, second, (data, data), arms=["other"])


def test_copies_are_merged_by_group():
    crowd = mlps(range(6))
    merged = ex.merge_copies(crowd, 2, None)
    for group in range(2):
        expected = average_weights([member(crowd.params, 3 * group + k) for k in range(3)])
        for name in expected:
            torch.testing.assert_close(merged[name][group], expected[name])
    repeated = ex.repeat_members(mlps([0, 1]), 3)
    again = ex.merge_copies(repeated, 2, ex.stacked_fisher(repeated, labelled()[0]))
    for name, value in mlps([0, 1]).params.items():
        torch.testing.assert_close(again[name], value)


def test_shifted_members_and_ensembles_of_one():
    networks, data = mlps([0, 1, 2]), labelled()
    moved = ex.shift_members(networks)
    torch.testing.assert_close(moved.accuracy(*data), networks.accuracy(*data)[[1, 2, 0]])
    torch.testing.assert_close(ex.ensemble_accuracy([networks, networks], *data), networks.accuracy(*data))
    torch.testing.assert_close(ex.mean_accuracy([networks, networks], *data), networks.accuracy(*data))
    both = ex.joined(networks, moved)
    assert len(both) == 6
    torch.testing.assert_close(both.accuracy(*data)[3:], moved.accuracy(*data))


def test_stitching_a_chain_with_itself_keeps_it():
    networks = mlps([0, 1])
    x, y = labelled(200)
    shares, accuracy, cost = ex.stitch_accuracy(networks, networks, x, x, y)
    assert shares == pytest.approx([1 / 3, 2 / 3])
    assert cost == pytest.approx(1 + (49 + 64) / 2 / (6 * 8 + 8 * 7 + 7 * 4))
    torch.testing.assert_close(accuracy, networks.accuracy(x, y).expand(2, 2), atol=0.011, rtol=0)


def test_stitching_a_convolutional_network_with_itself_keeps_it():
    torch.manual_seed(0)
    modules = [ex.fusion_network("vgg", scale=1 / 8, bias=True) for _ in range(2)]
    networks = Ensemble(modules[0], *stack_members(modules))
    x, y = torch.randn(100, 3, 8, 8), torch.arange(100) % 10
    shares, accuracy, cost = ex.stitch_accuracy(networks, networks, x, x, y)
    assert len(shares) == 8 and cost > 1
    torch.testing.assert_close(accuracy, networks.accuracy(x, y).expand(8, 2), atol=0.031, rtol=0)


def test_portrait_lines_start_and_end_at_the_parents():
    first, second = mlps([0, 1]), mlps([2, 3])
    x, y = labelled(80)
    lines = ex.portrait(first, second, (x, x), x, [0.0, 0.5, 1.0], (x, y))
    for line in lines.values():
        torch.testing.assert_close(line.accuracy[0], first.accuracy(x, y), atol=0.013, rtol=0)
        torch.testing.assert_close(line.accuracy[-1], second.accuracy(x, y), atol=0.013, rtol=0)
        assert ex.best_inside(line) <= 1
    assert lines["ensemble"].cost == 2 and lines["Fisher"].cost == 1 and lines["stitching"].cost > 1


def test_stitchable_members_keep_their_anchors():
    family = anchors()
    space = stitching_space([2, 2, 2])
    x, y = labelled(60, 10, 5)
    stitched = ex.joined(ex.stitchable(family, space, x), ex.stitchable(family, space, None))
    accuracy = ex.configuration_accuracy(stitched, x, y)
    assert accuracy.shape == (len(space), 4)
    for index, anchor in enumerate(family):
        torch.testing.assert_close(accuracy[index, :2], anchor.accuracy(x, y))
        torch.testing.assert_close(accuracy[index, 2:], anchor.accuracy(x, y))
    flops = ex.configuration_flops(stitched)
    matched = ex.matched_stitches(space, flops)
    assert len(matched) == 4 and all(not space[i].is_anchor for i in matched)
    assert set(ex.by_pair(space, flops, [4, 6, 8])) == {"4 → 6", "6 → 8"}
    assert len(paired_stitching_configs(2)) == 4


def test_width_for_flops_inverts_the_count():
    build = partial(ex.stitching_anchor, "mlp")
    for width in (5, 17, 40):
        embed, blocks, head = build(width).costs()
        assert ex.width_for_flops(build, embed + sum(blocks) + head) == width
    assert ex.width_for_flops(partial(ex.stitching_anchor, "vit"), 10**8, step=4) % 4 == 0


def test_rank_correlations():
    space = stitching_space([3, 3, 3])
    flops = torch.arange(len(space))
    rising = torch.arange(len(space)).double()
    assert set(ex.within_pairs_spearman(space, flops, rising).values()) == {1.0}
    null = ex.shuffled_spearman(space, flops, rising)
    assert 0.4 < null < 0.95


def test_bootstrap_interval_of_a_certain_order_is_a_point():
    space = stitching_space([2, 2, 2])
    flops = torch.arange(len(space))
    certain = (torch.arange(20) < torch.arange(len(space))[:, None])[:, None]
    assert certain.shape == (len(space), 1, 20)
    wide = certain.repeat_interleave(50, 2)
    ends = ex.bootstrap_spearman(space, flops, wide, repeats=20)
    assert all(low == pytest.approx(1.0) and high == pytest.approx(1.0) for low, high in ends.values())
    coins = torch.rand(len(space), 3, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    assert all(low < high for low, high in ex.bootstrap_spearman(space, flops, coins, repeats=50).values())
    with pytest.raises(ValueError, match="level"):
        ex.bootstrap_spearman(space, flops, coins, level=1.0)


def test_configurations_are_uniform_and_targets_are_distributions():
    schedule = ex.configuration_schedule(5, seed=0)
    counts = torch.bincount(torch.tensor([schedule(step)["configuration"] for step in range(5000)]))
    assert counts.min() > 850
    x, y = labelled()
    hard = ex.distillation_targets(mlps([0, 1]), x, y, 0.0)
    torch.testing.assert_close(hard[1], torch.nn.functional.one_hot(y, 4).float())
    soft = ex.distillation_targets(mlps([0, 1]), x, y, 0.5)
    torch.testing.assert_close(soft.sum(-1), torch.ones(2, 40))


def test_individual_training_keeps_what_validation_prefers():
    x, y = torch.randn(60, 784), torch.arange(60) % 10
    train = partial(ex.train_anchor, "mlp", x, y, batch_size=20, optimizer="adamw", lr=5e-3)
    networks, lengths = ex.individually_trained(train, [[3], [4]], [1, 12], (x, y), seeds=[0, 1])
    assert lengths == [12, 12] and [len(network) for network in networks] == [2, 2]


def test_refusals():
    with pytest.raises(ValueError, match="'mlp', 'vgg' or 'resnet'"):
        ex.fusion_network("lstm")
    with pytest.raises(ValueError, match="'mlp' or 'vit'"):
        ex.stitching_anchor("cnn", 8)
    with pytest.raises(ValueError, match="configuration"):
        ex.configuration_schedule(0, seed=0)
    with pytest.raises(ValueError, match="weight"):
        ex.distillation_targets(mlps([0]), *labelled(), 2.0)
    with pytest.raises(ValueError, match="widths"):
        ex.individually_trained(lambda *a, **k: None, [], [1], labelled(), seeds=[0])
    with pytest.raises(ValueError, match="parameter names"):
        transport_network(mlps([0]).member(0).state_dict(), {"other": torch.ones(2)})
