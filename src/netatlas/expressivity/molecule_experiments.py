"""Experiments with molecules and chains: neural fingerprints on solubility, random weights as a hash, cumulenes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.train import fit_many, minimize, stack_members
from netatlas.expressivity.fingerprints import (
    FingerprintRegressor,
    MoleculeBatch,
    NeuralFingerprint,
    circular_fingerprint,
    continuous_tanimoto,
    molecule_batch,
    molecule_graph,
)
from netatlas.expressivity.matrix_functions import (
    Cumulenes,
    EquivariantMPNN2D,
    chain_features,
    hueckel_cumulenes,
    resolvent_traces,
)


class Molecules(NamedTuple):
    """A table of molecules, ready for all arms.

    Attributes:
        smiles: The molecules.
        graphs: Their graphs.
        target: The measured property, float64.
        folds: Fold of each molecule, 0 to 4.
    """

    smiles: list[str]
    graphs: list[Any]
    target: Tensor
    folds: Tensor


def read_molecules(frame: Any, seed: int) -> Molecules:
    """Parse a table with columns ``smiles`` and ``target`` and draw five folds."""
    smiles = list(frame["smiles"])
    order = torch.randperm(len(smiles), generator=torch.Generator().manual_seed(seed))
    folds = torch.empty(len(smiles), dtype=torch.int64)
    folds[order] = torch.arange(len(smiles)) % 5
    target = torch.tensor(np.asarray(frame["target"], dtype=float))
    return Molecules(smiles, [molecule_graph(s) for s in smiles], target, folds)


class _Split(NamedTuple):
    fit: Tensor
    choose: Tensor
    test: Tensor
    mean: float
    spread: float


def _split(data: Molecules, fold: int) -> _Split:
    train = (data.folds != fold).nonzero().flatten()
    cut = len(train) * 9 // 10
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(fold))]
    y = data.target[train[:cut]]
    test = (data.folds == fold).nonzero().flatten()
    return _Split(train[:cut], train[cut:], test, float(y.mean()), float(y.std()))


class FoldErrors(NamedTuple):
    """Squared errors on test molecules, in the property's units.

    Attributes:
        squared: For each arm the squared error of each test molecule, folds one after the other.
        chosen: For the circular arms, which one the validation part chose in each fold.
        mass_error: Largest relative deviation of a fingerprint's mass from atoms times layers.
    """

    squared: dict[str, np.ndarray]
    chosen: list[str]
    mass_error: float


def _ridge(x: Tensor, y: Tensor, split: _Split) -> tuple[Tensor, float]:
    """Predictions for all rows by the penalty that validates best, and its validation error."""
    x = x.double()
    mean, scale = x[split.fit].mean(0), x[split.fit].std(0)
    z = (x - mean) / torch.where(scale > 0, scale, 1.0)
    inside, aim = z[split.fit], (y[split.fit] - split.mean) / split.spread
    gram = inside @ inside.T
    best: tuple[float, Tensor] | None = None
    for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        ridge = penalty * gram.diagonal().mean() * torch.eye(len(gram)).double()
        guess = z @ (inside.T @ torch.linalg.solve(gram + ridge, aim)) * split.spread + split.mean
        error = float((guess[split.choose] - y[split.choose]).square().mean())
        if best is None or error < best[0]:
            best = (error, guess)
    assert best is not None
    return best[1], best[0]


def _mlps(
    tables: Sequence[Tensor], y: Tensor, split: _Split, epochs: int, rates: Sequence[float], seed: int
) -> list[tuple[Tensor, float]]:
    """Predictions of networks with one hidden layer of 100, one for each table of fixed features of one width.

    The step size is chosen on validation. With them the validation errors.
    """
    scaled = []
    for table in tables:
        x = table.float()
        mean, scale = x[split.fit].mean(0), x[split.fit].std(0)
        scaled.append((x - mean) / torch.where(scale > 0, scale, 1.0))
    z = torch.stack(scaled).repeat_interleave(len(rates), 0)
    aim = ((y - split.mean) / split.spread).float()[split.fit]
    fitted = fit_many(
        lambda: nn.Sequential(nn.Linear(z.shape[2], 100), nn.ReLU(), nn.Linear(100, 1), nn.Flatten(0)),
        z[:, split.fit], aim.expand(len(z), -1), seeds=[seed] * len(z), lr=list(rates) * len(tables), epochs=epochs,
        batch_size=100, optimizer="adam", schedule="cosine", loss="mse", per_member_data=True,
    )  # fmt: skip
    guess = fitted.predict(z, per_member_data=True).double() * split.spread + split.mean
    errors = (guess[:, split.choose] - y[split.choose]).square().mean(1)
    found = []
    for k in range(0, len(z), len(rates)):
        best = k + int(errors[k : k + len(rates)].argmin())
        found.append((guess[best], float(errors[best])))
    return found


def _batches(data: Molecules, index: Tensor, size: int, epochs: int, seed: int) -> list[tuple[MoleculeBatch, Tensor]]:
    """A few shuffles of the training molecules into batches, cycled through by the training."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(min(epochs, 4)):
        for part in index[torch.randperm(len(index), generator=generator)].split(size):
            if len(part) > 1:
                found.append((molecule_batch([data.graphs[i] for i in part.tolist()]), part))
    return found


def train_fingerprints(
    data: Molecules,
    index: Tensor,
    target: Tensor,
    *,
    seeds: Sequence[int],
    rates: Sequence[float],
    epochs: int,
    batches: Sequence[tuple[MoleculeBatch, Tensor]] | None = None,
    **options: Any,
) -> tuple[dict[str, Tensor], FingerprintRegressor]:
    """Train neural fingerprints with a hidden layer, all seeds and step sizes at once, on batches of 100.

    Args:
        data: Molecules.
        index: Training molecules.
        target: Standardised targets of all molecules.
        seeds: One a member.
        rates: Step size of each member.
        epochs: Passes over the training molecules.
        batches: Batches to cycle through, with their rows; default: four shuffles by the first seed.
        options: Options of the fingerprint.

    Returns:
        Stacked parameters and the architecture.
    """
    models = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(FingerprintRegressor(**options))
    skeleton, (params, _) = models[0], stack_members(models)
    batches = _batches(data, index, 100, epochs, seeds[0]) if batches is None else batches
    per_epoch = math.ceil(len(index) / 100)

    def loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        batch, rows = batches[step % len(batches)]
        out = vmap(lambda q: functional_call(skeleton, q, (batch,)))(p)[..., 0]
        return (out - target[rows]).square().mean(1)

    trained, _ = minimize(loss, params, steps=epochs * per_epoch, lr=list(rates), schedule="cosine", clip_norm=5.0)
    return trained, skeleton


def compare_fingerprints(
    data: Molecules, *, folds: Sequence[int], epochs: int, seed: int, radius: int = 2, width: int = 16, size: int = 32,
    rates: Sequence[float] = (3e-3, 1e-2), circular: Sequence[tuple[int, int]] = ((1, 512), (2, 512), (2, 2048)),
    without_neighbours: bool = True,
) -> FoldErrors:  # fmt: skip
    """Circular, neural and frozen fingerprints and their controls on the test molecules of several folds.

    Args:
        data: Molecules.
        folds: Which folds to test on.
        epochs: Passes of every network over its training part.
        seed: Seeds weights.
        radius: Layers of the neural fingerprint.
        width: Its width.
        size: Its length.
        rates: Step sizes to choose from.
        circular: Radii and sizes of circular fingerprints, each as counts and as bits.
        without_neighbours: Whether to train the neural fingerprint of radius 0 as well.
    """
    options = {"radius": radius, "width": width, "size": size}
    tables = {}
    for r, s in circular:
        counts = circular_fingerprint(data.smiles, radius=r, size=s)
        tables |= {f"counts, radius {r}, {s}": counts, f"bits, radius {r}, {s}": (counts > 0).to(counts.dtype)}
    everything = molecule_batch(data.graphs)
    atoms = torch.stack([g.x.sum(0) for g in data.graphs])
    frozen = {}
    for scale in (0.1, 1.0, 10.0):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            net = NeuralFingerprint(**options, norm=False, activation="tanh", scale=scale)
            frozen[scale] = net(everything)
    mass = float((frozen[1.0].sum(1) / (everything.molecule.bincount() * (radius + 1)) - 1).abs().max())
    squared: dict[str, list[np.ndarray]] = {}
    chosen = []
    for fold in folds:
        split, y = _split(data, fold), data.target
        guesses: dict[str, Tensor] = {"mean": torch.full_like(y, split.mean)}
        ridges = {name: _ridge(table, y, split) for name, table in tables.items()}
        tried = {f"{name}, ridge": r for name, r in ridges.items()}
        for name in sorted(ridges, key=lambda k: ridges[k][1])[:2]:
            tried[f"{name}, network"] = _mlps([tables[name]], y, split, epochs, rates, seed)[0]
        best = min(tried, key=lambda k: tried[k][1])
        chosen.append(best)
        guesses["circular, best"] = tried[best][0]
        several = _mlps(list(frozen.values()), y, split, epochs, rates, seed)
        guesses["neural, frozen at random"] = min(several, key=lambda r: r[1])[0]
        bags = [_ridge(atoms, y, split), _mlps([atoms], y, split, epochs, rates, seed)[0]]
        guesses["bag of atoms"] = min(bags, key=lambda r: r[1])[0]
        aim = ((y - split.mean) / split.spread).float()
        batches = _batches(data, split.fit, 100, epochs, seed)
        arms = {"neural": options} | ({"neural, radius 0": options | {"radius": 0}} if without_neighbours else {})
        for name, own in arms.items():
            trained, skeleton = train_fingerprints(
                data,
                split.fit,
                aim,
                seeds=[seed] * len(rates),
                rates=rates,
                epochs=epochs,
                batches=batches,
                **own,
            )
            with torch.no_grad():
                out = vmap(lambda q, s=skeleton: functional_call(s, q, (everything,)))(trained)[..., 0].double()
            out = out * split.spread + split.mean
            errors = (out[:, split.choose] - y[split.choose]).square().mean(1)
            guesses[name] = out[int(errors.argmin())]
        for name, guess in guesses.items():
            squared.setdefault(name, []).append((guess - y)[split.test].square().numpy())
    return FoldErrors({name: np.concatenate(parts) for name, parts in squared.items()}, chosen, mass)


class RandomLimit(NamedTuple):
    """Distances of random neural fingerprints beside those of circular ones.

    Attributes:
        correlation: For each scale of the weights, one a seed.
        size_only: Correlation of the size-only distance.
        ceiling: Correlation of the circular fingerprint with itself under other hashes.
        small_error: Largest distance from the size-only one at the smallest scale.
        pairs: Circular and neural distances at the largest scale, for the figure.
    """

    correlation: dict[float, np.ndarray]
    size_only: float
    ceiling: np.ndarray
    small_error: float
    pairs: tuple[np.ndarray, np.ndarray]


def random_limit(
    data: Molecules, seeds: Sequence[int], *, count: int = 100, size: int = 512, radius: int = 3
) -> RandomLimit:
    """Compare distances of molecules under circular and random neural fingerprints of equal length.

    Args:
        data: Molecules; the first ``count`` are used.
        seeds: Seeds of weights and of other hashes.
        count: Number of molecules.
        size: Length of all fingerprints.
        radius: Radius of all fingerprints.
    """
    smiles, batch = data.smiles[:count], molecule_batch(data.graphs[:count])
    upper = torch.triu_indices(len(smiles), len(smiles), 1)

    def distances(table: Tensor) -> np.ndarray:
        return continuous_tanimoto(table.double())[upper[0], upper[1]].numpy()

    own = distances(circular_fingerprint(smiles, radius=radius, size=size))
    atoms = torch.bincount(batch.molecule).double()[:, None]
    sizes = distances(atoms)
    others = [distances(circular_fingerprint(smiles, radius=radius, size=size, salt=s + 1)) for s in seeds]
    found, small, last = {}, 0.0, own
    for scale in (0.01, 0.1, 1.0, 10.0, 100.0):
        values = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                net = NeuralFingerprint(radius=radius, width=32, size=size, norm=False, activation="tanh", scale=scale)
                last = distances(net(batch))
            values.append(float(np.corrcoef(own, last)[0, 1]))
            if scale == 0.01:
                small = max(small, float(np.abs(last - sizes).max()))
        found[scale] = np.array(values)
    ceiling = np.array([float(np.corrcoef(own, o)[0, 1]) for o in others])
    return RandomLimit(found, float(np.corrcoef(own, sizes)[0, 1]), ceiling, small, (own, last))


class Fragment(NamedTuple):
    """The part of a molecule that writes most into one position of a fingerprint.

    Attributes:
        fragment: The environment in SMILES.
        molecule: Where it is.
        radius: Radius of the environment.
        weight: Weight of the position in the linear head.
    """

    fragment: str
    molecule: str
    radius: int
    weight: float


def telling_fragments(data: Molecules, seed: int, epochs: int, radius: int = 2) -> list[Fragment]:
    """Train a fingerprint with a linear head on all molecules and find what its strongest positions look for.

    Args:
        data: Molecules.
        seed: Seeds weights.
        epochs: Passes over the molecules.
        radius: Layers of the fingerprint.
    """
    from rdkit import Chem

    aim = ((data.target - data.target.mean()) / data.target.std()).float()
    trained, skeleton = train_fingerprints(
        data, torch.arange(len(aim)), aim, seeds=[seed], rates=[1e-2], epochs=epochs, hidden=0, radius=radius
    )
    skeleton.load_state_dict({k: v[0] for k, v in trained.items()})
    batch = molecule_batch(data.graphs)
    with torch.no_grad():
        written = torch.stack(skeleton.fingerprint.atoms(batch))
    weights = skeleton.head[0].weight.detach()[0]
    # Where a batch's atom was before atoms were sorted by degree.
    degree = torch.cat([torch.bincount(g.edge_index[1], minlength=g.num_nodes) for g in data.graphs])
    order = torch.argsort(degree, stable=True)
    starts = torch.tensor([0] + [g.num_nodes for g in data.graphs]).cumsum(0)
    found = []
    for position in (int(weights.argmax()), int(weights.argmin())):
        flat = int(written[1:, :, position].argmax())
        layer, atom = flat // written.shape[1] + 1, flat % written.shape[1]
        molecule = int(batch.molecule[atom])
        inner = int(order[atom] - starts[molecule])
        mol = Chem.MolFromSmiles(data.smiles[molecule])
        bonds = Chem.FindAtomEnvironmentOfRadiusN(mol, layer, inner, enforceSize=False)
        part = Chem.MolToSmiles(Chem.PathToSubmol(mol, bonds)) if len(bonds) else mol.GetAtomWithIdx(inner).GetSymbol()
        found.append(Fragment(part, data.smiles[molecule], layer, float(weights[position])))
    return found


class CumuleneErrors(NamedTuple):
    """Mean absolute errors of the angle-dependent energy.

    Attributes:
        fresh: On new angles of the training lengths, for each arm one a seed.
        longer: On longer chains.
        local_powers: Error of the powers of H on the local control target, new angles and longer chains, largest.
        local_poles: The same for the learned poles.
        learned: Learned poles of the first seed.
    """

    fresh: dict[str, np.ndarray]
    longer: dict[str, np.ndarray]
    local_powers: np.ndarray
    local_poles: np.ndarray
    learned: Tensor


def _draw(lengths: Sequence[int], each: int, seed: int, longest: int = 10, noise: float = 0.02) -> Cumulenes:
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.tensor(lengths).repeat_interleave(each)
    angle, turn = (
        torch.rand(len(atoms), generator=generator, dtype=torch.float64) * top for top in (math.pi, 2 * math.pi)
    )
    normal = torch.randn(len(atoms), longest + 1, generator=generator, dtype=torch.float64)
    return hueckel_cumulenes(atoms, angle, turn, -(1 + noise * normal))


def _line(atoms: Tensor) -> Tensor:
    return torch.stack([torch.ones(len(atoms)), atoms], 1).double()


PENALTIES = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4)


class _RidgeFit(NamedTuple):
    predict: Any
    error: float


def _ridge_fit(table: Tensor, aim: Tensor, penalties: Sequence[float] = PENALTIES) -> _RidgeFit:
    """Ridge on standardised columns, the penalty chosen on every fourth row; ``predict`` takes other tables."""
    held = torch.arange(len(table)) % 4 == 0

    def solve(rows: Tensor, penalty: float) -> Any:
        mean, scale = table[rows].mean(0), table[rows].std(0)
        scale = torch.where(scale > 0, scale, 1.0)

        def widen(x: Tensor) -> Tensor:
            return torch.cat([(x - mean) / scale, torch.ones(len(x), 1).double()], 1)

        x = widen(table[rows])
        ridge = penalty * len(x) * torch.diag(torch.tensor([1.0] * table.shape[1] + [0.0])).double()
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ aim[rows])
        return lambda other: widen(other) @ weights

    errors = {p: float((solve(~held, p)(table[held]) - aim[held]).abs().mean()) for p in penalties}
    best = min(errors, key=lambda p: errors[p])
    return _RidgeFit(solve(torch.ones_like(held), best), errors[best])


def _learn_poles(spectrum: Tensor, sizes: Tensor, atoms: Tensor, aim: Tensor, count: int, steps: int) -> Tensor:
    """Poles that minimise the residual of the best linear readout, by Adam through the ridge solution."""
    start = {
        "real": torch.zeros(count).double(),
        "height": torch.linspace(math.log(0.1), math.log(4.0), count).double(),
    }

    def loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        poles = torch.complex(p["real"], p["height"].exp())
        table = torch.cat([resolvent_traces(spectrum, poles, sizes), _line(atoms)], 1)
        table = table / table.norm(dim=0)
        gram = table.T @ table + 1e-9 * torch.eye(table.shape[1]).double()
        return (aim - table @ torch.linalg.solve(gram, table.T @ aim)).square().mean() / aim.square().mean()

    found, _ = minimize(loss, start, steps=steps, lr=1e-2, schedule="cosine")
    return torch.complex(found["real"], found["height"].exp())


def compare_cumulenes(
    seeds: Sequence[int], *, each: int = 40, pole_steps: int = 100, epochs: int = 40, layers: Sequence[int] = (2, 8),
    width: int = 8, rates: Sequence[float] = (3e-3, 1e-2),
) -> CumuleneErrors:  # fmt: skip
    """Predict the angle-dependent energy of cumulenes by resolvents, polynomials of H, and local message passing.

    Training on 1 to 6 atoms; tests on new angles and on 8 to 10 atoms. Targets are what a line in the number of atoms,
    fitted in training, leaves.

    Args:
        seeds: One a draw of the data and the weights.
        each: Training chains of each length.
        pole_steps: Steps of the poles.
        epochs: Passes of the message-passing networks.
        layers: Depths of the message-passing networks.
        width: Their width.
        rates: Their step sizes to choose from, on the first seed.
    """
    fresh: dict[str, list[float]] = {}
    longer: dict[str, list[float]] = {}
    local = {"powers": [], "poles": []}
    learned, chains = torch.zeros(0), []
    for k, seed in enumerate(seeds):
        train, same, long = (
            _draw(lengths, n, 1000 * seed + i)
            for i, (lengths, n) in enumerate(((range(1, 7), each), (range(1, 7), 20), ((8, 9, 10), 20)))
        )
        parts = (train, same, long)
        spectra = [torch.linalg.eigvalsh(c.operator) for c in parts]
        sizes = [2 * c.atoms + 2 for c in parts]
        aims, fourth = _residuals(parts, [c.energy for c in parts]), _residuals(parts, [(s**4).sum(1) for s in spectra])
        chains.append((parts, aims))

        poles = _learn_poles(spectra[0], sizes[0], train.atoms, aims[0], 8, pole_steps)
        learned = poles if k == 0 else learned
        start = 1j * torch.logspace(-1, math.log10(4), 8, dtype=torch.float64)
        spread = torch.complex(torch.linspace(-2, 2, 8).double(), torch.ones(8).double())
        arms = {
            "learned poles": _all_traces(spectra, poles, sizes),
            "fixed poles, imaginary axis": _all_traces(spectra, start, sizes),
        }
        arms["fixed poles along the real axis"] = _all_traces(spectra, spread, sizes)
        arms |= _polynomial_tables(spectra, sizes, aims[0], train.atoms)
        for name, tables in arms.items():
            a, b = _readout_errors(tables, aims, parts)
            fresh.setdefault(name, []).append(a)
            longer.setdefault(name, []).append(b)
        fresh.setdefault("line in the length", []).append(float(aims[1].abs().mean()))
        longer.setdefault("line in the length", []).append(float(aims[2].abs().mean()))
        powers = [torch.stack([(s**j).sum(1) for j in (2, 4)], 1) for s in spectra]
        local["powers"].append(max(_readout_errors(powers, fourth, parts)))
        local["poles"].append(max(_readout_errors(_all_traces(spectra, poles, sizes), fourth, parts)))
    for depth in layers:
        a, b = _train_mpnn(chains, seeds, depth, epochs, width, rates)
        fresh[f"message passing, {depth} layers"], longer[f"message passing, {depth} layers"] = a, b
    return CumuleneErrors(
        {k: np.array(v) for k, v in fresh.items()}, {k: np.array(v) for k, v in longer.items()},
        np.array(local["powers"]), np.array(local["poles"]), learned,
    )  # fmt: skip


def _all_traces(spectra: Sequence[Tensor], poles: Tensor, sizes: Sequence[Tensor]) -> list[Tensor]:
    return [resolvent_traces(s, poles, n) for s, n in zip(spectra, sizes)]


def _readout_errors(
    tables: Sequence[Tensor], targets: Sequence[Tensor], parts: Sequence[Cumulenes]
) -> tuple[float, float]:
    """Errors on new angles and on longer chains of the linear readout that training chooses."""
    wide = [torch.cat([t, _line(c.atoms)[:, 1:]], 1) for t, c in zip(tables, parts)]
    predict = _ridge_fit(wide[0], targets[0]).predict
    same, longer = (float((predict(t) - y).abs().mean()) for t, y in zip(wide[1:], targets[1:]))
    return same, longer


def _residuals(parts: Sequence[Cumulenes], values: Sequence[Tensor]) -> list[Tensor]:
    line = torch.linalg.lstsq(_line(parts[0].atoms), values[0]).solution
    return [v - _line(c.atoms) @ line for c, v in zip(parts, values)]


def _polynomial_tables(
    spectra: Sequence[Tensor], sizes: Sequence[Tensor], aim: Tensor, atoms: Tensor
) -> dict[str, Any]:
    """Traces of powers and of Chebyshev polynomials, the degree chosen by validation in training."""
    found = {}
    for name in ("powers of H", "Chebyshev polynomials of H"):
        tables = {}
        for degree in (4, 8, 16, 32):
            if name.startswith("powers") and degree > 16:
                continue
            tables[degree] = [_traces_of(s, n, degree, name.startswith("Chebyshev")) for s, n in zip(spectra, sizes)]
        errors = {
            d: _ridge_fit(torch.cat([t[0], _line(atoms)[:, 1:]], 1), aim).error for d, t in tables.items()
        }  # fmt: skip
        found[name] = tables[min(errors, key=lambda d: errors[d])]
    return found


def _traces_of(spectrum: Tensor, sizes: Tensor, degree: int, chebyshev: bool) -> Tensor:
    if not chebyshev:
        return torch.stack([((spectrum / 2.1) ** j).sum(1) for j in range(1, degree + 1)], 1)
    angle = (spectrum / 2.1).clamp(-1, 1).acos()
    padding = (spectrum.shape[1] - sizes).double()
    # Padded eigenvalues are 0, where the polynomials are not.
    return torch.stack(
        [(j * angle).cos().sum(1) - padding * math.cos(j * math.pi / 2) for j in range(1, degree + 1)], 1
    )


def _train_mpnn(
    chains: list[tuple[tuple[Cumulenes, ...], list[Tensor]]], seeds: Sequence[int], depth: int, epochs: int, width: int,
    rates: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    longest = [max(int(parts[i].atoms.max()) for parts, _ in chains) + 2 for i in range(3)]
    inputs = [torch.stack([chain_features(p[i])[:, : longest[i]] for p, _ in chains]) for i in range(3)]
    aims = [torch.stack([aim[i] for _, aim in chains]).float() for i in range(3)]
    options = {
        "epochs": epochs, "batch_size": 60, "optimizer": "adam", "schedule": "cosine", "loss": "mse", "clip_norm": 1.0,
        "per_member_data": True,
    }  # fmt: skip
    first = [v[:1].expand(len(rates), *v.shape[1:]) for v in (inputs[0], aims[0])]
    tried = fit_many(
        lambda: EquivariantMPNN2D(depth, width), *first, seeds=[seeds[0]] * len(rates), lr=list(rates), **options
    )
    best = int(tried.history[-1].argmin())
    rest = fit_many(
        lambda: EquivariantMPNN2D(depth, width), inputs[0][1:], aims[0][1:], seeds=seeds[1:], lr=rates[best], **options
    )
    found = []
    for x, y in zip(inputs[1:], aims[1:]):
        one = tried[[best]].predict(x[:1], per_member_data=True)
        others = rest.predict(x[1:], per_member_data=True)
        found.append((torch.cat([one, others]) - y).abs().mean(1).double().numpy())
    return found[0], found[1]


def matrix_function_checks() -> dict[str, float]:
    """Deviations of matrix functions and cumulenes from closed forms."""
    from netatlas.expressivity.matrix_functions import (
        chain_resolvent_diagonal,
        contour_poles,
        matrix_function_by_poles,
        path_energy,
        resolvent_diagonal,
    )

    path = torch.diag(torch.ones(59).double(), 1)
    path = path + path.T
    poles = torch.tensor([1j, 0.2j, 2.5 + 0j], dtype=torch.complex128)
    slopes = []
    for z in poles:
        row = torch.linalg.inv(z * torch.eye(60) - path)[20, 20:41].abs().log()
        root = (z * z / 4 - 1).sqrt()
        rate = torch.log(torch.maximum((z / 2 + root).abs(), (z / 2 - root).abs()))
        slopes.append(abs(float(np.polyfit(np.arange(21), row.numpy(), 1)[0]) / -float(rate) - 1))
    small = path[:12, :12]
    dense = resolvent_diagonal(small, poles, method="solve")
    blocks = torch.zeros(12, 1, 1).double()
    chain = chain_resolvent_diagonal(blocks, torch.ones(11, 1, 1).double(), poles)[..., 0, 0]
    by_circle = matrix_function_by_poles(small, *contour_poles(torch.exp, 4.0, 32)).real
    sizes = torch.arange(1, 9)
    zero = torch.zeros(8).double()
    energies = [
        hueckel_cumulenes(sizes, zero + a, zero + 0.3, -torch.ones(8, 9).double()).energy for a in (0, math.pi / 2)
    ]
    exact = [
        torch.tensor([-(path_energy(m + 2) + path_energy(m)) for m in range(1, 9)], dtype=torch.float64),
        torch.tensor([-2 * path_energy(m + 1) for m in range(1, 9)], dtype=torch.float64),
    ]
    one, turns = _draw([5], 1, 0), torch.tensor([[0.2], [1.9]], dtype=torch.float64)
    here, again = (hueckel_cumulenes(one.atoms, turns[0], turn, one.hopping).energy for turn in turns)
    return {
        "decay of the resolvent on a path: relative error of the slope": max(slopes),
        "resolvent: eigenvectors against LU": float((resolvent_diagonal(small, poles) - dense).abs().max()),
        "resolvent: chain recursion against LU": float((chain - dense).abs().max()),
        "exponential by 32 poles against torch.matrix_exp": float((by_circle - torch.matrix_exp(small)).abs().max()),
        "cumulene energies against closed forms": max(float((a - b).abs().max()) for a, b in zip(energies, exact)),
        "cumulene energy, turned": float((again - here).abs().max()),
    }
