"""Small networks with the switches that the chapters turn: width, depth, bias, activation, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require

Norm = Literal["none", "batch", "layer", "group"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "identity": nn.Identity}


def _activation(name: str) -> nn.Module:
    require(name in ACTIVATIONS, f"an activation out of {sorted(ACTIVATIONS)}", repr(name))
    return ACTIVATIONS[name]()


def normalization(kind: Norm, channels: int) -> nn.Module:
    """A normalisation layer for ``[N, C, H, W]`` activations.

    Args:
        kind: ``"none"``, ``"batch"``, ``"layer"`` (one group over all channels) or ``"group"`` (groups of up to 8).
        channels: The channels ``C``.

    Raises:
        ValueError: For an unknown kind.
    """
    require(kind in ("none", "batch", "layer", "group"), "a norm out of none, batch, layer, group", repr(kind))
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = 1 if kind == "layer" or channels % 8 else channels // 8
    return nn.GroupNorm(groups, channels)


class MLP(nn.Module):
    r"""Fully connected network :math:`h_l = \phi(W_l h_{l-1} + b_l)`, with a linear last layer.

    Args:
        widths: Input, hidden and output widths, at least two.
        bias: Whether layers have biases.
        activation: ``"relu"``, ``"gelu"``, ``"tanh"`` or ``"identity"``.

    Shapes:
        ``[N, ...]``, flattened to ``[N, widths[0]]``, to ``[N, widths[-1]]``.

    Raises:
        ValueError: For fewer than two widths, a width below 1 or an unknown activation.
    """

    def __init__(self, widths: Sequence[int], *, bias: bool = True, activation: str = "relu") -> None:
        super().__init__()
        require(len(widths) >= 2 and min(widths) >= 1, "at least two positive widths", list(widths))
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in zip(widths, widths[1:]))
        self.activation = _activation(activation)

    def forward(
        self, x: Float[Tensor, "N *features"], return_preactivations: bool = False
    ) -> Float[Tensor, "N classes"] | list[Tensor]:
        """Outputs, or with ``return_preactivations`` every layer's value before its activation."""
        x, values = x.flatten(1), []
        for depth, layer in enumerate(self.layers):
            values.append(layer(self.activation(x) if depth else x))
            x = values[-1]
        return values if return_preactivations else x


class ConvNet(nn.Module):
    """VGG-like network: 3 x 3 convolutions with normalisation, ReLU and 2 x 2 max-pooling, then a linear head.

    Args:
        channels: Output channels of each convolution.
        classes: Number of outputs.
        in_channels: Channels of the input.
        norm: See :func:`normalization`.
        bias: Whether convolutions and head have biases.

    Shapes:
        ``[N, in_channels, H, W]`` to ``[N, classes]``; the last feature map is averaged over space.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, *, in_channels: int = 3, norm: Norm = "none", bias: bool = True
    ) -> None:
        super().__init__()
        require(len(channels) >= 1 and min(channels) >= 1, "at least one positive channel count", list(channels))
        sizes = [in_channels, *channels]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in zip(sizes, sizes[1:]))
        self.norms = nn.ModuleList(normalization(norm, c) for c in channels)
        self.head = nn.Linear(channels[-1], classes, bias=bias)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N classes"]:
        for convolution, norm in zip(self.convolutions, self.norms):
            x = nn.functional.relu(norm(convolution(x)))
            if x.shape[-1] > 1:
                x = nn.functional.max_pool2d(x, 2)
        return self.head(x.mean((-2, -1)))


class ResidualBlock(nn.Module):
    """Basic block of a ResNet: two 3 x 3 convolutions, and a 1 x 1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        self.norms = nn.ModuleList([normalization(norm, outputs), normalization(norm, outputs)])
        changed = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=bias) if changed else nn.Identity()

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H2 W2"]:
        h = nn.functional.relu(self.norms[0](self.first(x)))
        return nn.functional.relu(self.norms[1](self.second(h)) + self.shortcut(x))


class ResNet(nn.Module):
    """Residual network for small images: a stem, three stages of doubling width and halving size, a linear head.

    Args:
        width: Channels of the first stage.
        blocks: Blocks a stage.
        classes: Number of outputs.
        in_channels: Channels of the input.
        norm: See :func:`normalization`.
        bias: Whether convolutions and head have biases.

    Shapes:
        ``[N, in_channels, H, W]`` to ``[N, classes]``.
    """

    def __init__(
        self, width: int, blocks: int, classes: int, *, in_channels: int = 3, norm: Norm = "batch", bias: bool = False
    ) -> None:
        super().__init__()
        require(width >= 1 and blocks >= 1, "positive width and blocks", (width, blocks))
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=bias)
        self.stem_norm = normalization(norm, width)
        sizes = [width, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(
            ResidualBlock(a if i == 0 else b, b, 2 if i == 0 and stage else 1, norm, bias)
            for stage, (a, b) in enumerate(zip(sizes, sizes[1:]))
            for i in range(blocks)
        )
        self.head = nn.Linear(sizes[-1], classes, bias=bias)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N classes"]:
        x = nn.functional.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((-2, -1)))
