"""Scaffold a chapter: its notebook, its package and its tests, which pass and claim nothing that is not there."""

from __future__ import annotations

from pathlib import Path

from netatlas import registry

KERNEL = '''"""A placeholder for the family's first method."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


def centre(values: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    r"""Subtract the mean of the rows.

    .. math:: y_i = x_i - \\frac1n \\sum_j x_j

    Args:
        values: ``n`` rows of ``d`` features.

    Raises:
        ValueError: For no rows, or entries that are NaN or infinite.
    """
    require(values.ndim == 2 and len(values) > 0, "a matrix with at least one row", tuple(values.shape))
    require_finite("values", values)
    return values - values.mean(0)
'''

TEST = '''"""The placeholder kernel against what its definition implies."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.{name}.example import centre


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 8), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_centred_rows_sum_to_zero_and_shifts_do_not_matter(n, d, seed):
    values = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(centre(values).sum(0), torch.zeros(d, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(centre(values + 3), centre(values), atol=1e-12)


@pytest.mark.parametrize("bad", [torch.zeros(0, 2), torch.zeros(3), torch.tensor([[float("nan")]])])
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        centre(bad)


def test_runs_on_the_meta_device():
    assert centre(torch.empty(4, 2, device="meta")).device.type == "meta"
'''

HEAD = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: netatlas
#     language: python
#     name: netatlas
# ---

# %% [markdown]
# # {title}
#
# The question that this family answers, in one paragraph.

# %% tags=["parameters"]
profile = "ci"
seed = 0
device = "cpu"

# %%
import matplotlib.pyplot as plt
import torch

from netatlas import lab
from netatlas.{name} import centre

lab.begin("{name}", profile=profile, seed=seed, device=device)
lab.papers_table()

# %% [markdown]
# ## The shared kernel
#
# What all methods of the family compute, and a check that the code does what the formula says.

# %%
rows = torch.randn(lab.pick(ci=50, gpu=5000), 3, generator=torch.Generator().manual_seed(seed))
left_over = centre(rows).mean(0).abs()
sections_written = 0 * left_over
"""

SECTION = """
# %% [markdown]
# (paper-{key})=
# ## {title}
#
# The idea in plain words, the equation, the experiment.

# %%
lab.claim(
    "{key}",
    "This section is still to be written",
    measured={{"sections written": sections_written}},
    control={{"mean left over after centring": left_over}},
    holds={{"the section is written": lab.exceeds(sections_written.max(), 0.5)}},
    scaled="everything: nothing of the paper is here yet",
    reason="the method is not written yet",
)
"""

FOOT = """
# %% [markdown]
# ## Family portrait

# %%
fig, ax = plt.subplots()
ax.bar(["x", "y", "z"], left_over)
ax.set(xlabel="feature", ylabel="mean after centring", title="A placeholder")
lab.portrait(
    fig,
    caption=f"After centring the largest mean left over is {left_over.max():.1e}.",
    alt="Bars of the mean of three features after centring, all close to zero.",
)

# %% [markdown]
# ## What is scaled down
#
# What is smaller than in the papers, and what that means for the verdicts.
#
# ## Exercises
#
# 1. Change one parameter.
"""


def scaffold(name: str, root: Path = Path()) -> list[Path]:
    """Write a chapter's three places.

    Args:
        name: A chapter that ``papers.yml`` has papers for.
        root: The repository's root.

    Returns:
        The files written.

    Raises:
        ValueError: For a chapter that the registry does not know, or one that exists.
    """
    papers = registry.chapter_papers(name)
    if not papers:
        planned = ", ".join(sorted({p.chapter for p in registry.papers().values()}))
        raise ValueError(f"papers.yml has no paper of a chapter {name!r}: add its papers first. Planned are {planned}")
    title = name.replace("_", " ").capitalize()
    chapter = HEAD.format(name=name, title=title)
    chapter += "".join(SECTION.format(key=p.key, title=p.title.replace("\n", " ")) for p in papers) + FOOT
    package = f'"""{title}."""\n\nfrom netatlas.{name}.example import centre\n\n__all__ = ["centre"]\n'
    files = {
        root / "chapters" / f"{name}.py": chapter,
        root / "src" / "netatlas" / name / "__init__.py": package,
        root / "src" / "netatlas" / name / "example.py": KERNEL,
        root / "tests" / name / "test_example.py": TEST.format(name=name),
    }
    existing = [path for path in files if path.exists()]
    if existing:
        raise ValueError(f"chapter {name!r} exists: {existing[0]}")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)
