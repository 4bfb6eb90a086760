"""The running chapter's profile, seed and device."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, TypeVar

import numpy as np

from netatlas.core.checks import require

Profile = Literal["ci", "gpu"]
T = TypeVar("T")


@dataclass(frozen=True)
class Experiment:
    """What papermill's parameters set for a chapter."""

    chapter: str
    profile: Profile
    seed: int
    device: str


_current: Experiment | None = None


def begin(chapter: str, *, profile: Profile = "ci", seed: int = 0, device: str = "cpu") -> None:
    """Start a chapter: fix profile, seed and device, seed every global generator, put the house style on.

    Args:
        chapter: The chapter's name, that of its file.
        profile: ``"ci"`` (two CPU cores, minutes) or ``"gpu"`` (one GPU, paper-like sizes).
        seed: Base seed; :func:`seeds` derives the rest from it.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: For an unknown profile or a negative seed.
        RuntimeError: For ``"cuda"`` where there is none; there is no silent fallback.
    """
    import matplotlib.pyplot as plt
    import torch

    global _current
    require(profile in ("ci", "gpu"), "a profile out of ci, gpu", repr(profile))
    require(seed >= 0, "a non-negative seed", seed)
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device {device!r} was asked for, but this machine has no CUDA device; pass device=cpu")
    _current = Experiment(chapter, profile, seed, device)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  third-party code that draws from the global generator
    torch.manual_seed(seed)
    if profile == "ci":
        torch.set_num_threads(1)
    plt.style.use(str(resources.files("netatlas.lab").joinpath("netatlas.mplstyle")))
    _hide_artists()


def _holds_artists(value: Any) -> bool:
    from matplotlib.artist import Artist
    from matplotlib.container import Container

    if isinstance(value, list | tuple) and not isinstance(value, Container):
        # Axes.set returns what its setters return: artists, limits, nothing.
        return any(_holds_artists(v) for v in value)
    return isinstance(value, Artist | Container)


def _stop_automatic_figures(shell: Any) -> None:
    """Keep the kernel from showing every open figure after a cell: ``lab.figure`` shows each once, with its caption."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    with contextlib.suppress(ImportError, ValueError):
        from matplotlib_inline.backend_inline import flush_figures

        shell.events.unregister("post_execute", flush_figures)


def _hide_artists() -> None:
    """Keep a cell that ends in a plotting call from showing what the call returns."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    _stop_automatic_figures(shell)
    if getattr(shell.display_trap.hook, "hides_artists", False):
        return
    show = shell.display_trap.hook

    def show_all_but_artists(value: Any = None) -> None:
        if not _holds_artists(value):
            show(value)

    show_all_but_artists.hides_artists = True  # type: ignore[attr-defined]
    shell.display_trap.hook = show_all_but_artists


def current() -> Experiment:
    """The running experiment.

    Raises:
        RuntimeError: Before :func:`begin`.
    """
    if _current is None:
        raise RuntimeError("call lab.begin(chapter, profile=..., seed=..., device=...) first")
    return _current


def profile() -> Profile:
    """The running profile, ``"ci"`` or ``"gpu"``; for text only, sizes come from :func:`pick`."""
    return current().profile


def device() -> Any:
    """The running ``torch.device``."""
    import torch

    return torch.device(current().device)


def pick(*, ci: T, gpu: T) -> T:
    """The value for the running profile. The one place where code may branch on it.

    Args:
        ci: Size for two CPU cores.
        gpu: Paper-like size for one GPU.
    """
    return ci if current().profile == "ci" else gpu


def seeds(count: int) -> list[int]:
    """Seeds of repeated runs, derived from the chapter's seed; the first ``k`` do not depend on ``count``.

    Args:
        count: How many, at least 1.

    Raises:
        ValueError: For a count below 1.
    """
    require(count >= 1, "at least one seed", count)
    return [1000 * current().seed + i for i in range(count)]
