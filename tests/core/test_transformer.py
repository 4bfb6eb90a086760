"""The small transformer: against torch's own attention, and its promises on padding, causality and last positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.core.train import fit_many
from netatlas.core.transformer import Attention, Block, FeedForward, LastLogits, Transformer, attend


def make(**options):
    torch.manual_seed(0)
    return Transformer(20, 16, 2, 4, 9, **options).double()


def test_attend_is_torchs_scaled_dot_product_attention():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=g) for _ in range(3))
    mask = torch.rand(2, 3, 5, 5, generator=g) < 0.6
    mask[..., 0] = True
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attend(q, k, v, mask), expected)
    torch.testing.assert_close(attend(q, k, v), nn.functional.scaled_dot_product_attention(q, k, v))


def test_attention_is_torchs_multihead_attention():
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_a_query_that_may_look_at_nothing_gets_the_mean():
    v = torch.randn(4, 3)
    out = attend(torch.randn(2, 3), torch.randn(4, 3), v, torch.zeros(2, 4, dtype=torch.bool))
    torch.testing.assert_close(out, v.mean(0).expand(2, 3))


@pytest.mark.parametrize("previous", [False, True])
def test_the_last_position_alone_is_the_last_of_all(previous):
    model = make(previous=previous)
    tokens = torch.randint(1, 20, (5, 9))
    torch.testing.assert_close(model(tokens, last_only=True), model(tokens)[:, -1])
    torch.testing.assert_close(LastLogits(model)(tokens), model(tokens)[:, -1])


@settings(deadline=None, max_examples=15)
@given(length=st.integers(1, 9), seed=st.integers(0, 100))
def test_left_padding_changes_nothing_without_previous_words(length, seed):
    model = make()
    tokens = torch.randint(1, 20, (2, length), generator=torch.Generator().manual_seed(seed))
    padded = nn.functional.pad(tokens, (9 - length, 0))
    torch.testing.assert_close(model(padded)[:, -length:], model(tokens))


@pytest.mark.parametrize("previous", [False, True])
def test_a_causal_transformer_does_not_see_what_comes(previous):
    model = make(previous=previous)
    tokens = torch.randint(1, 20, (3, 9))
    other = tokens.clone()
    other[:, 6:] = torch.randint(1, 20, (3, 3))
    torch.testing.assert_close(model(tokens)[:, :6], model(other)[:, :6])
    assert not torch.allclose(make(causal=False)(tokens)[:, :6], make(causal=False)(other)[:, :6])


def test_without_attention_and_feed_forward_the_stream_is_the_embedding():
    model = make()
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attention.out, block.feed_forward.down):
                layer.weight.zero_()
                layer.bias.zero_()
    tokens = torch.randint(1, 20, (2, 9))
    stream = model.embedding(tokens) + model.position.weight
    torch.testing.assert_close(model(tokens), model.head(model.norm(stream)))


def test_members_train_as_one_stack():
    tokens = torch.randint(1, 20, (32, 9))
    many = fit_many(
        lambda: LastLogits(Transformer(20, 8, 1, 2, 9)), tokens, tokens[:, 0], seeds=[0, 1], epochs=2, batch_size=16
    )
    alone = fit_many(
        lambda: LastLogits(Transformer(20, 8, 1, 2, 9)), tokens, tokens[:, 0], seeds=[1], epochs=2, batch_size=16
    )
    torch.testing.assert_close(many.predict(tokens)[1], alone.predict(tokens)[0], atol=1e-5, rtol=1e-4)


def test_shapes_on_the_meta_device():
    with torch.device("meta"):
        model = Transformer(20, 16, 2, 4, 9, outputs=7, previous=True)
        tokens = torch.zeros(3, 5, dtype=torch.int64)
    assert model(tokens).shape == (3, 5, 7) and model(tokens, last_only=True).shape == (3, 7)


def test_width_one_and_empty_batch():
    model = Transformer(5, 1, 1, 1, 3)
    assert model(torch.ones(2, 3, dtype=torch.int64)).shape == (2, 3, 5)
    assert model(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3, 5)
    assert torch.isfinite(model(torch.zeros(1, 3, dtype=torch.int64))).all()


def test_refusals():
    with pytest.raises(ValueError, match="heads that divide"):
        Attention(10, 3)
    with pytest.raises(ValueError, match="activation"):
        FeedForward(4, 8, activation="swish")
    with pytest.raises(ValueError, match="positive widths"):
        FeedForward(0, 8)
    with pytest.raises(ValueError, match="positive vocabulary"):
        Transformer(0, 4, 1, 1, 3)
    with pytest.raises(ValueError, match="at most 9"):
        make()(torch.ones(1, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="integer tokens"):
        make()(torch.ones(1, 4))
    with pytest.raises(ValueError, match="at least one key"):
        attend(torch.ones(1, 2), torch.ones(0, 2), torch.ones(0, 2))
    with pytest.raises(ValueError, match="keys of width 2"):
        attend(torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 3))
    assert isinstance(Block(4, 2, 8), nn.Module)
