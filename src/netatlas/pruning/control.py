"""Control tasks as batched tensor programs: Gymnasium's CartPole-v1 step for step, and Catch with distractors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require


class Step(NamedTuple):
    """What a step of a task gives: the next states, rewards, and which episodes ended by the task's own rule."""

    state: Tensor
    reward: Tensor
    terminated: Tensor


class CartPole:
    r"""A pole on a cart, to be held upright by pushing left or right; reward 1 a step, at most 500 steps.

    Euler steps of :math:`\tau = 0.02` s; an episode ends beyond 2.4 m or 12 degrees. State: position, velocity, angle,
    angular velocity.
    """

    name, actions, features, limit, best, worst = "CartPole", 2, 4, 500, 500.0, 0.0

    def reset(
        self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> Float[Tensor, "*copies 4"]:
        """States drawn uniformly from [-0.05, 0.05]."""
        return (torch.rand(*shape, 4, generator=generator, dtype=dtype) - 0.5) * 0.1

    def observe(self, state: Float[Tensor, "*copies 4"]) -> Float[Tensor, "*copies 4"]:
        """What the agent sees."""
        return state

    def step(self, state: Float[Tensor, "*copies 4"], action: Int[Tensor, "*copies"]) -> Step:
        """One step of every copy; actions 0 (left) and 1 (right)."""
        require(state.shape[-1] == 4 and action.shape == state.shape[:-1], "an action for each state", action.shape)
        x, v, angle, spin = state.unbind(-1)
        force = torch.where(action == 1, 10.0, -10.0).to(state.dtype)
        sine, cosine = angle.sin(), angle.cos()
        pull = (force + 0.05 * spin.square() * sine) / 1.1
        turn = (9.8 * sine - cosine * pull) / (0.5 * (4.0 / 3.0 - 0.1 * cosine.square() / 1.1))
        push = pull - 0.05 * turn * cosine / 1.1
        tau = 0.02
        new = torch.stack([x + tau * v, v + tau * push, angle + tau * spin, spin + tau * turn], -1)
        ended = (new[..., 0].abs() > 2.4) | (new[..., 2].abs() > 12 * 2 * math.pi / 360)
        return Step(new, torch.ones_like(x), ended)


class Catch:
    """A ball falls through a grid of 10 x 7 cells; a paddle below moves left, stays or moves right, to be under it.

    Reward 1 for a catch, -1 for a miss, after nine steps. The agent sees the cells, and as many random bits that mean
    nothing. State: row and column of the ball, column of the paddle, and the number in [0, 1) that the bits come from,
    so that a step is a function of state and action.
    """

    name, actions, features, limit, best, worst = "Catch", 3, 140, 9, 1.0, -1.0
    rows, columns = 10, 7

    def reset(
        self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> Float[Tensor, "*copies 4"]:
        """The ball in a random column of the first row, the paddle in a random column."""
        ball, paddle = torch.randint(self.columns, (2, *shape), generator=generator).to(dtype)
        noise = torch.rand(shape, generator=generator, dtype=dtype)
        return torch.stack([torch.zeros_like(noise), ball, paddle, noise], -1)

    def observe(self, state: Float[Tensor, "*copies 4"]) -> Float[Tensor, "*copies 140"]:
        """One number a cell, 1 at ball and paddle, and as many meaningless bits."""
        cell = torch.arange(self.rows * self.columns)
        row, ball, paddle, noise = state[..., None].unbind(-2)
        there = (cell == row * self.columns + ball) | (cell == (self.rows - 1) * self.columns + paddle)
        bits = ((noise * 12.9898 * (cell + 1)).sin() * 43758.5453).remainder(1) < 0.5
        return torch.cat([there, bits], -1).to(state.dtype)

    def step(self, state: Float[Tensor, "*copies 4"], action: Int[Tensor, "*copies"]) -> Step:
        """One step of every copy; actions 0, 1, 2 move the paddle left, not at all, right."""
        require(state.shape[-1] == 4 and action.shape == state.shape[:-1], "an action for each state", action.shape)
        row, ball, paddle, noise = state.unbind(-1)
        row = row + 1
        paddle = (paddle + action - 1).clamp(0, self.columns - 1)
        noise = ((noise * 127.1 + 311.7).sin() * 43758.5453).remainder(1)
        ended = row >= self.rows - 1
        reward = torch.where(ended, torch.where(paddle == ball, 1.0, -1.0), 0.0).to(state.dtype)
        return Step(torch.stack([row, ball, paddle, noise], -1), reward, ended)


TASKS = {"CartPole": CartPole, "Catch": Catch}
