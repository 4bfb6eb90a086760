"""Recipe of the stored populations: convolutional subnetworks of one cost, trained on digits of 8 x 8 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.nn import ConvNet
from netatlas.core.train import Params, fit_many

from .spaces import sample_widths_at_flops

MAPS, CLASSES = (8, 4, 2, 1), 10
TRAINING = 900
RATES = (0.003, 0.006, 0.012)


class PruningRegime(NamedTuple):
    """An original network and a share of its multiply-adds."""

    full: tuple[int, ...]
    share: float
    count: int


REGIMES = {
    "pyramid, 50 %": PruningRegime((8, 16, 24, 32), 0.5, 200),
    "pyramid, 25 %": PruningRegime((8, 16, 24, 32), 0.25, 200),
    "flat, 50 %": PruningRegime((14, 14, 14, 14), 0.5, 60),
}
REPEATS = 5


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images ``[N, 1, 8, 8]`` with labels, of scikit-learn's digits in a fixed random order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy(images[order].reshape(-1, 1, 8, 8) / 16).float()
    y = torch.from_numpy(labels[order])
    return x[:TRAINING], y[:TRAINING], x[TRAINING:], y[TRAINING:]


def _build(widths: np.ndarray) -> ConvNet:
    return ConvNet([int(w) for w in widths], CLASSES, in_channels=1, norm="layer")


def _train(widths: np.ndarray, seeds: list[int], rate: float, x: Tensor, y: Tensor) -> Params:
    """One network a seed, all of the same widths; stacked."""
    return fit_many(
        lambda: _build(widths), x, y,
        seeds=seeds, epochs=8, batch_size=32, lr=rate, optimizer="adam", schedule="cosine",
    ).params  # fmt: skip


def _flat(params: Mapping[str, Tensor], member: int) -> Tensor:
    return torch.cat([p[member].flatten() for p in params.values()]).half()


def network(widths: np.ndarray, flat: Tensor) -> ConvNet:
    """A network from its widths and its weights in one vector.

    Raises:
        ValueError: For a vector of another length.
    """
    model = _build(widths)
    total = sum(p.numel() for p in model.parameters())
    require(len(flat) == total, f"{total} weights", len(flat))
    torch.nn.utils.vector_to_parameters(flat.float(), model.parameters())
    return model.eval()


def train(device: str = "cpu", seed: int = 0, *, counts: Mapping[str, int] | None = None) -> Params:
    """Sample and train every population.

    The rate is tuned for the uniform network of a regime on a part of the training data; three networks of the first
    regime are trained :data:`REPEATS` times with other seeds, as a measure of noise.

    Args:
        device: Only ``"cpu"``: the networks are tiny and each has its own shape.
        seed: Of sampling and training.
        counts: Networks of each regime; default as in :data:`REGIMES`.

    Raises:
        ValueError: For another device.
    """
    require(str(device) == "cpu", "the device cpu", str(device))
    x, y, _, _ = digits()
    found: Params = {}
    for number, (name, regime) in enumerate(REGIMES.items()):
        count = regime.count if counts is None else counts[name]
        uniform = np.maximum(np.rint(np.array(regime.full) * regime.share**0.5), 1).astype(int)
        scores = []
        for rate in RATES:
            params = _train(uniform, [seed + 90_000, seed + 90_001], rate, x[:700], y[:700])
            model = [network(uniform, _flat(params, m)) for m in range(2)]
            with torch.no_grad():
                scores.append(np.mean([float((m(x[700:]).argmax(1) == y[700:]).double().mean()) for m in model]))
        rate = RATES[int(np.argmax(scores))]
        widths = sample_widths_at_flops(
            regime.full, MAPS, classes=CLASSES, share=regime.share, count=count, seed=seed + number
        )
        nets = [_flat(_train(w, [seed + 1000 * number + i], rate, x, y), 0) for i, w in enumerate(widths)]
        found[f"{name}/widths"] = torch.from_numpy(widths)
        found[f"{name}/weights"] = torch.cat(nets)
        found[f"{name}/rate"] = torch.tensor(rate)
        if number == 0:
            again = [_train(w, [seed + 50_000 + i for i in range(REPEATS)], rate, x, y) for w in widths[:3]]
            found["repeats/weights"] = torch.cat([_flat(p, m) for p in again for m in range(REPEATS)])
            found["repeats/widths"] = torch.from_numpy(np.repeat(widths[:3], REPEATS, axis=0))
    return found


@torch.no_grad()
def stored_errors(state: Mapping[str, Tensor], name: str) -> np.ndarray:
    """Test errors of a stored population, computed from its weights.

    Args:
        state: What :func:`train` returned.
        name: A regime, or ``"repeats"``.
    """
    _, _, x, y = digits()
    widths, flat, start, found = state[f"{name}/widths"].numpy(), state[f"{name}/weights"], 0, []
    for row in widths:
        length = sum(p.numel() for p in _build(row).parameters())
        model = network(row, flat[start : start + length])
        found.append(float((model(x).argmax(1) != y).double().mean()))
        start += length
    return np.array(found)


def evaluate(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean and least test error of every population.

    Args:
        state: What :func:`train` returned.
    """
    metrics = {}
    for name in [*REGIMES, "repeats"]:
        errors = stored_errors(state, name)
        metrics |= {f"{name}, mean error": float(errors.mean()), f"{name}, least error": float(errors.min())}
    return metrics
