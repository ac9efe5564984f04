"""Packs: a data set decoded once into arrays that are mapped into memory, with a manifest.

=========================  ================================================================================
``manifest.json``          format, protocol, classes, counts, what was left out and why, digests
``<split>.scenes.json``    names, kinds, blocks and intrinsics of the scenes, ordered by domain and name
``<split>.<modality>.npy`` (N, C, S, S) uint8, or uint16 for depth in millimetres, 0 where missing
=========================  ================================================================================

Splits are ``train`` and ``test``, scenes of the task, and ``pairs``, task-irrelevant scenes of all domains.
A pack grows in a hidden folder beside its place, and takes its name when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.files import digest, exclusive, write_whole
from socketlab.images.decode import FITS, BadPicture, decode_all, placed_intrinsics
from socketlab.images.scan import (
    SPLITS,
    Frame,
    Problem,
    Survey,
    Thumbnails,
    counted,
    near_duplicates,
    place,
    readable,
    thumbnail,
)

if TYPE_CHECKING:
    import torch

    from socketlab.images.paired_images import PairedImages

MANIFEST, STAMPS = "manifest.json", ".checked.json"
FORMAT, VERSION = "socketlab pack", 1
ON_BAD = ("auto", "skip", "stop")
LARGEST = 4096

_AGAIN = "is damaged or missing: import the data set again"
_WRONG = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)
"""What JSON raises that is damaged, or well-formed but not as expected."""
_ARRAY = {"file": str, "shape": [int], "dtype": str, "bytes": int, "sha256": str}
_SPLIT = {
    "scenes": int, "file": str, "sha256": str, "domains": {"*": [int]}, "counts": {"*": {"*": int}},
    "arrays": {"*": _ARRAY},
}  # fmt: skip
_SHAPE = {"splits": {"*": _SPLIT}, "classes": [str], "domains": [str], "size": int, "left_out": int}


@dataclass(frozen=True)
class Pack:
    """An opened pack: nothing of an image is read before it is asked for.

    Parameters
    ----------
    folder : of the pack.
    manifest : its manifest.
    """

    folder: Path
    manifest: dict[str, Any]
    _scenes: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the task, in the order of the labels."""
        return tuple(self.manifest["classes"])

    @property
    def domains(self) -> tuple[str, ...]:
        """Sensors, or the one name of the set."""
        return tuple(self.manifest["domains"])

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.manifest["size"])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold scenes."""
        return tuple(self.manifest["splits"])

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """All modalities stored."""
        every = (split["arrays"] for split in self.manifest["splits"].values())
        return tuple(dict.fromkeys(modality for arrays in every for modality in arrays))

    def load(
        self, split: str, domain: str | None = None, modalities: Sequence[str] | None = None
    ) -> PairedImages:
        """The scenes of a split that have all of these modalities.

        The tensors are the files, mapped into memory: a batch reads its own rows from the disk or its cache,
        so that a set may be larger than the memory. One modality, or several of a split in which nothing is
        missing, is not copied. Files whose size or time has changed since their digests were last compared
        are compared again.

        Parameters
        ----------
        split : ``train``, ``test`` or ``pairs``.
        domain : one of ``domains``; None for all of them.
        modalities : None for all that the split has.

        Returns
        -------
        Scenes in the order of domain and name. ``pairs`` has kinds, but no classes.

        Raises
        ------
        LabError : the pack has no such split, domain or modality, or a file of it was altered.
        """
        import torch

        from socketlab.images.paired_images import PairedImages, index_images

        part, start, stop = self._range(split, domain)
        wanted = tuple(part["arrays"]) if modalities is None else tuple(modalities)
        for modality in wanted:
            if modality not in part["arrays"]:
                there = ", ".join(part["arrays"])
                raise LabError(f"{self.folder.name} has no {modality} images in {split}, only {there}.")
        self.verify([part["arrays"][modality] for modality in wanted])
        scenes = self._scenes_of(split)
        every = np.arange(part["scenes"])
        rows = {m: every if scenes["rows"][m] is None else np.array(scenes["rows"][m]) for m in wanted}
        common = every[start:stop]
        for mine in rows.values():
            common = np.intersect1d(common, mine)
        images = {}
        for modality, mine in rows.items():
            chosen, stored = np.searchsorted(mine, common), self._array(part["arrays"][modality])
            if len(chosen) and chosen[-1] - chosen[0] + 1 == len(chosen):
                images[modality] = stored[int(chosen[0]) : int(chosen[-1]) + 1]
            else:
                images[modality] = index_images(stored, torch.from_numpy(chosen))
        blocks = scenes.get("blocks")
        return PairedImages(
            images,
            names=tuple(scenes["names"][i] for i in common),
            kinds=tuple(scenes["kinds"][i] for i in common),
            classes=() if split == "pairs" else self.classes,
            blocks=tuple(f"{split} {blocks[i]}" for i in common) if blocks else (),
        )

    def intrinsics(self, split: str, domain: str | None = None) -> list[tuple[float, ...] | None]:
        """f_x, f_y, c_x, c_y in stored pixels of every scene of a split; None where the set has none."""
        _, start, stop = self._range(split, domain)
        found = self._scenes_of(split)["intrinsics"]
        return [None if one is None else tuple(one) for one in found[start:stop]]

    def verify(self, entries: Sequence[dict[str, Any]] | None = None) -> None:
        """Compare files with their digests; a LabError names one that was altered.

        Parameters
        ----------
        entries : of the manifest, to be compared if their size or time has changed since the last time;
            None compares all files of the pack, whatever their times.
        """
        stamps = _read_stamps(self.folder) if entries is not None else {}
        if entries is None:
            parts = self.manifest["splits"].values()
            entries = [entry for part in parts for entry in (part, *part["arrays"].values())]
        fresh = {}
        for entry in entries:
            file = self.folder / entry["file"]
            stamp = _stamp(file)
            if stamp is None or stamps.get(entry["file"]) != stamp:
                if digest(file) != entry["sha256"]:
                    raise LabError(f"{file} was altered: import the data set again.")
                fresh[entry["file"]] = stamp
        if fresh:
            _write_stamps(self.folder, _read_stamps(self.folder) | fresh)

    def summary(self) -> str:
        """One line per split: how many scenes of how many classes, in which modalities."""
        side = f"{self.size} × {self.size} pixels"
        lines = [f"pack {self.folder.name}: {side}, {len(self.classes)} classes of the task"]
        for name, part in self.manifest["splits"].items():
            kinds = {kind for counts in part["counts"].values() for kind in counts}
            stored = ", ".join(part["arrays"])
            lines.append(f"  {name:<6} {part['scenes']:>6} scenes, {len(kinds)} kinds, {stored}")
        if self.manifest["left_out"]:
            lines.append(f"  {self.manifest['left_out']} scenes were left out; {MANIFEST} lists the reasons")
        return "\n".join(lines)

    def _range(self, split: str, domain: str | None) -> tuple[dict[str, Any], int, int]:
        """The entry of a split, and where the scenes of a domain begin and end."""
        if split not in self.splits:
            raise LabError(f"{self.folder.name} has no split {split!r}: it has {', '.join(self.splits)}.")
        part = self.manifest["splits"][split]
        if domain is not None and domain not in part["domains"]:
            known = ", ".join(part["domains"])
            raise LabError(f"{self.folder.name} has no domain {domain!r} in {split}: it has {known}.")
        start, stop = (0, part["scenes"]) if domain is None else part["domains"][domain]
        return part, start, stop

    def _scenes_of(self, split: str) -> dict[str, Any]:
        """The list of the scenes of a split: small, so its digest is compared at each opening."""
        if split not in self._scenes:
            part = self.manifest["splits"][split]
            file = self.folder / part["file"]
            if digest(file) != part["sha256"]:
                raise LabError(f"{file} was altered: import the data set again.")
            try:
                scenes = json.loads(file.read_bytes())
                _require_scenes(scenes, part)
            except (OSError, *_WRONG):
                raise LabError(f"{file} {_AGAIN}.") from None
            self._scenes[split] = scenes
        return self._scenes[split]

    def _array(self, described: dict[str, Any]) -> torch.Tensor:
        """An array that reads from the disk; what is written into it does not change the file."""
        import torch

        file = self.folder / described["file"]
        try:
            try:
                array = np.load(file, mmap_mode="c", allow_pickle=False)
            except (OSError, MemoryError):  # some systems refuse that for a file larger than the memory
                array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            raise LabError(f"{file} {_AGAIN}.") from None
        if list(array.shape) != described["shape"] or str(array.dtype) != described["dtype"]:
            raise LabError(f"{file} {_AGAIN}.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")
            return torch.from_numpy(array)


def open_pack(folder: str | Path) -> Pack:
    """Open a pack: reads its manifest, and compares the lengths of its files.

    Raises
    ------
    LabError : no pack, one of another version, or a file is missing or of another length.
    """
    folder = Path(folder).expanduser()
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        format_, version = (manifest.get(name) for name in ("format", "version"))
    except OSError:
        format_ = None
    except _WRONG:
        raise LabError(f"{folder / MANIFEST} {_AGAIN}.") from None
    if format_ != FORMAT:
        raise LabError(f"{folder} is no pack: make one with `socketlab import`.")
    if version != VERSION:
        raise LabError(f"{folder} is a pack of version {version}, not {VERSION}: import the data set again.")
    try:
        _require_manifest(manifest)
    except _WRONG:
        raise LabError(f"{folder / MANIFEST} {_AGAIN}.") from None
    for entry in (one for part in manifest["splits"].values() for one in part["arrays"].values()):
        stamp = _stamp(folder / entry["file"])
        if stamp is None or stamp[0] != entry["bytes"]:
            raise LabError(f"{folder / entry['file']} {_AGAIN}.")
    return Pack(folder, manifest)


def _require_shape(value: Any, shape: Any) -> None:
    """Raise one of ``_WRONG`` where JSON has another shape: ``*`` is any name, ``[kind]`` a list."""
    if isinstance(shape, dict):
        for name in value if "*" in shape else shape:
            _require_shape(value[name], shape.get("*", shape.get(name)))
    elif isinstance(shape, list):
        for one in value if type(value) is list else [None]:
            _require_shape(one, shape[0])
    elif type(value) is not shape:
        raise TypeError


def _require_manifest(manifest: dict[str, Any]) -> None:
    """Raise one of ``_WRONG`` where a manifest is not what a reader needs; files lie in the pack's folder."""
    _require_shape(manifest, _SHAPE)
    for split, part in manifest["splits"].items():
        files = [one["file"] for one in (part, *part["arrays"].values())]
        ends = [end for start, stop in part["domains"].values() for end in (start, stop - start, stop)]
        plain = all(Path(file).name == file and "\\" not in file for file in files)
        if split not in SPLITS or not plain or not all(0 <= end <= part["scenes"] for end in ends):
            raise ValueError


def _require_scenes(scenes: dict[str, Any], part: dict[str, Any]) -> None:
    """Raise one of ``_WRONG`` where a list of scenes does not fit its entry in the manifest."""
    _require_shape(scenes, {"names": [str], "kinds": [str]})
    lists = [scenes["names"], scenes["kinds"], scenes["intrinsics"], scenes.get("blocks") or scenes["names"]]
    if {len(one) for one in lists} != {part["scenes"]}:
        raise ValueError
    for modality, array in part["arrays"].items():
        rows = scenes["rows"][modality]
        every = list(range(part["scenes"])) if rows is None else rows
        if len(every) != array["shape"][0] or sorted(set(every)) != every or every[-1] >= part["scenes"]:
            raise ValueError


def _stamp(file: Path) -> list[int] | None:
    """Size and time of a file; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _read_stamps(folder: Path) -> dict[str, Any]:
    """File → its stamp when its digest was last compared."""
    try:
        return dict(json.loads((folder / STAMPS).read_bytes()))
    except (OSError, *_WRONG):
        return {}


def _write_stamps(folder: Path, stamps: dict[str, Any]) -> None:
    with contextlib.suppress(LabError):  # a pack that cannot be written to is compared again
        write_whole(folder / STAMPS, json.dumps(stamps).encode())


# ------------------------------------------------------------------------ writing


def write_pack(
    survey: Survey,
    out: str | Path,
    *,
    size: int | None = None,
    fit: str = "centre",
    on_bad: str = "auto",
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """Decode the scenes of a survey into a pack; the pack is there when it is whole, or not at all.

    The same survey gives the same bytes, whatever the number of processes.

    Parameters
    ----------
    out : folder of the pack; must not exist yet.
    size : side in pixels (default: the set's own).
    fit : ``centre`` cuts the middle square out, ``letterbox`` pads, ``stretch`` squeezes (as published).
    on_bad : ``auto`` leaves out and counts the scenes that cannot be used, unless they are more than half;
        ``skip`` however many they are; ``stop`` raises at a single one.
    processes : default: one per core.
    progress : called with (scenes done, scenes).

    Raises
    ------
    LabError : too many problems; a full disk, a folder that cannot be written, a pack that exists.
    """
    out = Path(out).expanduser().absolute()
    size = survey.size if size is None else size
    require_settings(survey.root, out, size, fit, on_bad, processes)
    _require_few(survey, [], on_bad)
    outer = out.with_name(f".{out.name}.unfinished")
    try:
        with exclusive(outer):
            folder = outer / "pack"
            try:
                shutil.rmtree(folder, ignore_errors=True)  # left by a kill
                folder.mkdir()
                _write_files(folder, survey, size, fit, on_bad, processes, progress)
                os.rename(folder, out)
            finally:
                shutil.rmtree(outer, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LabError(f"The disk is full: {out} was not written; free space, then retry.") from error
        culprit, why = error.filename or out, error.strerror or error
        raise LabError(f"{culprit} cannot be read or written: {why}.") from error
    return open_pack(out)


def require_settings(
    root: Path, out: Path, size: int | None, fit: str, on_bad: str, processes: int | None = None
) -> None:
    """A `LabError` when a pack of the set in ``root`` cannot be so, or not there; looks at no picture."""
    if on_bad not in ON_BAD:
        raise LabError(f"on_bad {on_bad!r} is unknown: choose one of {', '.join(ON_BAD)}.")
    if fit not in FITS:
        raise LabError(f"fit {fit!r} is unknown: choose one of {', '.join(FITS)}.")
    if size is not None and not 1 <= size <= LARGEST:
        raise LabError(f"size {size} is out of range: choose 1 to {LARGEST} pixels.")
    if processes is not None and processes < 1:
        raise LabError(f"{processes} processes cannot work: choose 1 or more.")
    root, out = (Path(os.path.realpath(one.expanduser())) for one in (root, out))
    if os.path.lexists(out):
        raise LabError(f"{out} exists already: choose another folder, or take it away.")
    if out.is_relative_to(root):
        raise LabError(f"{out} lies in the data set itself: choose a folder outside of it.")


def _require_few(survey: Survey, failed: Sequence[Problem], on_bad: str) -> None:
    """A `LabError` when more scenes are lost than ``on_bad`` allows."""
    lost, every = survey.left_out + len(failed), len(survey.frames) + survey.left_out
    problems = [*survey.problems, *failed]
    shown = "; ".join(f"{one.where}: {one.why}" for one in problems[:3])
    if len(failed) == len(survey.frames):
        raise LabError(f"No scene of {survey.root.name} could be decoded: {shown}.")
    if {"auto": 2 * lost > every, "stop": bool(problems), "skip": False}[on_bad]:
        raise LabError(
            f"{lost} of {every} scenes cannot be used ({counted(problems)}; {shown}): put the files right, "
            'or leave them out with on_bad="skip" (--on-bad skip).'
        )


def _write_files(
    folder: Path,
    survey: Survey,
    size: int,
    fit: str,
    on_bad: str,
    processes: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """All files of a pack."""
    pictures = [one for frame in survey.frames for one in frame.pictures.values()]
    needed = sum(one.channels * size * size * one.dtype.itemsize for one in pictures)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LabError(
            f"The pack needs {needed / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB free: free space, "
            "choose a smaller size, or another folder."
        )
    scenes = [frame.pictures for frame in survey.frames]
    images = decode_all(scenes, size, fit, processes, progress)
    failed: list[Problem] = []
    splits: dict[str, Any] = {}
    thumbnails: dict[str, Thumbnails] = {}
    for split in SPLITS:
        kept: list[Frame] = []
        arrays, thumbnails[split] = _write_images(folder, survey, split, images, kept, failed)
        if kept:
            splits[split] = _describe(folder, split, kept, arrays, size, fit)
    _require_few(survey, failed, on_bad)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": {"kind": survey.kind, "folder": readable(survey.root.name)},
        "protocol": survey.protocol,
        "size": size,
        "fit": fit,
        "classes": list(survey.classes),
        "domains": list(survey.domains),
        "splits": splits,
        "left_out": survey.left_out + len(failed),
        "skipped": [asdict(problem) for problem in (*survey.problems, *failed)],
        "ranges": list(survey.ranges),
        "notes": [*survey.notes, *near_duplicates(thumbnails["train"], thumbnails["test"])],
    }
    write_whole(folder / MANIFEST, _as_json(manifest))
    names = [one["file"] for part in splits.values() for one in part["arrays"].values()]
    _write_stamps(folder, {name: _stamp(folder / name) for name in names})


@dataclass
class _Array:
    """A .npy file that grows row by row; ``scenes`` are the numbers of its rows."""

    file: BinaryIO
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scenes: list[int] = field(default_factory=list)

    def write_header(self) -> None:
        """Write the header for the rows so far; numpy pads it, so that its length stays the same."""
        about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, about | {"shape": (len(self.scenes), *self.shape)})


def _write_images(
    folder: Path,
    survey: Survey,
    split: str,
    images: Iterator[dict[str, NDArray[Any]] | BadPicture],
    kept: list[Frame],
    failed: list[Problem],
) -> tuple[dict[str, _Array], Thumbnails]:
    """The arrays of a split, one scene after the other; fills ``kept`` and ``failed``."""
    arrays: dict[str, _Array] = {}
    thumbnails: Thumbnails = {}
    with contextlib.ExitStack() as files:
        for frame in (one for one in survey.frames if one.split == split):
            found = next(images)
            if isinstance(found, BadPicture):
                where = place(found.path or frame.name, survey.root)
                failed.append(Problem(found.what, where, readable(found.why)))
                continue
            for modality, row in found.items():
                if modality not in arrays:
                    file = files.enter_context(open(folder / f"{split}.{modality}.npy", "xb"))
                    arrays[modality] = _Array(file, row.dtype, row.shape)
                    arrays[modality].write_header()
                arrays[modality].file.write(row.tobytes())
                arrays[modality].scenes.append(len(kept))
            modality = next(one for one in survey.modalities if one in found)
            thumbnails.setdefault(modality, []).append((frame.name, thumbnail(found[modality])))
            kept.append(frame)
        for array in arrays.values():
            array.write_header()
            array.file.flush()
            os.fsync(array.file.fileno())
    return {one: arrays[one] for one in survey.modalities if one in arrays}, thumbnails


def _describe(
    folder: Path, split: str, frames: list[Frame], arrays: dict[str, _Array], size: int, fit: str
) -> dict[str, Any]:
    """Write the list of the scenes of a split; returns its entry in the manifest."""
    blocks: dict[str, int] = {}
    numbers = [blocks.setdefault(frame.block or frame.name, len(blocks)) for frame in frames]
    places = [
        frame.intrinsics and placed_intrinsics(frame.intrinsics, *frame.size, size, fit) for frame in frames
    ]
    about = {
        "names": [frame.name for frame in frames],
        "kinds": [frame.kind for frame in frames],
        "blocks": numbers if len(blocks) < len(frames) else None,
        "rows": {m: one.scenes if len(one.scenes) < len(frames) else None for m, one in arrays.items()},
        "intrinsics": [one and [round(x, 4) for x in one] for one in places],
    }
    name, data = f"{split}.scenes.json", _as_json(about)
    write_whole(folder / name, data)
    described, domains, counts = {}, {}, {}
    for modality, array in arrays.items():
        file = folder / f"{split}.{modality}.npy"
        described[modality] = {
            "file": file.name,
            "shape": [len(array.scenes), *array.shape],
            "dtype": str(array.dtype),
            "bytes": file.stat().st_size,
            "sha256": digest(file),
        }
    for domain in sorted({frame.domain for frame in frames}):
        mine = [i for i, frame in enumerate(frames) if frame.domain == domain]
        domains[domain] = [mine[0], mine[-1] + 1]
        counts[domain] = dict(sorted(Counter(frames[i].kind for i in mine).items()))
    return {
        "scenes": len(frames), "file": name, "sha256": hashlib.sha256(data).hexdigest(),
        "domains": domains, "counts": counts, "arrays": described,
    }  # fmt: skip


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"
