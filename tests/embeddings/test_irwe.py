import networkx as nx
import numpy as np
import pytest
import torch

from netatlas.embeddings.irwe import IRWE, AttentionReadout, WalkEncoder, contrastive_loss, train_irwe, walk_statistics

GRAPH = nx.connected_caveman_graph(4, 5)
STATISTICS = walk_statistics(GRAPH, walks_per_node=20, steps=4, dimension=8, seed=0)


def test_attention_readout_against_torch():
    torch.manual_seed(0)
    ours = AttentionReadout(8, 8, 8, heads=2)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    q, x = torch.randn(5, 8), torch.randn(5, 3, 8)
    assert torch.allclose(ours(q, x), theirs(q[:, None], x, x)[0][:, 0], atol=1e-6)


def test_encoder_commutes_with_the_order_of_steps():
    torch.manual_seed(0)
    encoder, x, order = WalkEncoder(8, heads=2), torch.randn(4, 6, 8), torch.randperm(6)
    assert torch.allclose(encoder(x)[:, order], encoder(x[:, order]), atol=1e-6)


def test_identity_is_equivariant_and_position_blind_to_node_names():
    torch.manual_seed(0)
    model, n = IRWE(4, STATISTICS.features.shape[1], 8), 20
    order = torch.randperm(n)
    name = torch.argsort(order)
    psi = model.identities(STATISTICS.features)
    gamma = model.positions(psi, STATISTICS.position, STATISTICS.walks)
    moved = model.positions(psi[order], STATISTICS.position[order], name[STATISTICS.walks[order]])
    assert torch.allclose(moved, gamma[order], atol=1e-5)


def test_loss_against_a_loop():
    gamma, pairs = torch.randn(4, 3), torch.rand(4, 4)
    pairs = (pairs + pairs.T) / (pairs + pairs.T).sum()
    expected = 0.0
    for u in range(4):
        for v in range(4):
            score = float(gamma[u] @ gamma[v])
            expected += float(pairs[u, v]) * np.log1p(np.exp(-score))
            expected += 5 * float(pairs[u].sum() * pairs[v].sum()) * np.log1p(np.exp(score))
    assert float(contrastive_loss(gamma, pairs)) == pytest.approx(expected, rel=1e-4)


def test_training_lowers_the_loss_and_embeds_another_graph():
    trained = train_irwe([STATISTICS] * 2, seeds=[0, 1], epochs=30, dimension=8, code=4)
    assert (trained.history[-1] < trained.history[0]).all() and len(trained) == 2
    other = walk_statistics(
        nx.connected_caveman_graph(3, 6), walks_per_node=20, steps=4, dimension=8, buckets=trained.buckets[0], seed=5
    )
    psi, gamma = trained.embed(1, other, walks=4)
    assert psi.shape == gamma.shape == (18, 8) and torch.isfinite(gamma).all()
    again = train_irwe([STATISTICS] * 2, seeds=[0, 1], epochs=30, dimension=8, code=4)
    assert torch.equal(again.history, trained.history)


def test_meta_device():
    model = IRWE(4, 30, 8).to("meta")
    psi = model.identities(torch.empty(9, 30, device="meta"))
    walks = torch.empty(9, 3, 5, dtype=torch.int64, device="meta")
    assert model.positions(psi, torch.empty(9, 8, device="meta"), walks).shape == (9, 8)


def test_refusals():
    with pytest.raises(ValueError, match="isolated"):
        walk_statistics(nx.empty_graph(3))
    with pytest.raises(ValueError, match="steps"):
        walk_statistics(GRAPH, steps=9)
    with pytest.raises(ValueError, match="heads"):
        AttentionReadout(4, 4, 8, heads=3)
    with pytest.raises(ValueError, match="at least one graph"):
        train_irwe([], seeds=[])
    with pytest.raises(ValueError, match="seeds"):
        train_irwe([STATISTICS], seeds=[0, 1])
    with pytest.raises(ValueError, match="width 16"):
        train_irwe([STATISTICS], seeds=[0], dimension=16)
    trained = train_irwe([STATISTICS], seeds=[0], epochs=1, dimension=8)
    with pytest.raises(ValueError, match="statistics a node"):
        trained.embed(0, walk_statistics(GRAPH, walks_per_node=5, steps=3, dimension=8))
