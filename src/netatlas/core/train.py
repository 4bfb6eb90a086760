r"""The one training loop: every seed and every hyper-parameter setting of a small model, trained at once.

A *member* is one model: one seed with one setting. The parameters of all :math:`M` members are stacked along a leading
axis and the forward pass is vectorized over it (``torch.func.vmap``), so that error bars cost little more than one run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from netatlas.core.checks import require, require_finite

Params = dict[str, Tensor]
Optimizer = Literal["sgd", "adam", "adamw", "adam_atan2", "adafactor"]
Schedule = Literal["constant", "cosine", "linear"]
Diverged = Literal["raise", "keep"]
PerMember = float | Sequence[float] | Tensor

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
}


def stack_members(modules: Sequence[nn.Module]) -> tuple[Params, Params]:
    """Stack the parameters and buffers of equal modules along a new leading member axis.

    Args:
        modules: ``M`` modules of one architecture on one device.

    Returns:
        Parameters and buffers, each a dict of detached copies of shape ``[M, ...]``.

    Raises:
        ValueError: If there is no module, or if two differ in a parameter's name or shape.
    """
    require(len(modules) > 0, "at least one module", 0)
    shapes = [{name: tuple(p.shape) for name, p in module.named_parameters()} for module in modules]
    for other in shapes[1:]:
        require(other == shapes[0], f"members of one architecture {shapes[0]}", other)
    parameters, buffers = stack_module_state(list(modules))
    return {k: v.detach().clone() for k, v in parameters.items()}, {k: v.detach().clone() for k, v in buffers.items()}


def learning_rate_factor(step: int, steps: int, schedule: Schedule) -> float:
    r"""The schedule's factor on the learning rate at a step.

    .. math:: f(t) = 1, \qquad f(t) = \tfrac12\bigl(1 + \cos(\pi t / T)\bigr), \qquad f(t) = 1 - t / T

    Args:
        step: The step :math:`t`, from 0.
        steps: All steps :math:`T`.
        schedule: ``"constant"``, ``"cosine"`` or ``"linear"``.

    Raises:
        ValueError: For an unknown schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * step / steps))
    require(schedule == "linear", "a schedule out of constant, cosine, linear", repr(schedule))
    return 1.0 - step / steps


def _per_member(value: PerMember, members: int | None, like: Tensor) -> Tensor:
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    require(tensor.ndim <= 1, "a number or one number a member", tuple(tensor.shape))
    if tensor.ndim == 1:
        require(members is not None and len(tensor) == members, f"{members} values, one a member", len(tensor))
    return tensor


def _spread(value: float | Tensor, parameters: list[Tensor]) -> Any:
    """A number as it is, and one number a member in the shapes that multiply the members' parameters."""
    return value if isinstance(value, float) else [value.reshape((-1,) + (1,) * (p.ndim - 1)) for p in parameters]


class _Update:
    """One optimizer's step on a dict of tensors, the same arithmetic as ``torch.optim``'s."""

    def __init__(
        self,
        params: Params,
        optimizer: Optimizer,
        lr: Tensor,
        momentum: float,
        nesterov: bool,
        betas: tuple[float, float],
        eps: float,
        weight_decay: Tensor,
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        known = ("sgd", "adam", "adamw", "adam_atan2", "adafactor")
        require(optimizer in known, f"an optimizer out of {', '.join(known)}", repr(optimizer))
        self.scales: list[float] | None = None
        if lr_scale is not None:
            require(
                set(lr_scale) == set(params), f"one scale of the rate for each of {sorted(params)}", sorted(lr_scale)
            )
            require(all(0 <= v < math.inf for v in lr_scale.values()), "finite scales of at least 0", dict(lr_scale))
            self.scales = [float(lr_scale[name]) for name in params]
        self.kind, self.momentum, self.nesterov = optimizer, momentum, nesterov
        self.betas, self.eps = betas, eps
        # One number for all stays a Python number: the loops over tensors then run in compiled code.
        self.rate = lr if lr.ndim else float(lr)
        self.decay = weight_decay if weight_decay.ndim else float(weight_decay)
        self.decays = bool((weight_decay != 0).any())
        self.count = 0
        moments = {"sgd": 1 if momentum else 0, "adafactor": 1}.get(optimizer, 2)
        self.state = [[torch.zeros_like(p) for p in params.values()] for _ in range(moments)]
        self.factors: list[tuple[Tensor, ...]] = []

    def _spread_rate(self, rate: float | Tensor, p: list[Tensor]) -> Any:
        """The rate as a number where it is one for all, else one factor a parameter tensor."""
        if self.scales is None:
            return _spread(rate, p)
        if isinstance(rate, float):
            return [rate * scale for scale in self.scales]
        return [member * scale for member, scale in zip(_spread(rate, p), self.scales)]

    def _subtract(self, p: list[Tensor], move: list[Tensor], rate: float | Tensor) -> None:
        rates = self._spread_rate(rate, p)
        if isinstance(rates, float):
            torch._foreach_add_(p, move, alpha=-rates)
        else:
            torch._foreach_sub_(p, torch._foreach_mul(move, rates))

    def _adafactor(self, p: list[Tensor], g: list[Tensor], rate: float | Tensor, stacked: bool) -> None:
        b1, b2 = self.betas
        moves = []
        for i, (value, gradient) in enumerate(zip(p, g)):
            square = gradient.square()
            own = value.ndim - int(stacked)
            fresh = (square.mean(-1, keepdim=True), square.mean(-2, keepdim=True)) if own >= 2 else (square,)
            if self.count == 1:
                self.factors.append(tuple(torch.zeros_like(f) for f in fresh))
            for old, new in zip(self.factors[i], fresh):
                old.lerp_(new, 1 - b2)
            if own >= 2:
                row, column = self.factors[i]
                # A dead row or column has no gradient to divide: 0 / floor is the limit that leaves it where it is.
                square = row * column / row.mean(-2, keepdim=True).clamp_min(torch.finfo(row.dtype).tiny)
            else:
                square = self.factors[i][0]
            unit = gradient / (square / (1 - b2**self.count)).sqrt().clamp_min(torch.finfo(square.dtype).tiny ** 0.5)
            axes = tuple(range(int(stacked), value.ndim))
            rms = unit.square().mean(axes, keepdim=True).sqrt() if axes else unit.abs()
            size = value.square().mean(axes, keepdim=True).sqrt() if axes else value.abs()
            self.state[0][i].lerp_(unit / rms.clamp_min(1.0), 1 - b1)
            moves.append(self.state[0][i] * size / (1 - b1**self.count))
        self._subtract(p, moves, rate)

    @torch.no_grad()
    def step(self, params: Params, grads: Params, factor: float, stacked: bool = False) -> None:
        self.count += 1
        p = list(params.values())
        g: Any = [grads[name] for name in params]
        rate, decay = self.rate * factor, self.decay
        if self.decays and self.kind == "adamw":
            if self.scales is None:
                torch._foreach_mul_(p, _spread(1 - rate * decay, p))
            else:
                shrink = self._spread_rate(rate * decay, p)
                torch._foreach_mul_(p, [1 - part for part in shrink])
        elif self.decays and isinstance(decay, float):
            g = torch._foreach_add(g, p, alpha=decay)
        elif self.decays:
            g = torch._foreach_add(g, torch._foreach_mul(p, _spread(decay, p)))
        if self.kind == "sgd":
            if self.momentum:
                velocity = self.state[0]
                torch._foreach_mul_(velocity, self.momentum)
                torch._foreach_add_(velocity, g)
                g = torch._foreach_add(g, velocity, alpha=self.momentum) if self.nesterov else velocity
            self._subtract(p, g, rate)
            return
        if self.kind == "adafactor":
            self._adafactor(p, g, rate, stacked)
            return
        b1, b2 = self.betas
        first, second = self.state
        torch._foreach_mul_(first, b1)
        torch._foreach_add_(first, g, alpha=1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, g, g, value=1 - b2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, math.sqrt(1 - b2**self.count))
        if self.kind == "adam_atan2":
            corrected = torch._foreach_div(first, 1 - b1**self.count)
            self._subtract(p, [torch.atan2(m, v).mul_(4 / math.pi) for m, v in zip(corrected, scale)], rate)
            return
        torch._foreach_add_(scale, self.eps)
        rate = rate / (1 - b1**self.count)
        rates = self._spread_rate(rate, p)
        if isinstance(rates, float):
            torch._foreach_addcdiv_(p, first, scale, value=-rates)
        else:
            move = torch._foreach_mul(first, rates)
            torch._foreach_div_(move, scale)
            torch._foreach_sub_(p, move)


def _clipped(grads: list[Tensor], limit: float, stacked: bool) -> list[Tensor]:
    """Gradients scaled down where their norm, over all tensors of a member, exceeds the limit."""
    if not stacked:
        norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
        return [g * (limit / norm.clamp_min(limit)) for g in grads]
    norm = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in grads]).sum(0).sqrt()
    factor = limit / norm.clamp_min(limit)
    return [g * factor.reshape((-1,) + (1,) * (g.ndim - 1)) for g in grads]


def minimize(
    loss: Callable[[Params, int, torch.Generator], Tensor],
    params: Params,
    *,
    steps: int,
    optimizer: Optimizer = "adam",
    lr: PerMember = 1e-3,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: PerMember = 0.0,
    schedule: Schedule = "constant",
    lr_scale: Mapping[str, float] | None = None,
    clip_norm: float | None = None,
    diverged: Diverged = "raise",
    seed: int = 0,
    observe: Callable[[int, Params], None] | None = None,
) -> tuple[Params, Tensor]:
    r"""Minimise a loss over a dict of tensors by first-order steps.

    Members do not mix: where ``loss`` returns one value a member, the sum is differentiated, and member :math:`m`'s
    gradient is that of its own term.

    Two optimizers go beyond ``torch.optim``. ``"adam_atan2"`` moves by
    :math:`-\eta\,\tfrac4\pi \operatorname{atan2}(\hat m, \sqrt{\hat v})`, which needs no ``eps`` and does not see the
    gradient's scale. ``"adafactor"`` keeps of :math:`v` only the means over rows and columns, clips the root
    mean square of the unit step at 1, averages it with ``betas[0]``, and multiplies it by that of the parameter; a
    parameter that is zero stays zero.

    Args:
        loss: ``loss(params, step, generator)``, a scalar or a tensor ``[M]`` of losses.
        params: Starting point; not changed. With ``lr`` a sequence, each tensor has shape ``[M, ...]``.
        steps: Number of steps.
        optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"`` (decoupled weight decay), as in ``torch.optim``;
            ``"adam_atan2"`` or ``"adafactor"``.
        lr: Learning rate, one for all or one a member.
        momentum: Heavy-ball momentum of SGD.
        nesterov: Nesterov's variant of it.
        betas: Adam's averaging constants.
        eps: Adam's floor of the denominator.
        weight_decay: L2 penalty (decoupled for ``"adamw"``), one for all or one a member.
        schedule: ``"constant"``, ``"cosine"`` or ``"linear"`` decay to zero.
        lr_scale: A factor on the rate for every parameter tensor, by name; default 1.
        clip_norm: Largest norm of a member's gradient; longer ones are shortened to it.
        diverged: ``"raise"``, or ``"keep"`` to go on where members diverge (their losses are then NaN or infinite).
        seed: Seeds the generator handed to ``loss``.
        observe: ``observe(taken, params)`` is called before every step and after the last, with the number of steps
            taken; what it keeps it must copy.

    Returns:
        The parameters after the last step and the losses, ``[steps]`` or ``[steps, M]``.

    Raises:
        ValueError: For no parameters, a negative number of steps, an unknown optimizer or schedule, or a loss that
            became NaN or infinite (the message names the step).
    """
    require(len(params) > 0, "at least one parameter tensor", 0)
    require(steps >= 0, "a non-negative number of steps", steps)
    require(clip_norm is None or clip_norm > 0, "a positive clip_norm", clip_norm)
    require(diverged in ("raise", "keep"), "diverged out of raise, keep", repr(diverged))
    params = {name: p.detach().clone().requires_grad_(True) for name, p in params.items()}
    like = next(iter(params.values()))
    members = like.shape[0] if like.ndim else None
    generator = torch.Generator(device=like.device if like.device.type != "meta" else "cpu").manual_seed(seed)
    update = _Update(
        params,
        optimizer,
        _per_member(lr, members, like),
        momentum,
        nesterov,
        betas,
        eps,
        _per_member(weight_decay, members, like),
        lr_scale,
    )
    names, history = list(params), []
    for step in range(steps):
        if observe is not None:
            observe(step, params)
        value = loss(params, step, generator)
        gradients = torch.autograd.grad(value.sum(), [params[n] for n in names], allow_unused=True)
        dense = [torch.zeros_like(params[n]) if g is None else g for n, g in zip(names, gradients)]
        if clip_norm is not None:
            dense = _clipped(dense, clip_norm, value.ndim == 1)
        update.step(params, dict(zip(names, dense)), learning_rate_factor(step, steps, schedule), value.ndim == 1)
        history.append(value.detach())
    if observe is not None:
        observe(steps, params)
    trace = torch.stack(history) if history else torch.zeros(0)
    if diverged == "raise" and trace.device.type != "meta" and not bool(torch.isfinite(trace).all()):
        finite = torch.isfinite(trace).reshape(len(trace), -1).all(1)
        raise ValueError(
            f"expected a finite loss, got {trace[~finite][0].tolist()} at step {int((~finite).nonzero()[0])}"
        )
    return {name: p.detach() for name, p in params.items()}, trace


@dataclass
class Ensemble:
    """Trained members of one architecture, their parameters stacked along a leading axis.

    Attributes:
        module: The architecture; its own parameters are not used.
        params: Parameters, ``[M, ...]`` each.
        buffers: Buffers (running statistics of batch normalisation), ``[M, ...]`` each.
        history: Mean training loss, ``[epochs, M]``.
        trace: Training loss of every step, ``[steps, M]``.
    """

    module: nn.Module
    params: Params
    buffers: Params = field(default_factory=dict)
    history: Tensor = field(default_factory=lambda: torch.zeros(0))
    trace: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __len__(self) -> int:
        return next(iter(self.params.values())).shape[0]

    def __getitem__(self, members: slice | Sequence[int] | Tensor) -> Ensemble:
        """Some of the members, as an ensemble."""
        index = members if isinstance(members, slice) else torch.as_tensor(members)
        history, trace = (line[:, index] if line.ndim == 2 else line for line in (self.history, self.trace))
        return Ensemble(
            self.module,
            {k: v[index] for k, v in self.params.items()},
            {k: v[index] for k, v in self.buffers.items()},
            history,
            trace,
        )

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, *, batch_size: int = 4096, per_member_data: bool = False, **forward_kwargs: Any
    ) -> Tensor:
        """Outputs of every member in evaluation mode.

        Args:
            inputs: ``[N, ...]`` shared by all members, or ``[M, N, ...]`` with ``per_member_data``.
            batch_size: How many inputs at once.
            per_member_data: Whether each member has inputs of its own.
            forward_kwargs: Passed to the module's ``forward``.

        Returns:
            Outputs, ``[M, N, ...]``.
        """
        self.module.eval()
        axis = 1 if per_member_data else 0
        call = vmap(
            lambda p, b, x: functional_call(self.module, (p, b), (x,), forward_kwargs),
            in_dims=(0, 0, 0 if per_member_data else None),
        )
        parts = [call(self.params, self.buffers, chunk) for chunk in inputs.split(batch_size, dim=axis)]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def accuracy(
        self,
        inputs: Tensor,
        labels: Int[Tensor, "*M N"],
        *,
        batch_size: int = 4096,
        per_member_data: bool = False,
        **forward_kwargs: Any,
    ) -> Float[Tensor, " M"]:
        """Share of inputs whose largest output is the label, one value a member."""
        outputs = self.predict(inputs, batch_size=batch_size, per_member_data=per_member_data, **forward_kwargs)
        return (outputs.argmax(-1) == labels).double().mean(-1)

    def member(self, index: int) -> nn.Module:
        """One member as an ordinary module."""
        module = copy.deepcopy(self.module)
        state = {k: v[index] for k, v in self.params.items()} | {k: v[index] for k, v in self.buffers.items()}
        module.load_state_dict(state)
        return module.eval()


def batch_order(seed: int, examples: int, epochs: int) -> Int[Tensor, "epochs examples"]:
    """The order in which a member with this seed sees the examples: one permutation an epoch."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(examples, generator=generator) for _ in range(epochs)])


def fit_many(
    build: Callable[[], nn.Module],
    inputs: Tensor,
    targets: Tensor,
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    optimizer: Optimizer = "sgd",
    lr: PerMember = 0.05,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: PerMember = 0.0,
    schedule: Schedule = "constant",
    lr_scale: Mapping[str, float] | None = None,
    clip_norm: float | None = None,
    diverged: Diverged = "raise",
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy",
    device: str | torch.device = "cpu",
    forward_kwargs: Callable[[int], dict[str, Any]] | None = None,
    init: Ensemble | tuple[Params, Params] | None = None,
    per_member_data: bool = False,
    order: Int[Tensor, "epochs M N"] | None = None,
    observe: Callable[[int, Params], None] | None = None,
) -> Ensemble:
    r"""Train all members of an ensemble at once by mini-batch gradient descent.

    Member :math:`m` is built by ``build()`` under ``torch.manual_seed(seeds[m])`` and shuffles its data by a generator
    of that seed, so that it takes the very steps that it would take alone.

    Args:
        build: Makes one member.
        inputs: ``[N, ...]`` shared by all members, or ``[M, N, ...]`` with ``per_member_data``.
        targets: ``[N, ...]`` or ``[M, N, ...]`` likewise.
        seeds: One a member; equal seeds with different ``lr`` are a sweep.
        epochs: Passes over the data; the last, smaller batch of a pass is kept.
        batch_size: Examples a step.
        optimizer, lr, momentum, nesterov, betas, eps, weight_decay, schedule: As in :func:`minimize`.
        lr_scale, clip_norm, diverged: As in :func:`minimize`.
        loss: ``"cross_entropy"``, ``"mse"``, or ``loss(outputs, targets)`` returning a scalar.
        device: Where to train.
        forward_kwargs: ``forward_kwargs(step)`` gives extra keyword arguments of the forward pass, the same for all.
        init: Stacked parameters (and buffers) to start from instead of ``build``'s, for fine-tuning.
        per_member_data: Whether each member has data of its own.
        order: The order of the examples in each epoch, for each member; default: :func:`batch_order` by its seed.
            Members that share a beginning share its batches, and with them the optimizer's state.
        observe: As in :func:`minimize`, with the stacked parameters.

    Returns:
        The trained ensemble, with the mean training loss of each epoch.

    Raises:
        ValueError: For no seeds, no examples, NaN inputs, lengths that differ, or a loss that became infinite.
    """
    require(len(seeds) > 0, "at least one seed", 0)
    require(epochs >= 1 and batch_size >= 1, "epochs and batch_size of at least 1", (epochs, batch_size))
    axis = 1 if per_member_data else 0
    require(
        inputs.ndim > axis and targets.ndim > axis, f"data of at least {axis + 1} axes", (inputs.shape, targets.shape)
    )
    examples = inputs.shape[axis]
    require(examples > 0, "at least one example", 0)
    require(targets.shape[axis] == examples, f"{examples} targets, one an example", targets.shape[axis])
    if per_member_data:
        require(inputs.shape[0] == len(seeds), f"inputs for {len(seeds)} members", inputs.shape[0])
    require_finite("inputs", inputs)
    inputs, targets = inputs.to(device), targets.to(device)
    modules = []
    for seed in seeds if init is None else seeds[:1]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(build())
    skeleton = copy.deepcopy(modules[0]).to(device)
    if init is None:
        params, buffers = stack_members(modules)
    else:
        params, buffers = (init.params, init.buffers) if isinstance(init, Ensemble) else init
        require(
            all(v.shape[0] == len(seeds) for v in params.values()),
            f"initial parameters for {len(seeds)} members",
            {k: tuple(v.shape) for k, v in params.items()},
        )
    params = {k: v.to(device) for k, v in params.items()}
    buffers = {k: v.clone().to(device) for k, v in buffers.items()}

    criterion = LOSSES[loss] if isinstance(loss, str) else loss
    if order is None:
        order = torch.stack([batch_order(seed, examples, epochs) for seed in seeds], dim=1)
    expected = (epochs, len(seeds), examples)
    require(tuple(order.shape) == expected, f"an order of shape {expected}", tuple(order.shape))
    sound = torch.equal(order.sort(-1).values, torch.arange(examples, device=order.device).expand(expected))
    require(sound, "every example once an epoch in the order", "another list")
    order = order.to(device)
    per_epoch = math.ceil(examples / batch_size)
    rows = torch.arange(len(seeds), device=device)[:, None]

    def member_loss(p: Params, b: Params, x: Tensor, y: Tensor, extra: dict[str, Any]) -> Tensor:
        return criterion(functional_call(skeleton, (p, b), (x,), extra), y)

    def batch_loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        epoch, batch = divmod(step, per_epoch)
        index = order[epoch, :, batch * batch_size : (batch + 1) * batch_size]
        x = inputs[rows, index] if per_member_data else inputs[index]
        y = targets[rows, index] if per_member_data else targets[index]
        extra = forward_kwargs(step) if forward_kwargs else {}
        return vmap(lambda p, b, x, y: member_loss(p, b, x, y, extra), randomness="different")(p, buffers, x, y)

    skeleton.train()
    params, trace = minimize(
        batch_loss,
        params,
        steps=epochs * per_epoch,
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        schedule=schedule,
        lr_scale=lr_scale,
        clip_norm=clip_norm,
        diverged=diverged,
        observe=observe,
    )
    skeleton.eval()
    return Ensemble(skeleton, params, buffers, trace.reshape(epochs, per_epoch, len(seeds)).mean(1), trace)


def fit(model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int, **options: Any) -> Ensemble:
    """Train one model in place: :func:`fit_many` with a single member that starts from ``model``'s weights.

    Args:
        model: Trained in place.
        inputs: ``[N, ...]``.
        targets: ``[N, ...]``.
        seed: Orders the batches.
        options: As in :func:`fit_many`.

    Returns:
        The ensemble of one; ``model`` holds its weights.
    """
    ensemble = fit_many(
        lambda: copy.deepcopy(model), inputs, targets, seeds=[seed], init=stack_members([model]), **options
    )
    model.load_state_dict({k: v[0] for k, v in (ensemble.params | ensemble.buffers).items()})
    return ensemble
