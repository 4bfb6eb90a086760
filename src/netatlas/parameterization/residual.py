r"""Residual networks whose branches shrink with depth, in the mean-field convention (unit weights, factors outside)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.parameterization import branch_scale, depth_rate


class DepthScaledResidualMLP(nn.Module):
    r"""Residual multilayer perceptron with branch multiplier :math:`\beta_0 L^{-\text{exponent}}`.

    .. math::

        h^1 = D^{-1/2} W^0 x, \qquad
        h^{l+1} = h^l + \frac{\beta_0}{L^{e} \sqrt N} W^l \phi(h^l), \qquad
        f = \frac{1}{\gamma_0 N^{\rho}}\, w^\top \phi(h^{L+1})

    with unit normal weights and :math:`\phi` the ReLU; :math:`\rho = 1` is mean field (muP), 1/2 standard.

    Args:
        inputs: Input dimension :math:`D`.
        width: :math:`N`.
        depth: Blocks :math:`L`.
        outputs: Output dimension.
        exponent: The branch exponent :math:`e`: 1/2 transfers over depth, 0 is plain muP.
        gamma: Richness :math:`\gamma_0`; small is lazy.
        beta: Branch strength :math:`\beta_0`.
        readout: The readout exponent :math:`\rho`, 1 or 1/2.
        layer_norm: Whether each branch normalises its input first.

    Shapes:
        ``[N, ...]``, flattened, to ``[N, outputs]``.

    Raises:
        ValueError: For a size below 1, a richness that is not positive, or an exponent outside [0, 1].

    Source:
        bordelon2023depthwise (the residual network).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        outputs: int,
        *,
        exponent: float = 0.5,
        gamma: float = 1.0,
        beta: float = 1.0,
        readout: float = 1.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        require(min(inputs, width, depth, outputs) >= 1, "sizes of at least 1", (inputs, width, depth, outputs))
        require(gamma > 0, "a positive richness gamma", gamma)
        require(0 < readout <= 1, "a readout exponent in (0, 1]", readout)
        self.embedding = nn.Parameter(torch.randn(width, inputs))
        self.blocks = nn.Parameter(torch.randn(depth, width, width))
        self.readout = nn.Parameter(torch.randn(outputs, width))
        self.branch = beta * branch_scale(depth, exponent) / math.sqrt(width)
        self.output = 1 / (gamma * width**readout)
        self.layer_norm = layer_norm

    def hidden(self, x: Float[Tensor, "N *features"]) -> list[Float[Tensor, "N width"]]:
        """The stream before the first block and after every block."""
        x = x.flatten(1)
        stream = [x @ self.embedding.T / math.sqrt(x.shape[1])]
        for block in self.blocks:
            h = stream[-1]
            z = nn.functional.layer_norm(h, h.shape[-1:]) if self.layer_norm else h
            stream.append(torch.addmm(h, z.relu(), block.T, alpha=self.branch))
        return stream

    def forward(self, x: Float[Tensor, "N *features"]) -> Float[Tensor, "N outputs"]:
        return self.hidden(x)[-1].relu() @ self.readout.T * self.output


def mean_field_rates(
    optimizer: str, width: int, depth: int, *, gamma: float = 1.0, exponent: float = 0.5, depth_factor: bool = True
) -> dict[str, float]:
    r"""Learning-rate factors of :class:`DepthScaledResidualMLP`'s parameters at the transferable rate.

    .. math::

        \text{SGD: } \gamma_0^2 N \text{ for all}, \qquad
        \text{Adam: } (1,\ N^{-1/2} L^{-1/2},\ \gamma_0) \text{ for input, blocks, readout}

    Args:
        optimizer: ``"sgd"``, ``"adam"``, ``"adamw"`` or ``"adam_atan2"``.
        width: :math:`N`.
        depth: :math:`L`.
        gamma: Richness :math:`\gamma_0`.
        exponent: The branch exponent, for Adam's depth factor.
        depth_factor: Whether Adam's blocks get their depth factor; without it is the ablation.

    Raises:
        ValueError: For an unknown optimizer or sizes below 1.

    Source:
        bordelon2023depthwise; the factors of input and readout under Adam follow from the same count.
    """
    require(width >= 1 and gamma > 0, "a width of at least 1 and a positive gamma", (width, gamma))
    blocks = depth_rate(depth, optimizer, exponent) if depth_factor else 1.0
    if optimizer == "sgd":
        return dict.fromkeys(("embedding", "blocks", "readout"), gamma**2 * width)
    return {"embedding": 1.0, "blocks": blocks * width**-0.5, "readout": gamma}


def relu_depth_kernel(
    gram: Float[Tensor, "*batch N N"], depth: int, *, exponent: float = 0.5, beta: float = 1.0
) -> Float[Tensor, "*batch N N"]:
    r"""Kernel of the stream after all blocks, in the limit of infinite width at initialisation.

    .. math::

        H \leftarrow H + \frac{\beta_0^2}{L^{2e}}\,\Phi(H), \qquad
        \Phi_{ij} = \frac{\sqrt{H_{ii} H_{jj}}}{2\pi}
        \bigl(\sin\theta + (\pi - \theta)\cos\theta\bigr)

    On the diagonal this is :math:`H_{ii}(1 + \beta_0^2 L^{-2e} / 2)^L`: it tends to
    :math:`H_{ii} e^{\beta_0^2/2}` for :math:`e = 1/2`, to :math:`H_{ii}` for :math:`e = 1`, and grows like
    :math:`(3/2)^L` for :math:`e = 0`.

    Args:
        gram: Kernel before the first block, symmetric, with positive diagonal.
        depth: Number of blocks :math:`L`.
        exponent: Branch exponent :math:`e`.
        beta: Branch strength.

    Raises:
        ValueError: For a matrix that is not square, NaN, or a diagonal entry that is not positive.

    Source:
        bordelon2023depthwise, the kernel's equation in layer time at initialisation.
    """
    require(gram.ndim >= 2 and gram.shape[-1] == gram.shape[-2], "square kernels [..., N, N]", tuple(gram.shape))
    require_finite("gram", gram)
    if gram.device.type != "meta":
        smallest = float(gram.diagonal(dim1=-2, dim2=-1).min())
        require(smallest > 0, "a positive diagonal", smallest)
    step = (beta * branch_scale(depth, exponent)) ** 2
    for _ in range(depth):
        size = gram.diagonal(dim1=-2, dim2=-1).sqrt()
        norms = size[..., :, None] * size[..., None, :]
        cosine = (gram / norms).clamp(-1, 1)
        # The diagonal's angle is zero exactly; arccos would lose half of the digits there.
        eye = torch.eye(gram.shape[-1], dtype=torch.bool, device=gram.device)
        theta = torch.where(eye, torch.zeros_like(cosine), torch.acos(cosine))
        cosine = torch.where(eye, torch.ones_like(cosine), cosine)
        arc = norms * (torch.sin(theta) + (math.pi - theta) * cosine) / (2 * math.pi)
        gram = gram + step * arc
    return gram
