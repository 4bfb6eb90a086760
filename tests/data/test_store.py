import gzip
import hashlib
import http.server
import json
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netatlas import data
from netatlas.data import catalog, store
from netatlas.data.cli import app
from netatlas.data.make_registry import registry_from_manifest

PAYLOAD = b"some bytes of a data set\n" * 400


def sha(content):
    return hashlib.sha256(content).hexdigest()


class Site:
    """A web server on the loopback interface that serves, cuts short, or refuses."""

    def __init__(self):
        self.content, self.announced, self.status, self.requests = b"", None, 200, 0
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.requests += 1
                self.send_response(site.status)
                self.send_header("Content-Length", str(site.announced or len(site.content)))
                self.end_headers()
                self.wfile.write(site.content)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site():
    served = Site()
    yield served
    served.close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A registry of our own, an empty cache, and no data folder."""
    records = {}
    monkeypatch.setattr(store, "registry", lambda: records)
    monkeypatch.setenv("NETATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NETATLAS_DATA", raising=False)
    monkeypatch.delenv("NETATLAS_OFFLINE", raising=False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(store, "_verified", {})
    monkeypatch.setattr(store, "_unreachable", {})

    def register(url, content=PAYLOAD, file="folder/file.txt", **more):
        records[file] = store.RegisteredFile("thing", file, len(content), sha(content), url, **more)
        return file

    return register


def leftovers(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_download_is_checked_cached_and_not_repeated(place, site, tmp_path):
    file = place(site.url)
    site.content = PAYLOAD
    path = store.locate(file)
    assert path == tmp_path / "cache" / file
    assert path.read_bytes() == PAYLOAD
    assert store.locate(file) == path
    assert site.requests == 1
    assert leftovers(tmp_path) == [path]


@pytest.mark.parametrize("announced", [None, len(PAYLOAD)])
def test_truncated_download_leaves_nothing(place, site, tmp_path, announced):
    file = place(site.url)
    site.content, site.announced = PAYLOAD[:100], announced
    with pytest.raises(data.DatasetUnavailable, match=r"folder/file\.txt.*netatlas data fetch thing"):
        store.locate(file)
    assert leftovers(tmp_path) == []
    assert site.requests == 1


def test_truncation_that_the_server_hides_is_named(place, site):
    file = place(site.url)
    site.content = PAYLOAD[:100]
    with pytest.raises(data.DatasetUnavailable, match=f"100 bytes with sha256 {sha(PAYLOAD[:100])}.*{sha(PAYLOAD)}"):
        store.locate(file)


def test_error_status_is_reported(place, site):
    file = place(site.url)
    site.status = 404
    with pytest.raises(data.DatasetUnavailable, match="404"):
        store.locate(file)


def test_corrupt_cached_file_is_fetched_again(place, site, tmp_path):
    file = place(site.url)
    site.content = PAYLOAD
    path = store.locate(file)
    path.write_bytes(PAYLOAD[:-1] + b"?")
    assert store.state(file).status == "corrupt"
    assert store.locate(file).read_bytes() == PAYLOAD
    assert site.requests == 2


def test_corrupt_cached_file_is_never_used_offline(place, monkeypatch, tmp_path):
    file = place("http://127.0.0.1:9/file")
    path = tmp_path / "cache" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wrong")
    monkeypatch.setenv("NETATLAS_OFFLINE", "1")
    with pytest.raises(data.DatasetUnavailable, match=f"corrupt.*{sha(b'wrong')}.*NETATLAS_OFFLINE"):
        store.locate(file)


def test_data_folder_comes_first_and_is_checked(place, monkeypatch, tmp_path):
    file = place("http://127.0.0.1:9/file")
    own = tmp_path / "own" / file
    own.parent.mkdir(parents=True)
    own.write_bytes(PAYLOAD)
    monkeypatch.setenv("NETATLAS_DATA", str(tmp_path / "own"))
    assert store.locate(file) == own
    own.write_bytes(b"tampered")
    with pytest.raises(data.ChecksumError) as error:
        store.locate(file)
    for part in (str(own), sha(PAYLOAD), sha(b"tampered")):
        assert part in str(error.value)


def test_same_size_and_other_bytes_are_noticed_after_a_first_check(place, monkeypatch, tmp_path):
    file = place(None)
    own = tmp_path / file
    own.parent.mkdir(parents=True)
    own.write_bytes(PAYLOAD)
    monkeypatch.setenv("NETATLAS_DATA", str(tmp_path))
    store.locate(file)
    own.write_bytes(PAYLOAD[::-1])
    os.utime(own, ns=(1, 1))
    with pytest.raises(data.ChecksumError):
        store.locate(file)


def test_a_checked_file_is_not_read_again(place, monkeypatch, tmp_path):
    file = place(None)
    own = tmp_path / file
    own.parent.mkdir(parents=True)
    own.write_bytes(PAYLOAD)
    monkeypatch.setenv("NETATLAS_DATA", str(tmp_path))
    store.locate(file)
    monkeypatch.setattr(store, "fingerprint", lambda *args, **options: pytest.fail("read again"))
    assert store.locate(file) == own


def test_gzip_is_compared_by_its_decompressed_bytes(place, site, tmp_path):
    registered, other = gzip.compress(PAYLOAD, 9, mtime=1), gzip.compress(PAYLOAD, 1, mtime=2)
    assert registered != other
    file = place(site.url, registered, "folder/file.gz", sha256_decompressed=sha(PAYLOAD))
    site.content = other
    assert gzip.decompress(store.locate(file).read_bytes()) == PAYLOAD
    store.locate(file).write_bytes(gzip.compress(PAYLOAD[1:]))
    assert store.state(file).status == "corrupt"
    store.find(file).write_bytes(registered[:-20])
    assert store.state(file).status == "corrupt"
    site.content = registered[:-20]
    with pytest.raises(data.DatasetUnavailable, match="not gzip"):
        store.locate(file)


def test_offline_is_refused_without_a_request(place, site, monkeypatch):
    file = place(site.url)
    monkeypatch.setenv("NETATLAS_OFFLINE", "1")
    with pytest.raises(data.DatasetUnavailable, match="NETATLAS_OFFLINE forbids downloads"):
        store.locate(file)
    assert site.requests == 0


def test_unreachable_host_is_asked_once(place, site):
    site.close()
    file, second = place(site.url), place(site.url, file="folder/second.txt")
    with pytest.raises(data.DatasetUnavailable, match="no network"):
        store.locate(file)
    with pytest.raises(data.DatasetUnavailable, match="a moment ago"):
        store.locate(second)


def test_file_without_address_says_so(place):
    with pytest.raises(data.DatasetUnavailable, match=r"no public address.*put it into"):
        store.locate(place(None))


def test_missing_data_folder_is_named(place, monkeypatch, tmp_path):
    monkeypatch.setenv("NETATLAS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(data.DatasetUnavailable, match="no such folder"):
        store.locate(place(None))


def test_unwritable_cache_is_reported(place, site, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(data.DatasetUnavailable, match="cannot be written"):
        store.locate(place(site.url))


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("NETATLAS_CACHE", str(tmp_path))
    monkeypatch.setenv("NETATLAS_OFFLINE", "1")
    monkeypatch.delenv("NETATLAS_DATA", raising=False)
    monkeypatch.setattr(catalog, "_kinds", {})


def test_stand_in_is_labelled(nothing_here):
    with pytest.raises(data.DatasetUnavailable, match="netatlas data fetch cora"):
        data.load("cora")
    graph = data.load("cora", stand_in=lambda: data.contextual_sbm([50, 50], 4, 0.1, 16, 1.0))
    assert graph.num_nodes == 100
    assert data.kind("cora") == "stand-in"
    data.load("iris", stand_in=lambda: pytest.fail("not needed"))
    assert data.kind("iris") == "real"
    assert data.kind("rings_of_houses") == "generated"


def test_stand_in_label_outlives_a_later_real_load(nothing_here, monkeypatch):
    catalog._kinds["karate"] = "stand-in"
    data.load("karate")
    assert data.kind("karate") == "stand-in"


def test_stand_in_does_not_hide_a_wrong_file(nothing_here, monkeypatch, tmp_path):
    own = tmp_path / "own" / "blogcatalog" / "blogcatalog.mat"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"wrong")
    monkeypatch.setenv("NETATLAS_DATA", str(tmp_path / "own"))
    with pytest.raises(data.ChecksumError):
        data.load("blogcatalog", stand_in=lambda: None)


def test_bad_requests(nothing_here):
    with pytest.raises(ValueError, match=r"did you mean.*citeseer"):
        data.load("citeser")
    with pytest.raises(ValueError, match="options"):
        data.load("cora", limit=3)
    with pytest.raises(ValueError, match="options"):
        data.load("cora", graph="citeseer")
    with pytest.raises(ValueError, match="options"):
        data.load("planetoid", split="train")
    with pytest.raises(ValueError, match="stand_in"):
        data.load("cora", stand_in=3)
    with pytest.raises(ValueError, match="loaded before"):
        data.kind("cora")
    with pytest.raises(ValueError):
        store.locate("../secret")


def test_available_without_files_is_what_libraries_bundle(nothing_here):
    bundled = ["breast_cancer", "diabetes", "digits", "iris", "karate", "les_miserables", "wine"]
    assert data.available() == bundled
    assert {state.status for state in data.verify()} == {"absent"}


def test_commands(nothing_here, monkeypatch, tmp_path):
    run = CliRunner().invoke
    listed = run(app, ["list"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in data.names())
    failed = run(app, ["fetch", "cora"])
    assert failed.exit_code == 1
    assert "NETATLAS_OFFLINE" in failed.output
    assert run(app, ["fetch", "iris"]).exit_code == 0
    assert run(app, ["fetch", "no_such_thing"]).exit_code == 1
    assert run(app, ["verify"]).exit_code == 0
    wrong = tmp_path / "ett" / "ETTh1.csv"
    wrong.parent.mkdir()
    wrong.write_text("wrong")
    checked = run(app, ["verify", "etth1"])
    assert checked.exit_code == 1
    assert "1 corrupt" in checked.output
    assert run(app, ["verify", "no_such_thing"]).exit_code == 1


def test_every_file_belongs_to_a_name_and_every_pattern_to_files():
    covered = set()
    for name in data.names():
        item = catalog.entry(name)
        for pattern in item.patterns:
            matched = [file for file in item.files if catalog.fnmatchcase(file, pattern)]
            # Some networks have no fixed splits, and only two have a directed version.
            assert matched or "split" in pattern or "directed" in pattern, pattern
        covered |= set(item.files)
    assert covered == set(store.registry())


def test_registry_is_sound():
    entries = [
        {key: value for key, value in vars(record).items() if key == "url" or value is not None}
        for record in store.registry().values()
    ]
    assert len(entries) == 273
    registry_from_manifest(entries)
    for bad in ("/etc/passwd", "../up", "a/../../b"):
        with pytest.raises(ValueError, match="inside"):
            registry_from_manifest([entries[0] | {"file": bad}])
    with pytest.raises(ValueError, match="once"):
        registry_from_manifest([entries[0], entries[0]])
    with pytest.raises(ValueError, match="hexadecimal"):
        registry_from_manifest([entries[0] | {"sha256": "0" * 63}])
    assert all(entry["url"] is None or entry["url"].startswith("https://") for entry in entries)


def test_registry_equals_the_manifest():
    manifest = Path(os.environ.get("NETATLAS_DATA", "")) / "MANIFEST.json"
    if not os.environ.get("NETATLAS_DATA") or not manifest.is_file():
        pytest.skip("NETATLAS_DATA has no MANIFEST.json")
    made = registry_from_manifest(json.loads(manifest.read_text(encoding="utf-8")))
    stored = json.loads(Path(store.__file__).with_name("registry.json").read_text(encoding="utf-8"))
    assert made == stored


def test_import_is_light():
    import subprocess
    import sys

    code = (
        "import sys, netatlas.data.cli; print([m for m in ('torch', 'pandas', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
