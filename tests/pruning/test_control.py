import gymnasium
import numpy as np
import pytest
import torch

from netatlas.pruning import CartPole, Catch


def test_cartpole_is_gymnasiums_step_for_step():
    rng = np.random.default_rng(0)
    env, ours = gymnasium.make("CartPole-v1").unwrapped, CartPole()
    ended = 0
    for episode in range(6):
        env.reset(seed=episode)
        state = torch.tensor(np.array(env.state, dtype=np.float64))
        for _ in range(60):
            action = int(rng.integers(2))
            _, reward, terminated, _, _ = env.step(action)
            step = ours.step(state[None], torch.tensor([action]))
            np.testing.assert_allclose(step.state[0].numpy(), np.array(env.state, dtype=np.float64), atol=1e-12)
            assert bool(step.terminated) == terminated and float(step.reward) == reward
            state = step.state[0]
            if terminated:
                ended += 1
                break
    assert ended >= 3


def play_by_hand(ball, paddle, actions, rows, columns):
    for row, action in enumerate(actions, 1):
        paddle = min(max(paddle + action - 1, 0), columns - 1)
        if row == rows - 1:
            return 1.0 if paddle == ball else -1.0
    return 0.0


def test_catch_against_play_by_hand():
    task, generator = Catch(), torch.Generator().manual_seed(0)
    state = task.reset((40,), generator, torch.float32)
    start = state.clone()
    actions = torch.randint(3, (task.limit, 40), generator=generator)
    total = torch.zeros(40)
    for action in actions:
        step = task.step(state, action)
        state, total = step.state, total + step.reward
    assert step.terminated.all()
    for i in range(40):
        expected = play_by_hand(int(start[i, 1]), int(start[i, 2]), actions[:, i].tolist(), task.rows, task.columns)
        assert float(total[i]) == expected


def test_catch_shows_ball_and_paddle_and_noise_that_changes():
    task = Catch()
    state = torch.tensor([[3.0, 2.0, 5.0, 0.25]])
    cells = task.observe(state)[0, : task.rows * task.columns].reshape(task.rows, task.columns)
    assert cells.sum() == 2 and cells[3, 2] == 1 and cells[-1, 5] == 1
    bits = task.observe(task.reset((500,), torch.Generator().manual_seed(1), torch.float32))[:, task.features // 2 :]
    assert 0.4 < float(bits.mean()) < 0.6
    after = task.observe(task.step(state, torch.tensor([1])).state)
    assert (after[0, task.features // 2 :] != task.observe(state)[0, task.features // 2 :]).any()


@pytest.mark.parametrize("task", [CartPole(), Catch()])
def test_shapes_and_refusals(task):
    state = task.reset((2, 3), torch.Generator().manual_seed(0), torch.float64)
    assert task.observe(state).shape == (2, 3, task.features) and task.observe(state).dtype == torch.float64
    assert task.step(state, torch.zeros(2, 3, dtype=torch.long)).state.shape == (2, 3, 4)
    with pytest.raises(ValueError, match="action for each state"):
        task.step(state, torch.zeros(2, dtype=torch.long))
