"""Stored weights: made by a recipe of the package, complete with their record, as good as the record says."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from netatlas.data import weights
from netatlas.data.store import ChecksumError
from netatlas.pipeline import weights as making


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A folder of weights with one recipe, ``line``: two numbers."""
    module = types.ModuleType("line_recipe")
    module.train = lambda device, seed: {"slope": torch.tensor([float(seed), 2.0])}
    module.evaluate = lambda tensors: {"sum": float(tensors["slope"].sum())}
    monkeypatch.setitem(sys.modules, "line_recipe", module)
    monkeypatch.setenv("NETATLAS_WEIGHTS", str(tmp_path))
    (tmp_path / "recipes.yml").write_text("line: line_recipe\n", encoding="utf-8")
    return module


def test_what_is_trained_can_be_loaded_and_made_again(recipe, tmp_path):
    record = making.train("line", seed=3)
    tensors, meta = weights.load("line")
    assert tensors["slope"].tolist() == [3.0, 2.0]
    assert meta == record
    assert meta["metrics"] == {"sum": 5.0}
    assert meta["seed"] == 3
    assert making.check("line") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line.json", "line.safetensors", "recipes.yml"]


def test_a_recipe_that_no_longer_gives_the_same_is_found(recipe):
    making.train("line")
    recipe.evaluate = lambda tensors: {"sum": 9.0, "extra": 0.0}
    assert making.check("line") == ["extra: only in one of the two", "sum: stored 2, now 9"]


@pytest.mark.parametrize("change", [lambda b: b[:-3], lambda b: b[:-1] + bytes([b[-1] ^ 1])], ids=["cut", "one bit"])
def test_damaged_weights_are_refused(recipe, tmp_path, change):
    making.train("line")
    path = tmp_path / "line.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ChecksumError, match="expected sha256"):
        weights.load("line")


def test_failed_training_leaves_what_was_there(recipe):
    making.train("line", seed=1)
    recipe.train = lambda device, seed: {"slope": torch.tensor([float("nan")])}
    with pytest.raises(ValueError, match="not finite in slope"):
        making.train("line")
    assert weights.load("line")[0]["slope"].tolist() == [1.0, 2.0]


def test_missing_things_are_named(recipe, tmp_path, monkeypatch):
    with pytest.raises(weights.WeightsUnavailable, match="netatlas weights train line"):
        weights.load("line")
    with pytest.raises(ValueError, match="expected one of"):
        weights.load("circle")
    with pytest.raises(ValueError, match="expected one of"):
        making.recipe("circle")
    del recipe.evaluate
    with pytest.raises(ValueError, match="missing: evaluate"):
        making.recipe("line")
    monkeypatch.setenv("NETATLAS_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(weights.WeightsUnavailable, match=r"no recipes\.yml"):
        weights.recipes()


@pytest.mark.parametrize("name", sorted(weights.recipes()))
def test_stored_weights_achieve_what_their_record_says(name):
    tensors, meta = weights.load(name)
    assert {"recipe", "command", "commit", "seed", "device", "seconds", "metrics", "sha256"} <= meta.keys()
    assert meta["recipe"] == weights.recipes()[name]
    path = weights.weights_folder() / f"{name}.safetensors"
    assert path.stat().st_size < 4e6
    again = making.recipe(name).evaluate(tensors)
    assert making.compare(meta["metrics"], json.loads(json.dumps(again)), 1e-3) == []
