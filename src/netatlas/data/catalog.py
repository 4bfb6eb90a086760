"""The datasets by name: their files, their loaders, and what :func:`load` and its companions do with them."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from netatlas.data import array_loaders, generators, graph_loaders, store
from netatlas.data.store import DatasetUnavailable, FileState

__all__ = ["Entry", "available", "entry", "fetch", "kind", "load", "names", "verify"]

_kinds: dict[str, str] = {}


@dataclass(frozen=True)
class Entry:
    """A dataset by name.

    Attributes:
        name: What :func:`load` accepts.
        summary: What it is, in a line.
        loader: Function of ``get`` (only if it needs files) and keyword options.
        patterns: Its files in the registry, as shell patterns; empty for data bundled with a library.
        members: For a collection, the names that it stands for; otherwise empty.
    """

    name: str
    summary: str
    loader: Callable[..., Any] | None
    patterns: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """Its files, as relative paths in the registry."""
        return [file for file in store.registry() if any(fnmatchcase(file, pattern) for pattern in self.patterns)]


def _entries() -> list[Entry]:
    g, a = graph_loaders, array_loaders
    found = [
        Entry("mnist", "handwritten digits, 28 x 28", a.mnist, ("mnist/*",)),
        Entry("cifar10_jpeg", "JPEG copies of CIFAR-10, 32 x 32", a.cifar10_jpeg, ("cifar10_jpeg/*",)),
        Entry("digits", "handwritten digits, 8 x 8 (scikit-learn)", a.digits),
        *(
            Entry(table, f"table {table} (scikit-learn)", functools.partial(a.bundled_table, table=table))
            for table in ("iris", "wine", "breast_cancer", "diabetes")
        ),
        Entry("karate", "Zachary's karate club (networkx)", g.karate),
        Entry("les_miserables", "characters of a novel, weighted (networkx)", g.les_miserables),
        Entry("blogcatalog", "bloggers, multi-label", g.blogcatalog, ("blogcatalog/*",)),
        Entry("lastfm", "listening and friendships", a.lastfm, ("lastfm/*",)),
        Entry("email_eu", "e-mails as hyperedges with roles", a.email_eu, ("hypergraphs/emailEu/*",)),
        Entry("strongly_regular", "strongly regular graphs, 8 families", g.strongly_regular, ("strongly_regular/*",)),
        Entry("brec", "400 pairs of graphs that 1-WL cannot tell apart", g.brec, ("brec/*",)),
        Entry("los_loop", "highway speeds and their graph", a.los_loop, ("traffic/los_*",)),
        Entry("shenzhen", "road graph", a.shenzhen, ("traffic/sz_*",)),
        Entry("routed_scaling", "losses of dense and routed language models", a.routed_scaling, ("routed_scaling/*",)),
        Entry("seismic", "seismograms with picked arrivals", a.seismic, ("seismic/*",)),
    ]

    def family(group, summary, loader, option, table, pattern):
        for name, value in table.items():
            files = tuple(part.format(value) for part in pattern)
            found.append(Entry(name, f"{summary}: {value}", functools.partial(loader, **{option: value}), files))
        found.append(Entry(group, f"{summary}: all of {', '.join(table)}", None, (f"{group}/*",), tuple(table)))

    def same(*values):
        return {value.lower().replace("-", "_"): value for value in values}

    musae = {"musae_chameleon": "chameleon", "musae_facebook": "facebook", "musae_twitch_engb": "twitch_engb"}
    family("planetoid", "citation network", g.planetoid, "graph", same("cora", "citeseer"), ("planetoid/{0}/*",))
    family(
        "heterophilous",
        "heterophilous graph",
        g.heterophilous,
        "graph",
        same(
            *("minesweeper", "tolokers", "chameleon_filtered", "squirrel_filtered"),
            *("actor", "cornell", "texas", "wisconsin"),
        ),
        ("heterophilous/{0}.npz", "heterophilous/{0}_directed.npz"),
    )
    for name, graph in musae.items():
        file = "ENGB" if graph == "twitch_engb" else graph
        loader = functools.partial(g.musae, graph=graph)
        found.append(Entry(name, f"attributed network: {graph}", loader, (f"musae/*/{file}[._]*",)))
    found.append(Entry("musae", f"attributed network: all of {', '.join(musae)}", None, ("musae/*",), tuple(musae)))
    family(
        "links",
        "network for link prediction",
        g.links,
        "graph",
        same("USAir", "NS", "PB", "Yeast", "Celegans", "Power", "Router", "Ecoli"),
        ("links/{0}.mat", "link_splits/{0}_split_*.mat"),
    )
    tu = {"mutag": "MUTAG", "ptc": "PTC", "proteins": "PROTEINS", "enzymes": "ENZYMES", "nci1": "NCI1"}
    tu |= {"imdb_binary": "IMDBBINARY", "imdb_multi": "IMDBMULTI"}
    family("tu", "graph classification", g.tu, "graph", tu, ("tu/{0}.txt",))
    family(
        "simplices",
        "timestamped simplices",
        a.simplices,
        "collection",
        same("email-Enron", "NDC-classes", "contact-primary-school", "contact-high-school"),
        ("simplices/{0}-*",),
    )
    family(
        "molecules",
        "SMILES with a measured property",
        a.molecules,
        "table",
        same("esol", "malaria"),
        ("molecules/{0}-processed.csv",),
    )
    family("ett", "electricity transformer temperature", a.ett, "table", same("ETTh1", "ETTh2"), ("ett/{0}.csv",))
    return found


@functools.cache
def _catalog() -> dict[str, Entry]:
    catalog = {item.name: item for item in _entries()}
    # The file of ESOL carries its author's name.
    esol = catalog["esol"]
    catalog["esol"] = Entry(esol.name, esol.summary, esol.loader, ("molecules/delaney-processed.csv",))
    links = catalog["links"]
    catalog["links"] = Entry("links", links.summary, None, ("links/*", "link_splits/*"), links.members)
    return dict(sorted(catalog.items()))


def names() -> list[str]:
    """The names that :func:`load` accepts."""
    return list(_catalog())


def entry(name: str) -> Entry:
    """The catalogue's entry of a dataset; capitals and hyphens do not matter.

    Raises:
        ValueError: an unknown name; the error suggests near ones.
    """
    known = _catalog()
    key = str(name).lower().replace("-", "_")
    if key not in known:
        near = difflib.get_close_matches(key, known, 4, 0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else f"; known are {', '.join(known)}"
        raise ValueError(f"expected the name of a dataset, got {name!r}{hint}")
    return known[key]


def _check_options(item: Entry, options: dict[str, Any]) -> None:
    accepted = inspect.signature(item.loader).parameters if item.loader else {}
    fixed = getattr(item.loader, "keywords", {})
    allowed = [key for key in accepted if key != "get" and key not in fixed]
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ValueError(f"dataset {item.name!r}: expected options among {allowed}, got {unknown}")


def _load_one(item: Entry, options: dict[str, Any]) -> Any:
    _check_options(item, options)
    assert item.loader is not None
    if not item.patterns:
        return item.loader(**options)
    return item.loader(lambda file: store.locate(file, item.name), **options)


def load(
    name: str,
    *,
    split: str | int | None = None,
    limit: int | None = None,
    stand_in: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """Load a dataset by name; its files are found, or downloaded, and checked before they are read.

    What comes back, and which options it takes, is documented with the loader: :mod:`netatlas.data.graph_loaders` and
    :mod:`netatlas.data.array_loaders`. A collection (planetoid, heterophilous, musae, links, tu, simplices,
    molecules, ett) comes as a dict from the names of its members.

    Args:
        name: a name of :func:`names`; capitals and hyphens do not matter.
        split: part of the dataset, where it has parts.
        limit: number of items to keep, where the loader can do with less than all.
        stand_in: function that gives a replacement if the real data cannot be had, such as those of
            :mod:`netatlas.data.stand_ins`. It is called with the given options; what it returns is returned, and
            :func:`kind` then says "stand-in" until the process ends.
        **options: further options of the loader.

    Raises:
        DatasetUnavailable: a file is not here and cannot be downloaded, and there is no ``stand_in``.
        ChecksumError: a file in ``$NETATLAS_DATA`` has other bytes than the registry says; never replaced by a
            stand-in.
        ValueError: an unknown name, or an option that the dataset does not have.
    """
    item = entry(name)
    if stand_in is not None and not callable(stand_in):
        raise ValueError(f"stand_in: expected a function, got {stand_in!r}")
    given = {"split": split, "limit": limit}
    given = {key: value for key, value in given.items() if value is not None} | options
    _check_options(item, given)
    try:
        if item.members:
            value = {member: _load_one(entry(member), {}) for member in item.members}
        else:
            value = _load_one(item, given)
    except DatasetUnavailable:
        if stand_in is None:
            raise
        _kinds[item.name] = "stand-in"
        return stand_in(**given)
    for loaded in (item.name, *item.members):
        _kinds.setdefault(loaded, "real")
    return value


def kind(name: str) -> str:
    """What a dataset is that this process has loaded: "real", "stand-in", or, for the name of a generator, "generated".

    If any load of the name was answered by a stand-in, the answer is "stand-in".

    Raises:
        ValueError: the name of no generator, and not loaded yet.
    """
    if name in generators.__all__ and callable(getattr(generators, name)):
        return "generated"
    key = entry(name).name
    if key not in _kinds:
        raise ValueError(f"expected a dataset that was loaded before, got {name!r}; call load({key!r}) first")
    return _kinds[key]


def fetch(name: str) -> list[Path]:
    """Find, download and check all files of a dataset ("all": of every dataset), and return where they lie.

    Raises:
        DatasetUnavailable: at the first file that cannot be had.
        ChecksumError: a file in ``$NETATLAS_DATA`` has other bytes than the registry says.
        ValueError: an unknown name.
    """
    if name == "all":
        return [store.locate(file, "all") for file in store.registry()]
    item = entry(name)
    return [store.locate(file, item.name) for file in item.files]


def verify(name: str | None = None) -> list[FileState]:
    """Check the files of a dataset, or all files, where they lie, reading each in full. Downloads nothing."""
    return [store.state(file) for file in (store.registry() if name is None else entry(name).files)]


def available() -> list[str]:
    """The names that can be loaded without the network: all their files are here (not checked yet)."""
    return [name for name, item in _catalog().items() if all(store.find(file) for file in item.files)]
