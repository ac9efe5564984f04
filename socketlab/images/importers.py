"""Real data sets → packs: which kinds of set there are, what is checked, how a set becomes a pack.

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

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from socketlab.errors import LabError
from socketlab.files import exclusive, write_whole
from socketlab.images import finders, scan
from socketlab.images.decode import FITS, UNITS, BadPicture, decode_all, square, value_range
from socketlab.images.packs import FORMAT, MANIFEST, VERSION, Pack, PackWriter, as_json, open_pack, stamp
from socketlab.images.scan import SPLITS, Findings, Frame, Problem, Survey, readable

ON_BAD = ("auto", "skip", "stop")
LARGEST = 4096


class Kind(NamedTuple):
    """A sort of data set."""

    find: Callable[..., finders.Found]
    title: str
    layout: str  # what its folder should look like
    options: tuple[str, ...]  # of `survey`
    modalities: tuple[str, ...] = ("rgb", "depth")  # what every scene has; empty for those that are found
    size: int = 256  # default side of the stored images
    numbered: bool = False  # whether consecutive numbers in names are consecutive images of a recording
    source: str = ""  # where it can be had


KINDS = {
    "sunrgbd": Kind(
        finders.find_sunrgbd, "SUN RGB-D",
        "kv1, kv2, realsense and xtion, with image/, depth/ and scene.txt in the folder of a frame,",
        ("depth", "place"), source="https://rgbd.cs.princeton.edu/data/SUNRGBD.zip",
    ),
    "diml": Kind(
        finders.find_diml, "DIML/CVL RGB+D", "{train,test}/HR/<NN. Scene>/{color,depth_filled}/",
        ("quality", "depth_unit"), numbered=True, source="https://dimlrgbd.github.io",
    ),
    "rgbnir": Kind(
        finders.find_rgbnir, "RGB-NIR Scene", "<class>/NNNN_rgb.tiff and <class>/NNNN_nir.tiff",
        ("place", "levels"), modalities=("rgb", "nir"),
        source="https://ivrlwww.epfl.ch/supplementary_material/cvpr11/nirscene1.zip",
    ),
    "eurosat": Kind(
        finders.find_eurosat, "EuroSAT", "<class>/<name>.tif of 13 bands", ("place",),
        modalities=tuple(finders.EUROSAT_BANDS), size=64,
        source="https://zenodo.org/records/7711810/files/EuroSAT_MS.zip",
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
    options : those of the kind; values, or texts for them.
        ``depth`` = "depth" or "depth_bfx" (holes filled) of SUN RGB-D; ``quality`` = "HR", the folder in
        train and test of DIML; ``by_line`` = True pairs the lines of lists whatever their files are called;
        ``base`` is the folder where paths of lists begin; ``unpaired`` = True lets scenes of the task lack a
        modality; ``place`` = a regular expression: scenes with the same match (its first group, if any) in
        their names stay on one side of train and test; ``depth_unit`` = "millimetres", "metres", "rotated" or
        counts per metre; ``levels`` = "LOW:HIGH", numbers of 16-bit pictures stored as black and white.

    Raises
    ------
    LabError : unknown kind, option or class; no such folder; nothing usable in it.
    """
    require_options(kind, options)
    sort, chosen = KINDS[kind], _parsed(options)
    root = Path(os.path.abspath(os.path.expanduser(path)))
    if not root.is_dir():
        raise LabError(f"{readable(path)} is not a folder: give the folder of the data set.")
    findings = Findings(root)
    own = {name: chosen[name] for name in ("depth", "quality", "base", "by_line") if name in chosen}
    try:
        frames, classes, how = sort.find(findings, task, **own)
    except OSError as error:
        raise LabError(f"{readable(path)} cannot be read: {error.strerror or error}.") from error
    if not frames:
        found = f"{sort.layout} was expected; found: {findings.reasons()}"
        raise LabError(f"{readable(path)} holds no scene of {sort.title}: {found}.")
    others = {one.kind for one in frames if one.split == "pairs" or not (one.split or one.kind in classes)}
    protocol = {
        "set": sort.title,
        "task": f"{len(classes)} classes ({how}): {', '.join(classes)}",
        "task-irrelevant": f"{', '.join(sorted(others))}; all domains pooled" if others else "none: no pairs",
    }
    seen = {modality for frame in frames for modality in frame.pictures}
    modalities = sort.modalities or tuple(modality for modality in scan.FORM_OF if modality in seen)
    may_lack = classes if chosen.get("unpaired", kind == "lists") else ()
    complete = scan.whole(
        _as_chosen(_single(frames, findings), chosen, findings), findings, modalities, may_lack
    )
    usable = list(scan.checked(complete, findings, progress))
    if not usable:
        raise LabError(f"{readable(root.name)} holds no usable scene: {findings.reasons()}.")
    placed, protocol["split"] = scan.divided(usable, set(classes), sort.numbered)
    ordered = sorted(placed, key=lambda frame: (SPLITS.index(frame.split), frame.domain, frame.name))
    lines = _ranges(ordered, modalities, findings, "depth_unit" in chosen)
    return Survey(
        kind, root, modalities, tuple(ordered), tuple(findings.problems),
        len(frames) + findings.lost - len(ordered), (*findings.notes, *findings.unread()), classes,
        protocol, sort.size, lines,
    )  # fmt: skip


def require_options(kind: str, names: Iterable[str]) -> None:
    """A `LabError` when there is no such data set, or it has no such option."""
    if kind not in KINDS:
        raise LabError(f"There is no data set {kind!r}: choose one of {', '.join(KINDS)}.")
    for name in names:
        if name not in KINDS[kind].options:
            known = ", ".join(KINDS[kind].options)
            raise LabError(f"{kind} has no option {name!r}: its options are {known}.")


def _truth(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _unit(text: str) -> str:
    if text not in (*UNITS, "rotated") and not 0 < float(text) < float("inf"):
        raise ValueError
    return text


def _levels(text: str) -> tuple[float, float]:
    low, high = map(float, text.split(":"))
    if not -1e9 < low < high < 1e9:
        raise ValueError
    return low, high


_VALUES: dict[str, tuple[Callable[[str], Any], str]] = {
    "unpaired": (_truth, "true or false"),
    "by_line": (_truth, "true or false"),
    "place": (re.compile, "a regular expression"),
    "depth_unit": (_unit, f"{', '.join(UNITS)}, rotated or counts per metre"),
    "levels": (_levels, "LOW:HIGH, as 0:1023"),
}
"""Option → how its text is read, and what it must be."""


def _parsed(options: dict[str, Any]) -> dict[str, Any]:
    chosen = dict(options)
    for name in options.keys() & _VALUES:
        read, words = _VALUES[name]
        try:
            chosen[name] = read(str(options[name]).strip())
        except (ValueError, KeyError, re.error):
            raise LabError(f"{name}={options[name]} cannot be: give {words}.") from None
    return chosen


def _single(frames: Sequence[Frame], findings: Findings) -> list[Frame]:
    """The frames whose name is their own."""
    names = Counter(frame.name for frame in frames)
    for name in (one for one, count in names.items() if count > 1):
        findings.bad("duplicate", name, f"{names[name]} scenes have this name")
    return [frame for frame in frames if names[frame.name] == 1]


def _as_chosen(frames: list[Frame], chosen: dict[str, Any], findings: Findings) -> list[Frame]:
    """The frames with the unit, the levels and the places that the options give."""
    changes = {
        form: {field: chosen[name]} if name in chosen else {}
        for form, field, name in (("depth", "unit", "depth_unit"), ("grey", "levels", "levels"))
    }
    found, without = [], []
    for frame in frames:
        pictures = {m: replace(one, **changes.get(one.form, {})) for m, one in frame.pictures.items()}
        group = frame.group
        if "place" in chosen:
            match = chosen["place"].search(frame.name)
            group = match[min(1, len(match.groups()))] or "" if match else ""
            without += [] if match else [frame.name]
        found.append(replace(frame, pictures=pictures, group=group))
    if without:
        findings.notes.append(f"the pattern of places is not in {len(without)} names ({without[0]})")
    return found


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
    require_settings(Path(path), folder, size, fit, on_bad, processes)

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
    more: dict[str, Any] = {"size": size, "fit": fit, "on_bad": on_bad, "processes": processes}
    with tqdm(desc="packing", unit="scene", disable=hidden, leave=False) as bar:
        pack = write_pack(found, folder, progress=moved(bar), **more)
    for note in pack.manifest["notes"][len(found.notes) :]:
        say(f"note: {note}")
    say(f"written to {folder}")
    say(pack.summary())
    return pack


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
    out = Path(os.path.expanduser(out)).absolute()
    size = survey.size if size is None else size
    require_settings(survey.root, out, size, fit, on_bad, processes)
    survey.require_few([], on_bad)
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
    root, out = (Path(os.path.realpath(os.path.expanduser(one))) for one in (root, out))
    if os.path.lexists(out):
        raise LabError(f"{out} exists already: choose another folder, or take it away.")
    if out.is_relative_to(root):
        raise LabError(f"{out} lies in the data set itself: choose a folder outside of it.")


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
    needed = sum(one.bytes_per_pixel for one in pictures) * size * size
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LabError(
            f"The pack needs {needed / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB free: free space, "
            "choose a smaller size, or another folder."
        )
    scenes = [frame.pictures for frame in survey.frames]
    images = decode_all(scenes, size, fit, processes, progress)
    failed: list[Problem] = []
    parts = {split: PackWriter(folder, split, survey.modalities) for split in SPLITS}
    try:
        for frame, found in zip(survey.frames, images, strict=True):
            if isinstance(found, BadPicture):
                where = scan.place(found.path or frame.name, survey.root)
                failed.append(Problem(found.what, where, readable(found.why)))
            else:
                parts[frame.split].append(frame, found)
    finally:
        for part in parts.values():
            part.close()
    survey.require_few(failed, on_bad)
    splits = {split: part.describe(size, fit) for split, part in parts.items() if part.frames}
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
        "notes": [*survey.notes, *scan.near_duplicates(parts["train"].thumbnails, parts["test"].thumbnails)],
    }
    write_whole(folder / MANIFEST, as_json(manifest))
    stamp(folder, [one["file"] for part in splits.values() for one in part["arrays"].values()])


def _cut_away(frames: Sequence[Frame]) -> list[str]:
    """How much of the pictures the middle square leaves out, where it is more than a hundredth."""
    shares = []
    for width, height in (frame.size for frame in frames):
        left, top, right, bottom = square(width, height, "centre")
        shares.append(1 - (right - left) * (bottom - top) / (width * height))
    mean = sum(shares) / len(shares)
    words = f"fit centre cuts {mean:.0%} of a picture away on average, {max(shares):.0%} at most"
    return [f"{words}; --fit letterbox keeps all, --fit stretch squeezes"] if mean > 0.01 else []


def _ranges(
    frames: Sequence[Frame], modalities: Sequence[str], findings: Findings, unit_is_known: bool
) -> tuple[str, ...]:
    """The range of the values of each modality and domain in a line; doubts become notes."""
    lines = []
    domains = sorted({frame.domain for frame in frames})
    for modality, domain in ((m, d) for m in modalities for d in domains):
        mine = [one.pictures[modality] for one in frames if one.domain == domain and modality in one.pictures]
        if mine:
            title = modality if len(domains) == 1 else f"{modality} of {domain}"
            line, notes = value_range(mine, unit_is_known)
            lines.append(f"{title}: {line}")
            findings.notes += [f"{title}: {note}" for note in notes]
    return tuple(lines)
