"""Prompts and twins, their answers checked independently; the foundation model's recipe; fine-tuning at tiny sizes."""

import networkx as nx
import pytest
import torch

from netatlas.core.transformer import Transformer
from netatlas.low_rank import (
    Adapter,
    Prompts,
    exact_match_by_family,
    generic_prompts,
    majority_answer_match,
    telecom_prompts,
    telecom_twin,
    text_prompts,
    trimmed,
    words_of,
)
from netatlas.low_rank import foundation as recipe
from netatlas.low_rank import foundation_experiments as fx
from netatlas.low_rank.prompts import GENERIC, LENGTH, TELECOM, TEXT, WORDS


def parsed(prompts):
    for tokens, answer, family in zip(*prompts):
        facts, _, query = words_of(tokens).partition(" ? ")
        name, *facts = facts.removesuffix(" ?").split()
        yield name, facts, query.split(), WORDS[int(answer)], int(family)


def test_generic_answers():
    for name, facts, query, answer, family in parsed(generic_prompts(30, seed=1)):
        assert GENERIC[family] == name
        pairs = dict(zip(facts[::2], facts[1::2]))
        want = {
            "lookup": lambda p=pairs, q=query: p[q[0]],
            "reverse": lambda p=pairs, q=query: {v: k for k, v in p.items()}[q[0]],
            "after": lambda f=facts, q=query: f[f.index(q[0]) + 1],
            "largest": lambda f=facts: max(f, key=int),
            "smallest": lambda f=facts: min(f, key=int),
            "equal": lambda f=facts: "yes" if f[0] == f[1] else "no",
            "greater": lambda f=facts: "yes" if int(f[0]) > int(f[1]) else "no",
            "successor": lambda f=facts: str(int(f[0]) + 1),
            "argmax": lambda p=pairs: max(p, key=lambda k: int(p[k])),
            "item": lambda f=facts, q=query: f[int(q[0])],
        }[name]()
        assert answer == want, (name, facts, query)


def test_telecom_answers():
    for name, facts, query, answer, family in parsed(telecom_prompts(12, seed=1)):
        assert TELECOM[family] == name
        pairs = dict(zip(facts[::2], facts[1::2]))
        number = lambda w: int(w)  # noqa: E731
        if name in TELECOM[:6] or name == "uplink":
            assert answer == pairs[query[0]]
        elif name == "backup-hop":
            at = facts.index(query[0])
            assert facts[at + 1] == query[1] and facts[at + 2] == answer
        elif name in ("least-cost", "busiest", "strongest"):
            best = (min if name == "least-cost" else max)(pairs, key=lambda k: number(pairs[k]))
            assert answer == best
        elif name == "path-cost":
            assert int(answer) == int(facts[1]) + int(facts[3])
        elif name == "same-vlan":
            assert answer == ("yes" if pairs[query[0]] == pairs[query[1]] else "no")
        elif name == "admit":
            assert answer == ("yes" if int(query[0]) < int(facts[0]) else "no")
        elif name == "overload":
            assert answer == ("yes" if int(facts[2]) > int(facts[0]) else "no")
        elif name == "root-cause":
            assert answer in query and pairs[next(q for q in query if q != answer)] == answer
        elif name == "two-hops":
            graph = nx.Graph(zip(facts[::2], facts[1::2]))
            assert nx.shortest_path_length(graph, query[0], answer) <= 2
        elif name == "detour":
            rest = {k: v for k, v in pairs.items() if k != query[0]}
            assert answer == min(rest, key=lambda k: int(rest[k]))
        elif name == "failed-cost":
            assert int(answer) == (max if query[0] == facts[0] else min)(int(facts[1]), int(facts[3]))
        else:
            assert name == "tunnel-end" and answer == facts[-1]


def test_text_answers():
    for task in TEXT[:3]:
        for _, facts, _, answer, _ in parsed(text_prompts(task, 30, seed=2)):
            if task == "order":
                assert answer == ("yes" if facts.index("3") < facts.index("4") else "no")
            elif task == "more":
                assert answer == ("yes" if facts.count("3") > facts.count("4") else "no")
            else:
                assert answer == facts[facts.index("3") + 1]
    assert set(text_prompts("topic", 50, seed=0).answers.tolist()) == {WORDS.index(str(i)) for i in range(4)}


def test_twins_are_connected_and_seeds_differ():
    twin = telecom_twin(3)
    assert nx.is_connected(twin.graph) and len(set(twin.names)) == 12 and twin.graph.number_of_edges() == 17
    assert twin.costs[0][5] == nx.dijkstra_path_length(twin.graph, 0, 5, weight="cost")
    assert sorted(telecom_twin(4).graph.edges) != sorted(twin.graph.edges)
    one, again, other = (telecom_prompts(8, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.tokens, again.tokens) and not torch.equal(one.tokens, other.tokens)
    assert one.tokens.shape == (160, LENGTH) and telecom_prompts(5, seed=0, families=["admit"]).tokens.shape[0] == 5


def test_scores():
    prompts = Prompts(torch.zeros(4, 2), torch.tensor([1, 1, 2, 3]), torch.tensor([0, 0, 0, 1]))
    assert exact_match_by_family(torch.tensor([1, 0, 2, 3]), prompts, ["a", "b"]) == {
        "a": pytest.approx(2 / 3),
        "b": 1.0,
    }
    assert majority_answer_match(prompts, prompts) == 0.75


def test_the_recipe_trains_and_evaluates():
    state = recipe.train("cpu", 0, count=13, epochs=1)
    again = recipe.train("cpu", 0, count=13, epochs=1)
    assert all(torch.equal(state[k], again[k]) for k in state)
    metrics = recipe.evaluate(state)
    assert set(metrics) == {"accuracy", *(f"accuracy, {n}" for n in GENERIC)} and 0 <= metrics["accuracy"] <= 1


def tiny():
    torch.manual_seed(0)
    return Transformer(len(WORDS), 16, 1, 2, LENGTH, previous=True)


def test_frame_and_quantiser_checks():
    frame = fx.frame_checks(tiny(), generic_prompts(2, seed=0))
    assert frame.identity < 1e-12 and frame.start == 0 and frame.counts == 0 and frame.ungated > 0.01
    found = fx.quantizer_checks(0, count=2**14)
    assert found.gradient < 1e-5 and found.again < 1e-6 and found.double_cost < 1.01


METHODS = {
    "full": fx.Method(full=True),
    "head": fx.Method(head=True),
    "quantised": fx.Method((Adapter("lora", "all", 2),), quantized=True),
    "plus": fx.Method((Adapter("lora", "all", 2),), ratio=4),
}


@pytest.mark.parametrize("name", METHODS)
def test_fine_tuning_leaves_the_base_alone(name):
    base = tiny()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    sets = [telecom_prompts(4, seed=i, families=TELECOM[:2]) for i in range(3)]
    run = fx.fine_tune(base, METHODS[name], *sets, seeds=[0, 1], rates=[1e-3, 1e-2], epochs=1, batch=4)
    assert run.accuracy.shape == (2,) and len(run.ensemble) == 2
    assert run.trainable == {"full": sum(p.numel() for p in base.parameters()), "head": 16 * len(WORDS)}.get(
        name, run.trainable
    )
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())


def test_low_rank_methods_run_from_the_base():
    sets = [telecom_prompts(8, seed=i, families=TELECOM[:2]) for i in range(3)]
    found = fx.low_rank_methods(tiny(), *sets, seeds=[0], rates=[1e-3, 1e-2], epochs=1, batch=4)
    assert len(found) == 3 and all(run.accuracy.shape == (1,) and run.trainable > 0 for run in found.values())


def test_trimmed_prompts_have_the_same_logits():
    base, prompts = tiny(), telecom_prompts(4, seed=0, families=TELECOM[:8])
    short = trimmed(prompts)
    assert short.tokens.shape[1] < LENGTH and torch.equal(short.answers, prompts.answers)
    torch.testing.assert_close(base(short.tokens, last_only=True), base(prompts.tokens, last_only=True))
    blank = prompts._replace(tokens=torch.zeros_like(prompts.tokens))
    assert trimmed(blank).tokens.shape == blank.tokens.shape


def test_families_won_and_signs():
    base, families = tiny(), TELECOM[:2]
    sets = [telecom_prompts(6, seed=i, families=families) for i in range(3)]
    run = fx.fine_tune(base, METHODS["plus"], *sets, seeds=[0, 1], rates=[1e-3], epochs=1, batch=4)
    won, matches = fx.families_won(run, base, sets[0], sets[2], families)
    assert 0 <= won <= 1 and sum(matches.values()) / 2 == pytest.approx(float(run.accuracy.mean()))
    assert fx.sign_test(torch.tensor([1.0, 2, 3, 0])) == pytest.approx(1 / 8)
    assert fx.sign_test(torch.tensor([1.0, -2])) == pytest.approx(3 / 4) and fx.sign_test(torch.zeros(3)) == 1


def test_refusals():
    with pytest.raises(ValueError, match="families out of"):
        generic_prompts(1, seed=0, families=["riddle"])
    with pytest.raises(ValueError, match="families out of"):
        telecom_prompts(1, seed=0, families=[])
    with pytest.raises(ValueError, match="at least one prompt"):
        text_prompts("order", 0, seed=0)
    with pytest.raises(ValueError, match="task out of"):
        text_prompts("parity", 1, seed=0)
    with pytest.raises(ValueError, match="3 to 24"):
        telecom_twin(0, nodes=2)
    with pytest.raises(ValueError, match="in the training prompts"):
        majority_answer_match(*(telecom_prompts(2, seed=0, families=TELECOM[:k]) for k in (1, 2)))
    with pytest.raises(ValueError, match="answers"):
        exact_match_by_family(torch.zeros(2), telecom_prompts(1, seed=0, families=["admit"]))
