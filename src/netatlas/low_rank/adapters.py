r"""Adapters in one frame: each adds :math:`s\,\Delta h` to the output :math:`h` of a part of a frozen network.

===================  ============================================  ==========  ===========================
Adapter              :math:`\Delta h`                              insertion   combination
===================  ============================================  ==========  ===========================
sequential adapter   :math:`\phi(h W_\downarrow) W_\uparrow`       after       :math:`h + \Delta h`
parallel adapter     :math:`\phi(x W_\downarrow) W_\uparrow`       beside      :math:`h + s\,\Delta h`
LoRA                 :math:`x W_\downarrow W_\uparrow`             beside      :math:`h + s\,\Delta h`
prefix               softmax of :math:`x W_q P_k^\top` on P_v      beside      a gate :math:`\lambda(x)`
===================  ============================================  ==========  ===========================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.transformer import Attention, FeedForward, Transformer, attend

Train = Literal["both", "A", "B"]


def freeze(module: nn.Module, *, stacked: bool = False) -> nn.Module:
    """Turn all parameters into constants, in place.

    Args:
        module: Changed and returned.
        stacked: Make them buffers, so that members of an ensemble may have different ones; otherwise they are plain
            tensors, which all members share.
    """
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is None:
                continue
            constant = value.detach().clone()
            del part._parameters[name]
            if stacked:
                part.register_buffer(name, constant)
            else:
                setattr(part, name, constant)
    return module


def _shared_copy(module: nn.Module) -> nn.Module:
    """A copy of the structure; constant tensors are the same ones."""
    made: dict[int, nn.Module] = {}

    def shell(part: nn.Module) -> nn.Module:
        # A deep copy would walk through every hook and tensor; only the dictionaries that name parts must be new.
        if id(part) not in made:
            new = made[id(part)] = type(part).__new__(type(part))
            new.__dict__ = {k: v.copy() if isinstance(v, dict | set) else v for k, v in vars(part).items()}
            new._modules = {name: None if child is None else shell(child) for name, child in part._modules.items()}
        return made[id(part)]

    return shell(module)


def count_trainable(module: nn.Module) -> int:
    """Numbers that training may change.

    Args:
        module: Any module; constants and buffers do not count.
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class LoRALinear(nn.Module):
    r"""A linear layer with a low-rank update beside it, :math:`y = W x + b + \tfrac{\alpha}{r} B A x`.

    Args:
        base: The layer, frozen by whoever made it; any module with ``in_features`` and ``out_features``.
        rank: The rank :math:`r`.
        alpha: The numerator of the scale; the rank if omitted, so that the scale is 1.
        start: ``"he"`` draws the random factor uniformly in :math:`\pm\sqrt{1/n}` (Kaiming with slope root five),
            ``"orthonormal"`` takes random orthonormal rows (of A) or columns (of B).
        random: Which factor starts random; the other one starts at zero, so that the function is unchanged.
        train: ``"both"``, or the only factor that is trained; the other one becomes a constant buffer.

    Shapes:
        ``[..., n]`` to ``[..., m]``; ``A`` is ``[r, n]``, ``B`` is ``[m, r]``.

    Raises:
        ValueError: For a rank below 1 or beyond ``min(m, n)``, an unknown start, or a trained factor alone whose
            constant partner is zero.

    Source:
        zhu2024asymmetry, hayou2024loraplus.
    """

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        *,
        alpha: float | None = None,
        start: Literal["he", "orthonormal"] = "he",
        random: Literal["A", "B"] = "A",
        train: Train = "both",
    ) -> None:
        super().__init__()
        inputs, outputs = int(base.in_features), int(base.out_features)  # type: ignore[arg-type]
        require(1 <= rank <= min(inputs, outputs), f"a rank from 1 to {min(inputs, outputs)}", rank)
        require(start in ("he", "orthonormal") and random in ("A", "B"), "a known start", (start, random))
        require(train in ("both", "A", "B"), "both, A or B", repr(train))
        require(train != random, f"the factor {random} that starts random to be frozen or both to be trained", train)
        self.base, self.scale = base, (rank if alpha is None else alpha) / rank
        factors = {"A": torch.zeros(rank, inputs), "B": torch.zeros(outputs, rank)}
        if start == "he":
            nn.init.kaiming_uniform_(factors[random], a=math.sqrt(5))
        else:
            nn.init.orthogonal_(factors[random])
        self.A: Tensor
        self.B: Tensor
        for name, value in factors.items():
            if train in ("both", name):
                setattr(self, name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        # The scale multiplies the narrow product, not the wide one.
        return self.base(x) + self.scale * (x @ self.A.transpose(-1, -2)) @ self.B.transpose(-1, -2)

    def merged(self) -> nn.Linear:
        """One dense layer with the same function; its base must be an ordinary linear layer."""
        weight, bias = self.base.weight, self.base.bias
        require(isinstance(weight, Tensor), "a base with a dense weight", type(self.base).__name__)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)  # type: ignore[arg-type, index]
        with torch.no_grad():
            layer.weight.copy_(weight + self.scale * self.B @ self.A)  # type: ignore[operator]
            if bias is not None:
                layer.bias.copy_(bias)  # type: ignore[arg-type]
        return layer


class BottleneckAdapter(nn.Module):
    r"""The branch :math:`\Delta h = \phi(x W_\downarrow) W_\uparrow` without biases, zero at the start.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        rank: Width between.
        activation: ``"relu"``, or ``"identity"`` for a low-rank update.

    Raises:
        ValueError: For a width below 1 or an unknown activation.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, activation: str = "relu") -> None:
        super().__init__()
        require(min(inputs, outputs, rank) >= 1, "positive widths", (inputs, outputs, rank))
        require(activation in ("relu", "identity"), "an activation out of relu, identity", repr(activation))
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        self.activation = nn.ReLU() if activation == "relu" else nn.Identity()

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        return self.up(self.activation(self.down(x)))


class HeadwiseAdapter(nn.Module):
    """One bottleneck adapter for each attention head, from the stream to that head's part of the joined heads.

    Args:
        width: Width of the stream.
        heads: Number of heads; divides the width.
        rank: Width between, for each head.
    """

    def __init__(self, width: int, heads: int, rank: int) -> None:
        super().__init__()
        require(heads >= 1 and width % heads == 0, f"heads that divide the width {width}", heads)
        self.branches = nn.ModuleList(BottleneckAdapter(width, width // heads, rank) for _ in range(heads))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return torch.cat([branch(x) for branch in self.branches], -1)


class Prefix(nn.Module):
    """Keys and values put before those of the input.

    Args:
        width: Width of the stream.
        length: Number of prefix positions.

    Raises:
        ValueError: For a length below 1.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        require(length >= 1, "a prefix of at least one position", length)
        self.keys = nn.Parameter(torch.randn(length, width) / math.sqrt(width))
        self.values = nn.Parameter(torch.randn(length, width) / math.sqrt(width))


class Adapted(nn.Module):
    r"""A sub-layer with a branch beside or behind it: :math:`h + s\,\Delta h(x)` or :math:`h + s\,\Delta h(h)`.

    Args:
        sublayer: Attention or feed-forward part.
        branch: From the sub-layer's input (parallel) or output (sequential) to what is added.
        insertion: ``"parallel"`` or ``"sequential"``.
        scale: The factor :math:`s`.
        learned: Whether the factor is trained.
    """

    def __init__(
        self, sublayer: nn.Module, branch: nn.Module, *, insertion: str, scale: float = 1.0, learned: bool = False
    ) -> None:
        super().__init__()
        require(insertion in ("parallel", "sequential"), "parallel or sequential", repr(insertion))
        self.sublayer, self.branch, self.insertion = sublayer, branch, insertion
        self.scale: float | Tensor = nn.Parameter(torch.tensor(float(scale))) if learned else float(scale)

    def forward(self, x: Float[Tensor, "N T d"], *options: object) -> Float[Tensor, "N Q d"]:
        h = self.sublayer(x, *options)
        source = h if self.insertion == "sequential" else x[:, -h.shape[1] :]
        return h + self.scale * self.branch(source)


@dataclass(frozen=True)
class Adapter:
    """What to add to every block of a transformer.

    Attributes:
        form: ``"lora"``, ``"parallel"``, ``"sequential"``, ``"prefix"`` or ``"heads"`` (one adapter a head).
        place: ``"ffn"`` or ``"attention"``; for LoRA ``"qv"``, ``"ffn"`` or ``"all"``.
        size: rank, bottleneck, or length of the prefix.
        scale: the factor on what is added.
        learned: whether that factor is trained.
        train: for LoRA, the factors that are trained.
        start: for LoRA, how the random factor starts.
    """

    form: str
    place: str = "ffn"
    size: int = 4
    scale: float = 1.0
    learned: bool = False
    train: Train = "both"
    start: Literal["he", "orthonormal"] = "he"


LORA_PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "qv": (("query", "value"), ()),
    "ffn": ((), ("up", "down")),
    "all": (("query", "key", "value", "out"), ("up", "down")),
}


def adapt(base: nn.Module, adapters: Sequence[Adapter]) -> nn.Module:
    """A copy of a frozen transformer with adapters in every block; the frozen tensors are shared, not copied.

    Args:
        base: A :class:`~netatlas.core.transformer.Transformer` after :func:`freeze`.
        adapters: What to add; several go together (a MAM adapter is a prefix and a scaled parallel adapter).

    Raises:
        ValueError: For a base that is not frozen, no blocks, or an unknown form or place.
    """
    require(count_trainable(base) == 0, "a frozen base: freeze(base)", f"{count_trainable(base)} free parameters")
    model = _shared_copy(base)
    require(isinstance(model, Transformer), "a Transformer", type(model).__name__)
    for block in model.blocks:  # type: ignore[union-attr]
        attention, feed_forward = block.attention, block.feed_forward  # type: ignore[union-attr]
        for item in adapters:
            _insert(block, attention, feed_forward, item)  # type: ignore[arg-type]
    return model


def _insert(block: nn.Module, attention: Attention, feed_forward: FeedForward, item: Adapter) -> None:
    width = int(attention.query.in_features)  # type: ignore[arg-type]
    if item.form == "lora":
        require(item.place in LORA_PLACES, f"a place of LoRA out of {sorted(LORA_PLACES)}", repr(item.place))
        random: Literal["A", "B"] = "B" if item.train == "A" else "A"
        for owner, names in zip((attention, feed_forward), LORA_PLACES[item.place]):
            for name in names:
                layer = LoRALinear(
                    getattr(owner, name), item.size, alpha=item.scale * item.size,
                    start=item.start, random=random, train=item.train,
                )  # fmt: skip
                setattr(owner, name, layer)
    elif item.form == "prefix":
        attention.prefix = Prefix(width, item.size)
    elif item.form == "heads":
        attention.on_heads = HeadwiseAdapter(width, attention.heads, item.size)
    else:
        require(item.form in ("parallel", "sequential"), "lora, parallel, sequential, prefix or heads", item.form)
        require(item.place in ("ffn", "attention"), "a place out of ffn, attention", repr(item.place))
        name = "feed_forward" if item.place == "ffn" else "attention"
        branch = BottleneckAdapter(width, width, item.size)
        wrapped = Adapted(getattr(block, name), branch, insertion=item.form, scale=item.scale, learned=item.learned)
        setattr(block, name, wrapped)


def mam_adapter(length: int, rank: int, *, scale: float = 4.0) -> list[Adapter]:
    """Mix-and-match: a short prefix at every attention, a scaled parallel adapter at every feed-forward part.

    Args:
        length: Prefix positions.
        rank: Bottleneck of the parallel adapter.
        scale: Its factor.

    Source:
        he2021unified.
    """
    return [Adapter("prefix", "attention", length), Adapter("parallel", "ffn", rank, scale=scale)]


def replace_linear(module: nn.Module, make: Callable[[str, nn.Linear], nn.Module | None]) -> nn.Module:
    """Exchange linear layers, in place; a layer that stands in two places is exchanged once and stays in both.

    Args:
        module: Changed and returned.
        make: From a layer's name and the layer to what replaces it; none leaves it.
    """
    named = [(n, m) for n, m in module.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear)]
    done: dict[nn.Module, nn.Module | None] = {}
    for name, layer in named:
        made = done[layer] if layer in done else done.setdefault(layer, make(name, layer))
        if made is not None:
            owner = module.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], made)
    return module


def prefix_gate(
    query: Float[Tensor, "... Q D"],
    key: Float[Tensor, "... K D"],
    value: Float[Tensor, "... K E"],
    prefix_key: Float[Tensor, "... l D"],
    prefix_value: Float[Tensor, "... l E"],
) -> tuple[Float[Tensor, "... Q E"], Float[Tensor, "... Q 1"]]:
    r"""Prefix attention written as an adapter: a gate between attention without the prefix and the prefix alone.

    .. math:: h = (1 - \lambda)\, \operatorname{attend}(q, K, V)
        + \lambda\, \operatorname{softmax}(q P_k^\top / \sqrt D)\, P_v,
        \quad \lambda = \frac{\sum_i e^{q P_{k,i}/\sqrt D}}{\sum_i e^{q P_{k,i}/\sqrt D} + \sum_j e^{q K_j/\sqrt D}}

    Equal to attention over the joined keys and values, exactly.

    Args:
        query: ``[..., Q, D]``.
        key, value: Of the input, ``[..., K, D]`` and ``[..., K, E]``.
        prefix_key, prefix_value: Of the prefix, ``[..., l, D]`` and ``[..., l, E]``.

    Returns:
        The output ``[..., Q, E]`` and the gate ``[..., Q, 1]``.

    Raises:
        ValueError: For an empty prefix or no keys.

    Source:
        he2021unified.
    """
    require(prefix_key.shape[-2] > 0, "a prefix of at least one position", 0)
    scale = math.sqrt(query.shape[-1])
    own = torch.logsumexp(query @ prefix_key.transpose(-1, -2) / scale, -1, keepdim=True)
    others = torch.logsumexp(query @ key.transpose(-1, -2) / scale, -1, keepdim=True)
    gate = torch.sigmoid(own - others)
    without, alone = attend(query, key, value), attend(query, prefix_key, prefix_value)
    return (1 - gate) * without + gate * alone, gate
