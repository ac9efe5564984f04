"""Real data sets → packs: which kinds of set there are (``KINDS``), what is checked, how a pack is made.

`survey` looks and reports; `write_pack` works; `import_folder` does both. The originals are only ever read.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from socketlab.errors import LabError, require_choice
from socketlab.files import exclusive, unwritable
from socketlab.images import finders, packs, scan
from socketlab.images.decode import FITS, UNITS, BadPicture, decode_all, value_range
from socketlab.images.scan import SPLITS, Frame, Survey, readable

ON_BAD = ("auto", "skip", "stop")
SIZE, LARGEST = 256, 4096
"""Side of the stored images in pixels: by default, and at most."""


class Kind(NamedTuple):
    """A sort of data set."""

    find: Callable[..., list[Frame]]
    title: str
    layout: str  # what its folder should look like
    options: tuple[str, ...]  # of `survey`
    modalities: tuple[str, ...] = ("rgb", "depth")  # what every scene has; empty for those that are found
    numbered: bool = False  # whether consecutive numbers in names are consecutive images of a recording


KINDS = {
    "sunrgbd": Kind(
        finders.find_sunrgbd, "SUN RGB-D",
        "kv1, kv2, realsense and xtion, with image/, depth/ and scene.txt in the folder of a frame,",
        ("depth", "place"),
    ),
    "diml": Kind(
        finders.find_diml, "DIML/CVL RGB+D", "{train,test}/HR/<NN. Scene>/{color,depth_filled}/",
        ("depth_unit",), numbered=True,
    ),
    "rgbnir": Kind(
        finders.find_rgbnir, "RGB-NIR Scene", "<class>/NNNN_rgb.tiff and <class>/NNNN_nir.tiff",
        ("place", "levels"), modalities=("rgb", "nir"),
    ),
    "lists": Kind(
        finders.find_lists, "text lists", "<modality>/<domain>_list.txt or <domain>_<modality>_list.txt",
        ("by_line", "base", "depth_unit", "levels"), modalities=(), numbered=True,
    ),
    "folders": Kind(
        finders.find_folders, "plain folders",
        f"<modality>/<class>/<stem>.<ext>, with modalities {', '.join(scan.FORM_OF)},",
        ("unpaired", "place", "depth_unit", "levels"), modalities=(), numbered=True,
    ),
}  # fmt: skip
"""The data sets that can be imported."""


def survey(kind: str, path: str | Path, *, task: Sequence[str] | None = None, **options: Any) -> Survey:
    """Everything that a folder of a data set holds, and everything that is wrong with it, in one report.

    Parameters
    ----------
    kind : a name in ``KINDS``.
    path : the folder.
    task : classes of the task, instead of those that the protocol gives.
    options : those of the kind, as values or texts; docs/real_data.md explains them. Also ``depth`` =
        "depth_bfx" takes the depth of SUN RGB-D whose holes were filled.

    Raises
    ------
    LabError : unknown kind, option or class; no such folder; nothing usable in it.
    """
    require_options(kind, options)
    sort, chosen = KINDS[kind], _parsed(options)
    root = Path(os.path.abspath(os.path.expanduser(path)))
    if not root.is_dir():
        raise LabError(f"{readable(path)} is not a folder: give the folder of the data set.")
    found = Survey(kind, root)
    own = {name: chosen[name] for name in ("depth", "base", "by_line") if name in chosen}
    try:
        frames = sort.find(found, **own)
    except OSError as error:
        raise LabError(f"{readable(path)} cannot be read: {error.strerror or error}.") from error
    if not frames:
        why = f"{sort.layout} was expected; found: {found.reasons()}"
        raise LabError(f"{readable(path)} holds no scene of {sort.title}: {why}.")
    found.classes, how = finders.task_of(kind, frames, task)
    if kind != "lists":  # which have pairs of their own
        kept = (*found.classes, scan.UNKNOWN)
        frames = [one if one.kind in kept else replace(one, split="pairs") for one in frames]
    others = sorted({one.kind for one in frames if one.split == "pairs"})
    found.protocol = {
        "set": sort.title,
        "task": f"{len(found.classes)} classes ({how}): {', '.join(found.classes)}",
        "task-irrelevant": f"{', '.join(others)}; all domains pooled" if others else "none: no pairs",
    }
    seen = {modality for frame in frames for modality in frame.pictures}
    found.modalities = sort.modalities or tuple(modality for modality in scan.FORM_OF if modality in seen)
    may_lack = found.classes if chosen.get("unpaired", kind == "lists") else ()
    complete = scan.whole(_as_chosen(frames, chosen, found), found, may_lack)
    usable = list(scan.checked(complete, found))
    if not usable:
        raise LabError(f"{readable(root.name)} holds no usable scene: {found.reasons()}.")
    placed, found.protocol["split"] = scan.divided(usable, set(found.classes), sort.numbered)
    order = {split: number for number, split in enumerate(SPLITS)}
    found.frames = tuple(sorted(placed, key=lambda one: (order[one.split], one.domain, one.name)))
    found.left_out = len(frames) + found.lost - len(found.frames)
    _note_ranges(found, "depth_unit" in chosen)
    found.notes += found.unread()
    return found


def _note_ranges(found: Survey, unit_is_known: bool) -> None:
    """Add the range of the values of each modality and domain, and what is doubtful about it."""
    for modality, domain in product(found.modalities, found.domains):
        mine = [one.pictures.get(modality) for one in found.frames if one.domain == domain]
        if pictures := [one for one in mine if one is not None]:
            title = modality if len(found.domains) == 1 else f"{modality} of {domain}"
            line, doubts = value_range(pictures, unit_is_known)
            found.ranges.append(f"{title}: {line}")
            found.notes += [f"{title}: {doubt}" for doubt in doubts]


def require_options(kind: str, names: Iterable[str]) -> None:
    """A `LabError` when there is no such data set, or it has no such option."""
    require_choice("data set", kind, tuple(KINDS))
    for name in names:
        require_choice(f"{kind} option", name, KINDS[kind].options)


def _parsed(options: dict[str, Any]) -> dict[str, Any]:
    """The options as values; a LabError where one cannot be."""
    truths = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    words = {
        "unpaired": "true or false",
        "by_line": "true or false",
        "place": "a regular expression",
        "depth_unit": f"{', '.join(UNITS)}, rotated or counts per metre",
        "levels": "LOW:HIGH, as 0:1023",
    }
    chosen = dict(options)
    for name in options.keys() & words:
        text, fits = str(options[name]).strip(), True
        try:
            if name == "place":
                chosen[name] = re.compile(text)
            elif name == "levels":
                low, high = chosen[name] = tuple(map(float, text.split(":")))
                fits = -1e9 < low < high < 1e9
            elif name == "depth_unit":
                chosen[name] = text
                fits = text in (*UNITS, "rotated") or 0 < float(text) < float("inf")
            else:
                chosen[name] = truths[text.lower()]
        except (ValueError, KeyError, re.error):
            fits = False
        if not fits:
            raise LabError(f"{name}={options[name]} cannot be: give {words[name]}.")
    return chosen


def _as_chosen(frames: list[Frame], chosen: dict[str, Any], survey: Survey) -> list[Frame]:
    """The frames with the unit, the levels and the places that the options give."""
    changes: dict[str, dict[str, Any]] = defaultdict(dict)
    if "depth_unit" in chosen:
        changes["depth"] = {"unit": chosen["depth_unit"]}
    if "levels" in chosen:
        changes["grey"] = {"levels": chosen["levels"]}
    found, without = [], []
    for frame in frames:
        pictures = {m: replace(one, **changes[one.form]) for m, one in frame.pictures.items()}
        group = frame.group
        if "place" in chosen:
            match = chosen["place"].search(frame.name)
            group = match[min(1, len(match.groups()))] or "" if match else ""
            without += [] if match else [frame.name]
        found.append(replace(frame, pictures=pictures, group=group))
    if without:
        survey.notes.append(f"the pattern of places is not in {len(without)} names ({without[0]})")
    return found


def import_folder(
    kind: str, path: str | Path, out: str | Path | None = None, *, size: int = SIZE, fit: str = "centre",
    on_bad: str = "auto", processes: int | None = None, say: Callable[[str], None] = print,
    **options: Any,
) -> packs.Pack:  # fmt: skip
    """`survey` a folder, print the report, and `write_pack` (default: ``packs/<kind>``)."""
    folder = Path("packs") / kind if out is None else Path(out)
    require_settings(Path(path), folder, size, fit, on_bad, processes)
    found = survey(kind, path, **options)
    cut = [1 - min(frame.size) / max(frame.size) for frame in found.frames]
    if fit == "centre" and (mean := sum(cut) / len(cut)) > 0.01:
        words = f"fit centre cuts {mean:.0%} of a picture away on average, {max(cut):.0%} at most"
        found.notes.append(f"{words}; --fit letterbox keeps all, --fit stretch squeezes")
    say(found.report())
    pack = write_pack(found, folder, size=size, fit=fit, on_bad=on_bad, processes=processes)
    for note in pack.manifest["notes"][len(found.notes) :]:
        say(f"note: {note}")
    say(f"written to {folder}")
    say(pack.summary())
    return pack


def write_pack(
    survey: Survey, out: str | Path, *, size: int = SIZE, fit: str = "centre", on_bad: str = "auto",
    processes: int | None = None,
) -> packs.Pack:  # fmt: skip
    """Decode the scenes of a survey into a pack, which is there when it is whole, or not at all.

    The same survey gives the same bytes, whatever the number of processes.

    Parameters
    ----------
    out : folder of the pack; must not exist yet.
    size : side in pixels.
    fit : ``centre`` cuts the middle square out, ``letterbox`` pads, ``stretch`` squeezes (as published).
    on_bad : ``auto`` leaves out and counts the scenes that cannot be used, unless they are more than half;
        ``skip`` however many they are; ``stop`` raises at a single one.
    processes : default: one per core.

    Raises
    ------
    LabError : too many problems; a full disk, a folder that cannot be written, a pack that exists.
    """
    out = Path(os.path.expanduser(out)).absolute()
    require_settings(survey.root, out, size, fit, on_bad, processes)
    survey.require_few(on_bad)
    outer = out.with_name(f".{out.name}.unfinished")
    try:
        with exclusive(outer):
            folder = outer / "pack"
            try:
                shutil.rmtree(folder, ignore_errors=True)  # left by a kill
                folder.mkdir()
                _write_files(folder, survey, size, fit, on_bad, processes)
                os.rename(folder, out)
            finally:
                shutil.rmtree(outer, ignore_errors=True)
    except OSError as error:
        raise unwritable(out, error) from error
    return packs.open_pack(out)


def require_settings(
    root: Path, out: Path, size: int, fit: str, on_bad: str, processes: int | None = None
) -> None:
    """A `LabError` when a pack of the set in ``root`` cannot be so, or not there; looks at no picture."""
    require_choice("on_bad", on_bad, ON_BAD)
    require_choice("fit", fit, FITS)
    if not 1 <= size <= LARGEST:
        raise LabError(f"size {size} is out of range: choose 1 to {LARGEST} pixels.")
    if processes is not None and processes < 1:
        raise LabError(f"{processes} processes cannot work: choose 1 or more.")
    root, out = (Path(os.path.realpath(os.path.expanduser(one))) for one in (root, out))
    if os.path.lexists(out):
        raise LabError(f"{out} exists already: choose another folder, or take it away.")
    if out.is_relative_to(root):
        raise LabError(f"{out} lies in the data set itself: choose a folder outside of it.")


def _write_files(
    folder: Path, survey: Survey, size: int, fit: str, on_bad: str, processes: int | None
) -> None:
    """Decode the scenes and write all files of a pack; scenes that cannot be decoded are left out."""
    survey = replace(survey, problems=[*survey.problems])
    thumbnails: dict[str, scan.Thumbnails] = {split: defaultdict(list) for split in SPLITS}
    images = decode_all([frame.pictures for frame in survey.frames], size, fit, processes)
    failed = 0

    def sound(found: Iterable[tuple[Frame, Any]]) -> Iterator[tuple[Frame, dict[str, NDArray[Any]]]]:
        nonlocal failed
        for frame, scene in found:
            if isinstance(scene, BadPicture):
                survey.bad(scene.what, scene.path or frame.name, scene.why)
                failed += 1
                continue
            first = next(modality for modality in survey.modalities if modality in scene)
            thumbnails[frame.split][first].append((frame.name, scan.thumbnail(scene[first])))
            yield frame, scene

    splits = {}
    for split, found in groupby(zip(survey.frames, images, strict=True), lambda one: one[0].split):
        splits[split] = packs.write_split(folder, split, survey.modalities, sound(found), size, fit)
    survey.require_few(on_bad, failed)
    splits = {split: part for split, part in splits.items() if part}
    manifest = {
        "format": packs.FORMAT,
        "version": packs.VERSION,
        "source": {"kind": survey.kind, "folder": readable(survey.root.name)},
        "protocol": survey.protocol,
        "size": size,
        "fit": fit,
        "classes": list(survey.classes),
        "domains": survey.domains,
        "splits": splits,
        "left_out": survey.left_out + failed,
        "skipped": [asdict(problem) for problem in survey.problems],
        "ranges": survey.ranges,
        "notes": [*survey.notes, *scan.near_duplicates(thumbnails["train"], thumbnails["test"])],
    }
    packs.write_manifest(folder, manifest)
