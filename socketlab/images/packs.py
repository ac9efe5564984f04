"""Packs: a data set decoded once into ``<split>.<modality>.npy``, mapped into memory, with a manifest.

Arrays are (N, C, S, S) uint8, or uint16 for depth in millimetres, 0 where missing. ``<split>.scenes.json``
has names, kinds, blocks and intrinsics, ordered by domain and name. Splits are ``train`` and ``test``, scenes
of the task, and ``pairs``, task-irrelevant scenes of all domains.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from socketlab.errors import LabError, require_choice
from socketlab.files import as_json, digest, from_json, write_whole
from socketlab.images.decode import placed_focal
from socketlab.images.scan import Frame

if TYPE_CHECKING:
    import torch

    from socketlab.images.paired_images import PairedImages

MANIFEST = "manifest.json"
FORMAT, VERSION = "socketlab pack", 1
_AGAIN = "is damaged or missing: import the data set again."


@dataclass(frozen=True)
class Pack:
    """An opened pack: nothing of an image is read before it is asked for."""

    folder: Path
    manifest: dict[str, Any]
    classes: tuple[str, ...]  # of the task, in the order of the labels
    domains: tuple[str, ...]  # sensors, or the one name of the set
    size: int  # side of the images in pixels
    splits: tuple[str, ...]  # those that hold scenes
    modalities: tuple[str, ...]  # all that are stored

    def load(
        self, split: str, domain: str | None = None, modalities: Sequence[str] | None = None
    ) -> PairedImages:
        """The scenes of a split (of one domain) that have all of these modalities, by domain and name.

        The tensors are the files, mapped into memory, so that a set may be larger than the memory. Each file
        is compared with its digest once in a process, and again where its size or time has changed.

        Raises
        ------
        LabError : the pack has no such split, domain or modality, or a file of it was altered.
        """
        import torch

        from socketlab.images.paired_images import PairedImages, index_images

        part, start, stop = self._range(split, domain)
        arrays, every = part["arrays"], np.arange(part["scenes"])
        wanted = tuple(arrays) if modalities is None else tuple(modalities)
        for modality in wanted:
            require_choice(f"{split} modality of {self.folder.name}", modality, tuple(arrays))
            _require_digest(self.folder, arrays[modality])
        scenes = self._scenes_of(split)
        rows = {m: every if scenes["rows"][m] is None else np.array(scenes["rows"][m]) for m in wanted}
        common, images = functools.reduce(np.intersect1d, rows.values(), every[start:stop]), {}
        for modality, mine in rows.items():
            chosen, stored = np.searchsorted(mine, common), self._array(arrays[modality])
            if len(chosen) and chosen[-1] - chosen[0] + 1 == len(chosen):  # together: they are not copied
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
        """Focal lengths f_x, f_y in stored pixels of every scene of a split; None where the set has none."""
        _, start, stop = self._range(split, domain)
        found = self._scenes_of(split)["intrinsics"]
        return [one and tuple(one[:2]) for one in found[start:stop]]

    def verify(self) -> None:
        """Compare all files with their digests again; a LabError names one that was altered."""
        _digest.cache_clear()
        for part in self.manifest["splits"].values():
            for entry in (part, *part["arrays"].values()):
                _require_digest(self.folder, entry)

    def summary(self) -> str:
        """One line per split: how many scenes of how many classes, in which modalities."""
        side = f"{self.size} × {self.size} pixels"
        lines = [f"pack {self.folder.name}: {side}, {len(self.classes)} classes of the task"]
        for name, part in self.manifest["splits"].items():
            kinds, stored = set().union(*part["counts"].values()), ", ".join(part["arrays"])
            lines.append(f"  {name:<6} {part['scenes']:>6} scenes, {len(kinds)} kinds, {stored}")
        if self.manifest["left_out"]:
            lines.append(f"  {self.manifest['left_out']} scenes were left out; {MANIFEST} lists the reasons")
        return "\n".join(lines)

    def _range(self, split: str, domain: str | None) -> tuple[dict[str, Any], int, int]:
        """The entry of a split, and where the scenes of a domain begin and end."""
        require_choice(f"split of {self.folder.name}", split, self.splits)
        part = self.manifest["splits"][split]
        if domain is None:
            return part, 0, part["scenes"]
        require_choice(f"{split} domain of {self.folder.name}", domain, tuple(part["domains"]))
        return part, *part["domains"][domain]

    def _scenes_of(self, split: str) -> dict[str, Any]:
        """The list of the scenes of a split."""
        part = self.manifest["splits"][split]
        _require_digest(self.folder, part)
        return json.loads((self.folder / part["file"]).read_bytes())

    def _array(self, described: dict[str, Any]) -> torch.Tensor:
        """An array that reads from the disk; what is written into it does not change the file."""
        import torch

        file = self.folder / described["file"]
        try:
            array = np.load(file, mmap_mode="c")
        except (OSError, MemoryError):  # some systems refuse that for a file larger than the memory
            array = np.load(file, mmap_mode="r")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")
            return torch.from_numpy(array)


def open_pack(folder: str | Path) -> Pack:
    """Open a pack; a LabError where it is none, of another version, or a file's length is another."""
    folder = Path(os.path.expanduser(folder))
    damaged = LabError(f"{folder / MANIFEST} {_AGAIN}")
    try:
        manifest = from_json(dict[str, Any], json.loads((folder / MANIFEST).read_bytes()))
    except OSError:
        manifest = {}
    except (ValueError, RecursionError):
        raise damaged from None
    if manifest.get("format") != FORMAT:
        raise LabError(f"{folder} is no pack: make one with `socketlab import`.")
    if (version := manifest.get("version")) != VERSION:
        raise LabError(f"{folder} is a pack of version {version}, not {VERSION}: import the data set again.")
    try:
        if manifest.pop("sha256", None) not in (None, _digest_of(manifest)):  # version 0.1 wrote none
            raise ValueError
        for entry in (one for part in manifest["splits"].values() for one in part["arrays"].values()):
            if not (file := folder / entry["file"]).is_file() or file.stat().st_size != entry["bytes"]:
                raise LabError(f"{file} {_AGAIN}")
        classes, domains, splits = (tuple(manifest[name]) for name in ("classes", "domains", "splits"))
        modalities = dict.fromkeys(one for part in manifest["splits"].values() for one in part["arrays"])
        return Pack(folder, manifest, classes, domains, manifest["size"], splits, tuple(modalities))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise damaged from None


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a pack, with a digest of itself."""
    write_whole(folder / MANIFEST, as_json(manifest | {"sha256": _digest_of(manifest)}))


def _digest_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(as_json(manifest)).hexdigest()


def _require_digest(folder: Path, entry: dict[str, Any]) -> None:
    file = folder / entry["file"]
    try:
        now = file.stat()
    except OSError:
        raise LabError(f"{file} {_AGAIN}") from None
    if _digest(file, now.st_size, now.st_mtime_ns, now.st_ctime_ns) != entry["sha256"]:
        raise LabError(f"{file} was altered: import the data set again.")


@functools.cache
def _digest(file: Path, _size: int, *_times: int) -> str:
    """SHA-256 of a file, computed again when its size or a time is another."""
    return digest(file)


def write_split(
    folder: Path, split: str, modalities: Sequence[str],
    scenes: Iterable[tuple[Frame, dict[str, NDArray[Any]]]], size: int, fit: str,
) -> dict[str, Any]:  # fmt: skip
    """Write the scenes of a split, ordered by domain, one by one; returns the manifest's entry, if any."""
    frames, rows, arrays = _write_arrays(folder, split, scenes)
    if not frames:
        return {}
    blocks, cameras = dict[str, int](), []
    for frame in frames:
        placed = frame.focal and placed_focal(frame.focal, *frame.size, size, fit)
        cameras.append(placed and [round(x, 4) for x in placed])
    numbers = [blocks.setdefault(frame.block or frame.name, len(blocks)) for frame in frames]
    about = {
        "names": [frame.name for frame in frames],
        "kinds": [frame.kind for frame in frames],
        "blocks": numbers if len(blocks) < len(frames) else None,
        "rows": {m: mine if len(mine) < len(frames) else None for m, mine in rows.items()},
        "intrinsics": cameras,
    }
    file = folder / f"{split}.scenes.json"
    write_whole(file, as_json(about))
    domains, counts, start = {}, {}, 0
    for domain, mine in groupby(frames, key=lambda frame: frame.domain):
        kinds = Counter(frame.kind for frame in mine)
        domains[domain] = [start, start := start + kinds.total()]
        counts[domain] = dict(sorted(kinds.items()))
    entry: dict[str, Any] = {
        "scenes": len(frames),
        "file": file.name,
        "sha256": digest(file),
        "domains": domains,
    }
    return entry | {"counts": counts, "arrays": {m: arrays[m] for m in modalities if m in arrays}}


def _write_arrays(
    folder: Path, split: str, scenes: Iterable[tuple[Frame, dict[str, NDArray[Any]]]]
) -> tuple[list[Frame], dict[str, list[int]], dict[str, Any]]:
    """Write a file per modality; returns the scenes, and by modality their rows and the manifest's entry."""
    frames: list[Frame] = []
    rows: dict[str, list[int]] = defaultdict(list)
    files: dict[str, tuple[Any, NDArray[Any]]] = {}  # open, with the first image
    arrays: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as opened:
        for frame, images in scenes:
            for modality, image in images.items():
                if modality not in files:
                    file = opened.enter_context(open(folder / f"{split}.{modality}.npy", "xb"))
                    files[modality] = file, image
                    _write_header(file, image, 0)
                files[modality][0].write(image.tobytes())
                rows[modality].append(len(frames))
            frames.append(frame)
        for modality, (file, image) in files.items():
            _write_header(file, image, len(rows[modality]))
            file.flush()
            os.fsync(file.fileno())
    for modality in files:
        path = folder / f"{split}.{modality}.npy"
        arrays[modality] = {"file": path.name, "bytes": path.stat().st_size, "sha256": digest(path)}
    return frames, rows, arrays


def _write_header(file: BinaryIO, image: NDArray[Any], count: int) -> None:
    """The header of so many images; numpy pads it, so that its length stays the same."""
    about = {"descr": image.dtype.str, "fortran_order": False, "shape": (count, *image.shape)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, about)
