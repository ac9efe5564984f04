"""Where the files of each kind of set lie, which of them belong together, which classes are the task."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from socketlab.errors import LabError
from socketlab.images import scan
from socketlab.images.decode import Picture
from socketlab.images.scan import (
    Findings,
    Frame,
    by_stem,
    composed,
    listed,
    pictures_of,
    readable,
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

HALVES = {"train": "train", "training": "train", "test": "test", "testing": "test",
          "val": "val", "valid": "val", "validation": "val"}  # fmt: skip
"""Names of folders → the split that they hold."""

Found = tuple[list[Frame], tuple[str, ...], str]
Entries = list[tuple[Path, int] | None]
"""Path and label of each line of a list; None where the line cannot be read."""

_UNLABELLED = {"idk", scan.UNKNOWN, "unlabelled"}
_WORDS = "|".join(sorted(scan.MODALITY_NAMES, key=len, reverse=True))
_MODALITY = re.compile(rf"^(?:(?P<first>{_WORDS})[_-](?P<rest>.+)|(?P<stem>.+)[_-](?P<last>{_WORDS}))$", re.I)
_ENDING = re.compile(r"[_-](?:c|d|abs|abs_smooth)$", re.I)
_ROLE = "(?:_(?P<role>train|test|ti|pairs))?"
_LINE = re.compile(r"\s*(?P<path>\S.*?)\s+(?P<label>-1|[0-9]{1,6})\s*")


# ------------------------------------------------------------------------ the published sets


def find_sunrgbd(findings: Findings, task: Sequence[str] | None, depth: str = "depth") -> Found:
    """Four sensors; the task is what all of them have seen."""
    if depth not in ("depth", "depth_bfx"):
        raise LabError(f"SUN RGB-D has no {depth!r} images: choose depth or depth_bfx.")
    root = _below(findings.root, lambda folder: any((folder / one).is_dir() for one in SUN_SENSORS))
    frames = []
    for name, domain in SUN_SENSORS.items():
        for folder, folders, files in walk(root / name, findings) if (root / name).is_dir() else ():
            if {one.name for one in (*folders, *files)} & {"image", depth, "scene.txt"}:
                folders.clear()
                kind = _sun_kind(folder)
                if kind is None:
                    findings.bad("no label", folder, "scene.txt does not hold one word", scenes=1)
                else:
                    frames.append(_sun_frame(folder, root, domain, kind, depth, findings))
    if task is not None:
        return frames, scan.chosen_classes(task, (frame.kind for frame in frames)), "chosen"
    kinds: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        kinds[frame.domain].add(frame.kind)
    common = set.intersection(*kinds.values()) - _UNLABELLED if kinds else set()
    if frames and not common:
        raise LabError(
            f"No kind of scene was seen by all of {', '.join(kinds)}: choose the classes of the task."
        )
    gone = sorted(set(SUN_SENSORS.values()) - set(kinds))
    less = f"; {', '.join(gone)} not found, so this is not the published choice" if gone else ""
    return frames, tuple(sorted(common)), f"seen by {', '.join(sorted(kinds))}{less}"


def _sun_frame(folder: Path, root: Path, domain: str, kind: str, depth: str, findings: Findings) -> Frame:
    pictures = {}
    for modality, below in (("rgb", "image"), ("depth", depth)):
        files = pictures_of(*listed(folder / below, findings), findings)
        for file in files[1:]:
            findings.bad("duplicate", file, f"one picture was expected, beside {readable(files[0].name)}")
        if len(files) == 1:
            pictures[modality] = Picture(files[0], scan.FORM_OF[modality], unit="rotated")
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
    """The place that a frame shows, as far as its name has it.

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


def find_diml(findings: Findings, task: Sequence[str] | None, quality: str = "HR") -> Found:
    """The set's own train and test; what is not of the task makes the pairs."""
    root = _below(findings.root, lambda folder: any((folder / half).is_dir() for half in ("train", "test")))
    frames = []
    for half in ("train", "test"):
        inside = listed(root / half, findings)[0] if (root / half).is_dir() else []
        scenes = root / half / quality
        if inside and scenes not in inside:
            there = ", ".join(one.name for one in inside)
            findings.bad("missing folder", scenes, f"there is {there}: choose with --option quality=NAME")
        for folder in listed(scenes, findings)[0] if scenes in inside else []:
            kind = re.sub(r"^\d+\s*[._]?\s*", "", folder.name).strip().lower().replace(" ", "_")
            found = {}
            for modality, below in (("rgb", "color"), ("depth", "depth_filled")):
                files = pictures_of(*listed(folder / below, findings), findings)
                found[modality] = by_stem(files, findings, _bare)
            frames += _together(found, f"{half}/{folder.name}", "diml", kind or folder.name, half)
    classes, how = _preferred(DIML_TASK, {frame.kind for frame in frames}, task)
    return _with_pairs(frames, classes), classes, how


def find_rgbnir(findings: Findings, task: Sequence[str] | None) -> Found:
    """Class folders with two TIFF files of each scene."""
    frames = []
    for folder, folders, files in walk(findings.root, findings):
        pictures, found = pictures_of(folders, files, findings), {}
        for modality in ("rgb", "nir"):
            mine = [one for one in pictures if one.stem.lower().endswith(f"_{modality}")]
            found[modality] = by_stem(mine, findings, lambda path: path.stem[:-4])
        frames += _together(found, folder.name, "rgbnir", folder.name)
    classes, how = _preferred(RGBNIR_TASK, {frame.kind for frame in frames}, task)
    return frames, classes, how


def find_eurosat(findings: Findings, task: Sequence[str] | None) -> Found:
    """Class folders with one file of 13 bands of each scene."""
    frames = []
    for folder, folders, files in walk(findings.root, findings):
        pictures = pictures_of(folders, files, findings)
        tiffs = [file for file in pictures if file.suffix.lower() in (".tif", ".tiff")]
        for stem, file in by_stem(tiffs, findings).items():
            bands = {
                modality: Picture(file, "bands", levels=(0.0, white), bands=numbers)
                for modality, (numbers, white) in EUROSAT_BANDS.items()
            }
            frames.append(Frame(f"{folder.name}/{stem}", "sentinel_2", folder.name, bands))
    classes, how = _preferred(EUROSAT_TASK, {frame.kind for frame in frames}, task)
    return frames, classes, how


# ------------------------------------------------------------------------ folders


def find_folders(findings: Findings, task: Sequence[str] | None) -> Found:
    """A part of a path (or the file's name) is the modality, one may be train or test, one is the class.

    So ``rgb/kitchen/1.png``, ``train/rgb/kitchen/1.png``, ``rgb/train/kitchen/1.png``, ``kitchen/rgb/1.png``
    and ``kitchen/color_1.png`` are read alike. Files that do not fit are counted.
    """
    found: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, str] = {}
    idle: set[str] = set()  # folders of the set in which nothing was found
    for folder, folders, files in walk(findings.root, findings):
        parts = [composed(part) for part in folder.relative_to(findings.root).parts]
        idle |= {one.name for one in folders} if folder == findings.root else set()
        modality, parts = _named_part(parts, scan.MODALITY_NAMES)
        half, rest = _named_part(parts, HALVES)
        half, rest = (half, rest) if rest else ("", parts)  # a folder train without folders in it is a class
        for file in pictures_of(folders, files, findings):
            seen = modality or _modality_of(file)
            if not seen:
                findings.not_read("picture of no modality", file)
            elif len(rest) != 1:
                where = "in a folder deeper than its class" if rest else "beside the class folders"
                findings.not_read(f"picture {where}", file)
            else:
                found[half, names.setdefault(rest[0].casefold(), rest[0])][seen].append(file)
                idle.discard(file.relative_to(findings.root).parts[0])
    findings.notes += [f"nothing in the folder {name} is read" for name in sorted(idle)]
    has_test = any(half == "test" for half, _ in found)
    frames: list[Frame] = []
    for (half, kind), modalities in sorted(found.items()):
        if half == "val" and has_test:
            for file in (one for mine in modalities.values() for one in mine):
                findings.not_read("picture of a validation set, beside train and test", file)
            continue
        mine = {m: by_stem(each, findings) for m, each in sorted(modalities.items())}
        stems = [{stem.casefold() for stem in one} for one in mine.values()]
        if len(mine) > 1 and not set.intersection(*stems):
            mine = {m: by_stem(each, findings, _bare) for m, each in sorted(modalities.items())}
            example = " and ".join(readable(each[0].name) for each in modalities.values())
            findings.notes.append(f"{kind}: partners have one name but for the modality, as {example}")
        unknown = kind.lower() in _UNLABELLED  # to adapt to; as pairs they might show the task
        split = "train" if unknown else half.replace("val", "test")
        above, domain = f"{half}/{kind}".lstrip("/"), readable(findings.root.name) or "folders"
        frames += _together(mine, above, domain, scan.UNKNOWN if unknown else kind, split)
    kinds = {frame.kind for frame in frames}
    if task is None:
        return frames, tuple(sorted(kinds - _UNLABELLED)), "every folder is a class of the task"
    classes = scan.chosen_classes(task, kinds)
    return _with_pairs(frames, classes), classes, "chosen"


def _with_pairs(frames: list[Frame], classes: tuple[str, ...]) -> list[Frame]:
    """The frames of other classes as pairs, on whichever side of the set's own split they are."""
    return [one if one.kind in (*classes, scan.UNKNOWN) else replace(one, split="pairs") for one in frames]


def _named_part(parts: list[str], words: dict[str, str]) -> tuple[str, list[str]]:
    """What the first part that is one of the words stands for, and the other parts."""
    for i, part in enumerate(parts):
        if part.lower() in words:
            return words[part.lower()], parts[:i] + parts[i + 1 :]
    return "", parts


def _modality_of(file: Path) -> str:
    parts = _MODALITY.fullmatch(file.stem)
    return scan.MODALITY_NAMES[(parts["first"] or parts["last"]).lower()] if parts else ""


def _bare(file: Path) -> str:
    """The stem without the word for the modality: ``in_00_c`` and ``in_00_depth_filled`` are partners."""
    parts = _MODALITY.fullmatch(file.stem)
    return (parts["rest"] or parts["stem"]) if parts else _ENDING.sub("", file.stem)


def _together(
    found: dict[str, dict[str, Path]], folder: str, domain: str, kind: str, split: str = ""
) -> list[Frame]:
    """Frames of the files that have the same stem, in capitals or not."""
    names: dict[str, str] = {}
    scenes: dict[str, dict[str, Picture]] = defaultdict(dict)
    for modality, files in found.items():
        for stem, file in files.items():
            names.setdefault(stem.casefold(), stem)
            scenes[stem.casefold()][modality] = Picture(file, scan.FORM_OF[modality])
    return [
        Frame(f"{folder}/{names[key]}", domain, kind, pictures, split=split)
        for key, pictures in sorted(scenes.items())
    ]


def _preferred(
    default: tuple[str, ...], counts: set[str], task: Sequence[str] | None
) -> tuple[tuple[str, ...], str]:
    """The classes asked for; else those of the default that are there."""
    if task is not None:
        return scan.chosen_classes(task, counts), "chosen"
    there = [name for name in default if name in counts]
    if counts and not there:
        raise LabError(f"The set has none of {', '.join(default)}: choose the classes of the task (--task).")
    return tuple(sorted(there)), "socketlab's default"


def _below(root: Path, holds: Callable[[Path], bool]) -> Path:
    """The folder itself or one of those in it, whichever holds the set."""
    candidates = [root, *sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")]
    return next((one for one in candidates if holds(one)), root)


# ------------------------------------------------------------------------ text lists


def find_lists(
    findings: Findings, task: Sequence[str] | None, by_line: bool = False, base: str | Path | None = None
) -> Found:
    """Scenes of the lists in a folder, ``path label`` per line, as the published code reads them.

    A list belongs to a domain and a modality, ``rgb/kv1_list.txt`` or ``kv1_rgb_list.txt``. It holds scenes
    of the task, ``kv1_test_list.txt`` those to test on, ``kv1_ti_list.txt`` task-irrelevant ones: line i of
    such a list belongs to line i of the other modality's, and that their stems agree is verified. Label −1 is
    unknown.

    Parameters
    ----------
    task : classes of the task; None for all that have a label in a list of the task.
    by_line : lines of the lists of pairs are partners whatever their files are called.
    base : folder that paths begin at; None for that of the data set, or of the list.
    """
    start = findings.root if base is None else Path(os.path.expanduser(base)).absolute()
    lists: dict[tuple[str, str], dict[str, Entries]] = defaultdict(dict)
    for file, domain, modality, role in _lists_in(findings):
        if modality in lists[domain, role]:
            findings.bad("duplicate", file, f"a second list of {modality} images of {domain}")
        else:
            lists[domain, role][modality] = _read_list(file, start, findings)
    names = _label_names(lists.values(), findings)
    frames: list[Frame] = []
    for (domain, role), modalities in sorted(lists.items()):
        if role == "pairs":
            frames += _joined_by_line(modalities, domain, names, findings, by_line)
        else:
            frames += _joined_by_stem(modalities, domain, role, names, findings)
    labelled = {frame.kind for frame in frames if frame.split != "pairs"} - {scan.UNKNOWN}
    shown = {frame.kind for frame in frames if frame.split == "pairs"} & labelled
    if shown:
        findings.notes.append(f"pairs show classes of the task: {', '.join(sorted(shown))}")
    if task is not None:
        return frames, scan.chosen_classes(task, labelled), "chosen"
    return frames, tuple(sorted(labelled)), "the labels of the lists"


def _lists_in(findings: Findings) -> Iterator[tuple[Path, str, str, str]]:
    """Every list: its file, domain, modality, and the split of its scenes."""
    named = re.compile(rf"(?P<domain>.+?)_(?P<modality>{_WORDS}){_ROLE}_list\.txt", re.I)
    plain = re.compile(rf"(?P<domain>.+?){_ROLE}_list\.txt", re.I)
    folders, files = listed(findings.root, findings)
    candidates = [(file, named.fullmatch(file.name), "") for file in files]
    for folder in folders:
        if folder.name.lower() in scan.MODALITY_NAMES:
            inside = listed(folder, findings)[1]
            candidates += [(file, plain.fullmatch(file.name), folder.name.lower()) for file in inside]
    for file, parts, modality in candidates:
        if parts is not None:
            role = (parts["role"] or "train").lower()
            modality = scan.MODALITY_NAMES[modality or parts["modality"].lower()]
            yield file, parts["domain"], modality, "pairs" if role == "ti" else role


def _read_list(file: Path, start: Path, findings: Findings) -> Entries:
    """Path and label of every line; None where a line cannot be read, so that the lines keep their numbers.

    The label is what follows the last space; a path may hold spaces of its own.
    """
    try:
        text = text_of(file)
    except OSError as error:
        findings.bad("unreadable file", file, error.strerror or "it cannot be read")
        return []
    except UnicodeDecodeError:
        findings.bad("unreadable file", file, "it is text neither in UTF-8 nor in UTF-16")
        return []
    entries: Entries = []
    written = []
    for number, line in enumerate(text.rstrip().split("\n") if text.strip() else (), 1):
        parts = _LINE.fullmatch(line)
        if parts is None or "\0" in line:
            findings.bad("bad line", f"{file.name}:{number}", "a path, a space and a label were expected")
            entries.append(None)
        else:
            written.append(parts["path"])
            entries.append((_path_of(parts["path"], file.parent, start), int(parts["label"])))
    if written and not any(os.path.exists(entry[0]) for entry in entries[:20] if entry):
        why = f"there is no {readable(written[0])}: --option base=FOLDER names the folder where paths begin"
        findings.bad("missing files", f"{file.name}:1", why)
    return entries


def _path_of(text: str, beside: Path, start: Path) -> Path:
    """A path as written, or with slashes for backslashes or in another form of Unicode, if that exists."""
    slashed = text.replace("\\", "/")
    for form in (text, slashed, *(unicodedata.normalize(one, slashed) for one in ("NFC", "NFD"))):
        for folder in (beside, start):
            if os.path.exists(folder / form):
                return folder / form
    return start / slashed


def _label_names(lists: Iterable[dict[str, Entries]], findings: Findings) -> dict[int, str]:
    """Names of the labels: ``classes.txt``, one a line, else the folders of the files where these agree."""
    folders: dict[int, set[str]] = defaultdict(set)
    for modalities in lists:
        for entry in (one for entries in modalities.values() for one in entries):
            if entry is not None and entry[1] >= 0:
                folders[entry[1]].add(composed(entry[0].parent.name))
    try:
        lines = text_of(findings.root / "classes.txt").split("\n")
        return dict(enumerate(composed(line.strip()) for line in lines if line.strip()))
    except (OSError, UnicodeDecodeError):
        pass
    single = {label: next(iter(names)) for label, names in folders.items() if len(names) == 1}
    if len(single) == len(folders) == len(set(single.values())):
        return single
    return {label: f"class_{label}" for label in folders}


def _joined_by_line(
    modalities: dict[str, Entries], domain: str, names: dict[int, str], findings: Findings, by_line: bool
) -> list[Frame]:
    """Pairs: line i of one list and line i of another are partners, which their stems must confirm."""
    lengths = {modality: len(entries) for modality, entries in modalities.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} {modality}" for modality, count in lengths.items())
        why = f"the lists of pairs are not of one length ({counts}); the rest is left out"
        findings.bad("orphan", domain, why, scenes=max(lengths.values()) - min(lengths.values()))
    frames = []
    for number, row in enumerate(zip(*modalities.values(), strict=False), 1):
        entries = {m: entry for m, entry in zip(modalities, row, strict=True) if entry is not None}
        stems = {_bare(path) for path, _ in entries.values()}
        if len(entries) < len(row):
            findings.lost += 1  # its bad line is reported
        elif len(stems) > 1 and not by_line:
            words = " and ".join(readable(path.name) for path, _ in entries.values())
            why = f"{words} have different names (--option by_line=true pairs them)"
            findings.bad("mismatched pair", f"{domain}, pair {number}", why, scenes=1)
        else:
            pictures = {m: Picture(path, scan.FORM_OF[m]) for m, (path, _) in entries.items()}
            path, label = next(iter(entries.values()))
            kind = names.get(label, scan.UNKNOWN if label < 0 else f"class_{label}")
            name = f"{domain}/ti/{number:06}/{_bare(path)}"
            frames.append(Frame(name, domain, kind, pictures, split="pairs"))
    return frames


def _joined_by_stem(
    modalities: dict[str, Entries], domain: str, role: str, names: dict[int, str], findings: Findings
) -> list[Frame]:
    """Scenes of the task: they need no partner, and have one where folder and stem are the same."""
    scenes: dict[str, dict[str, tuple[Path, int]]] = defaultdict(dict)
    for modality, entries in modalities.items():
        for entry in filter(None, entries):
            name = composed(f"{entry[0].parent.name}/{_bare(entry[0])}")
            if modality in scenes[name]:
                findings.bad("duplicate", entry[0], f"a second {modality} image of this name")
            else:
                scenes[name][modality] = entry
    frames = []
    for name, found in scenes.items():
        labels = {label for _, label in found.values() if label >= 0}
        if len(labels) > 1:
            why = f"labels {sorted(labels)} in the lists of {domain}"
            findings.bad("contradictory labels", name, why, scenes=1)
            continue
        kind = next((names.get(label, f"class_{label}") for label in labels), scan.UNKNOWN)
        pictures = {m: Picture(path, scan.FORM_OF[m]) for m, (path, _) in found.items()}
        frames.append(Frame(f"{domain}/{role}/{name}", domain, kind, pictures, split=role))
    return frames
