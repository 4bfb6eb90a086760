"""Trained weights that are kept beside the book: ``weights/NAME.safetensors`` and the command that made them.

A chapter that needs minutes of training loads the result here and evaluates it. What trained them is a module of the
package, named in ``weights/recipes.yml``; :mod:`netatlas.pipeline.weights` runs it again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from netatlas.data.store import ChecksumError, fingerprint

__all__ = ["WeightsUnavailable", "load", "recipes", "weights_folder"]


class WeightsUnavailable(RuntimeError):
    """Stored weights, or what is written about them, are not in the folder of weights."""


def weights_folder() -> Path:
    """The folder of stored weights: ``$NETATLAS_WEIGHTS``, else ``weights/`` of the checkout."""
    named = os.environ.get("NETATLAS_WEIGHTS")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "weights"


def recipes() -> dict[str, str]:
    """Names of the stored weights, each with the module that trains and evaluates them.

    Raises:
        WeightsUnavailable: If the folder has no ``recipes.yml``.
    """
    path = weights_folder() / "recipes.yml"
    if not path.is_file():
        raise WeightsUnavailable(f"no recipes.yml in {weights_folder()}: set NETATLAS_WEIGHTS to a checkout's weights/")
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load stored weights with what is known of their training.

    Args:
        name: A name in ``weights/recipes.yml``.

    Returns:
        The tensors by name, and the record: ``recipe``, ``command``, ``commit``, ``seed``, ``device``, ``seconds``,
        ``metrics``, ``sha256``.

    Raises:
        ValueError: If no recipe has this name.
        WeightsUnavailable: If the weights have not been made yet.
        ChecksumError: If the file is not the one that was evaluated when it was stored.
    """
    from safetensors.torch import load_file

    if name not in recipes():
        raise ValueError(f"expected one of {sorted(recipes())}, got {name!r}")
    tensors, record = weights_folder() / f"{name}.safetensors", weights_folder() / f"{name}.json"
    for path in (tensors, record):
        if not path.is_file():
            raise WeightsUnavailable(f"{path} is missing; make it with: netatlas weights train {name}")
    meta = json.loads(record.read_text(encoding="utf-8"))
    found = fingerprint(tensors)
    if found != meta["sha256"]:
        raise ChecksumError(f"{tensors}: expected sha256 {meta['sha256']}, got {found}")
    return load_file(tensors), meta
