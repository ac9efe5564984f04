"""Where the files of each kind of set lie, which of them belong together, which classes are the task."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path

import numpy as np

from socketlab.errors import LabError, require_choice
from socketlab.images import scan
from socketlab.images.decode import Picture
from socketlab.images.scan import Frame, Survey, composed, listed, pictures_of, readable, text_of, walk

SUN_SENSORS = {"kv1": "kinect_v1", "kv2": "kinect_v2", "realsense": "realsense", "xtion": "xtion"}
"""Folder of SUN RGB-D → the sensor's name in this library."""

TASKS = {
    "diml": ("bedroom", "corridor", "kitchen", "library", "livingroom", "restaurant"),
    "rgbnir": ("country", "forest", "mountain", "street", "urban", "water"),
}
"""Defaults of ours: the paper does not name its six classes of DIML and of RGB-NIR Scene."""

HALVES = {"train": "train", "training": "train", "test": "test", "testing": "test",
          "val": "val", "valid": "val", "validation": "val"}  # fmt: skip
"""Names of folders → the split that they hold."""

Entries = dict[int, tuple[Path, int]]
"""Number of a line of a list → its path and label."""

_UNLABELLED = {"idk", scan.UNKNOWN, "unlabelled"}
_WORDS = "|".join(sorted(scan.MODALITY_NAMES, key=len, reverse=True))
_MODALITY = re.compile(rf"^(?:(?P<first>{_WORDS})[_-](?P<rest>.+)|(?P<stem>.+)[_-](?P<last>{_WORDS}))$", re.I)
_ENDING = re.compile(r"[_-](?:c|d|abs|abs_smooth)$", re.I)
_stem: Callable[[Path], str] = attrgetter("stem")
_LINE = re.compile(r"\s*(?P<path>\S.*?)\s+(?P<label>-1|[0-9]{1,6})\s*")


def find_sunrgbd(survey: Survey, depth: str = "depth") -> list[Frame]:
    """Four sensors, a folder for each frame."""
    require_choice("depth", depth, ("depth", "depth_bfx"))
    root, frames = _below(survey.root, SUN_SENSORS), []
    for sensor, domain in SUN_SENSORS.items():
        for folder, folders, files in walk(root / sensor, survey) if (root / sensor).is_dir() else ():
            if not {one.name for one in (*folders, *files)} & {"image", depth, "scene.txt"}:
                continue
            folders.clear()
            words, pictures = text_of(folder / "scene.txt")[0].split(), {}
            if len(words) != 1 or not words[0].isprintable():
                survey.bad("no label", folder, "scene.txt does not hold one word", scenes=1)
                continue
            for modality, below in (("rgb", "image"), ("depth", depth)):
                found = pictures_of(*listed(folder / below, survey), survey)
                for file in found[1:]:
                    why = f"one picture was expected, beside {readable(found[0].name)}"
                    survey.bad("duplicate", file, why)
                if len(found) == 1:
                    pictures[modality] = Picture(found[0], scan.FORM_OF[modality], unit="rotated")
            name = folder.relative_to(root).as_posix()
            focal = _sun_focal(text_of(folder / "intrinsics.txt")[0])
            kind, group = words[0].lower(), _sun_place(name)
            frames.append(Frame(name, domain, kind, pictures, group, focal=focal))
    return frames


def _sun_focal(text: str) -> tuple[float, float] | None:
    """f_x, f_y of the nine numbers of a camera matrix; None where they can be no camera's."""
    try:
        f_x, f_y = np.array(text.split(), np.float64).reshape(3, 3).diagonal()[:2].tolist()
    except ValueError:
        return None
    return (f_x, f_y) if 0 < f_x < np.inf and 0 < f_y < np.inf else None


def _sun_place(name: str) -> str:
    """The place that a frame shows: by its name a folder of sun3d, a session, ten of NYU, or itself."""
    name = re.sub(r"/sun3ddata/([^/]+)/.*", r"/sun3ddata/\1", name)
    name = re.sub(r"/(?:\d+_)?([^/]+)_rgbf\d+[^/]*$", r"/\1", name)
    return re.sub(r"/NYU(\d+)$", lambda nyu: f"/NYU-{int(nyu[1]) // 10}x", name)


def find_diml(survey: Survey) -> list[Frame]:
    """The set's own train and test, a folder for each kind of scene."""
    root, frames = _below(survey.root, ("train", "test")), []
    for half in ("train", "test"):
        for folder in listed(root / half / "HR", survey)[0]:
            kind = re.sub(r"^\d+\s*[._]?\s*", "", folder.name).strip().lower().replace(" ", "_")
            found = {
                modality: pictures_of(*listed(folder / below, survey), survey)
                for modality, below in (("rgb", "color"), ("depth", "depth_filled"))
            }
            above = f"{half}/{folder.name}"
            frames += _together(found, above, "diml", kind or folder.name, survey, _bare, half)
    return frames


def find_rgbnir(survey: Survey) -> list[Frame]:
    """Class folders with two TIFF files of each scene."""
    root, frames = _below(survey.root, TASKS["rgbnir"]), []
    for folder, folders, files in walk(root, survey):
        pictures, name = pictures_of(folders, files, survey), folder.relative_to(root).as_posix()
        found = {m: [one for one in pictures if one.stem.lower().endswith(f"_{m}")] for m in ("rgb", "nir")}
        frames += _together(found, name, "rgbnir", folder.name, survey, lambda one: one.stem[:-4])
    return frames


def find_folders(survey: Survey) -> list[Frame]:
    """A part of a path (or the file's name) is the modality, one may be train or test, one is the class.

    So ``rgb/kitchen/1.png``, ``train/rgb/kitchen/1.png``, ``rgb/train/kitchen/1.png``, ``kitchen/rgb/1.png``
    and ``kitchen/color_1.png`` are read alike. Files that do not fit are counted.
    """
    found: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, str] = {}
    for folder, folders, files in walk(survey.root, survey):
        parts = [composed(part) for part in folder.relative_to(survey.root).parts]
        modality, parts = _named_part(parts, scan.MODALITY_NAMES)
        half, rest = _named_part(parts, HALVES)
        half, rest = (half, rest) if rest else ("", parts)  # a folder train without folders in it is a class
        for file in pictures_of(folders, files, survey):
            named = _MODALITY.fullmatch(file.stem)
            seen = modality or (named and scan.MODALITY_NAMES[(named["first"] or named["last"]).lower()])
            if not seen:
                survey.not_read("picture of no modality", file)
            elif len(rest) != 1:
                where = "in a folder deeper than its class" if rest else "beside the class folders"
                survey.not_read(f"picture {where}", file)
            else:
                found[half, names.setdefault(rest[0].casefold(), rest[0])][seen].append(file)
    has_test = any(half == "test" for half, _ in found)
    frames: list[Frame] = []
    for (half, kind), mine in sorted(found.items()):
        if half == "val" and has_test:
            for file in (one for files in mine.values() for one in files):
                survey.not_read("picture of a validation set, beside train and test", file)
            continue
        stems = [{composed(file.stem).casefold() for file in files} for files in mine.values()]
        alike = len(mine) == 1 or bool(set.intersection(*stems))
        unknown = kind.lower() in _UNLABELLED  # to adapt to; as pairs they might show the task
        frames += _together(
            dict(sorted(mine.items())),
            f"{half}/{kind}".lstrip("/"),
            readable(survey.root.name) or "folders",
            scan.UNKNOWN if unknown else kind,
            survey,
            _stem if alike else _bare,
            "train" if unknown else half.replace("val", "test"),
        )
    return frames


def _named_part(parts: list[str], words: dict[str, str]) -> tuple[str, list[str]]:
    """What the first part that is one of the words stands for, and the other parts."""
    for i, part in enumerate(parts):
        if part.lower() in words:
            return words[part.lower()], parts[:i] + parts[i + 1 :]
    return "", parts


def _bare(file: Path) -> str:
    """The stem without the word for the modality: ``in_00_c`` and ``in_00_depth_filled`` are partners."""
    parts = _MODALITY.fullmatch(file.stem)
    return (parts["rest"] or parts["stem"]) if parts else _ENDING.sub("", file.stem)


def _together(
    found: Mapping[str, list[Path]], folder: str, domain: str, kind: str, survey: Survey,
    stem: Callable[[Path], str] = _stem, split: str = "",
) -> list[Frame]:  # fmt: skip
    """Frames of the files of one stem, in any case and form of Unicode; of two of one modality neither."""
    scenes: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for modality, files in found.items():
        for file in files:
            scenes[composed(stem(file)).casefold()][modality].append(file)
    frames = []
    for _, scene in sorted(scenes.items()):
        for first, *others in scene.values():
            for file in others:
                survey.bad("duplicate", file, f"the same name as {readable(first.name)}")
        pictures = {m: Picture(files[0], scan.FORM_OF[m]) for m, files in scene.items() if len(files) == 1}
        if pictures:
            name = composed(stem(next(iter(pictures.values())).path))
            frames.append(Frame(f"{folder}/{name}", domain, kind, pictures, split=split))
    return frames


def _below(root: Path, names: Sequence[str] | Mapping[str, str]) -> Path:
    """The folder itself or one of those in it, whichever has a folder of one of the names."""
    candidates = [root, *sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")]
    return next((one for one in candidates if any((one / name).is_dir() for name in names)), root)


def find_lists(survey: Survey, by_line: bool = False, base: str | Path | None = None) -> list[Frame]:
    """Scenes of the lists in a folder, ``path label`` per line, as the published code reads them.

    A list belongs to a domain and a modality, ``rgb/kv1_list.txt`` or ``kv1_rgb_list.txt``. It holds scenes
    of the task, ``kv1_test_list.txt`` those to test on: they need no partner, and have one where folder and
    stem are the same. ``kv1_ti_list.txt`` holds task-irrelevant ones: line i of it belongs to line i of the
    other modality's, and their stems must agree unless ``by_line``. Label −1 is unknown. ``base`` is where
    paths begin that do not begin at the list.
    """
    start = survey.root if base is None else Path(os.path.expanduser(base)).absolute()
    lists: dict[tuple[str, str], dict[str, Entries]] = defaultdict(dict)
    for file, domain, modality, role in _lists_in(survey):
        if modality in lists[domain, role]:
            survey.bad("duplicate", file, f"a second list of {modality} images of {domain}")
        else:
            lists[domain, role][modality] = _read_list(file, start, survey)
    every = (entries for mine in lists.values() for entries in mine.values())
    names = _label_names([entry for entries in every for entry in entries.values()], survey.root)
    frames: list[Frame] = []
    for (domain, role), mine in sorted(lists.items()):
        frames += _scenes_of(mine, domain, role, names, survey, by_line)
    pairs, task = ({one.kind for one in frames if (one.split == "pairs") is side} for side in (True, False))
    if shown := pairs & task - {scan.UNKNOWN}:
        survey.notes.append(f"pairs show classes of the task: {', '.join(sorted(shown))}")
    return frames


def _lists_in(survey: Survey) -> Iterator[tuple[Path, str, str, str]]:
    """Every list: its file, domain, modality, and the split of its scenes."""
    end = r"(?:_(?P<role>train|test|ti|pairs))?_list\.txt"
    folders, files = listed(survey.root, survey)
    places = [(files, "", rf"(?P<domain>.+?)_(?P<modality>{_WORDS}){end}")]
    for folder in folders:
        if folder.name.lower() in scan.MODALITY_NAMES:
            places.append((listed(folder, survey)[1], folder.name.lower(), rf"(?P<domain>.+?){end}"))
    for files, word, pattern in places:
        for file in files:
            if parts := re.fullmatch(pattern, file.name, re.I):
                role = (parts["role"] or "train").lower()
                modality = scan.MODALITY_NAMES[word or parts["modality"].lower()]
                yield file, parts["domain"], modality, "pairs" if role == "ti" else role


def _read_list(file: Path, start: Path, survey: Survey) -> Entries:
    """Path and label (what follows the last space) of every line."""
    text, why = text_of(file)
    if why:
        survey.bad("unreadable file", file, why)
    entries: Entries = {}
    first = ""
    for number, line in enumerate(text.rstrip().split("\n") if text.strip() else (), 1):
        if (parts := _LINE.fullmatch(line)) and "\0" not in line:
            first = first or parts["path"]
            entries[number] = _path_of(parts["path"], file.parent, start), int(parts["label"])
        else:
            survey.bad("bad line", f"{file.name}:{number}", "a path, a space and a label were expected")
    if first and not any(os.path.exists(path) for path, _ in [*entries.values()][:20]):
        why = f"there is no {readable(first)}: --option base=FOLDER names the folder where paths begin"
        survey.bad("missing files", f"{file.name}:1", why)
    return entries


def _path_of(text: str, beside: Path, start: Path) -> Path:
    """A path as written, or with slashes for backslashes or in another form of Unicode, if that exists."""
    slashed = text.replace("\\", "/")
    forms = (text, slashed, composed(slashed), unicodedata.normalize("NFD", slashed))
    paths = (folder / form for form in forms for folder in (beside, start))
    return next((path for path in paths if os.path.exists(path)), start / slashed)


def _label_names(entries: list[tuple[Path, int]], root: Path) -> dict[int, str]:
    """Names of the labels: ``classes.txt``, one a line, else the folders of the files where these agree."""
    lines = text_of(root / "classes.txt")[0].split("\n")
    if any(map(str.strip, lines)):
        return dict(enumerate(composed(line.strip()) for line in lines if line.strip()))
    folders: dict[int, set[str]] = defaultdict(set)
    for path, label in entries:
        if label >= 0:
            folders[label].add(composed(path.parent.name))
    single = {label: next(iter(names)) for label, names in folders.items() if len(names) == 1}
    if len(single) == len(folders) == len(set(single.values())):
        return single
    return {label: f"class_{label}" for label in folders}


def _scenes_of(
    lists: dict[str, Entries], domain: str, role: str, names: dict[int, str], survey: Survey, by_line: bool
) -> list[Frame]:
    """The lines of the lists of each modality, brought together: pairs by their numbers, others by name."""
    pairs = role == "pairs"
    scenes: dict[str, dict[str, tuple[Path, int]]] = defaultdict(dict)
    for modality, entries in lists.items():
        for number, (path, label) in entries.items():
            key = f"{number:06}" if pairs else composed(f"{path.parent.name}/{_bare(path)}")
            if modality in scenes[key]:
                survey.bad("duplicate", path, f"a second {modality} image of this name")
            else:
                scenes[key][modality] = path, label
    frames = []
    for key, found in scenes.items():
        labels = [label for _, label in found.values()]
        known = sorted({*labels} - {-1})
        if pairs and len({_bare(path) for path, _ in found.values()}) > 1 and not by_line:
            words = " and ".join(readable(path.name) for path, _ in found.values())
            why = f"{words} have different names (--option by_line=true pairs them)"
            survey.bad("mismatched pair", f"{domain}, pair {int(key)}", why, scenes=1)
        elif not pairs and len(known) > 1:
            why = f"labels {known} in the lists of {domain}"
            survey.bad("contradictory labels", key, why, scenes=1)
        else:
            label = labels[0] if pairs else max(labels)
            kind = names.get(label, scan.UNKNOWN if label < 0 else f"class_{label}")
            name = f"ti/{key}/{_bare(next(iter(found.values()))[0])}" if pairs else f"{role}/{key}"
            pictures = {m: Picture(path, scan.FORM_OF[m]) for m, (path, _) in found.items()}
            frames.append(Frame(f"{domain}/{name}", domain, kind, pictures, split=role))
    return frames


def task_of(kind: str, frames: list[Frame], wanted: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """The classes of the task, those that were asked for or the set's default, and who chose them."""
    seen: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        if kind != "lists" or (frame.split != "pairs" and frame.kind != scan.UNKNOWN):
            seen[frame.domain].add(frame.kind)
    kinds = sorted(set().union(*seen.values()))
    if wanted is not None:
        chosen = sorted({composed(name) for name in wanted})
        for name in chosen:
            if name not in kinds:
                near = ", ".join(get_close_matches(name, kinds, 3) or kinds[:8])
                raise LabError(f"There is no class {name!r} in this set: did you mean {near}?")
        if not chosen:
            raise LabError(f"A task needs classes: choose some of {', '.join(kinds[:20])}.")
        return tuple(chosen), "chosen"
    if kind in TASKS:
        there = tuple(name for name in TASKS[kind] if name in kinds)
        if not there:
            default = ", ".join(TASKS[kind])
            raise LabError(f"The set has none of {default}: choose the classes of the task (--task).")
        return there, "socketlab's default"
    if kind != "sunrgbd":
        how = "the labels of the lists" if kind == "lists" else "every folder is a class of the task"
        return tuple(name for name in kinds if name != scan.UNKNOWN), how
    common = set.intersection(*seen.values()) - _UNLABELLED
    if not common:
        domains = ", ".join(seen)
        raise LabError(f"No kind of scene was seen by all of {domains}: choose the classes of the task.")
    gone = sorted(set(SUN_SENSORS.values()) - set(seen))
    less = f"; {', '.join(gone)} not found, so this is not the published choice" if gone else ""
    return tuple(sorted(common)), f"seen by {', '.join(sorted(seen))}{less}"
