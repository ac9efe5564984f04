"""Downloads, from a server on loopback: resumed, verified, never half-unpacked."""

import errno
import hashlib
import http.server
import os
import re
import threading
import zipfile
from pathlib import Path

import formats
import pytest
from typer.testing import CliRunner

from socketlab import cli
from socketlab.errors import LabError
from socketlab.images import downloads
from socketlab.images.downloads import DOWNLOADS, Download, fetch
from socketlab.images.packs import open_pack


class Server(http.server.ThreadingHTTPServer):
    """Sends one file, in ranges; breaks off after ``patience`` bytes of an answer."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.patience, self.ranges, self.asked = data, len(data), True, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/rooms.zip?download=1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data, tag = self.server.data, f'"{hashlib.md5(self.server.data).hexdigest()}"'
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = 0
        if asked and self.server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + self.server.patience])

    def log_message(self, *words):
        pass


def zipped(folder: Path, files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(folder / "made.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return (folder / "made.zip").read_bytes()


FILES = {"nirscene1/water/0000_rgb.tiff": os.urandom(40_000), "nirscene1/ünï.txt": b"text"}


@pytest.fixture
def server(tmp_path):
    with Server(zipped(tmp_path, FILES)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def unpacked(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_fetched_verified_and_unpacked_once(server, tmp_path):
    seen = []
    download = Download(server.url, len(server.data), f"sha256:{hashlib.sha256(server.data).hexdigest()}")
    folder = fetch("rooms", tmp_path, download=download, progress=lambda *x: seen.append(x))
    assert folder == tmp_path / "rooms" / "rooms" and unpacked(folder) == FILES
    assert seen[-1] == (len(server.data), len(server.data))
    assert fetch("rooms", tmp_path, download=download) == folder
    assert server.asked == [None]


def test_a_broken_connection_is_taken_up(server, tmp_path):
    server.patience = len(server.data) // 3
    assert unpacked(fetch("rooms", tmp_path, download=Download(server.url))) == FILES
    assert server.asked[0] is None and server.asked[1] == f"bytes={server.patience}-"


def test_a_download_goes_on_in_another_call(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 1)
    server.patience = 1000
    with pytest.raises(LabError, match=r"ended after 1,000 of .* bytes.*1,000 bytes are kept"):
        fetch("rooms", tmp_path, download=Download(server.url))
    server.patience = len(server.data)
    assert unpacked(fetch("rooms", tmp_path, download=Download(server.url))) == FILES
    assert server.asked == [None, "bytes=1000-"]


def test_whole_but_not_yet_named(server, tmp_path):
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms" / "rooms.zip.part").write_bytes(server.data)
    assert unpacked(fetch("rooms", tmp_path, download=Download(server.url))) == FILES


@pytest.mark.parametrize("ranges", [True, False])
def test_another_file_is_not_glued_on(server, tmp_path, ranges):
    """The file behind the link changed, or the server knows no ranges: it begins afresh."""
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms" / "rooms.zip.part").write_bytes(b"x" * 500)
    (tmp_path / "rooms" / "rooms.zip.part.tag").write_text('"older"')
    server.ranges = ranges
    assert unpacked(fetch("rooms", tmp_path, download=Download(server.url))) == FILES


def test_size_and_digest_are_compared(server, tmp_path):
    with pytest.raises(LabError, match="bytes, not 5"):
        fetch("rooms", tmp_path / "a", download=Download(server.url, 5))
    with pytest.raises(LabError, match="not the expected file"):
        fetch("rooms", tmp_path / "b", download=Download(server.url, digest="md5:0"))
    assert not (tmp_path / "b" / "rooms" / "rooms").exists()


def test_without_a_published_digest_the_first_is_recorded(server, tmp_path):
    folder = fetch("rooms", tmp_path, download=Download(server.url))
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    archive = tmp_path / "rooms" / "rooms.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(LabError, match="not the expected file"):
        fetch("rooms", tmp_path, download=Download(server.url))


def test_offline_is_one_sentence(tmp_path):
    with pytest.raises(LabError, match=r"no connection: .*check the connection.*by hand to .*rooms\.zip"):
        fetch("rooms", tmp_path, download=Download("http://127.0.0.1:9/rooms.zip"))
    with pytest.raises(LabError, match="diml has no direct link"):
        fetch("diml", tmp_path)


def test_what_is_not_there_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(LabError, match="the server answers 404"):
        fetch("rooms", tmp_path, download=Download(server.url))


def test_a_damaged_archive_is_told(server, tmp_path):
    server.data = server.data[:-100]
    with pytest.raises(LabError, match="is damaged"):
        fetch("rooms", tmp_path, download=Download(server.url))
    assert not (tmp_path / "rooms" / "rooms").exists()


def test_nothing_is_unpacked_outside(server, tmp_path):
    server.data = zipped(tmp_path, {"../../outside.txt": b"x", "/root.txt": b"y"})
    folder = fetch("rooms", tmp_path / "cache", download=Download(server.url))
    assert set(unpacked(folder)) == {"outside.txt", "root.txt"}
    assert not (tmp_path / "outside.txt").exists()


def test_a_full_disk_is_told(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads, "_receive", full)
    with pytest.raises(LabError, match="disk is full"):
        fetch("rooms", tmp_path, download=Download(server.url))


def test_downloads_have_a_place_in_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SOCKETLAB_CACHE", str(tmp_path / "mine"))
    folder = fetch("rooms", download=Download(server.url))
    assert folder == tmp_path / "mine" / "downloads" / "rooms" / "rooms"


def test_the_command_fetches_says_on_which_terms_and_imports(server, tmp_path, monkeypatch):
    raw = formats.write_rgbnir(tmp_path / "raw", each=2)
    server.data = zipped(tmp_path, unpacked(raw))
    server.patience = len(server.data)
    monkeypatch.setenv("SOCKETLAB_CACHE", str(tmp_path / "mine"))
    monkeypatch.setitem(DOWNLOADS, "rgbnir", Download(server.url, terms="for lessons alone"))
    words = ["import", "rgbnir", "--size", "12", "--processes", "1", "--download"]
    done = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "pack")])
    assert done.exit_code == 0, done.output
    assert f"{server.url}: for lessons alone" in done.stdout and "18 usable scenes" in done.stdout
    assert open_pack(tmp_path / "pack").modalities == ("rgb", "nir")
    done = CliRunner().invoke(cli.app, [*words, str(raw)])
    assert done.exit_code == 2 and "leave" in done.stderr and len(server.asked) == 1
    monkeypatch.setitem(DOWNLOADS, "rgbnir", Download("http://127.0.0.1:9/other.zip"))
    done = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "other")])
    assert done.exit_code == 2 and "check the connection" in done.stderr
    assert not (tmp_path / "other").exists()


def test_links_are_whole():
    for download in DOWNLOADS.values():
        assert download.url.startswith("https://") and download.name.endswith(".zip") and download.terms
        if download.digest is not None:
            algorithm, _, digits = download.digest.partition(":")
            assert len(digits) == 2 * hashlib.new(algorithm).digest_size
