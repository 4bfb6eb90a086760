import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.train import fit_many
from netatlas.merging import (
    Configuration,
    ResidualMLP,
    StitchableNetwork,
    VisionTransformer,
    block_features,
    flops_count,
    initialize_stitches,
    least_squares_stitch,
    paired_stitching_configs,
    pareto_front,
    stitching_space,
)


def anchors(widths=(4, 6, 9), depth=3, features=10, seed=0):
    torch.manual_seed(seed)
    return [ResidualMLP(features, width, depth, 5) for width in widths]


@pytest.mark.parametrize(("depth", "pairs", "layers", "with_three"), [(12, 34, 11, 71), (6, 16, 5, 35)])
def test_published_counts(depth, pairs, layers, with_three):
    found = paired_stitching_configs(depth)
    assert len(found) == len({(j, q) for j, q, _ in found}) == pairs
    assert len({layer for _, _, layer in found}) == layers
    assert len(stitching_space([depth] * 3)) == with_three


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(1, 2))
def test_pairs_are_valid_unique_and_near_the_diagonal(depth, other, kernel, stride):
    kernel = min(kernel, max(depth, other))
    found = paired_stitching_configs(depth, other, kernel=kernel, stride=stride)
    pairs = [(j, q) for j, q, _ in found]
    assert len(pairs) == len(set(pairs))
    assert all(0 <= j < depth and 0 <= q < other for j, q in pairs)
    assert sorted({layer for *_, layer in found}) == list(range(1 + max(layer for *_, layer in found)))
    reach = kernel / max(depth, other) + 1 / min(depth, other)
    assert all(abs((j + 0.5) / depth - (q + 0.5) / other) <= reach for j, q in pairs)


def test_unequal_depths_reach_every_block_of_both():
    pairs = [(j, q) for j, q, _ in paired_stitching_configs(4, 8)]
    assert {j for j, _ in pairs} == set(range(4)) and {q for _, q in pairs} == set(range(8))


def test_nearest_stitching_never_skips_a_size_and_direction_turns():
    near = stitching_space([3, 3, 3])
    assert {(c.first, c.second) for c in near if not c.is_anchor} == {(0, 1), (1, 2)}
    far = stitching_space([3, 3, 3], reach=2)
    assert (0, 2) in {(c.first, c.second) for c in far}
    down = stitching_space([3, 3], downward=True)
    assert {(c.first, c.second) for c in down if not c.is_anchor} == {(1, 0)}


def test_forward_against_the_blocks_written_out():
    small, large = anchors((4, 6))
    network = StitchableNetwork([small, large], stitching_space([3, 3]))
    x = torch.randn(7, 10)
    for item in network.configurations:
        if item.is_anchor:
            expected = network.anchors[item.first](x)
        else:
            h = small.embed(x)
            for block in list(small.blocks)[: item.block + 1]:
                h = block(h)
            h = network.stitches[item.layer](h)
            for block in list(large.blocks)[item.resume :]:
                h = block(h)
            expected = large.head(h)
        torch.testing.assert_close(network(x, configuration=item), expected)
    torch.testing.assert_close(network(x, configuration=1), large(x))


def test_least_squares_against_lstsq_and_its_residual_is_orthogonal():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64)
    b = torch.randn(2, 40, 3, generator=generator, dtype=torch.float64)
    weight, bias = least_squares_stitch(a, b)
    ones = torch.cat([a, torch.ones(2, 40, 1, dtype=torch.float64)], -1)
    expected = torch.linalg.lstsq(ones, b).solution
    torch.testing.assert_close(weight, expected[:, :6].mT)
    torch.testing.assert_close(bias, expected[:, 6])
    residual = a @ weight.mT + bias[:, None] - b
    assert (ones.mT @ residual).abs().max() < 1e-10


def test_least_squares_of_rank_deficient_features_is_the_pseudo_inverse():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    a = torch.cat([a, a[:, :1], torch.zeros(30, 1, dtype=torch.float64)], 1)
    b = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    weight, bias = least_squares_stitch(a, b)
    centred = torch.linalg.pinv(a - a.mean(0)) @ (b - b.mean(0))
    torch.testing.assert_close(weight, centred.T)
    torch.testing.assert_close(bias, b.mean(0) - a.mean(0) @ centred)


def test_anchor_stitched_to_itself_is_the_identity():
    (anchor,) = anchors((6,), depth=4)
    items = [Configuration(0, 0, j, j + 1, f"at{j}") for j in range(3)]
    network = StitchableNetwork([anchor], [Configuration(0), *items])
    x = torch.randn(200, 10)
    initialize_stitches(network, x)
    for item in items:
        layer = network.stitches[item.layer]
        torch.testing.assert_close(layer.weight, torch.eye(6), rtol=0, atol=1e-3)
        assert layer.bias.abs().max() < 1e-3
        torch.testing.assert_close(network(x, configuration=item), anchor(x), rtol=0, atol=1e-3)


def test_shared_layers_hold_the_mean_and_targets_are_block_inputs():
    small, large = anchors((4, 6))
    network = StitchableNetwork([small, large], stitching_space([3, 3]))
    x = torch.randn(60, 10)
    initialize_stitches(network, x)
    a, b = block_features(small, x), block_features(large, x)
    shared = [c for c in network.configurations if c.layer == "from0to1at1"]
    assert len(shared) == 3
    solutions = [least_squares_stitch(a[c.block + 1], b[c.resume]) for c in shared]
    weight = torch.stack([w for w, _ in solutions]).mean(0)
    torch.testing.assert_close(network.stitches["from0to1at1"].weight, weight, rtol=1e-4, atol=1e-5)


def test_shuffled_targets_leave_a_constant_network():
    small, large = anchors((4, 6))
    network = StitchableNetwork([small, large], stitching_space([3, 3]))
    x = torch.randn(4000, 10)
    initialize_stitches(network, x)
    aligned = network(x, configuration=6).std(0).mean()
    initialize_stitches(network, x, shuffle_seed=0)
    assert network(x, configuration=6).std(0).mean() < 0.2 * aligned


def test_flops_written_out():
    network = StitchableNetwork(anchors((4, 6)), stitching_space([3, 3]))
    small = 10 * 4 + 3 * 2 * 4 * 16 + 4 * 5
    assert flops_count(network, 0) == small
    stitch = Configuration(0, 1, 1, 2, "from0to1at1")
    assert flops_count(network, stitch) == 10 * 4 + 2 * 2 * 4 * 16 + 4 * 6 + 2 * 6 * 24 + 6 * 5


def test_transformer_anchors_stitch_and_count():
    torch.manual_seed(0)
    family = [VisionTransformer(8, 4, 3, width, 2, 5, heads=2) for width in (8, 12)]
    network = StitchableNetwork(family, stitching_space([2, 2]))
    x = torch.randn(20, 3, 8, 8)
    initialize_stitches(network, x)
    for item in network.configurations:
        assert network(x, configuration=item).shape == (20, 5)
    torch.testing.assert_close(network(x, configuration=0), family[0](x))
    assert flops_count(network, 0) < flops_count(network, 1)
    twin = StitchableNetwork([family[0]], [Configuration(0, 0, 0, 1, "self")])
    initialize_stitches(twin, torch.randn(100, 3, 8, 8))
    torch.testing.assert_close(twin(x), family[0](x), rtol=0, atol=1e-3)


def test_one_training_loop_visits_configurations():
    x, y = torch.randn(32, 10), torch.randint(0, 5, (32,))
    space = stitching_space([3, 3])
    trained = fit_many(
        lambda: StitchableNetwork(anchors((4, 6)), space),
        x,
        y,
        seeds=[0, 1],
        epochs=4,
        batch_size=8,
        optimizer="adamw",
        lr=1e-2,
        forward_kwargs=lambda step: {"configuration": step % len(space)},
    )
    assert trained.predict(x, configuration=3).shape == (2, 32, 5)
    assert trained.history[-1].mean() < trained.history[0].mean()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_front_against_brute_force(points):
    cost, value = torch.tensor(points, dtype=torch.float64).T
    expected = [not any(c2 <= c and v2 >= v and (c2 < c or v2 > v) for c2, v2 in points) for c, v in points]
    assert pareto_front(cost, value).tolist() == expected


def test_refusals():
    with pytest.raises(ValueError, match="window"):
        paired_stitching_configs(1)
    with pytest.raises(ValueError, match="positive"):
        paired_stitching_configs(4, stride=0)
    with pytest.raises(ValueError, match="reach"):
        stitching_space([3, 3], reach=0)
    with pytest.raises(ValueError, match="positive sizes"):
        ResidualMLP(3, 0, 2, 2)
    with pytest.raises(ValueError, match="multiple"):
        VisionTransformer(9, 4, 3, 8, 2, 5)
    with pytest.raises(ValueError, match="anchors and configurations"):
        StitchableNetwork([], [Configuration(0)])
    with pytest.raises(ValueError, match="configuration of 1 anchors"):
        StitchableNetwork(anchors((4,)), [Configuration(0, 0, 0, 7, "x")])
    network = StitchableNetwork(anchors((4, 6)), stitching_space([3, 3]))
    with pytest.raises(ValueError, match="configuration of 2 anchors"):
        flops_count(network, Configuration(5))
    with pytest.raises(ValueError, match="at least one example"):
        initialize_stitches(network, torch.rand(0, 10))
    with pytest.raises(ValueError, match="same samples"):
        least_squares_stitch(torch.rand(4, 2), torch.rand(5, 2))
    with pytest.raises(ValueError, match="NaN"):
        least_squares_stitch(torch.rand(4, 2) * float("nan"), torch.rand(4, 2))
    with pytest.raises(ValueError, match="one length"):
        pareto_front(torch.rand(3), torch.rand(4))
    with pytest.raises(ValueError, match="NaN"):
        pareto_front(torch.tensor([float("nan")]), torch.rand(1))


def test_meta_device():
    with torch.device("meta"):
        network = StitchableNetwork(anchors((4, 6)), stitching_space([3, 3]))
        assert network(torch.empty(2, 10), configuration=4).shape == (2, 5)
        weight, bias = least_squares_stitch(torch.empty(9, 4), torch.empty(9, 6))
        assert weight.shape == (6, 4) and bias.shape == (6,)
        assert pareto_front(torch.empty(3), torch.empty(3)).shape == (3,)
