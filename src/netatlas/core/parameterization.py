r"""Parameterizations: how initial size, multiplier and learning rate of each layer change with the network's width.

One table holds them all. A layer computes :math:`n^{-a} w` where it holds the parameter :math:`w`, draws
:math:`w \sim \mathcal N(0, \sigma^2 n^{-2b})` and moves it at the rate :math:`\eta\, n^{-c}`; :math:`n` is the width in
multiples of a *base width* at which all parameterizations are one network. Layers are of three kinds: an *embedding*
has a growing output only, a *hidden* layer a growing input and output, a *readout* a growing input only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrize

from netatlas.core.checks import require, require_finite
from netatlas.core.stats import Interval, mean_interval
from netatlas.core.train import Ensemble, fit_many

Kind = Literal["embedding", "hidden", "readout", "fixed"]
Rule = Literal["standard", "ntk", "mup", "mean_field"]
Alignment = Literal["full", "none"]

#: Multiplier exponent ``a`` and initial exponent ``b`` of each kind of layer.
TABLE: dict[str, dict[str, tuple[float, float]]] = {
    "standard": {"embedding": (0.0, 0.0), "hidden": (0.0, 0.5), "readout": (0.0, 0.5)},
    "ntk": {"embedding": (0.0, 0.0), "hidden": (0.5, 0.0), "readout": (0.5, 0.0)},
    "mup": {"embedding": (-0.5, 0.5), "hidden": (0.0, 0.5), "readout": (0.5, 0.5)},
    "mean_field": {"embedding": (0.0, 0.0), "hidden": (0.5, 0.0), "readout": (1.0, 0.0)},
}
KINDS = ("embedding", "hidden", "readout")
OPTIMIZERS = ("sgd", "adam", "adafactor")


class Exponents(NamedTuple):
    """Exponents of one layer: multiplier :math:`n^{-a}`, initial size :math:`n^{-b}`, learning rate :math:`n^{-c}`."""

    multiplier: float
    init: float
    rate: float


def rate_exponent(
    kind: str, a: float, b: float, readout: float, optimizer: str, alignment: Alignment = "full"
) -> float:
    r"""The learning-rate exponent at which a layer's update changes its output by order one.

    An update's product with its input grows like :math:`n^{\alpha}` entries, :math:`\alpha = 1` where they are aligned,
    :math:`1/2` where they are not, and :math:`0` for an embedding, whose input does not grow. With :math:`g` the size
    exponent of the gradient at the layer's output (:math:`g = a + b` of the readout below it, :math:`g = 0` at it),

    .. math::

        c_{\text{SGD}} = \alpha - 2a - g, \qquad
        c_{\text{Adam}} = \alpha - a, \qquad
        c_{\text{Adafactor}} = \alpha - a - b

    Args:
        kind: ``"embedding"``, ``"hidden"`` or ``"readout"``.
        a: The layer's multiplier exponent.
        b: The layer's initial exponent.
        readout: :math:`a + b` of the readout.
        optimizer: ``"sgd"``, ``"adam"`` (also ``"adamw"``, ``"adam_atan2"``) or ``"adafactor"``.
        alignment: ``"full"`` or ``"none"``.

    Raises:
        ValueError: For an unknown kind, optimizer or alignment.

    Source:
        everett2024scaling, the stability and non-triviality conditions; yang2020feature for SGD.
    """
    require(kind in KINDS, f"a kind of layer out of {KINDS}", repr(kind))
    require(alignment in ("full", "none"), "an alignment out of full, none", repr(alignment))
    family = "adam" if optimizer in ("adamw", "adam_atan2") else optimizer
    require(family in OPTIMIZERS, f"an optimizer out of {OPTIMIZERS}, adamw, adam_atan2", repr(optimizer))
    alpha = 0.0 if kind == "embedding" else 1.0 if alignment == "full" else 0.5
    if family == "sgd":
        return alpha - 2 * a - (0.0 if kind == "readout" else readout)
    return alpha - a - (b if family == "adafactor" else 0.0)


def exponents(rule: Rule, optimizer: str = "sgd", alignment: Alignment = "full") -> dict[str, Exponents]:
    r"""The row of the table for one parameterization and optimizer.

    Args:
        rule: ``"standard"``, ``"ntk"``, ``"mup"`` or ``"mean_field"``.
        optimizer: As in :func:`rate_exponent`.
        alignment: ``"full"`` or ``"none"``.

    Returns:
        :class:`Exponents` by kind of layer.

    Raises:
        ValueError: For an unknown rule, optimizer or alignment.

    Source:
        everett2024scaling, table of parameterizations; yang2020feature (abc-parameterizations).
    """
    require(rule in TABLE, f"a parameterization out of {sorted(TABLE)}", repr(rule))
    last = sum(TABLE[rule]["readout"])
    return {
        kind: Exponents(a, b, rate_exponent(kind, a, b, last, optimizer, alignment))
        for kind, (a, b) in TABLE[rule].items()
    }


def shifted(row: Mapping[str, Exponents], theta: float, optimizer: str) -> dict[str, Exponents]:
    r"""The equivalent parameterization with multipliers moved into the initial size.

    .. math:: a \to a + \theta, \quad b \to b - \theta, \quad c \to c - 2\theta \text{ (SGD)},\ c - \theta
        \text{ (Adam)},\ c \text{ (Adafactor)}

    Args:
        row: Exponents by kind of layer.
        theta: The shift.
        optimizer: As in :func:`rate_exponent`.

    Raises:
        ValueError: For an unknown optimizer.

    Source:
        everett2024scaling, equivalence classes; yang2020feature, the symmetry of abc-parameterizations.
    """
    family = "adam" if optimizer in ("adamw", "adam_atan2") else optimizer
    require(family in OPTIMIZERS, f"an optimizer out of {OPTIMIZERS}, adamw, adam_atan2", repr(optimizer))
    times = {"sgd": 2.0, "adam": 1.0, "adafactor": 0.0}[family]
    return {k: Exponents(e.multiplier + theta, e.init - theta, e.rate - times * theta) for k, e in row.items()}


@dataclass(frozen=True)
class Regime:
    """What an abc-parameterization does as width grows, under SGD with one learning rate.

    Attributes:
        r: Features change by :math:`n^{-r}` after a few steps.
        stable: Neither outputs nor features grow without bound.
        nontrivial: The network's function moves at all.
    """

    r: float
    stable: bool
    nontrivial: bool

    @property
    def feature_learning(self) -> bool:
        """Whether features move by order one: stable, not trivial, and ``r`` zero."""
        return self.stable and self.nontrivial and abs(self.r) < 1e-9


def abc_regime(a: Sequence[float], b: Sequence[float], c: float) -> Regime:
    r"""Feature learning or kernel regime: the number that decides.

    .. math::

        r = \min(a_{L+1} + b_{L+1},\ 2a_{L+1} + c) + c - 1 + \min_{l \le L}\bigl(2 a_l + [l = 1]\bigr)

    Stable if :math:`a_1 + b_1 = 0`, :math:`a_l + b_l = 1/2` for the other hidden layers,
    :math:`a_{L+1} + b_{L+1} \ge 1/2`, :math:`r \ge 0`, :math:`2a_{L+1} + c \ge 1`,
    :math:`a_{L+1} + b_{L+1} + r \ge 1`; not trivial if one of the last two is an equality. Then features learn if
    :math:`r = 0`, and the network trains as a
    kernel machine if :math:`r > 0`.

    Args:
        a: Multiplier exponents of the :math:`L + 1` layers, input first; at least two.
        b: Initial exponents likewise.
        c: The one learning-rate exponent.

    Raises:
        ValueError: For fewer than two layers, lengths that differ, or numbers that are not finite.

    Source:
        yang2020feature, theorem on the dynamical dichotomy.
    """
    require(len(a) == len(b) >= 2, "exponents a and b of at least two layers each", (len(a), len(b)))
    require(all(math.isfinite(v) for v in (*a, *b, c)), "finite exponents", (list(a), list(b), c))
    last = a[-1] + b[-1]
    r = min(last, 2 * a[-1] + c) + c - 1 + min(2 * v + (i == 0) for i, v in enumerate(a[:-1]))
    near = 1e-9
    sizes = abs(a[0] + b[0]) < near and all(abs(v + w - 0.5) < near for v, w in zip(a[1:-1], b[1:-1]))
    stable = sizes and last >= 0.5 - near and r >= -near and 2 * a[-1] + c >= 1 - near and last + r >= 1 - near
    return Regime(r, stable, abs(last + r - 1) < near or abs(2 * a[-1] + c - 1) < near)


#: The single-rate abc-parameterizations of a network with ``L`` hidden layers: a, b, c as functions of ``L``.
ABC: dict[str, Callable[[int], tuple[list[float], list[float], float]]] = {
    "standard": lambda layers: ([0.0] * (layers + 1), [0.0] + [0.5] * layers, 1.0),
    "ntk": lambda layers: ([0.0] + [0.5] * layers, [0.0] * (layers + 1), 0.0),
    "mup": lambda layers: ([-0.5] + [0.0] * (layers - 1) + [0.5], [0.5] * (layers + 1), 0.0),
}


def branch_scale(depth: int, exponent: float = 0.5) -> float:
    r"""The multiplier of every residual branch, :math:`L^{-\text{exponent}}`.

    The exponent 1/2 keeps a network of any depth at one size, as a random walk of :math:`L` steps of variance
    :math:`1/L`; 0 is a plain residual network.

    Args:
        depth: Number of branches :math:`L`.
        exponent: 0, 1/2 or 1.

    Raises:
        ValueError: For a depth below 1 or an exponent outside [0, 1].

    Source:
        bordelon2023depthwise (the branch's factor).
    """
    require(depth >= 1, "a depth of at least 1", depth)
    require(0 <= exponent <= 1, "an exponent in [0, 1]", exponent)
    return float(depth) ** -exponent


def depth_rate(depth: int, optimizer: str, exponent: float = 0.5) -> float:
    r"""The learning rate's factor on branch weights that goes with a branch scale :math:`L^{-\text{exponent}}`.

    Under SGD the gradient carries the branch scale itself: with the exponent 1/2, :math:`L` layers times
    :math:`L^{-1/2}` times :math:`L^{-1/2}` is of order one, and the factor is :math:`L^{2 \cdot 1/2 - 1} = 1`.
    Adam divides the gradient's scale out and leaves :math:`L^{1/2}`, which the factor :math:`L^{1/2 - 1}` undoes.

    Args:
        depth: Number of branches :math:`L`.
        optimizer: ``"sgd"``, ``"adam"``, ``"adamw"`` or ``"adam_atan2"``.
        exponent: The branch scale's exponent.

    Raises:
        ValueError: As :func:`branch_scale`, or for another optimizer.

    Source:
        bordelon2023depthwise (the rule for Adam derived as above).
    """
    branch_scale(depth, exponent)
    known = ("sgd", "adam", "adamw", "adam_atan2")
    require(optimizer in known, f"an optimizer out of {known}", repr(optimizer))
    return float(depth) ** ((2 * exponent if optimizer == "sgd" else exponent) - 1)


def layer_kinds(module: nn.Module, base: nn.Module, roles: Mapping[str, str] | None = None) -> dict[str, Kind]:
    """The kind of every parameter, read off from which of its axes grew since the base model.

    A matrix (or convolution, fan-out first) that grew in both fans is ``"hidden"``, in its output alone
    ``"embedding"``, in its input alone ``"readout"``, in none ``"fixed"``. Vectors that grew are ``"embedding"``: their
    input is the constant one.

    Args:
        module: The model.
        base: The same architecture at the base width.
        roles: Kinds to use instead, by parameter name.

    Raises:
        ValueError: For different parameter names, different numbers of axes, a role for no parameter or of no kind.
    """
    own, other = dict(module.named_parameters()), dict(base.named_parameters())
    require(list(own) == list(other), f"a base model with parameters {list(own)}", list(other))
    roles = dict(roles or {})
    require(set(roles) <= set(own), f"roles of parameters out of {list(own)}", sorted(roles))
    require(set(roles.values()) <= {*KINDS, "fixed"}, f"kinds out of {KINDS} and fixed", sorted(set(roles.values())))
    tables = {f"{k}.weight" if k else "weight" for k, m in module.named_modules() if isinstance(m, nn.Embedding)}
    kinds: dict[str, Kind] = {}
    for name, value in own.items():
        require(value.ndim == other[name].ndim, f"{other[name].ndim} axes of {name} as in the base", value.ndim)
        grew = [n != m for n, m in zip(value.shape, other[name].shape)]
        if name in roles:
            kinds[name] = roles[name]  # type: ignore[assignment]
        elif not any(grew):
            kinds[name] = "fixed"
        elif value.ndim == 1 or name in tables or not grew[1]:
            kinds[name] = "embedding"
        else:
            kinds[name] = "hidden" if grew[0] else "readout"
    return kinds


class Multiplier(nn.Module):
    r"""A fixed factor on a parameter, :math:`w \mapsto s\,w`, as a parametrization of any module.

    Args:
        scale: The factor :math:`s`.

    Raises:
        ValueError: For a factor that is zero or not finite.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        require(scale != 0 and math.isfinite(scale), "a finite factor other than zero", scale)
        self.scale = float(scale)

    def forward(self, w: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return w * self.scale

    def right_inverse(self, w: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The parameter whose product with the factor is ``w``."""
        return w / self.scale


@dataclass(frozen=True)
class Applied:
    """What :func:`parameterize` did.

    Attributes:
        kinds: Kind of each parameter, by its name before.
        lr_scale: Factor on the learning rate, by its name after; for ``fit_many`` and ``minimize``.
    """

    kinds: dict[str, Kind]
    lr_scale: dict[str, float]

    def groups(self, module: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for ``torch.optim``: one a parameter, each with its rate."""
        return [{"params": [p], "lr": lr * self.lr_scale[name]} for name, p in module.named_parameters()]


def _fans(name: str, value: Tensor, base: Tensor, kind: str, table: bool) -> float:
    if kind == "fixed":
        return 1.0
    axis = 0 if kind == "embedding" and not (table and value.ndim > 1) else 1
    return value.shape[axis] / base.shape[axis]


@torch.no_grad()
def parameterize(
    module: nn.Module,
    base: nn.Module,
    rule: Rule | Mapping[str, Exponents],
    *,
    optimizer: str = "sgd",
    alignment: Alignment = "full",
    global_rate: float | None = None,
    roles: Mapping[str, str] | None = None,
) -> Applied:
    r"""Put a freshly initialised module of any architecture into a parameterization, in place.

    The module's own initialisation is taken to be of standard type, with a size that falls like
    :math:`(\text{fan-in})^{-1/2}`, as that of ``nn.Linear`` and ``nn.Conv2d``; with :math:`n` the ratio of widths its
    parameters are multiplied by :math:`n^{b_\text{standard} - b}` and get the multiplier :math:`n^{-a}`. At the base
    width nothing changes. Biases and other vectors keep the sizes of the embedding row.

    Args:
        module: Changed in place; matrices get a :class:`Multiplier` where the rule has one, which renames
            ``X.weight`` to ``X.parametrizations.weight.original``.
        base: The same architecture at the base width; only its shapes are read.
        rule: A name out of :data:`TABLE`, or exponents by kind of layer.
        optimizer: Whose learning rates: ``"sgd"``, ``"adam"``, ``"adamw"``, ``"adam_atan2"`` or ``"adafactor"``.
        alignment: Assumed alignment of updates with their inputs, ``"full"`` or ``"none"``.
        global_rate: One exponent ``c`` for all layers instead of the rule's.
        roles: Kinds that shapes do not tell, by parameter name.

    Returns:
        Kinds of the parameters and factors of their learning rates.

    Raises:
        ValueError: For modules that do not correspond, a module that has parametrizations already, an unknown rule.

    Source:
        everett2024scaling, abc-parameterizations relative to a base width; yang2020feature.
    """
    require(
        not any(parametrize.is_parametrized(m) for m in module.modules()), "a module without parametrizations", "one"
    )
    row = exponents(rule, optimizer, alignment) if isinstance(rule, str) else dict(rule)
    require(set(KINDS) <= set(row), f"exponents of {KINDS}", sorted(row))
    kinds, shapes = layer_kinds(module, base, roles), dict(base.named_parameters())
    tables = {f"{k}.weight" if k else "weight" for k, m in module.named_modules() if isinstance(m, nn.Embedding)}
    owners = {
        f"{path}.{leaf}" if path else leaf: (m, leaf) for path, m in module.named_modules() for leaf in m._parameters
    }
    rates: dict[str, float] = {}
    for name, value in list(module.named_parameters()):
        kind = kinds[name]
        ratio = _fans(name, value, shapes[name], kind, name in tables)
        step = Exponents(0.0, 0.0, 0.0) if kind == "fixed" else row[kind]
        started = TABLE["standard"][kind][1] if kind != "fixed" else 0.0
        value.mul_(ratio ** (started - step.init))
        owner, leaf = owners[name]
        new = name
        if step.multiplier and ratio != 1:
            # The right inverse divides by the factor, so the stored parameter is what was set here.
            value.mul_(ratio**-step.multiplier)
            parametrize.register_parametrization(owner, leaf, Multiplier(ratio**-step.multiplier))
            new = f"{name[: len(name) - len(leaf)]}parametrizations.{leaf}.original"
        rates[new] = ratio ** -(step.rate if global_rate is None else global_rate)
    # Registering moves a parameter to the end of its module: the order of names is the module's own afterwards.
    return Applied(kinds, {name: rates[name] for name, _ in module.named_parameters()})


@contextmanager
def _recorded(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Outputs of the module's leaves that hold parameters, by name, while the module is called."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    leaves = [
        (k, m)
        for k, m in module.named_modules()
        if (m._parameters or parametrize.is_parametrized(m)) and "parametrizations" not in k.split(".")
    ]
    handles = [m.register_forward_hook(note(k)) for k, m in leaves]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_outputs(ensemble: Ensemble, inputs: Tensor) -> dict[str, Float[Tensor, "M N ..."]]:
    """What every layer with parameters puts out, for each member.

    Args:
        ensemble: ``M`` trained members.
        inputs: ``[N, ...]``, shared by the members.

    Returns:
        Outputs ``[M, N, ...]`` by the layer's name.
    """

    def call(p: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        with _recorded(ensemble.module) as seen:
            functional_call(ensemble.module, (p, b), (inputs,))
            return dict(seen)

    ensemble.module.eval()
    return vmap(call)(ensemble.params, ensemble.buffers)


def width_exponent(widths: Sequence[int], values: Float[Tensor, "W S"], level: float = 0.95) -> Interval:
    r"""Exponent of a quantity in the width, fitted seed by seed, with Student's interval over seeds.

    Args:
        widths: ``W`` widths, at least two.
        values: Positive values, one row a width, one column a seed.
        level: Coverage of the interval.

    Returns:
        Mean slope of :math:`\log v` against :math:`\log n`, and its interval.

    Raises:
        ValueError: For fewer than two widths, equal widths, or values that are not positive and finite.
    """
    table = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    require(len(widths) >= 2 and len(set(widths)) == len(widths), "at least two different widths", list(widths))
    require(table.ndim == 2 and len(table) == len(widths), f"values [{len(widths)}, S]", tuple(table.shape))
    require_finite("values", table)
    require(bool((table > 0).all()), "positive values", float(table.min()))
    x = np.log(np.asarray(widths, np.float64))
    x = x - x.mean()
    slopes = x @ table.log().numpy() / (x @ x)
    return mean_interval(slopes, level)


@dataclass(frozen=True)
class CoordinateCheck:
    """Sizes of activations and of their change, against width.

    Attributes:
        widths: ``W`` widths.
        initial: Root mean square of each layer's output at initialisation, ``[W, S]`` by layer.
        change: Root mean square of its change in training, ``[W, S]`` by layer.
    """

    widths: tuple[int, ...]
    initial: dict[str, Tensor]
    change: dict[str, Tensor]

    def slopes(self, which: Literal["initial", "change"] = "change") -> dict[str, Interval]:
        """Exponents in the width with intervals over seeds, by layer."""
        return {name: width_exponent(self.widths, table) for name, table in getattr(self, which).items()}


def coordinate_check(
    build: Callable[[int], nn.Module],
    widths: Sequence[int],
    inputs: Tensor,
    targets: Tensor,
    *,
    rule: Rule | Mapping[str, Exponents],
    base: int,
    optimizer: Any = "sgd",
    alignment: Alignment = "full",
    global_rate: float | None = None,
    lr: float = 0.1,
    steps: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    loss: str | Callable[[Tensor, Tensor], Tensor] = "mse",
    **options: Any,
) -> CoordinateCheck:
    """Train at several widths for a few full-batch steps and compare how far each layer's output moved.

    Under the right exponents the change neither grows nor vanishes with width.

    Args:
        build: Makes the model of a given width, standard initialisation.
        widths: At least two widths.
        inputs, targets: The one batch.
        rule, base, optimizer, alignment, global_rate: As :func:`parameterize`; ``base`` is the base width.
        lr: Learning rate at the base width.
        steps: Gradient steps.
        seeds: One member each.
        loss: As in ``fit_many``.
        options: Further options of ``fit_many``.

    Raises:
        ValueError: As :func:`parameterize`, ``fit_many`` and :func:`width_exponent`.

    Source:
        yang2020feature, the measurement behind the dichotomy.
    """
    require(len(widths) >= 2, "at least two widths", list(widths))
    reference = build(base)
    first: dict[str, list[Tensor]] = {}
    moved: dict[str, list[Tensor]] = {}
    for width in widths:
        applied: list[Applied] = []

        def make(width: int = width, applied: list[Applied] = applied) -> nn.Module:
            model = build(width).to(inputs.dtype)
            applied.append(
                parameterize(model, reference, rule, optimizer=optimizer, alignment=alignment, global_rate=global_rate)
            )
            return model

        with torch.random.fork_rng(devices=[]):
            scale = (make(), applied[-1].lr_scale)[1]
        common: dict[str, Any] = {
            "seeds": seeds, "batch_size": len(inputs), "loss": loss, "device": inputs.device, "optimizer": optimizer,
        } | options  # fmt: skip
        still = fit_many(make, inputs, targets, epochs=1, lr=0.0, lr_scale=scale, **common)
        trained = fit_many(make, inputs, targets, epochs=steps, lr=lr, lr_scale=scale, **common)
        before, after = layer_outputs(still, inputs), layer_outputs(trained, inputs)
        for name, start in before.items():
            first.setdefault(name, []).append(start.flatten(1).square().mean(1).sqrt())
            moved.setdefault(name, []).append((after[name] - start).flatten(1).square().mean(1).sqrt())
    return CoordinateCheck(
        tuple(widths), {k: torch.stack(v) for k, v in first.items()}, {k: torch.stack(v) for k, v in moved.items()}
    )


def alignment_exponent(
    update: Float[Tensor, "*batch out n"], activations: Float[Tensor, "*batch N n"]
) -> Float[Tensor, "*batch"]:
    r"""How far a matrix and its inputs are aligned: 1 fully, 1/2 not at all.

    .. math::

        \hat\alpha = \frac1{\log n}\,
        \log \frac{\lVert \Delta W z\rVert_\text{rms}}{\lVert \Delta W\rVert_\text{rms}\,\lVert z\rVert_\text{rms}}

    An independent Gaussian pair gives 1/2 up to :math:`1/\log n`, a rank-one pair 1.

    Args:
        update: The matrix, in the orientation of ``nn.Linear``; leading axes are carried along.
        activations: ``N`` inputs of the layer.

    Raises:
        ValueError: For a width below 2, shapes or devices that do not fit, or NaN.

    Source:
        everett2024scaling, log alignment ratio.
    """
    n = update.shape[-1]
    require(update.device == activations.device, f"activations on {update.device}", activations.device)
    require(
        n >= 2 and activations.shape[-1] == n, f"activations of the update's width {n} of at least 2", activations.shape
    )
    require_finite("update", update)
    require_finite("activations", activations)

    def size(x: Tensor) -> Tensor:
        return x.square().mean((-2, -1)).sqrt()

    product = activations @ update.mT
    return (size(product) / (size(update) * size(activations))).log() / math.log(n)
