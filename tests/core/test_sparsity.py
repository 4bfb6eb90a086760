import mpmath
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

from netatlas.core import sparsity as sp
from netatlas.core.nn import MLP, ConvNet, ResNet


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 99), st.booleans())
def test_exactly_floor_zeros_and_the_smallest_ones(n, share, seed, ties):
    scores = draw(n, seed=seed).abs()
    if ties:
        scores = (scores * 2).round()
    mask = sp.Unstructured().mask(scores, share)
    zeros = sp.zeros_of(share, n)
    assert int((~mask).sum()) == zeros
    order = torch.sort(scores, stable=True).indices
    assert not mask[order[:zeros]].any() and mask[order[zeros:]].all()


def test_large_tensor_takes_the_other_path_to_the_same_mask():
    scores = draw(6000, dtype=torch.float32).abs()
    scores[:3000] = 0.5
    both = sp.keep_largest(torch.stack([scores, scores]), 2000)
    assert torch.equal(sp.keep_largest(scores, 2000), both[0])


def test_magnitude_mask_is_that_of_torch_prune():
    layer = torch.nn.Linear(40, 30)
    ours = sp.Unstructured().mask(sp.magnitude_scores(layer.weight), 0.7)
    prune.l1_unstructured(layer, "weight", amount=0.7)
    assert torch.equal(ours, layer.weight_mask.bool())


def test_channels_and_global_are_those_of_torch_prune():
    net = MLP([9, 8, 7])
    ours = sp.Channels().mask(net.layers[0].weight.detach(), 0.5)
    scores = {n: p.detach().abs() for n, p in net.named_parameters() if p.ndim == 2}
    joint = sp.global_masks(scores, 0.6)
    pairs = [(layer, "weight") for layer in net.layers]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=round(0.6 * 128 - 0.5))
    for i, (layer, _) in enumerate(pairs):
        assert torch.equal(joint[f"layers.{i}.weight"], layer.weight_mask.bool())
    layer = torch.nn.Linear(9, 8)
    layer.load_state_dict({"weight": net.layers[0].weight_orig.detach(), "bias": layer.bias.detach()})
    prune.ln_structured(layer, "weight", amount=4, n=2, dim=0)
    assert torch.equal(ours, layer.weight_mask.bool())


def test_members_are_masked_as_they_would_be_alone():
    scores = draw(3, 8, 12).abs()
    for structure in (sp.Unstructured(), sp.RowBalanced(), sp.NOfM(4), sp.Channels(), sp.Blocks((2, 3))):
        together = structure.mask(scores, 0.5, 1)
        assert all(torch.equal(together[i], structure.mask(scores[i], 0.5)) for i in range(3))
    joint = sp.global_masks({"a": scores, "b": scores[:, :2]}, 0.5, 1)
    alone = sp.global_masks({"a": scores[1], "b": scores[1, :2]}, 0.5)
    assert torch.equal(joint["a"][1], alone["a"]) and torch.equal(joint["b"][1], alone["b"])
    assert sp.remaining(joint, 1).tolist() == [0.5] * 3


def test_structures_count_what_they_say():
    scores = draw(6, 8).abs()
    assert (sp.RowBalanced().mask(scores, 0.7).sum(1) == 2).all()
    assert (sp.RowBalanced().mask(scores, 1.0).sum(1) == 1).all()
    assert (sp.NOfM(4).mask(scores, 0.5).reshape(6, 2, 4).sum(-1) == 2).all()
    assert sp.Channels().mask(scores, 1.0).any(1).sum() == 1
    tiles = sp.Blocks((2, 4)).mask(scores, 0.5).reshape(3, 2, 2, 4)
    assert torch.equal(tiles.any(1).any(-1), tiles.all(1).all(-1)) and tiles.sum() == 24


def test_a_tensor_without_entries_and_a_single_weight():
    assert sp.Unstructured().mask(torch.zeros(0), 0.9).shape == (0,)
    assert sp.Unstructured().mask(torch.ones(1), 0.9).all()
    assert not sp.Unstructured().mask(torch.ones(3, 2), 1.0).any()


def test_schedule_against_exact_arithmetic():
    for step in range(10, 61):
        exact = mpmath.mpf(0.95) * (1 - (1 - mpmath.mpf(step - 10) / 50) ** 3)
        got = sp.polynomial_sparsity(step, start=10, end=60, final=0.95)
        assert abs(got - exact) <= 1e-12
    assert sp.polynomial_sparsity(35, start=10, end=60, final=0.8) == pytest.approx(0.875 * 0.8, abs=1e-15)
    assert sp.polynomial_sparsity(9, start=10, end=60, final=0.8) == 0
    kept = [1 - sp.geometric_sparsity(k, 5, 0.9) for k in range(6)]
    np.testing.assert_allclose(np.diff(np.log(kept)), np.log(0.1) / 5, rtol=1e-12)


@pytest.mark.parametrize("structure", [sp.Unstructured(), None])
def test_nested_masks_never_return_a_weight(structure):
    pruner = sp.Pruner(lambda t: sp.polynomial_sparsity(t, start=0, end=20, final=0.9), structure, ("out",))
    masks = None
    for step in range(22):
        scores = {"w": draw(10, 13, seed=step), "out": draw(3, 3, seed=step)}
        new = pruner.masks(scores, step, previous=masks)
        assert masks is None or not (new["w"] & ~masks["w"]).any()
        assert int((~new["w"]).sum()) == sp.zeros_of(pruner.schedule(step), 130) and new["out"].all()
        masks = new


def test_scores():
    w, g = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-1.0, -1.0, 0.0])
    assert sp.movement_scores(w, g, torch.ones(3)).tolist() == [3.0, 0.0, 1.0]
    assert sp.taylor_scores(w, g).tolist() == [2.0, 1.0, 0.0]
    assert sp.sensitivity_scores(w, g).tolist() == [1.0, 1.0, 0.0]
    assert sp.insensitivity(torch.tensor([0.0, -0.25, 3.0])).tolist() == [1.0, 0.75, 0.0]
    assert sp.insensitivity(torch.tensor([[0.0, -1.0], [2.0, 4.0]]), rescaled=True, batch_dims=1).tolist() == [
        [1.0, 0.0],
        [0.5, 0.0],
    ]
    assert sp.insensitivity(torch.zeros(3), rescaled=True).tolist() == [1.0] * 3
    assert set(sp.SCORES) == {"magnitude", "movement", "sensitivity", "taylor"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["csr", "block"])
def test_sparse_linear_is_the_dense_product(layout, dtype):
    weight, x, bias = draw(48, 32, dtype=dtype), draw(7, 32, seed=1, dtype=dtype), draw(48, seed=2, dtype=dtype)
    structure = sp.Blocks((16, 16)) if layout == "block" else sp.Unstructured()
    for share in (0.0, 0.83, 1.0):
        sparse = weight * structure.mask(weight.abs(), share)
        got = sp.SparseLinear(sparse, bias, layout=layout)(x)
        torch.testing.assert_close(got, x @ sparse.T + bias)
    reference = scipy.sparse.csr_array(sparse.numpy()) @ x.T.numpy()
    torch.testing.assert_close(sp.SparseLinear(sparse, layout=layout)(x), torch.from_numpy(reference).T)


def test_surgery_is_the_masked_network():
    x = draw(4, 3, 8, 8, dtype=torch.float32)
    conv = ConvNet([6, 5], 4, norm="batch").train()
    conv(x)
    keep = [torch.tensor([0, 2, 5]), torch.tensor([True, False, True, True, False])]
    masked = sp.remove_channels(conv, [torch.arange(6), torch.arange(5)])
    with torch.no_grad():
        for layer, norm, kept in zip(masked.convolutions, masked.norms, keep):
            gone = torch.ones(layer.out_channels, dtype=torch.bool)
            gone[kept if kept.dtype != torch.bool else kept.nonzero().flatten()] = False
            norm.weight[gone], norm.bias[gone] = 0, 0
    small = sp.remove_channels(conv, keep).eval()
    torch.testing.assert_close(small(x), masked.eval()(x), atol=1e-6, rtol=1e-5)
    assert sp.prunable_units(small) == [3, 3] and sp.prunable_units(conv) == [6, 5]

    dense = MLP([192, 7, 6, 3])
    small = sp.remove_channels(dense, [torch.tensor([1, 3]), torch.tensor([0])])
    with torch.no_grad():
        for layer, kept in zip(dense.layers, [[1, 3], [0]]):
            gone = torch.ones(layer.out_features, dtype=torch.bool)
            gone[kept] = False
            layer.weight[gone], layer.bias[gone] = 0, 0
    torch.testing.assert_close(small(x), dense(x))
    assert sp.count_flops(small, x[:1]) == 192 * 2 + 2 + 3

    net = ResNet(4, 1, 3).eval()
    units = sp.prunable_units(net)
    small = sp.remove_channels(net, [torch.arange(n // 2) for n in units])
    with torch.no_grad():
        for block, n in zip(net.blocks, units):
            block.norms[0].weight[n // 2 :], block.norms[0].bias[n // 2 :] = 0, 0
    torch.testing.assert_close(small(x), net(x), atol=1e-6, rtol=1e-5)


def test_flops_by_hand():
    net = ConvNet([8, 16], 10, in_channels=1)
    assert sp.count_flops(net, torch.zeros(1, 1, 8, 8)) == 64 * 9 * 8 + 16 * 9 * 8 * 16 + 160


def test_shapes_on_the_meta_device():
    scores = torch.zeros(2, 8, 8, device="meta")
    for structure in (sp.Unstructured(), sp.RowBalanced(), sp.NOfM(4), sp.Channels(), sp.Blocks((4, 4))):
        mask = structure.mask(scores, 0.5, 1)
        assert mask.device.type == "meta" and mask.shape == scores.shape and mask.dtype == torch.bool


def test_refusals():
    ones = torch.ones(4, 6)
    with pytest.raises(ValueError, match=r"sparsity in \[0, 1\], got 1.5"):
        sp.Unstructured().mask(ones, 1.5)
    with pytest.raises(ValueError, match="finite"):
        sp.Unstructured().mask(ones * torch.nan, 0.5)
    with pytest.raises(ValueError, match="finite"):
        sp.magnitude_scores(ones * torch.nan)
    with pytest.raises(ValueError, match="floating"):
        sp.Unstructured().mask(ones.long(), 0.5)
    with pytest.raises(ValueError, match="4 divides"):
        sp.NOfM(4).mask(ones, 0.5)
    with pytest.raises(ValueError, match="tiles of 3 x 3"):
        sp.Blocks((3, 3)).mask(ones, 0.5)
    with pytest.raises(ValueError, match="axes"):
        sp.RowBalanced().mask(torch.ones(4), 0.5)
    with pytest.raises(ValueError, match="gradient"):
        sp.movement_scores(ones, None)
    with pytest.raises(ValueError, match="shape"):
        sp.taylor_scores(ones, torch.ones(3))
    with pytest.raises(ValueError, match="on cpu"):
        sp.taylor_scores(ones, torch.ones(4, 6, device="meta"))
    with pytest.raises(ValueError, match="start <= end"):
        sp.polynomial_sparsity(0, start=2, end=1, final=0.5)
    with pytest.raises(ValueError, match="final sparsity"):
        sp.geometric_sparsity(1, 2, 1.0)
    with pytest.raises(ValueError, match="exempt"):
        sp.Pruner(lambda _: 0.5, exempt=("b",)).masks({"a": ones}, 0)
    with pytest.raises(ValueError, match="mask of shape"):
        sp.apply_masks({"a": ones}, {"a": ones[0] > 0})
    with pytest.raises(ValueError, match="one device and dtype"):
        sp.global_masks({"a": ones, "b": ones.double()}, 0.5)
    with pytest.raises(ValueError, match="at least one tensor"):
        sp.global_masks({}, 0.5)
    with pytest.raises(ValueError, match="inputs of torch"):
        sp.SparseLinear(ones)(ones.double())
    with pytest.raises(ValueError, match="finite"):
        sp.SparseLinear(ones * torch.inf)
    with pytest.raises(ValueError, match="at least one unit"):
        sp.remove_channels(MLP([2, 3, 2]), [torch.zeros(3, dtype=torch.bool)])
    with pytest.raises(ValueError, match="different units"):
        sp.remove_channels(MLP([2, 3, 2]), [torch.tensor([0, 0])])
    with pytest.raises(ValueError, match="1 groups"):
        sp.remove_channels(MLP([2, 3, 2]), [])
    with pytest.raises(ValueError, match="batch or no normalisation"):
        sp.remove_channels(ConvNet([8], 2, norm="layer"), [torch.arange(4)])
    with pytest.raises(ValueError, match="MLP, ConvNet or ResNet"):
        sp.prunable_units(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="one example"):
        sp.count_flops(MLP([2, 2]), torch.ones(2, 2))


def test_surgery_shares_no_memory_with_the_original():
    for model in (MLP([4, 3, 2]), ConvNet([4, 3], 2, norm="batch"), ResNet(4, 1, 2)):
        small = sp.remove_channels(model, [torch.arange(2) for _ in sp.prunable_units(model)])
        own = {v.data_ptr() for v in [*model.parameters(), *model.buffers()]}
        assert not own & {v.data_ptr() for v in [*small.parameters(), *small.buffers()]}
        assert model.training == small.training
