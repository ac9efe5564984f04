"""Real data sets → packs: where their files lie, which of them belong together, which classes are the task.

===============  ==========================================================================================
``sunrgbd``      SUN RGB-D: four sensors, depth rotated by three bits, the scene's kind in ``scene.txt``
``diml``         DIML/CVL RGB+D, indoor: ``{train,test}/HR/<NN. Scene>/{color,depth_filled}``
``rgbnir``       RGB-NIR Scene: ``<class>/NNNN_rgb.tiff`` and ``NNNN_nir.tiff``
``eurosat``      EuroSAT: ``<class>/<name>.tif`` of 13 bands; colour, near and short-wave infrared
``lists``        text lists, ``path label`` per line: ``<domain>_<modality>[_train|_test|_ti]_list.txt``
``folders``      ``<modality>/<class>/<stem>.<ext>``: your own; class ``unknown`` is what nobody has labelled
===============  ==========================================================================================

`survey` looks and tells; `write_pack` works; `import_folder` does both. The originals are only ever read.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from socketlab.errors import LabError
from socketlab.images.decode import Picture
from socketlab.images.image_lists import find_lists
from socketlab.images.pack_writer import require_settings, write_pack
from socketlab.images.packs import Pack
from socketlab.images.scan import (
    FORM_OF,
    MODALITY_NAMES,
    UNKNOWN,
    Findings,
    Found,
    Frame,
    Survey,
    by_stem,
    chosen_classes,
    listed,
    pictures_in,
    readable,
    surveyed,
    text_of,
    walk,
)

SUN_SENSORS = {"kv1": "kinect_v1", "kv2": "kinect_v2", "realsense": "realsense", "xtion": "xtion"}
"""Folder of SUN RGB-D → the sensor's name in this library."""

DIML_TASK = ("bedroom", "livingroom", "kitchen", "library", "corridor", "restaurant")
RGBNIR_TASK = ("country", "forest", "mountain", "street", "urban", "water")
EUROSAT_TASK = ("AnnualCrop", "Forest", "Highway", "Residential", "River", "SeaLake")
"""Defaults of ours: the paper does not name its six classes of DIML and of RGB-NIR Scene, and does not use
EuroSAT. Each task-irrelevant class of EuroSAT has a like among these (a pasture and a crop, industry and
houses)."""

EUROSAT_BANDS = {"rgb": ((4, 3, 2), 3000.0), "nir": ((8,), 6000.0), "swir": ((11,), 6000.0),
                 "swir2": ((12,), 6000.0)}  # fmt: skip
"""Modality → bands, and the reflectance (times 10,000) that is stored as 255: a modelling choice."""

_NOBODY_KNOWS = {"idk", UNKNOWN, "unlabelled"}


def survey(
    kind: str,
    path: str | Path,
    *,
    task: Sequence[str] | None = None,
    thorough: bool = False,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Survey:
    """Everything that a folder of a data set holds, and everything that is wrong with it, in one report.

    Parameters
    ----------
    kind : a name in ``KINDS``.
    path : the folder.
    task : classes of the task, instead of those that the protocol gives.
    thorough : decode every file; else headers and ends are looked at, which takes far less time.
    processes : None for one per core.
    progress : told (files looked at, files).
    options : of a kind. ``sunrgbd``: ``depth`` = "depth" or "depth_bfx" (holes filled). ``diml``:
        ``quality`` = "HR", the folder in train and test. ``lists``: ``by_line`` = True pairs lines whatever
        their files are called; ``base`` is the folder that paths begin at. ``folders``: ``unpaired`` = True
        lets scenes of the task lack a modality, as they do where there are no colour pictures of the task.

    Raises
    ------
    LabError : unknown kind, option or class; no such folder; nothing usable in it.
    """
    require_options(kind, options)
    sort = KINDS[kind]
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir():
        raise LabError(f"{readable(path)} is not a folder: give the folder of the data set.")
    findings = Findings(root)
    try:
        frames, classes, how = sort.find(findings, task, **options)
    except OSError as error:
        raise LabError(f"{readable(path)} cannot be read: {error.strerror or error}.") from error
    if not frames:
        told = f" ({findings.problems[0].where}: {findings.problems[0].why})" if findings.problems else ""
        raise LabError(f"{readable(path)} holds no scene of {sort.title}: {sort.layout} was expected{told}.")
    if kind == "sunrgbd":
        how += _sensors_missing(frames)
    return surveyed(
        kind,
        findings,
        frames,
        _protocol(sort, frames, classes, how),
        classes,
        size=sort.size,
        modalities=sort.modalities or _modalities_of(frames),
        unpaired=kind == "lists" or bool(options.get("unpaired")),
        thorough=thorough,
        processes=processes,
        progress=progress,
    )


def require_options(kind: str, names: Iterable[str]) -> None:
    """A `LabError` when there is no such data set, or it has no such option."""
    if kind not in KINDS:
        raise LabError(f"There is no data set {kind!r}: choose one of {', '.join(KINDS)}.")
    known = KINDS[kind].options
    for name in names:
        if name not in known:
            told = f"its options are {', '.join(known)}" if known else "it has no options"
            raise LabError(f"{kind} knows no option {name!r}: {told}.")


def _protocol(sort: Kind, frames: Sequence[Frame], classes: Sequence[str], how: str) -> dict[str, str]:
    """How the work is set up, in words, by topic."""
    others = sorted(
        {
            frame.kind
            for frame in frames
            if frame.split == "pairs" or not (frame.split or frame.kind in classes)
        }
    )
    return {
        "set": sort.title,
        "task": f"{len(classes)} classes ({how}): {', '.join(classes)}",
        "task-irrelevant": f"{', '.join(others)}; all domains pooled" if others else "none, so no pairs",
        "split": sort.split,
    }


def _modalities_of(frames: Sequence[Frame]) -> tuple[str, ...]:
    seen = {modality for frame in frames for modality in frame.pictures}
    return tuple(modality for modality in FORM_OF if modality in seen)


def import_folder(
    kind: str,
    path: str | Path,
    out: str | Path | None = None,
    *,
    size: int | None = None,
    fit: str = "centre",
    on_bad: str = "stop",
    processes: int | None = None,
    say: Callable[[str], None] = print,
    hidden: bool | None = None,
    **options: Any,
) -> Pack:
    """Survey a folder, print the report, and write the pack, with bars of progress.

    Parameters
    ----------
    kind, path, options : as in `survey`.
    out : folder of the pack; ``packs/<kind>`` unless told.
    size, fit, on_bad : as in `write_pack`.
    say : prints a text.
    hidden : whether bars are left out; None shows them on a terminal.

    Raises
    ------
    LabError : as `survey` and `write_pack`.
    """
    from tqdm import tqdm

    def bar(words: str) -> Callable[[int, int], None]:
        shown = tqdm(desc=words, disable=hidden, unit="image" if words == "looking" else "scene", leave=False)
        bars.append(shown)

        def move(done: int, of: int) -> None:
            shown.total = of
            shown.update(done - shown.n)

        return move

    bars: list[Any] = []
    folder = Path("packs") / kind if out is None else Path(out)
    root = Path(os.path.abspath(Path(path).expanduser()))
    require_settings(root, folder.expanduser().absolute(), size, fit, on_bad)
    try:
        found = survey(kind, path, processes=processes, progress=bar("looking"), **options)
        bars[0].close()
        say(found.report())
        pack = write_pack(
            found, folder, size=size, fit=fit, on_bad=on_bad, processes=processes,
            progress=bar("packing"), say=say,
        )  # fmt: skip
    finally:
        for one in bars:
            one.close()
    say(f"written to {folder}")
    say(pack.summary())
    return pack


# one finder per data set: findings, classes asked for, options → frames, classes, how they were chosen


def _sunrgbd(findings: Findings, task: Sequence[str] | None, depth: str = "depth") -> Found:
    if depth not in ("depth", "depth_bfx"):
        raise LabError(f"SUN RGB-D has no {depth!r} images: choose depth or depth_bfx.")
    root = _below(findings.root, lambda folder: any((folder / one).is_dir() for one in SUN_SENSORS))
    frames = []
    for name, domain in SUN_SENSORS.items():
        if not (root / name).is_dir():
            continue
        for folder, folders, files in walk(root / name, findings):
            inside = {one.name for one in folders} | {one.name for one in files}
            if inside & {"image", depth, "scene.txt"}:
                folders.clear()
                kind = _sun_kind(folder)
                if kind is None:
                    findings.bad("no label", folder, "scene.txt does not hold one word")
                else:
                    frames.append(_sun_frame(folder, root, domain, kind, depth, findings))
    if task is not None:
        return frames, chosen_classes(task, (frame.kind for frame in frames)), "chosen"
    kinds: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        kinds[frame.domain].add(frame.kind)
    common = set.intersection(*kinds.values()) - _NOBODY_KNOWS if kinds else set()
    if frames and not common:
        raise LabError(
            f"No kind of scene was seen by all of {', '.join(kinds)}: choose the classes of the task."
        )
    return frames, tuple(sorted(common)), f"seen by {', '.join(sorted(kinds))}"


def _sun_frame(folder: Path, root: Path, domain: str, kind: str, depth: str, findings: Findings) -> Frame:
    pictures = {}
    for modality, below, form in (("rgb", "image", "colour"), ("depth", depth, "rotated")):
        files = pictures_in(folder / below, findings) if (folder / below).is_dir() else []
        for file in files[1:]:
            findings.bad("duplicate", file, f"one picture was expected, beside {readable(files[0].name)}")
        if len(files) == 1:
            pictures[modality] = Picture(files[0], form)
    name = folder.relative_to(root).as_posix()
    intrinsics = _sun_intrinsics(folder / "intrinsics.txt")
    return Frame(name, domain, kind, pictures, _sun_place(name), intrinsics=intrinsics)


def _sun_kind(folder: Path) -> str | None:
    """The one word of ``scene.txt``; None where there is none."""
    try:
        words = text_of(folder / "scene.txt").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0].lower() if len(words) == 1 and words[0].isprintable() else None


def _sun_intrinsics(file: Path) -> tuple[float, ...] | None:
    """f_x, f_y, c_x, c_y of the nine numbers of a camera matrix; None where they can be no camera's."""
    try:
        numbers = [float(word) for word in text_of(file).split()]
    except (OSError, ValueError):
        return None
    if len(numbers) != 9 or not all(map(math.isfinite, numbers)) or min(numbers[0], numbers[4]) <= 0:
        return None
    return numbers[0], numbers[4], numbers[2], numbers[5]


def _sun_place(name: str) -> str:
    """The place that a frame shows, as far as its name tells.

    Sun3d has a folder per place; Kinect v2 and Kinect v1's NYU recordings have a session and a running
    number. What has neither stands for itself.
    """
    parts = name.split("/")
    if "sun3ddata" in parts[:-1]:
        return "/".join(parts[: parts.index("sun3ddata") + 2])
    session = re.fullmatch(r"(?:\d+_)?(.+)_rgbf\d+.*", parts[-1])
    if session:
        return "/".join([*parts[:-1], session[1]])
    nyu = re.fullmatch(r"NYU(\d+)", parts[-1])
    return "/".join([*parts[:-1], f"NYU-{int(nyu[1]) // 10}x"]) if nyu else name


def _sensors_missing(frames: Iterable[Frame]) -> str:
    gone = sorted(set(SUN_SENSORS.values()) - {frame.domain for frame in frames})
    return f"; {', '.join(gone)} not found, so this is not the published choice" if gone else ""


def _diml(findings: Findings, task: Sequence[str] | None, quality: str = "HR") -> Found:
    halves = ("train", "test")
    root = _below(findings.root, lambda folder: any((folder / half / quality).is_dir() for half in halves))
    frames = []
    for half in halves:
        if not (root / half / quality).is_dir():
            continue
        for folder in listed(root / half / quality, findings)[0]:
            kind = re.sub(r"^\d+\s*[._]?\s*", "", folder.name).strip().lower().replace(" ", "_")
            found = {
                modality: by_stem(
                    pictures_in(folder / below, findings),
                    findings,
                    lambda path, end=ending: path.stem.removesuffix(end),  # type: ignore[misc]
                )
                if (folder / below).is_dir()
                else {}
                for modality, below, ending in (
                    ("rgb", "color", "_c"),
                    ("depth", "depth_filled", "_depth_filled"),
                )
            }
            frames += _together(found, f"{half}/{folder.name}", "diml", kind or folder.name, half)
    counts = Counter(frame.kind for frame in frames)
    classes, how = _preferred(DIML_TASK, counts, task)
    return [one if one.kind in classes else replace(one, split="pairs") for one in frames], classes, how


def _rgbnir(findings: Findings, task: Sequence[str] | None) -> Found:
    def holds(folder: Path) -> bool:
        return any(
            re.search(r"_(rgb|nir)\.tiff?$", file.name, re.IGNORECASE) for file in folder.glob("*/*.tif*")
        )

    frames = []
    for folder in listed(_below(findings.root, holds), findings)[0]:
        files = pictures_in(folder, findings)
        found = {}
        for modality in ("rgb", "nir"):
            mine = [one for one in files if one.stem.lower().endswith(f"_{modality}")]
            found[modality] = by_stem(mine, findings, lambda path: path.stem[:-4])
        frames += _together(found, folder.name, "rgbnir", folder.name)
    classes, how = _preferred(RGBNIR_TASK, Counter(frame.kind for frame in frames), task)
    return frames, classes, how


def _eurosat(findings: Findings, task: Sequence[str] | None) -> Found:
    frames = []
    for folder, _, _ in walk(findings.root, findings):
        files = [one for one in pictures_in(folder, findings) if one.suffix.lower() in (".tif", ".tiff")]
        for stem, file in by_stem(files, findings).items():
            pictures = {
                modality: Picture(file, "bands", bands, white)
                for modality, (bands, white) in EUROSAT_BANDS.items()
            }
            frames.append(Frame(f"{folder.name}/{stem}", "sentinel_2", folder.name, pictures))
    classes, how = _preferred(EUROSAT_TASK, Counter(frame.kind for frame in frames), task)
    return frames, classes, how


def _folders(findings: Findings, task: Sequence[str] | None, unpaired: bool = False) -> Found:
    found: dict[str, dict[str, dict[str, Path]]] = defaultdict(dict)
    for folder in listed(findings.root, findings)[0]:
        modality = MODALITY_NAMES.get(folder.name.lower())
        if modality is None:
            findings.notes.append(f"the folder {folder.name} is no modality and was left alone")
            continue
        for inner in listed(folder, findings)[0]:
            if modality in found[inner.name]:
                findings.bad("duplicate", inner, f"a second folder of {modality} images of {inner.name}")
            else:
                found[inner.name][modality] = by_stem(pictures_in(inner, findings), findings)
    frames = []
    for kind, modalities in sorted(found.items()):
        frames += _together(modalities, kind, readable(findings.root.name) or "folders", kind)
    frames = [
        replace(one, kind=UNKNOWN, split="train") if one.kind.lower() in _NOBODY_KNOWS else one
        for one in frames
    ]  # to adapt to; as pairs they might show the task
    kinds = {frame.kind for frame in frames}
    if task is None:
        return frames, tuple(sorted(kinds - _NOBODY_KNOWS)), "every folder is a class of the task"
    return frames, chosen_classes(task, kinds), "chosen"


def _together(
    found: dict[str, dict[str, Path]], folder: str, domain: str, kind: str, split: str = ""
) -> list[Frame]:
    """Frames of the files that have the same stem."""
    stems = sorted(set().union(*found.values()))
    return [
        Frame(
            f"{folder}/{stem}",
            domain,
            kind,
            {m: Picture(files[stem], FORM_OF[m]) for m, files in found.items() if stem in files},
            split=split,
        )
        for stem in stems
    ]


def _preferred(
    default: tuple[str, ...], counts: Counter[str], task: Sequence[str] | None
) -> tuple[tuple[str, ...], str]:
    """The classes asked for; else the default ones that are there, filled up with the most frequent."""
    if task is not None:
        return chosen_classes(task, counts), "chosen"
    chosen = [name for name in default if name in counts]
    rest = sorted((-count, name) for name, count in counts.items() if name not in chosen)
    more = [name for _, name in rest if name not in _NOBODY_KNOWS][: max(0, len(default) - len(chosen))]
    if len(counts) > len(chosen) + len(more) or not more:
        how = "socketlab's default" + (f", with the most frequent, {', '.join(more)}" if more else "")
    else:
        more, how = more[: max(0, len(more) - 1)], "socketlab's default, filled up, one class left for pairs"
    return tuple(sorted(chosen + more)), how


def _below(root: Path, holds: Callable[[Path], bool]) -> Path:
    """The folder itself or one of those in it, whichever holds the set."""
    candidates = [root, *sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")]
    return next((one for one in candidates if holds(one)), root)


@dataclass(frozen=True)
class Kind:
    """A sort of data set.

    Parameters
    ----------
    find : its finder.
    title : its name in a report.
    layout : what its folder should look like.
    modalities : what every scene has; empty for those that are found.
    size : side of the stored images unless another is asked for.
    options : names of what `survey` takes for it.
    split : how scenes of the task are divided.
    """

    find: Callable[..., Found]
    title: str
    layout: str
    modalities: tuple[str, ...] = ("rgb", "depth")
    size: int = 256
    options: tuple[str, ...] = ()
    split: str = "a fifth of the task's scenes for testing, by whole places, from the digests of their names"


KINDS = {
    "sunrgbd": Kind(
        _sunrgbd,
        "SUN RGB-D",
        "kv1, kv2, realsense and xtion, with image/, depth/ and scene.txt in the folder of a frame,",
        options=("depth",),
    ),
    "diml": Kind(
        _diml,
        "DIML/CVL RGB+D",
        "{train,test}/HR/<NN. Scene>/{color,depth_filled}/",
        options=("quality",),
        split="the set's own train and test",
    ),
    "rgbnir": Kind(
        _rgbnir,
        "RGB-NIR Scene",
        "<class>/NNNN_rgb.tiff and <class>/NNNN_nir.tiff",
        modalities=("rgb", "nir"),
    ),
    "eurosat": Kind(
        _eurosat,
        "EuroSAT",
        "<class>/<name>.tif of 13 bands",
        modalities=tuple(EUROSAT_BANDS),
        size=64,
    ),
    "lists": Kind(
        find_lists,
        "text lists",
        "<modality>/<domain>_list.txt or <domain>_<modality>_list.txt",
        modalities=(),
        options=("by_line", "base"),
        split="as the lists are named",
    ),
    "folders": Kind(
        _folders,
        "plain folders",
        "<modality>/<class>/<stem>.<ext>, with modalities rgb, depth, nir or swir,",
        modalities=(),
        options=("unpaired",),
    ),
}
"""The data sets that can be imported."""
