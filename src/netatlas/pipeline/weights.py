"""Make stored weights, and check that making them again gives weights as good.

A recipe is a module with two functions: ``train(device, seed)`` returns the tensors by name, ``evaluate(tensors)``
returns figures by name, without randomness of its own.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from netatlas.data import weights
from netatlas.data.store import fingerprint

__all__ = ["Recipe", "check", "compare", "recipe", "train"]


class Recipe(Protocol):
    """What a module that makes stored weights has to offer."""

    def train(self, device: str, seed: int) -> dict[str, Tensor]:
        """Tensors by name, the same for the same seed on the same machine."""

    def evaluate(self, tensors: dict[str, Tensor]) -> dict[str, float]:
        """Figures by name."""


def recipe(name: str) -> Recipe:
    """The module that makes the weights of this name.

    Raises:
        ValueError: If no recipe has this name, or its module lacks ``train`` or ``evaluate``.
    """
    known = weights.recipes()
    if name not in known:
        raise ValueError(f"expected one of {sorted(known)}, got {name!r}")
    module = importlib.import_module(known[name])
    missing = [part for part in ("train", "evaluate") if not callable(getattr(module, part, None))]
    if missing:
        raise ValueError(f"expected {known[name]} to offer train and evaluate; missing: {', '.join(missing)}")
    return cast(Recipe, module)


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _run(name: str, device: str, seed: int) -> tuple[dict[str, Tensor], dict[str, float], float]:
    from safetensors.torch import load as loads
    from safetensors.torch import save as dumps

    module = recipe(name)
    start = time.perf_counter()
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.train(device, seed).items()}
    seconds = time.perf_counter() - start
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise ValueError(f"training {name!r} ended with values that are not finite in {', '.join(bad)}")
    # Judged as it will be read: the file keeps its own order of the names.
    tensors = loads(dumps(tensors))
    return tensors, {key: float(value) for key, value in module.evaluate(tensors).items()}, seconds


def train(name: str, *, device: str = "cpu", seed: int = 0) -> dict[str, Any]:
    """Train, evaluate and store: ``weights/NAME.safetensors`` and ``weights/NAME.json``.

    The files change only when both are complete, so that an interrupted training leaves the old ones.

    Returns:
        The record that was written.
    """
    from safetensors.torch import save_file

    tensors, metrics, seconds = _run(name, device, seed)
    folder = weights.weights_folder()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / f"{name}.safetensors"
        save_file(tensors, made)
        record = {
            "recipe": weights.recipes()[name],
            "command": f"netatlas weights train {name} --device {device} --seed {seed}",
            "commit": _commit(),
            "seed": seed,
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
            "seconds": round(seconds, 1),
            "metrics": {key: round(value, 6) for key, value in metrics.items()},
            "sha256": fingerprint(made),
        }
        written = Path(scratch) / f"{name}.json"
        written.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(made, folder / made.name)
        os.replace(written, folder / written.name)
    return record


def compare(stored: dict[str, float], again: dict[str, float], tolerance: float) -> list[str]:
    """Say which figures differ by more than a share ``tolerance`` of the stored one (absolute below 1e-3).

    Returns:
        One line for each figure that differs or is missing; empty where all agree.
    """
    lines = [f"{key}: only in one of the two" for key in sorted(stored.keys() ^ again.keys())]
    for key in sorted(stored.keys() & again.keys()):
        if not math.isclose(stored[key], again[key], rel_tol=tolerance, abs_tol=1e-3):
            lines.append(f"{key}: stored {stored[key]:.6g}, now {again[key]:.6g}")
    return lines


def check(name: str, *, tolerance: float = 0.05) -> list[str]:
    """Train again by the stored seed, and compare the figures with the stored ones.

    The weights themselves may differ between machines; what they achieve may not, beyond ``tolerance``.

    Returns:
        One line for each difference; empty where the stored weights can be made again.
    """
    _, meta = weights.load(name)
    _, metrics, _ = _run(name, "cpu" if meta["device"] == "cpu" else "cuda", meta["seed"])
    return compare(meta["metrics"], metrics, tolerance)
