import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.nn import MLP
from netatlas.core.states import check_states, member, parameter_distance, stack
from netatlas.core.train import stack_members
from netatlas.merging import average_weights, prediction_ensemble


def state(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "layers.0.weight": torch.randn(5, 7, generator=generator, dtype=dtype),
        "layers.1.weight": torch.randn(3, 5, generator=generator, dtype=dtype),
    }


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=4), st.integers(0, 1000))
def test_average_is_invariant_to_scale_and_order_of_coefficients(coefficients, seed):
    states = [state(seed + i, torch.float64) for i in range(len(coefficients))]
    merged = average_weights(states, coefficients)
    scaled = average_weights(states[::-1], [3 * c for c in coefficients[::-1]])
    for name in merged:
        torch.testing.assert_close(merged[name], scaled[name])
        stacked = torch.stack([s[name] for s in states])
        assert (merged[name] <= stacked.amax(0) + 1e-12).all() and (merged[name] >= stacked.amin(0) - 1e-12).all()


def test_distance_against_the_flattened_norm_and_per_member():
    a, b = state(0), state(1)
    flat = [torch.cat([v.flatten() for v in s.values()]) for s in (a, b)]
    torch.testing.assert_close(parameter_distance(a, b), (flat[0] - flat[1]).norm())
    both = parameter_distance(stack([a, a]), stack([b, a]), member_axis=True)
    torch.testing.assert_close(both, torch.stack([(flat[0] - flat[1]).norm(), torch.tensor(0.0)]))


def test_stack_is_the_form_that_training_uses():
    modules = [MLP([4, 3, 2]) for _ in range(3)]
    params, _ = stack_members(modules)
    ours = stack([dict(m.named_parameters()) for m in modules])
    assert all(torch.equal(params[name], ours[name]) for name in params)
    assert all(torch.equal(member(params, 2)[n], p) for n, p in modules[2].named_parameters())


def test_ensemble_of_one_repeated_network_is_its_softmax():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = logits.softmax(-1)
    torch.testing.assert_close(prediction_ensemble(torch.stack([logits] * 3), [1, 2, 3]), expected)
    torch.testing.assert_close(prediction_ensemble(torch.stack([logits, -logits]), [1, 0]), expected)


def test_refusals():
    a = state(0)
    with pytest.raises(ValueError, match="2 coefficients"):
        average_weights([a, a], [1.0])
    with pytest.raises(ValueError, match="non-negative"):
        average_weights([a, a], [1.0, -1.0])
    with pytest.raises(ValueError, match="positive sum"):
        average_weights([a, a], [0.0, 0.0])
    with pytest.raises(ValueError, match="shape"):
        average_weights([a, {name: value.T for name, value in a.items()}])
    with pytest.raises(ValueError, match="names"):
        average_weights([a, {"other": a["layers.0.weight"]}])
    with pytest.raises(ValueError, match="NaN"):
        average_weights([a, {name: value * float("nan") for name, value in a.items()}])
    with pytest.raises(ValueError, match="sequence of states"):
        check_states(a)
    with pytest.raises(ValueError, match="at least 1"):
        average_weights([])
    with pytest.raises(ValueError, match="empty state"):
        average_weights([{}])
    with pytest.raises(ValueError, match="floating-point"):
        average_weights([{"a": torch.ones(2, dtype=torch.long)}])
    with pytest.raises(ValueError, match="lies on"):
        average_weights([a, {name: value.to("meta") for name, value in a.items()}])
    with pytest.raises(ValueError, match="models"):
        prediction_ensemble(torch.randn(3))
    with pytest.raises(ValueError, match="logits"):
        prediction_ensemble(torch.full((2, 3), float("nan")))


def test_meta_device():
    meta = {name: value.to("meta") for name, value in state(0).items()}
    assert average_weights([meta, meta])["layers.0.weight"].shape == (5, 7)
    assert prediction_ensemble(torch.empty(2, 4, 3, device="meta")).shape == (4, 3)
