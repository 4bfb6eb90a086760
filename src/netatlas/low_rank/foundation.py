"""The chapter's foundation model: a small transformer pre-trained on generic questions, the recipe of its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from netatlas.core.train import fit
from netatlas.core.transformer import LastLogits, Transformer

from .prompts import GENERIC, LENGTH, WORDS, generic_prompts

WIDTH, LAYERS, HEADS = 48, 2, 4


def architecture() -> Transformer:
    """The untrained transformer: two blocks of width 48 with four heads, causal, over the chapter's words."""
    return Transformer(len(WORDS), WIDTH, LAYERS, HEADS, LENGTH, activation="relu", previous=True)


def foundation(state: dict[str, Tensor]) -> Transformer:
    """The transformer with stored weights.

    Args:
        state: What :func:`train` returned.
    """
    model = architecture()
    model.load_state_dict(state)
    return model.eval()


def train(device: str = "cpu", seed: int = 0, *, count: int = 19_200, epochs: int = 2) -> dict[str, Tensor]:
    """Pre-train on prompts of the generic families.

    Args:
        device: Where to train.
        seed: Of weights, prompts and batches.
        count: Prompts a family.
        epochs: Passes over them.

    Returns:
        The weights by name.
    """
    prompts = generic_prompts(count, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LastLogits(architecture()).to(device)
    fit(
        model, prompts.tokens, prompts.answers, seed=seed, epochs=epochs, batch_size=64, optimizer="adamw", lr=3e-3,
        weight_decay=0.01, schedule="cosine", clip_norm=1.0, device=device,
    )  # fmt: skip
    return {name: value.detach().cpu() for name, value in model.transformer.state_dict().items()}


@torch.no_grad()
def evaluate(state: dict[str, Tensor]) -> dict[str, float]:
    """Share of new generic prompts answered exactly, over all families and in each.

    Args:
        state: The weights by name.

    Returns:
        ``"accuracy"`` and one ``"accuracy, FAMILY"`` for each generic family.
    """
    prompts = generic_prompts(200, seed=10**6)
    right = (foundation(state)(prompts.tokens, last_only=True).argmax(-1) == prompts.answers).double()
    by_family = {f"accuracy, {name}": float(right[prompts.family == i].mean()) for i, name in enumerate(GENERIC)}
    return {"accuracy": float(right.mean())} | by_family
