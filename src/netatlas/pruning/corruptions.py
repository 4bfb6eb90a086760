"""Ten corruptions of small images at three severities, as batched tensor programs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from netatlas.core.checks import require, require_finite

Images = Float[Tensor, "N 1 H W"]


def _gaussian(x: Tensor, s: int, g: torch.Generator) -> Tensor:
    return x + (0.15, 0.3, 0.45)[s] * torch.randn(x.shape, generator=g)


def _impulse(x: Tensor, s: int, g: torch.Generator) -> Tensor:
    u = torch.rand(x.shape, generator=g)
    rate = (0.05, 0.12, 0.2)[s]
    return torch.where(u < rate / 2, 0.0, torch.where(u > 1 - rate / 2, 1.0, x))


def _blur(x: Tensor, s: int, _: torch.Generator) -> Tensor:
    width = (0.6, 0.9, 1.3)[s]
    grid = torch.arange(-3, 4, dtype=x.dtype)
    line = torch.exp(-grid.square() / (2 * width**2))
    line = line / line.sum()
    return F.conv2d(F.conv2d(x, line.reshape(1, 1, 1, 7), padding=(0, 3)), line.reshape(1, 1, 7, 1), padding=(3, 0))


def _contrast(x: Tensor, s: int, _: torch.Generator) -> Tensor:
    mean = x.mean((-2, -1), keepdim=True)
    return mean + (0.5, 0.3, 0.15)[s] * (x - mean)


def _brightness(x: Tensor, s: int, _: torch.Generator) -> Tensor:
    return x + (0.2, 0.4, 0.6)[s]


def _pixelate(x: Tensor, s: int, _: torch.Generator) -> Tensor:
    size = [max(round(n * (0.6, 0.5, 0.35)[s]), 1) for n in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, size=size, mode="area"), size=x.shape[-2:], mode="nearest")


def _turn(x: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    c, n = angle.cos(), angle.sin()
    rows = [torch.stack([c, -n, shift[:, 0]], -1), torch.stack([n, c, shift[:, 1]], -1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _rotate(x: Tensor, s: int, g: torch.Generator) -> Tensor:
    sign = torch.randint(2, (len(x),), generator=g) * 2 - 1
    return _turn(x, sign * math.radians((15, 30, 45)[s]), torch.zeros(len(x), 2))


def _translate(x: Tensor, s: int, g: torch.Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(len(x), generator=g)
    far = 2 * (0.08, 0.14, 0.2)[s]
    return _turn(x, torch.zeros(len(x)), far * torch.stack([angle.cos(), angle.sin()], -1))


def _box(x: Tensor, share: float, g: torch.Generator) -> Tensor:
    height, width = x.shape[-2:]
    side = max(round(share * height), 1)
    top = torch.randint(height - side + 1, (len(x), 1, 1, 1), generator=g)
    left = torch.randint(width - side + 1, (len(x), 1, 1, 1), generator=g)
    i, j = torch.arange(height)[:, None], torch.arange(width)
    return (i >= top) & (i < top + side) & (j >= left) & (j < left + side)


def _cutout(x: Tensor, s: int, g: torch.Generator) -> Tensor:
    return torch.where(_box(x, (0.25, 0.4, 0.5)[s], g), 0.0, x)


def _stripe(x: Tensor, s: int, g: torch.Generator) -> Tensor:
    width = x.shape[-1]
    wide = (1, 2, 3)[s]
    left = torch.randint(width - wide + 1, (len(x), 1, 1, 1), generator=g)
    j = torch.arange(width)
    return torch.where((j >= left) & (j < left + wide), 1.0, x)


CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "Gaussian noise": _gaussian,
    "impulse noise": _impulse,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
    "rotate": _rotate,
    "translate": _translate,
    "cutout": _cutout,
    "stripe": _stripe,
}
SEVERITIES = 3


def corrupt(images: Images, name: str, severity: int, *, seed: int = 0) -> Images:
    """Corrupted images, clipped to [0, 1].

    Args:
        images: Values in [0, 1].
        name: A key of :data:`CORRUPTIONS`.
        severity: 0, 1 or 2.
        seed: Of noise, directions and places.

    Raises:
        ValueError: For an unknown corruption or severity, no image, or images outside [0, 1].

    Source:
        li2022robustness (the kind of benchmark; these corruptions are ours).
    """
    require(name in CORRUPTIONS, f"a corruption out of {sorted(CORRUPTIONS)}", repr(name))
    require(severity in range(SEVERITIES), "a severity of 0, 1 or 2", severity)
    require(images.ndim == 4 and len(images) > 0, "images [N, 1, H, W]", tuple(images.shape))
    require_finite("images", images)
    low, high = float(images.min()), float(images.max())
    require(low >= 0 and high <= 1, "values in [0, 1]", (low, high))
    generator = torch.Generator().manual_seed(seed)
    return CORRUPTIONS[name](images.cpu(), severity, generator).clamp(0, 1).to(images.device)
