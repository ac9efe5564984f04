"""Downloads of data sets that have a direct link: on request only, resumable, verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import shutil
import ssl
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socketlab.errors import LabError
from socketlab.files import write_whole

PIECE = 1 << 20
TRIES = 5
"""Times that a broken connection is taken up again before it is left to the reader."""
SECONDS = 30.0
"""How long a server may say nothing."""


_BROKEN = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    TimeoutError,
    ConnectionError,
)


@dataclass(frozen=True)
class Download:
    """An archive that can be fetched.

    Parameters
    ----------
    url : of a zip file.
    size : in bytes; None where it is not known.
    digest : ``algorithm:hexadecimal digits``; None where nobody publishes one, so that the digest of the
        first download is recorded and later ones are compared with it.
    terms : what to know before it is used.
    """

    url: str
    size: int | None = None
    digest: str | None = None
    terms: str = ""

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[-1].partition("?")[0]


DOWNLOADS = {
    "rgbnir": Download(
        "https://ivrlwww.epfl.ch/supplementary_material/cvpr11/nirscene1.zip",
        size=952_431_486,
        terms="for research; cite Brown and Süsstrunk, CVPR 2011",
    ),
    "eurosat": Download(
        "https://zenodo.org/records/7711810/files/EuroSAT_MS.zip",
        size=2_065_402_329,
        digest="md5:091174add3c8e680a49244acf185b9f0",
        terms="MIT licence; cite Helber et al., 2019",
    ),
    "sunrgbd": Download(
        "https://rgbd.cs.princeton.edu/data/SUNRGBD.zip",
        terms="about 7 GB; for research; cite Song et al., CVPR 2015",
    ),
}
"""Kind of data set → where it is fetched from. Sizes and digests as published or served in 2026."""


def fetch(
    kind: str,
    cache: str | Path | None = None,
    *,
    download: Download | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fetch a data set and unpack it; what is there already is verified and used.

    A download that stopped goes on where it was, now or at the next call.

    Parameters
    ----------
    kind : a name in ``DOWNLOADS``.
    cache : folder to keep it in; None for ``downloads`` in `cache.cache_folder`.
    download : where it is, instead of the entry in ``DOWNLOADS``.
    progress : told (bytes there, bytes in all; 0 where the server does not tell).

    Returns
    -------
    The unpacked folder, ready for `importers.survey`.

    Raises
    ------
    LabError : no direct link; no connection; the file is not the expected one; a full disk.
    """
    if download is None:
        if kind not in DOWNLOADS:
            raise LabError(
                f"{kind} has no direct link: download it by hand and import the folder; "
                f"those with one are {', '.join(DOWNLOADS)}."
            )
        download = DOWNLOADS[kind]
    folder = (_cache() if cache is None else Path(cache).expanduser()) / kind
    archive, unpacked = folder / download.name, folder / Path(download.name).stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if unpacked.is_dir():
            return unpacked
        if not archive.is_file():
            _download(download, archive, progress)
        _verify(download, archive)
        _unpack(archive, unpacked)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LabError(
                f"The disk is full: what is fetched of {download.name} is kept in {folder}; free space, "
                "or set SOCKETLAB_CACHE to another folder, then run it again."
            ) from error
        raise LabError(f"{error.filename or folder} cannot be written: {error.strerror or error}.") from error
    return unpacked


def _cache() -> Path:
    from socketlab.cache import cache_folder

    return cache_folder() / "downloads"


def _download(download: Download, archive: Path, progress: Callable[[int, int], None] | None) -> None:
    """Bring the archive to its name, over as many connections as that takes."""
    part = archive.with_name(f"{archive.name}.part")
    why = ""
    for _ in range(TRIES):
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _receive(download, part, progress)
        except _BROKEN as error:
            why = _told(error)
        else:
            there = part.stat().st_size
            if total is None or there == total:
                os.replace(part, archive)
                return
            if there > total:
                part.unlink()
            why = f"it ended after {there:,} of {total:,} bytes"
        if not part.exists() or part.stat().st_size <= before:
            break
    kept = part.stat().st_size if part.exists() else 0
    raise LabError(
        f"{download.url} could not be fetched ({why}): check the connection and run it again, {kept:,} bytes "
        f"are kept; or download it by hand to {archive}."
    )


def _receive(download: Download, part: Path, progress: Callable[[int, int], None] | None) -> int | None:
    """Append what a server sends; returns the length of the whole file, where that is known."""
    have = part.stat().st_size if part.exists() else 0
    tag_file = part.with_name(f"{part.name}.tag")
    headers = {"User-Agent": "socketlab", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        with contextlib.suppress(OSError):
            headers["If-Range"] = tag_file.read_text()  # another file under that name is sent from its start
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(download.url, headers=headers), timeout=SECONDS
        )
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            told = str(error.headers.get("Content-Range", "")).rpartition("/")[2]
            if told.isdigit() and int(told) == have:
                return have
            part.unlink()
        raise
    with answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT and _begins_at(answer, have)
        if not goes_on:
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if tag and not tag.startswith("W/"):
            tag_file.write_text(tag)
        else:
            tag_file.unlink(missing_ok=True)
        with open(part, "ab" if goes_on else "wb") as file:
            while piece := answer.read(PIECE):
                file.write(piece)
                have += len(piece)
                if progress is not None:
                    progress(have, total or 0)
    return total


def _begins_at(answer: Any, have: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _told(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {getattr(error.reason, 'strerror', None) or error.reason}"
    return f"the connection broke: {type(error).__name__}"


def _verify(download: Download, archive: Path) -> None:
    """Compare size and digest with the published ones, else the digest with that of the first download."""
    size = archive.stat().st_size
    if download.size is not None and size != download.size:
        raise LabError(
            f"{archive} has {size:,} bytes, not {download.size:,}: take it away and fetch it again."
        )
    record = archive.with_name(f"{archive.name}.json")
    expected = download.digest
    if expected is None and record.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            expected = str(json.loads(record.read_bytes())["digest"])
    algorithm = expected.partition(":")[0] if expected is not None else "sha256"
    with open(archive, "rb") as file:
        found = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    if expected is not None and found != expected:
        raise LabError(f"{archive} is not the expected file ({found}): take it away and fetch it again.")
    write_whole(record, json.dumps({"url": download.url, "size": size, "digest": found}, indent=1).encode())


def _unpack(archive: Path, unpacked: Path) -> None:
    """Unpack an archive whole or not at all, and nothing outside of its folder."""
    growing = unpacked.with_name(f".{unpacked.name}.unfinished")
    shutil.rmtree(growing, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            needed, free = (
                sum(one.file_size for one in opened.infolist()),
                shutil.disk_usage(unpacked.parent).free,
            )
            if needed > free:
                raise LabError(
                    f"{archive.name} needs {needed / 1e9:.1f} GB unpacked, but {unpacked.parent} has "
                    f"{free / 1e9:.1f} GB free: free space, or set SOCKETLAB_CACHE to another folder."
                )
            opened.extractall(growing)  # leaves out ".." and roots of names
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        shutil.rmtree(growing, ignore_errors=True)
        raise LabError(f"{archive} is damaged ({error}): take it away and fetch it again.") from error
    os.replace(growing, unpacked)
