"""core.train.fit_many beside the loop that anyone would write: one model after the other with torch.optim."""

from __future__ import annotations

import torch
from harness import compare, timed
from torch.nn import functional as F

from netatlas.core.nn import MLP
from netatlas.core.train import batch_order, fit_many

WORK = {"16 members, MLP 64-32-10": ([64, 32, 10], 16), "10 members, MLP 784-64-32-10": ([784, 64, 32, 10], 10)}


def _sequential(build, inputs, labels, seeds, epochs, batch_size, lr):
    trained = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = build()
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.5)
        for order in batch_order(seed, len(inputs), epochs):
            for batch in order.split(batch_size):
                optimizer.zero_grad()
                F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
                optimizer.step()
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return torch.stack(trained)


def rows(_):
    """Comparisons of this file."""
    found = []
    for name, (widths, members) in WORK.items():
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(2000, widths[0], generator=generator) / widths[0] ** 0.5
        labels = torch.randint(0, widths[-1], (2000,), generator=generator)
        seeds = list(range(members))

        def build(widths=widths):
            return MLP(widths)

        def ours(build=build, inputs=inputs, labels=labels, seeds=seeds):
            def run():
                found = fit_many(build, inputs, labels, seeds=seeds, epochs=2, batch_size=32, lr=0.05, momentum=0.5)
                return torch.cat([p.flatten(1) for p in found.params.values()], 1)

            return timed(run)

        def theirs(build=build, inputs=inputs, labels=labels, seeds=seeds):
            return timed(lambda: _sequential(build, inputs, labels, seeds, 2, 32, 0.05))

        def agree(a, b):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)

        work = f"{name}, 2 epochs of 2000 examples, batch 32"
        found.append(compare("fit_many", work, "sequential torch.optim loop", torch.__version__, ours, theirs, agree))
    return found
