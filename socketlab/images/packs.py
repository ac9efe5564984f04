"""Packs: a data set decoded once into arrays that are mapped into memory, with a manifest.

=========================  ================================================================================
``manifest.json``          format, protocol, classes, counts, what was left out and why, digests
``<split>.scenes.json``    names, kinds and intrinsics of the scenes, ordered by domain and name
``<split>.<modality>.npy`` (N, C, S, S) uint8, or uint16 for depth in millimetres, 0 where missing
=========================  ================================================================================

Splits are ``train`` and ``test``, scenes of the task, and ``pairs``, task-irrelevant scenes of all domains.
A pack appears under its name when it is whole; until then the work lies in a hidden folder beside it, from
which the next call goes on.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from socketlab.errors import LabError
from socketlab.files import digest

if TYPE_CHECKING:
    from socketlab.images.paired_images import PairedImages

MANIFEST = "manifest.json"
FORMAT, VERSION = "socketlab pack", 1
_FIELDS = {"splits": dict, "classes": list, "domains": list, "size": int, "left_out": int}


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
        missing, is not copied.

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

        part = self._part(split)
        start, stop = self._range(part, split, domain)
        wanted = tuple(part["arrays"]) if modalities is None else tuple(modalities)
        for modality in wanted:
            if modality not in part["arrays"]:
                there = ", ".join(part["arrays"])
                raise LabError(f"{self.folder.name} has no {modality} images in {split}, only {there}.")
        scenes = self._scenes_of(split)
        lists = {m: self._rows(scenes, m, start, stop) for m in wanted}
        common = sorted(set.intersection(*(set(rows) for _, rows in lists.values()))) if lists else []
        images = {}
        for modality, (first, rows) in lists.items():
            stored = self._array(split, modality)
            if len(rows) == len(common):
                images[modality] = stored[first : first + len(rows)]
            else:
                places = {scene: first + i for i, scene in enumerate(rows)}
                chosen = torch.tensor([places[scene] for scene in common], dtype=torch.int64)
                images[modality] = index_images(stored, chosen)
        return PairedImages(
            images,
            names=tuple(scenes["names"][i] for i in common),
            kinds=tuple(scenes["kinds"][i] for i in common),
            classes=() if split == "pairs" else self.classes,
        )

    def intrinsics(self, split: str, domain: str | None = None) -> list[tuple[float, ...] | None]:
        """f_x, f_y, c_x, c_y in stored pixels of every scene of a split; None where the set does not tell."""
        start, stop = self._range(self._part(split), split, domain)
        found = self._scenes_of(split)["intrinsics"]
        return [None if one is None else tuple(one) for one in found[start:stop]]

    def verify(self) -> None:
        """Compare every file with its digest; a LabError names the one that was altered."""
        for name, part in self.manifest["splits"].items():
            entries = [(part["file"], part["sha256"])]
            entries += [(array["file"], array["sha256"]) for array in part["arrays"].values()]
            for file, expected in entries:
                if digest(self.folder / file) != expected:
                    raise LabError(f"{self.folder / file} ({name}) was altered: import the data set again.")

    def summary(self) -> str:
        """One line per split: how many scenes of how many classes, in which modalities."""
        side = f"{self.size} × {self.size} pixels"
        lines = [f"pack {self.folder.name}: {side}, {len(self.classes)} classes of the task"]
        for name, part in self.manifest["splits"].items():
            kinds = {kind for counts in part["counts"].values() for kind in counts}
            stored = ", ".join(part["arrays"])
            lines.append(f"  {name:<6} {part['scenes']:>6} scenes, {len(kinds)} kinds, {stored}")
        if self.manifest["left_out"]:
            lines.append(f"  {self.manifest['left_out']} scenes were left out; {MANIFEST} says why")
        return "\n".join(lines)

    def _part(self, split: str) -> dict[str, Any]:
        if split not in self.manifest["splits"]:
            raise LabError(f"{self.folder.name} has no split {split!r}: it has {', '.join(self.splits)}.")
        return dict(self.manifest["splits"][split])

    def _range(self, part: dict[str, Any], split: str, domain: str | None) -> tuple[int, int]:
        if domain is None:
            return 0, part["scenes"]
        if domain not in part["domains"]:
            known = ", ".join(part["domains"])
            raise LabError(f"{self.folder.name} has no domain {domain!r} in {split}: it has {known}.")
        start, stop = part["domains"][domain]
        return start, stop

    def _scenes_of(self, split: str) -> dict[str, Any]:
        if split not in self._scenes:
            part = self.manifest["splits"][split]
            file = self.folder / part["file"]
            try:
                data = file.read_bytes()
            except OSError:
                raise LabError(f"{file} is damaged or missing: import the data set again.") from None
            if hashlib.sha256(data).hexdigest() != part["sha256"]:  # a list of names and rows: small
                raise LabError(f"{file} was altered: import the data set again.")
            self._scenes[split] = json.loads(data)
        return self._scenes[split]

    @staticmethod
    def _rows(scenes: dict[str, Any], modality: str, start: int, stop: int) -> tuple[int, Sequence[int]]:
        """First row of a modality's array, and the scenes of its rows, within a range of scenes."""
        rows = scenes["rows"].get(modality)
        if rows is None:
            return start, range(start, stop)
        first, last = bisect.bisect_left(rows, start), bisect.bisect_left(rows, stop)
        return first, rows[first:last]

    def _array(self, split: str, modality: str) -> Any:
        """The array of a file as a tensor that reads from the disk."""
        import torch

        described = self.manifest["splits"][split]["arrays"][modality]
        file = self.folder / described["file"]
        try:
            array = mapped(file)
        except (OSError, ValueError):
            raise LabError(f"{file} is damaged or missing: import the data set again.") from None
        if list(array.shape) != described["shape"] or str(array.dtype) != described["dtype"]:
            raise LabError(f"{file} is not what {MANIFEST} says: import the data set again.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")
            return torch.from_numpy(array)


def mapped(file: Path) -> np.ndarray[Any, Any]:
    """A .npy file mapped so that writing into the array changes neither file nor other readers.

    Where the system refuses that for a file larger than its memory, the array is read-only.
    """
    try:
        return np.load(file, mmap_mode="c", allow_pickle=False)
    except (OSError, MemoryError):
        return np.load(file, mmap_mode="r", allow_pickle=False)


def open_pack(folder: str | Path) -> Pack:
    """Open a pack: reads its manifest, and compares the lengths of its files.

    Raises
    ------
    LabError : no pack, one of another version, or a file is missing or of another length.
    """
    folder = Path(folder).expanduser()
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except OSError:
        raise LabError(f"{folder} is no pack: make one with `socketlab import`.") from None
    except ValueError:
        raise LabError(f"{folder / MANIFEST} is damaged: import the data set again.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise LabError(f"{folder} is no pack: make one with `socketlab import`.")
    if manifest.get("version") != VERSION:
        version = manifest.get("version")
        raise LabError(f"{folder} is a pack of version {version}, not {VERSION}: import the data set again.")
    try:
        if any(type(manifest[name]) is not kind for name, kind in _FIELDS.items()):
            raise TypeError
        files = [
            (folder / array["file"], array["bytes"], array["shape"], array["dtype"], part["sha256"])
            for part in manifest["splits"].values()
            for array in part["arrays"].values()
        ]
        pack = Pack(folder, manifest)
        pack.summary()
    except (KeyError, TypeError, AttributeError):
        raise LabError(f"{folder / MANIFEST} is damaged: import the data set again.") from None
    for file, length, *_ in files:
        if not file.is_file() or file.stat().st_size != length:
            raise LabError(f"{file} is damaged or missing: import the data set again.")
    return pack
