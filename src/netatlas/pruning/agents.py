"""Recipe of the stored agents: DQN on two tasks, dense and pruned at three widths, with controls and tuned rates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.train import Params

from .control import TASKS
from .dqn import Agents, Task, greedy_returns, interquartile_mean, train_dqn

WIDTHS = (16, 48, 128)
RATES = (1e-3, 2e-3, 4e-3)
STEPS, TEST_SEEDS, TUNING_SEEDS = 3000, 10, 3
SPARSITY = {"dense": 0.0, "pruned 90 %": 0.9, "pruned 95 %": 0.95, "random mask 90 %": 0.9, "narrow": 0.0}


def equal_width(task: Task, width: int, sparsity: float) -> int:
    """Width of the dense network that has as many parameters as the pruned one of ``width``."""
    kept = 1 - sparsity if task.features >= 32 else 1.0
    ends = task.features + task.actions + 2
    goal = (1 - sparsity) * width**2 + (kept * task.features + task.actions + 2) * width
    return round((-ends + (ends**2 + 4 * goal) ** 0.5) / 2)


def _train(task: Task, arm: str, width: int, seeds: list[int], rates: float | list[float], steps: int) -> Agents:
    own = equal_width(task, width, 0.9) if arm == "narrow" else width
    return train_dqn(
        task, own, seeds=seeds, steps=steps, lr=rates, sparsity=SPARSITY[arm], static=arm == "random mask 90 %"
    )


def final_return(returns: Tensor) -> Tensor:
    """Mean greedy return in the last tenth of training, one value an agent."""
    return returns[:, -5:].mean(1)


def train(device: str = "cpu", seed: int = 0, *, steps: int = STEPS, widths: tuple[int, ...] = WIDTHS) -> Params:
    """Tune the rate of every arm on seeds of its own, train the test seeds, and keep curves and the widest agents.

    Args:
        device: Only ``"cpu"``: thousands of tiny steps gain nothing elsewhere.
        seed: First of the seeds.
        steps: Updates.
        widths: Widths, increasing.

    Returns:
        ``TASK/WIDTH/ARM/returns``, ``/rate``, ``/tuning``, diagnostics, and ``/weights/...`` of the widest dense and
        pruned agents in half precision.

    Raises:
        ValueError: For another device.
    """
    require(str(device) == "cpu", "the device cpu", str(device))
    found: Params = {}
    tuning = [seed * 1000 + 500 + i for i in range(TUNING_SEEDS)]
    test = [seed * 1000 + i for i in range(TEST_SEEDS)]
    for name, kind in TASKS.items():
        task = kind()
        for width in widths:
            arms = SPARSITY if width == widths[-1] else ["dense", "pruned 90 %"]
            for arm in arms:
                spread = [rate for rate in RATES for _ in tuning]
                trial = _train(task, arm, width, tuning * len(RATES), spread, steps)
                scores = final_return(trial.returns).reshape(len(RATES), len(tuning)).mean(1)
                rate = RATES[int(scores.argmax())]
                agents = _train(task, arm, width, test, rate, steps)
                key = f"{name}/{width}/{arm}"
                found |= {f"{key}/returns": agents.returns, f"{key}/rate": torch.tensor(rate), f"{key}/tuning": scores}
                found |= {f"{key}/{d}": v.float() for d, v in agents.diagnostics.items()}
                if width == widths[-1] and arm in ("dense", "pruned 90 %"):
                    found |= {f"{key}/weights/{n}": p.half() for n, p in agents.params.items()}
    return {n: v.contiguous() for n, v in found.items()}


def stored_agents(state: Mapping[str, Tensor], task: str, width: int, arm: str) -> Params:
    """Stacked parameters of stored agents, in single precision."""
    prefix = f"{task}/{width}/{arm}/weights/"
    found = {n.removeprefix(prefix): p.float() for n, p in state.items() if n.startswith(prefix)}
    require(len(found) > 0, "stored weights of these agents", prefix)
    return found


def evaluate(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Interquartile mean of the returns of every stored arm, and of the widest agents' play.

    Args:
        state: What :func:`train` returned.
    """
    metrics = {
        key.removesuffix("/returns"): interquartile_mean(final_return(value))
        for key, value in state.items()
        if key.endswith("/returns")
    }
    for name, kind in TASKS.items():
        width = max(int(key.split("/")[1]) for key in state if key.startswith(name))
        for arm in ("dense", "pruned 90 %"):
            played = greedy_returns(stored_agents(state, name, width, arm), kind(), episodes=4, seed=99)
            metrics[f"{name}/{width}/{arm}, played"] = float(played.mean())
    return metrics
