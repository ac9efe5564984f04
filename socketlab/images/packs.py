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
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.files import digest, from_json, write_whole
from socketlab.images.decode import placed_intrinsics
from socketlab.images.scan import SPLITS, Frame, Thumbnails, thumbnail

if TYPE_CHECKING:
    import torch

    from socketlab.images.paired_images import PairedImages

MANIFEST, STAMPS = "manifest.json", ".checked.json"
FORMAT, VERSION = "socketlab pack", 1

_AGAIN = "is damaged or missing: import the data set again"
_WRONG = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)
"""What JSON raises that is damaged, or well-formed but not as expected."""
_SPLIT = {
    "scenes": int, "file": str, "sha256": str, "domains": dict[str, list[int]],
    "counts": dict[str, dict[str, int]], "arrays": dict[str, dict[str, Any]],
}  # fmt: skip
_ARRAY = {"file": str, "shape": list[int], "dtype": str, "bytes": int, "sha256": str}
_MANIFEST = {
    "splits": dict[str, Any],
    "classes": list[str],
    "domains": list[str],
    "size": int,
    "left_out": int,
}


@dataclass(frozen=True)
class Pack:
    """An opened pack, its folder and manifest: nothing of an image is read before it is asked for."""

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
        """The scenes of a split that have all of these modalities, in the order of domain and name.

        The tensors are the files, mapped into memory: a batch reads its own rows from the disk or its cache,
        so that a set may be larger than the memory. Files whose size or time has changed since their digests
        were last compared are compared again. ``pairs`` has kinds, but no classes.

        Parameters
        ----------
        split : ``train``, ``test`` or ``pairs``.
        domain : one of ``domains``; None for all of them.
        modalities : None for all that the split has.

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
        known = {} if entries is None else _stamps(self.folder)
        if entries is None:
            parts = self.manifest["splits"].values()
            entries = [entry for part in parts for entry in (part, *part["arrays"].values())]
        compared = []
        for entry in entries:
            file = self.folder / entry["file"]
            if entry["file"] not in known or known[entry["file"]] != _size_and_time(file):
                if digest(file) != entry["sha256"]:
                    raise LabError(f"{file} was altered: import the data set again.")
                compared.append(entry["file"])
        stamp(self.folder, compared)

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
    folder = Path(os.path.expanduser(folder))
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if (manifest.get("format"), manifest.get("version")) == (FORMAT, VERSION):
            _require_manifest(manifest)
    except OSError:
        manifest = {}
    except _WRONG:
        raise LabError(f"{folder / MANIFEST} {_AGAIN}.") from None
    if manifest.get("format") != FORMAT:
        raise LabError(f"{folder} is no pack: make one with `socketlab import`.")
    if manifest.get("version") != VERSION:
        version = f"version {manifest.get('version')}, not {VERSION}"
        raise LabError(f"{folder} is a pack of {version}: import the data set again.")
    for entry in (one for part in manifest["splits"].values() for one in part["arrays"].values()):
        found = _size_and_time(folder / entry["file"])
        if found is None or found[0] != entry["bytes"]:
            raise LabError(f"{folder / entry['file']} {_AGAIN}.")
    return Pack(folder, manifest)


def _require_types(about: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Raise one of ``_WRONG`` where a field is missing or of another type."""
    for name, kind in kinds.items():
        from_json(kind, about[name])


def _require_manifest(manifest: dict[str, Any]) -> None:
    """Raise one of ``_WRONG`` where a manifest is not what a reader needs; files lie in the pack's folder."""
    _require_types(manifest, _MANIFEST)
    for split, part in manifest["splits"].items():
        _require_types(part, _SPLIT)
        for array in part["arrays"].values():
            _require_types(array, _ARRAY)
            _, _, _, _ = array["shape"]
        files = [one["file"] for one in (part, *part["arrays"].values())]
        ends = [end for start, stop in part["domains"].values() for end in (start, stop - start, stop)]
        plain = all(Path(file).name == file and "\\" not in file for file in files)
        if split not in SPLITS or not plain or not all(0 <= end <= part["scenes"] for end in ends):
            raise ValueError


def _require_scenes(scenes: dict[str, Any], part: dict[str, Any]) -> None:
    """Raise one of ``_WRONG`` where a list of scenes does not fit its entry in the manifest."""
    _require_types(scenes, {"names": list[str], "kinds": list[str], "intrinsics": list[list[float] | None]})
    lists = [scenes["names"], scenes["kinds"], scenes["intrinsics"], scenes.get("blocks") or scenes["names"]]
    if {len(one) for one in lists} != {part["scenes"]}:
        raise ValueError
    for modality, array in part["arrays"].items():
        rows = from_json(list[int] | None, scenes["rows"][modality]) or list(range(part["scenes"]))
        if len(rows) != array["shape"][0] or sorted(set(rows)) != rows or rows[-1] >= part["scenes"]:
            raise ValueError


def _size_and_time(file: Path) -> list[int] | None:
    """Of a file; None where there is none."""
    try:
        return [file.stat().st_size, file.stat().st_mtime_ns]
    except OSError:
        return None


def _stamps(folder: Path) -> dict[str, Any]:
    """File → its size and time when its digest was last compared."""
    try:
        return dict(json.loads((folder / STAMPS).read_bytes()))
    except (OSError, *_WRONG):
        return {}


def stamp(folder: Path, files: Sequence[str]) -> None:
    """Record size and time of files whose digests are right; not in a pack that cannot be written to."""
    if files:
        now = _stamps(folder) | {file: _size_and_time(folder / file) for file in files}
        with contextlib.suppress(LabError):
            write_whole(folder / STAMPS, json.dumps(now).encode())


# ------------------------------------------------------------------------ writing


class PackWriter:
    """The files of one split of a pack, which grow scene by scene."""

    def __init__(self, folder: Path, name: str, modalities: Sequence[str]) -> None:
        self.folder, self.name, self.modalities = folder, name, modalities
        self.frames: list[Frame] = []
        self.thumbnails: Thumbnails = {}
        self.files: dict[str, BinaryIO] = {}
        self.kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.rows: dict[str, list[int]] = {}

    def append(self, frame: Frame, images: dict[str, NDArray[Any]]) -> None:
        """Write the images of a scene, by modality."""
        for modality, image in images.items():
            if modality not in self.files:
                self.files[modality] = open(self.folder / self._file(modality), "xb")  # noqa: SIM115
                self.kinds[modality], self.rows[modality] = (image.dtype.str, image.shape), []
                self._write_header(modality)
            self.files[modality].write(image.tobytes())
            self.rows[modality].append(len(self.frames))
        first = next(modality for modality in self.modalities if modality in images)
        self.thumbnails.setdefault(first, []).append((frame.name, thumbnail(images[first])))
        self.frames.append(frame)

    def _file(self, modality: str) -> str:
        return f"{self.name}.{modality}.npy"

    def _write_header(self, modality: str) -> None:
        """Write the header for the rows so far; numpy pads it, so that its length stays the same."""
        (descr, shape), file = self.kinds[modality], self.files[modality]
        about = {"descr": descr, "fortran_order": False, "shape": (len(self.rows[modality]), *shape)}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, about)

    def close(self) -> None:
        """Complete the arrays and bring them to the disk."""
        for modality, file in self.files.items():
            with file:
                self._write_header(modality)
                file.flush()
                os.fsync(file.fileno())

    def describe(self, size: int, fit: str) -> dict[str, Any]:
        """Write the list of the scenes; returns the entry in the manifest."""
        frames, blocks = self.frames, dict[str, int]()
        numbers = [blocks.setdefault(frame.block or frame.name, len(blocks)) for frame in frames]
        places = [
            one.intrinsics and placed_intrinsics(one.intrinsics, *one.size, size, fit) for one in frames
        ]
        about = {
            "names": [frame.name for frame in frames],
            "kinds": [frame.kind for frame in frames],
            "blocks": numbers if len(blocks) < len(frames) else None,
            "rows": {m: mine if len(mine) < len(frames) else None for m, mine in self.rows.items()},
            "intrinsics": [one and [round(x, 4) for x in one] for one in places],
        }
        name, arrays, domains, counts = f"{self.name}.scenes.json", {}, {}, {}
        write_whole(self.folder / name, as_json(about))
        for modality in (one for one in self.modalities if one in self.files):
            file, (descr, shape) = self.folder / self._file(modality), self.kinds[modality]
            arrays[modality] = {
                "file": file.name, "shape": [len(self.rows[modality]), *shape], "dtype": str(np.dtype(descr)),
                "bytes": file.stat().st_size, "sha256": digest(file),
            }  # fmt: skip
        for domain in sorted({frame.domain for frame in frames}):
            mine = [i for i, frame in enumerate(frames) if frame.domain == domain]
            domains[domain] = [mine[0], mine[-1] + 1]
            counts[domain] = dict(sorted(Counter(frames[i].kind for i in mine).items()))
        return {
            "scenes": len(frames), "file": name, "sha256": digest(self.folder / name), "domains": domains,
            "counts": counts, "arrays": arrays,
        }  # fmt: skip


def as_json(value: Any) -> bytes:
    """JSON of a pack, as bytes."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"
