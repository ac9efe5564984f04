"""Writing a pack: every scene decoded once, by all cores, into files that appear when they are whole.

The work grows in a hidden folder beside the pack: arrays of their full length, and a journal with a line per
chunk of scenes, its digests and what could not be read. Whoever calls again after a kill, a full disk or a
damaged file goes on from there, and gets the same bytes as without.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from socketlab.errors import LabError
from socketlab.files import digest, write_whole
from socketlab.images.decode import FITS, Chunk, Done, inputs_of, pack_chunk, placed_intrinsics
from socketlab.images.packs import FORMAT, MANIFEST, VERSION, Pack, mapped, open_pack
from socketlab.images.parallel import cores, run_jobs
from socketlab.images.scan import SPLITS, Frame, Survey, place, readable

CHUNK = 64
"""Scenes that one job decodes; what a kill can cost each process."""
LARGEST = 4096
ON_BAD = ("stop", "skip")

Failure = tuple[int, str, str, str]
"""A scene that could not be decoded: its number, the modality, what is wrong, and why."""


@dataclass(frozen=True)
class _Array:
    """A file to be written: rows of one modality of one split; ``scenes`` are the numbers of its rows."""

    split: str
    modality: str
    channels: int
    dtype: np.dtype[Any]
    scenes: list[int]

    @property
    def name(self) -> str:
        return f"{self.split}.{self.modality}.npy"

    def header(self, size: int, rows: int | None = None) -> bytes:
        shape = (len(self.scenes) if rows is None else rows, self.channels, size, size)
        written = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        described = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(written, described)
        return written.getvalue()

    def row_bytes(self, size: int) -> int:
        return self.channels * size * size * self.dtype.itemsize

    def length(self, size: int) -> int:
        return len(self.header(size)) + len(self.scenes) * self.row_bytes(size)


@dataclass
class _Work:
    """An import under way: what is to be written, and the folder in which it grows."""

    survey: Survey
    out: Path
    size: int
    fit: str
    arrays: list[_Array]
    chunks: list[Chunk]

    @property
    def folder(self) -> Path:
        return self.out.with_name(f".{self.out.name}.unfinished")

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def moving(self) -> Path:
        """Where the arrays are brought together once all is decoded."""
        return self.folder / "moving"

    @property
    def ready(self) -> Path:
        """Where they all are."""
        return self.folder / "pack"


def write_pack(
    survey: Survey,
    out: str | Path,
    *,
    size: int | None = None,
    fit: str = "centre",
    on_bad: str = "stop",
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Pack:
    """Decode the scenes of a survey into a pack; the pack is there when it is whole, or not at all.

    The same survey gives the same bytes, whatever the number of processes, and whether or not the work was
    stopped on the way: the next call goes on where it was.

    Parameters
    ----------
    out : folder of the pack; must not exist yet.
    size : side in pixels; None for the set's own default.
    fit : ``centre`` cuts the middle square out, ``letterbox`` pads, ``stretch`` squeezes (as published).
    on_bad : ``stop`` when anything is wrong, or ``skip`` and count it.
    processes : None for one per core.
    progress : told (scenes done, scenes).
    say : told what is being gone on with.

    Raises
    ------
    LabError : problems and ``stop``; a full disk, a folder that cannot be written, a pack that exists.
    """
    out = Path(out).expanduser().absolute()
    size = survey.size if size is None else size
    require_settings(survey.root, out, size, fit, on_bad)
    if survey.problems and on_bad == "stop":
        raise LabError(
            f"{survey.left_out} scenes cannot be used ({survey.summary()}): put the files right, "
            'or leave them out with on_bad="skip" (--on-bad skip).'
        )
    work = _planned(survey, out, size, fit)
    try:
        with _locked(work):
            _prepare(work, say)
            decoded = work.moving.exists() or work.ready.exists()
            failed = _failures(_journalled(work)) if decoded else _decode_all(work, processes, progress)
            _require_none_failed(work, failed, on_bad)
            if not work.ready.exists():
                _gather_files(work, {scene for scene, *_ in failed})
            pack = _finish(work, failed, cores() if processes is None else processes)
        shutil.rmtree(work.folder, ignore_errors=True)
    except OSError as error:
        raise _full_or_forbidden(error, work) from error
    return pack


def require_settings(root: Path, out: Path, size: int | None, fit: str, on_bad: str) -> None:
    """A `LabError` when a pack of the set in ``root`` cannot be so, or not there; looks at no picture."""
    if on_bad not in ON_BAD:
        raise LabError(f"on_bad {on_bad!r} is unknown: choose stop or skip.")
    if fit not in FITS:
        raise LabError(f"fit {fit!r} is unknown: choose one of {', '.join(FITS)}.")
    if size is not None and not 1 <= size <= LARGEST:
        raise LabError(f"size {size} is out of range: choose 1 to {LARGEST} pixels.")
    if out.exists() or out.is_symlink():
        raise LabError(f"{out} exists already: choose another folder, or take it away.")
    if out.is_relative_to(root):
        raise LabError(f"{out} lies in the data set itself: choose a folder outside of it.")


def _planned(survey: Survey, out: Path, size: int, fit: str) -> _Work:
    """Which scene goes to which row of which file."""
    arrays: list[_Array] = []
    chunks: list[Chunk] = []
    for split in SPLITS:
        scenes = [i for i, frame in enumerate(survey.frames) if frame.split == split]
        mine: dict[str, _Array] = {}
        for modality in survey.modalities:
            having = [i for i in scenes if modality in survey.frames[i].pictures]
            if having:
                first = survey.frames[having[0]].pictures[modality]
                mine[modality] = _Array(split, modality, first.channels, first.dtype, having)
        arrays += mine.values()
        chunks += _chunked(survey.frames, scenes, mine, len(chunks), out, size, fit)
    return _Work(survey, out, size, fit, arrays, chunks)


def _chunked(
    frames: Sequence[Frame], scenes: list[int], arrays: dict[str, _Array], number: int,
    out: Path, size: int, fit: str,
) -> Iterator[Chunk]:  # fmt: skip
    folder = out.with_name(f".{out.name}.unfinished")
    written = dict.fromkeys(arrays, 0)
    for start in range(0, len(scenes), CHUNK):
        pictures = {i: frames[i].pictures for i in scenes[start : start + CHUNK]}
        count = Counter(modality for one in pictures.values() for modality in one)
        places = {}
        for modality in (name for name in arrays if count[name]):
            array = arrays[modality]
            offset = len(array.header(size)) + written[modality] * array.row_bytes(size)
            places[modality] = (folder / array.name, offset)
            written[modality] += count[modality]
        yield Chunk(number + start // CHUNK, pictures, places, size, fit)


@contextlib.contextmanager
def _locked(work: _Work) -> Iterator[None]:
    """Hold the folder of the work against a second import of the same name."""
    work.folder.mkdir(parents=True, exist_ok=True)
    with open(work.folder / "lock", "wb") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two imports of one name are not noticed there
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            busy = f"Another import is writing {work.out}: wait for it, or choose another folder."
            raise LabError(busy) from None
        yield


def _prepare(work: _Work, say: Callable[[str], None] | None) -> None:
    """Take up work begun earlier with the same files and settings; else reserve the disk for all of it."""
    identity = _identity(work)
    plan = work.folder / "plan.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(plan.read_bytes()) == identity:
            done = len(_journalled(work))
            if say is not None and done:
                say(f"going on with {work.out.name}: {done} of {len(work.chunks)} parts were written before")
            return
    for old in work.folder.iterdir():
        if old.name != "lock":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    needed = sum(array.length(work.size) for array in work.arrays)
    free = shutil.disk_usage(work.folder).free
    if needed > free:
        raise LabError(
            f"The pack needs {needed / 1e9:.2f} GB, but {work.out.parent} has {free / 1e9:.2f} GB free: "
            "free space, choose a smaller size, or another folder."
        )
    for array in work.arrays:
        _reserve(work.folder / array.name, array.header(work.size), array.length(work.size))
    write_whole(plan, json.dumps(identity).encode())


def _reserve(file: Path, header: bytes, length: int) -> None:
    """Make a file of its full length, so that a disk that is too small is noticed before the work."""
    with open(file, "wb") as opened:
        opened.write(header)
        opened.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, length)
        else:
            opened.truncate(length)


def _identity(work: _Work) -> dict[str, Any]:
    """What must be the same for work to be gone on with: settings, scenes and the names of their files.

    Whether a file was changed in between is looked at chunk by chunk.
    """
    import PIL

    seen = hashlib.sha256()
    for frame in work.survey.frames:
        told: list[Any] = [frame.name, frame.split]
        for modality, picture in frame.pictures.items():
            told += [modality, str(picture.path), picture.form, picture.bands, picture.white]
        seen.update(json.dumps(told).encode())
    settings = {"size": work.size, "fit": work.fit, "chunk": CHUNK, "version": VERSION}
    return settings | {"pillow": PIL.__version__, "scenes": seen.hexdigest()}


def _journalled(work: _Work) -> dict[int, Done]:
    """The chunks of which the journal says that they are done; a line cut short is not one."""
    done = {}
    with contextlib.suppress(FileNotFoundError):
        for line in work.journal.read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(line)
                failed = [tuple(bad) for bad in told["failed"]]
                one = Done(told["index"], failed, told["digests"], told["inputs"])
                done[one.index] = one
    return done


def _decode_all(
    work: _Work, processes: int | None, progress: Callable[[int, int], None] | None
) -> list[Failure]:
    """Decode what is not yet decoded; returns what could not be."""
    done = {index: one for index, one in _journalled(work).items() if _is_written(work, one)}
    left = [chunk for chunk in work.chunks if chunk.index not in done]
    scenes, count = len(work.survey.frames), sum(len(work.chunks[index].scenes) for index in done)
    with open(work.journal, "ab") as journal:
        journal.write(b"\n")  # ends a line that a kill cut short
        for one in run_jobs(pack_chunk, left, processes):
            journal.write(json.dumps(asdict(one)).encode() + b"\n")
            journal.flush()
            done[one.index] = one
            count += len(work.chunks[one.index].scenes)
            if progress is not None:
                progress(count, scenes)
    return _failures(done)


def _failures(done: dict[int, Done]) -> list[Failure]:
    return sorted(bad for one in done.values() for bad in one.failed)


def _is_written(work: _Work, done: Done) -> bool:
    """Whether a chunk is of the files as they are now, and its rows lie on the disk as they should."""
    if done.index >= len(work.chunks) or inputs_of(work.chunks[done.index]) != done.inputs:
        return False
    chunk = work.chunks[done.index]
    arrays = {array.name: array for array in work.arrays}
    for modality, (file, offset) in chunk.places.items():
        rows = sum(modality in pictures for pictures in chunk.scenes.values())
        try:
            with open(file, "rb") as opened:
                opened.seek(offset)
                data = opened.read(rows * arrays[file.name].row_bytes(work.size))
        except OSError:
            return False
        if hashlib.sha256(data).hexdigest() != done.digests.get(modality):
            return False
    return True


def _require_none_failed(work: _Work, failed: list[Failure], on_bad: str) -> None:
    if not failed:
        return
    scenes = {scene for scene, *_ in failed}
    if len(scenes) == len(work.survey.frames):
        raise LabError(f"No scene of {work.survey.root.name} could be decoded: {failed[0][3]}.")
    if on_bad == "stop":
        told = "; ".join(f"{one['where']}: {one['why']}" for one in _told(work, failed)[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise LabError(
            f"{len(failed)} pictures looked whole but cannot be decoded ({told}{more}): put them right, or "
            'leave them out with on_bad="skip" (--on-bad skip); the others are decoded and are kept.'
        )


def _told(work: _Work, failed: Iterable[Failure]) -> list[dict[str, str]]:
    found = []
    for scene, modality, what, why in failed:
        picture = work.survey.frames[scene].pictures[modality]
        found.append({"what": what, "where": place(picture.path, work.survey.root), "why": why})
    return found


def _gather_files(work: _Work, failed: set[int]) -> None:
    """Bring the whole arrays together, without the rows of scenes that failed.

    Every step can be killed and done again: copies are made first, then the folder, then files move.
    """
    for array in work.arrays:
        if failed & set(array.scenes):
            _copy_rows(work, array, failed)
    work.moving.mkdir(exist_ok=True)
    for array in work.arrays:
        copied = work.folder / f"{array.name}.kept"
        if copied.exists():
            os.replace(copied, work.moving / array.name)
        elif (work.folder / array.name).exists() and not failed & set(array.scenes):
            os.replace(work.folder / array.name, work.moving / array.name)
    os.replace(work.moving, work.ready)


def _copy_rows(work: _Work, array: _Array, failed: set[int]) -> None:
    source, target = work.folder / array.name, work.folder / f"{array.name}.kept"
    kept = [row for row, scene in enumerate(array.scenes) if scene not in failed]
    rows = mapped(source)
    with open(target.with_suffix(".copying"), "wb") as file:
        file.write(array.header(work.size, len(kept)))
        for start in range(0, len(kept), CHUNK):
            file.write(rows[kept[start : start + CHUNK]].tobytes())
    os.replace(target.with_suffix(".copying"), target)


def _finish(work: _Work, failed: list[Failure], threads: int) -> Pack:
    """Write the manifest into the gathered folder, and give it its name."""
    lost = {scene for scene, *_ in failed}
    splits = {}
    files = sorted(work.ready.glob("*.npy"))
    with ThreadPoolExecutor(threads) as pool:  # a digest leaves the interpreter to others
        digests = {file.name: found for file, found in zip(files, pool.map(digest, files), strict=True)}
    for split in SPLITS:
        scenes = [i for i, frame in enumerate(work.survey.frames) if frame.split == split and i not in lost]
        if scenes:
            splits[split] = _described(work, split, scenes, digests)
    survey = work.survey
    skipped = [{"what": one.what, "where": one.where, "why": one.why} for one in survey.problems]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": {"kind": survey.kind, "folder": readable(survey.root.name)},
        "protocol": survey.protocol,
        "size": work.size,
        "fit": work.fit,
        "classes": list(survey.classes),
        "domains": list(survey.domains),
        "splits": splits,
        "left_out": survey.left_out + len(lost),
        "skipped": skipped + _told(work, failed),
        "notes": list(survey.notes),
    }
    write_whole(work.ready / MANIFEST, _as_json(manifest))
    for file in sorted(work.ready.iterdir()):
        if file.suffix == ".npy":
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
    os.rename(work.ready, work.out)
    return open_pack(work.out)


def _described(work: _Work, split: str, scenes: list[int], digests: Mapping[str, str]) -> dict[str, Any]:
    """Write the list of the scenes of a split; returns its entry in the manifest."""
    frames = [work.survey.frames[i] for i in scenes]
    number = {scene: i for i, scene in enumerate(scenes)}
    rows: dict[str, list[int] | None] = {}
    arrays = {}
    for array in (one for one in work.arrays if one.split == split):
        having = [number[scene] for scene in array.scenes if scene in number]
        file = work.ready / array.name
        if not having:
            file.unlink(missing_ok=True)
            continue
        rows[array.modality] = None if len(having) == len(scenes) else having
        arrays[array.modality] = {
            "file": array.name,
            "shape": [len(having), array.channels, work.size, work.size],
            "dtype": str(array.dtype),
            "bytes": file.stat().st_size,
            "sha256": digests[array.name],
        }
    told = {
        "names": [frame.name for frame in frames],
        "kinds": [frame.kind for frame in frames],
        "rows": rows,
        "intrinsics": [_stored_intrinsics(work, frame) for frame in frames],
    }
    name = f"{split}.scenes.json"
    data = _as_json(told)
    write_whole(work.ready / name, data)
    domains, counts = {}, {}
    for domain in sorted({frame.domain for frame in frames}):
        mine = [i for i, frame in enumerate(frames) if frame.domain == domain]
        domains[domain] = [mine[0], mine[-1] + 1]
        counts[domain] = dict(sorted(Counter(frames[i].kind for i in mine).items()))
    return {
        "scenes": len(scenes), "file": name, "sha256": hashlib.sha256(data).hexdigest(),
        "domains": domains, "counts": counts, "arrays": arrays,
    }  # fmt: skip


def _stored_intrinsics(work: _Work, frame: Frame) -> list[float] | None:
    if frame.intrinsics is None:
        return None
    return [round(x, 4) for x in placed_intrinsics(frame.intrinsics, *frame.size, work.size, work.fit)]


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"


def _full_or_forbidden(error: OSError, work: _Work) -> LabError:
    """What the system refused, in a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        done = len(_journalled(work)) if work.folder.is_dir() else 0
        return LabError(
            f"The disk is full: {done} of {len(work.chunks)} parts of {work.out.name} are written and kept; "
            "free space, then run the same command again to go on."
        )
    culprit = error.filename or work.out
    return LabError(f"{culprit} cannot be read or written: {error.strerror or error}.")
