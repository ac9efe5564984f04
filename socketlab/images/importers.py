"""Real data sets → packs: where their files lie, which of them belong together, which classes are the task.

===============  ==========================================================================================
``sunrgbd``      SUN RGB-D: four sensors, depth rotated by three bits, the scene's kind in ``scene.txt``
``diml``         DIML/CVL RGB+D, indoor: ``{train,test}/HR/<NN. Scene>/{color,depth_filled}``
``rgbnir``       RGB-NIR Scene: ``<class>/NNNN_rgb.tiff`` and ``NNNN_nir.tiff``
``eurosat``      EuroSAT: ``<class>/<name>.tif`` of 13 bands; colour, near and short-wave infrared
``lists``        text lists, ``path label`` per line: ``<domain>_<modality>[_train|_test|_ti]_list.txt``
``folders``      ``<modality>/<class>/<stem>.<ext>``, with train/ and test/ or without: your own
===============  ==========================================================================================

`survey` looks and reports; `write_pack` works; `import_folder` does both. The originals are only ever read.
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

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from socketlab.errors import LabError
from socketlab.images.decode import (
    MISSING,
    UNITS,
    BadPicture,
    Picture,
    millimetres,
    numbers_of,
    square,
)
from socketlab.images.finders import (
    EUROSAT_BANDS,
    Found,
    find_diml,
    find_eurosat,
    find_folders,
    find_lists,
    find_rgbnir,
    find_sunrgbd,
)
from socketlab.images.packs import Pack, require_settings, write_pack
from socketlab.images.scan import FORM_OF, SPLITS, Findings, Frame, Survey, checked, divided, readable, whole

SAMPLE = 24
"""Pictures of each modality and domain whose values are looked at, evenly spaced."""
NEAREST_MEDIAN, FARTHEST_MEDIAN, FARTHEST = 100, 8000, 20_000
"""Millimetres: where the median of a room's depth lies, and what 99 % of it lie below."""
UNITS_TO_TRY = ("rotated", "5000", "10000", "4000", "512", "256", "metres")


def survey(
    kind: str,
    path: str | Path,
    *,
    task: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Survey:
    """Everything that a folder of a data set holds, and everything that is wrong with it, in one report.

    Parameters
    ----------
    kind : a name in ``KINDS``.
    path : the folder.
    task : classes of the task, instead of those that the protocol gives.
    progress : called with (files looked at, files).
    options : of a kind, each a text or a value; those that a kind has are in ``KINDS``.
        ``depth`` = "depth" or "depth_bfx" (holes filled) of SUN RGB-D. ``quality`` = "HR", the folder in
        train and test of DIML. ``by_line`` = True pairs the lines of lists whatever their files are called;
        ``base`` is the folder that paths of lists begin at. ``unpaired`` = True lets scenes of the task lack
        a modality. ``place`` = a regular expression: scenes whose names match in the same text (its first
        group, where it has one) stay on one side of train and test. ``depth_unit`` = "millimetres", "metres",
        "rotated" or a number of counts per metre. ``levels`` = "LOW:HIGH", numbers of 16-bit pictures
        that are stored as black and white.

    Raises
    ------
    LabError : unknown kind, option or class; no such folder; nothing usable in it.
    """
    require_options(kind, options)
    sort = KINDS[kind]
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir():
        raise LabError(f"{readable(path)} is not a folder: give the folder of the data set.")
    unpaired = kind == "lists" or _truth(options.get("unpaired", False), "unpaired")
    read = _reading(options)
    own = {name: options[name] for name in options if name in ("depth", "quality", "base")}
    if "by_line" in options:
        own["by_line"] = _truth(options["by_line"], "by_line")
    findings = Findings(root)
    try:
        frames, classes, how = sort.find(findings, task, **own)
    except OSError as error:
        raise LabError(f"{readable(path)} cannot be read: {error.strerror or error}.") from error
    if not frames:
        raise LabError(
            f"{readable(path)} holds no scene of {sort.title}: {sort.layout} was expected; found: "
            f"{findings.reasons()}."
        )
    others = {one.kind for one in frames if one.split == "pairs" or not (one.split or one.kind in classes)}
    protocol = {
        "set": sort.title,
        "task": f"{len(classes)} classes ({how}): {', '.join(classes)}",
        "task-irrelevant": f"{', '.join(sorted(others))}; all domains pooled" if others else "none: no pairs",
    }
    seen = {modality for frame in frames for modality in frame.pictures}
    modalities = sort.modalities or tuple(modality for modality in FORM_OF if modality in seen)
    names = Counter(frame.name for frame in frames)
    for name, count in names.items():
        if count > 1:
            findings.bad("duplicate", name, f"{count} scenes have this name")
    single = [read(frame) for frame in frames if names[frame.name] == 1]
    complete = whole(_placed(single, options.get("place"), findings), findings, modalities, classes, unpaired)
    usable = list(checked(complete, findings, progress))
    if not usable:
        raise LabError(f"{readable(root.name)} holds no usable scene: {findings.reasons()}.")
    placed, protocol["split"] = divided(usable, set(classes), sort.numbered)
    ordered = sorted(placed, key=lambda frame: (SPLITS.index(frame.split), frame.domain, frame.name))
    lines = _ranges(ordered, modalities, findings, "depth_unit" in options)
    return Survey(
        kind, root, modalities, tuple(ordered), tuple(findings.problems),
        len(frames) + findings.lost - len(ordered), (*findings.notes, *findings.unread()), classes,
        protocol, sort.size, lines,
    )  # fmt: skip


def require_options(kind: str, names: Iterable[str]) -> None:
    """A `LabError` when there is no such data set, or it has no such option."""
    if kind not in KINDS:
        raise LabError(f"There is no data set {kind!r}: choose one of {', '.join(KINDS)}.")
    known = KINDS[kind].options
    for name in names:
        if name not in known:
            told = f"its options are {', '.join(known)}" if known else "it has no options"
            raise LabError(f"{kind} knows no option {name!r}: {told}.")


def _truth(value: object, name: str) -> bool:
    """True or false of a value or a word for it."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).strip().lower() not in words:
        raise LabError(f"{name}={value} is neither true nor false: choose {name}=true or {name}=false.")
    return words[str(value).strip().lower()]


def _reading(options: dict[str, Any]) -> Callable[[Frame], Frame]:
    """How the options change the reading of a frame's pictures: unit of depth, black and white."""
    changes: dict[str, dict[str, Any]] = defaultdict(dict)
    if "depth_unit" in options:
        unit = str(options["depth_unit"])
        if unit not in (*UNITS, "rotated") and not (_number(unit) or 0) > 0:
            raise LabError(
                f"depth_unit={unit} is no unit: choose {', '.join(UNITS)}, rotated or counts per metre."
            )
        changes["depth"]["unit"] = unit
    if "levels" in options:
        low, _, high = str(options["levels"]).partition(":")
        black, white = _number(low), _number(high)
        if black is None or white is None or black >= white:
            raise LabError(f"levels={options['levels']} is no range: write LOW:HIGH, as in levels=0:1023.")
        changes["grey"]["levels"] = (black, white)

    def read(frame: Frame) -> Frame:
        pictures = {m: replace(one, **changes.get(one.form, {})) for m, one in frame.pictures.items()}
        return replace(frame, pictures=pictures)

    return read


def _number(text: str) -> float | None:
    try:
        return float(text) if math.isfinite(float(text)) else None
    except ValueError:
        return None


def _placed(frames: list[Frame], pattern: str | None, findings: Findings) -> list[Frame]:
    """The frames with the place that their names give, by a regular expression."""
    if pattern is None:
        return frames
    try:
        parts = {frame.name: re.search(pattern, frame.name) for frame in frames}
    except re.error as error:
        raise LabError(f"place={pattern} is no regular expression: {error}.") from None
    lost = [name for name, found in parts.items() if found is None]
    if lost:
        findings.notes.append(f"place={pattern} is not in {len(lost)} names ({lost[0]})")
    found = {name: one[min(1, len(one.groups()))] or "" for name, one in parts.items() if one}
    return [replace(frame, group=found.get(frame.name, "")) for frame in frames]


def import_folder(
    kind: str,
    path: str | Path,
    out: str | Path | None = None,
    *,
    size: int | None = None,
    fit: str = "centre",
    on_bad: str = "auto",
    processes: int | None = None,
    say: Callable[[str], None] = print,
    hidden: bool | None = None,
    **options: Any,
) -> Pack:
    """Survey a folder, print the report, and write the pack, with bars of progress.

    Parameters
    ----------
    kind, path, options : as in `survey`.
    out : folder of the pack (default: ``packs/<kind>``).
    size, fit, on_bad, processes : as in `write_pack`.
    say : prints a text.
    hidden : whether bars are left out; None shows them on a terminal.

    Raises
    ------
    LabError : as `survey` and `write_pack`.
    """
    from tqdm import tqdm

    folder = Path("packs") / kind if out is None else Path(out)
    require_settings(Path(path), folder, size, fit, on_bad)

    def moved(bar: Any) -> Callable[[int, int], None]:
        def move(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        return move

    with tqdm(desc="looking", unit="image", disable=hidden, leave=False) as bar:
        found = survey(kind, path, progress=moved(bar), **options)
    if fit == "centre":
        found = replace(found, notes=(*found.notes, *_cut_away(found.frames)))
    say(found.report())
    with tqdm(desc="packing", unit="scene", disable=hidden, leave=False) as bar:
        pack = write_pack(
            found, folder, size=size, fit=fit, on_bad=on_bad, processes=processes, progress=moved(bar)
        )
    for note in pack.manifest["notes"][len(found.notes) :]:
        say(f"note: {note}")
    say(f"written to {folder}")
    say(pack.summary())
    return pack


def _cut_away(frames: Sequence[Frame]) -> list[str]:
    """How much of the pictures the middle square leaves out, where it is more than a hundredth."""
    shares = []
    for width, height in (frame.size for frame in frames):
        left, top, right, bottom = square(width, height, "centre")
        shares.append(1 - (right - left) * (bottom - top) / (width * height))
    mean = sum(shares) / len(shares)
    if mean < 0.01:
        return []
    words = f"cuts {mean:.0%} of a picture away on average, {max(shares):.0%} at most"
    return [f"fit centre {words}; --fit letterbox keeps all, --fit stretch squeezes"]


# ------------------------------------------------------------------------ ranges of values


def _ranges(
    frames: Sequence[Frame], modalities: Sequence[str], findings: Findings, unit_is_known: bool
) -> tuple[str, ...]:
    """The range of the values of each modality and domain in a line; notes on what can hardly be right.

    A wrong unit or bit depth decodes without an error and gives wrong numbers. A sample makes it visible.
    """
    lines = []
    domains = sorted({frame.domain for frame in frames})
    for modality in modalities:
        for domain in domains:
            mine = [
                one.pictures[modality] for one in frames if one.domain == domain and modality in one.pictures
            ]
            title = modality if len(domains) == 1 else f"{modality} of {domain}"
            values, white = _sampled(mine)
            if not len(values):
                continue
            if mine[0].form == "depth":
                line, notes = _depth_range(values, mine[0].unit, unit_is_known)
            else:
                line, notes = _grey_range(values, white, mine[0].levels is not None)
            lines.append(f"{title}: {line}")
            findings.notes += [f"{title}: {note}" for note in notes]
    return tuple(lines)


def _sampled(pictures: Sequence[Picture]) -> tuple[NDArray[np.float64], int]:
    """Some thousand numbers of each of some pictures, and the largest number that their type can hold."""
    found, white = [np.zeros(0)], 255
    for i in range(min(SAMPLE, len(pictures))):
        try:
            numbers = numbers_of(pictures[i * len(pictures) // min(SAMPLE, len(pictures))])
        except BadPicture:
            continue  # counted when the pack is written
        values = np.asarray(numbers).ravel()
        white = white if isinstance(numbers, Image.Image) else 65535
        found.append(values[:: max(1, len(values) // 8192)].astype(np.float64))
    return np.concatenate(found), white


def _depth_range(raw: NDArray[np.float64], unit: str, unit_is_known: bool) -> tuple[str, list[str]]:
    stored = _stored(raw, unit)
    measured = stored[stored > 0]
    if not len(measured):
        return "nothing", [f"all is missing: every number is 0 or {MISSING}"]
    low, middle, high = np.quantile(measured, (0.01, 0.5, 0.99)) / 1000
    missing = 1 - len(measured) / len(stored)
    line = f"{low:.2f} to {high:.2f} m (1 % to 99 %), median {middle:.2f} m; {missing:.0%} missing"
    share, notes = float((raw == MISSING).mean()), []
    if share > 0:
        notes.append(f"{share:.2%} of the numbers are {MISSING}, which is stored as missing")
    if not unit_is_known:
        notes += _unit_doubts(raw, unit, 1000 * middle, 1000 * high)
    return line, notes


def _stored(raw: NDArray[np.float64], unit: str) -> NDArray[np.uint16]:
    whole = raw.clip(0, MISSING).astype(np.uint16) if unit in ("rotated", "millimetres") else raw
    return millimetres(whole, unit)


def _unit_doubts(raw: NDArray[np.float64], unit: str, middle: float, high: float) -> list[str]:
    """A note where the unit can hardly be right, with the units that would give a room."""
    reasons = []
    if middle < NEAREST_MEDIAN:
        reasons.append(f"half of it is nearer than {middle / 1000:.3f} m")
    elif middle > FARTHEST_MEDIAN or high > FARTHEST:
        reasons.append(f"half of it is beyond {middle / 1000:.1f} m, 1 % beyond {high / 1000:.1f} m")
    different = np.unique(raw[(raw > 0) & (raw < MISSING)]).astype(np.int64)
    divisor = int(np.gcd.reduce(different)) if len(different) >= 16 else 1
    if unit == "millimetres" and divisor in (5, 8):
        reasons.append(f"every number is a multiple of {divisor}")
    if not reasons:
        return []
    likely = []
    for other in UNITS_TO_TRY:
        there = _stored(raw, other)
        there = there[there > 0]
        sensible = len(there) and 300 <= np.median(there) <= 6000 and np.quantile(there, 0.99) <= 12_000
        if sensible and other != unit and (other != "rotated" or divisor % 8 == 0):
            likely.append(f"{other} (median {np.median(there) / 1000:.2f} m)")
    way = f"; likely are {', '.join(likely)}" if likely else ""
    return [f"read as {unit}, {' and '.join(reasons)}: another unit is --option depth_unit=UNIT{way}"]


def _grey_range(values: NDArray[np.float64], white: int, levels_are_chosen: bool) -> tuple[str, list[str]]:
    low, high = np.quantile(values, (0.01, 0.99))
    line = f"{low:.0f} to {high:.0f} of {white} (1 % to 99 %)"
    least, most = float(values.min()), float(values.max())
    between = f"all numbers lie between {least:.0f} and {most:.0f} of {white}"
    if white == 255 and most - least < 8:
        return line, [f"{between}: are these the pictures?"]
    if white == 255 or levels_are_chosen or high - low >= 4096:
        return line, []
    top = next((one for one in (1023, 4095, 16383) if most <= one), 65535)
    levels = f"0:{top}" if least < 0.25 * top else f"{least:.0f}:{most:.0f}"
    return line, [f"{between}, few of the 8 bits stored: choose black and white, --option levels={levels}"]


# ------------------------------------------------------------------------ the kinds of sets


@dataclass(frozen=True)
class Kind:
    """A sort of data set.

    Parameters
    ----------
    find : its finder.
    title : its name in a report.
    layout : what its folder should look like.
    modalities : what every scene has; empty for those that are found.
    size : side of the stored images (default).
    options : names of the options of `survey` that it has.
    numbered : whether consecutive numbers in names are consecutive images of a recording.
    source : where the set can be had.
    """

    find: Callable[..., Found]
    title: str
    layout: str
    modalities: tuple[str, ...] = ("rgb", "depth")
    size: int = 256
    options: tuple[str, ...] = ("place",)
    numbered: bool = False
    source: str = ""


_VALUES = ("place", "depth_unit", "levels")
KINDS = {
    "sunrgbd": Kind(
        find_sunrgbd,
        "SUN RGB-D",
        "kv1, kv2, realsense and xtion, with image/, depth/ and scene.txt in the folder of a frame,",
        options=("depth", "place"),
        source="https://rgbd.cs.princeton.edu/data/SUNRGBD.zip",
    ),
    "diml": Kind(
        find_diml,
        "DIML/CVL RGB+D",
        "{train,test}/HR/<NN. Scene>/{color,depth_filled}/",
        options=("quality", "depth_unit"),
        numbered=True,
        source="https://dimlrgbd.github.io",
    ),
    "rgbnir": Kind(
        find_rgbnir,
        "RGB-NIR Scene",
        "<class>/NNNN_rgb.tiff and <class>/NNNN_nir.tiff",
        modalities=("rgb", "nir"),
        options=("place", "levels"),
        source="https://ivrlwww.epfl.ch/supplementary_material/cvpr11/nirscene1.zip",
    ),
    "eurosat": Kind(
        find_eurosat,
        "EuroSAT",
        "<class>/<name>.tif of 13 bands",
        modalities=tuple(EUROSAT_BANDS),
        size=64,
        source="https://zenodo.org/records/7711810/files/EuroSAT_MS.zip",
    ),
    "lists": Kind(
        find_lists,
        "text lists",
        "<modality>/<domain>_list.txt or <domain>_<modality>_list.txt",
        modalities=(),
        options=("by_line", "base", "depth_unit", "levels"),
        numbered=True,
    ),
    "folders": Kind(
        find_folders,
        "plain folders",
        f"<modality>/<class>/<stem>.<ext>, with modalities {', '.join(FORM_OF)},",
        modalities=(),
        options=("unpaired", *_VALUES),
        numbered=True,
    ),
}
"""The data sets that can be imported."""
