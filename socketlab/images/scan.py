"""Scenes found in a folder of pictures: their files, what is wrong, how train and test are divided."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.images.decode import SUFFIXES, BadPicture, Picture, bar, size_of

SPLITS = ("train", "test", "pairs")
"""Task-relevant scenes to learn from, task-relevant scenes to test on, task-irrelevant pairs."""
MODALITY_NAMES = {
    "rgb": "rgb", "color": "rgb", "colour": "rgb", "image": "rgb", "images": "rgb", "visible": "rgb",
    "depth": "depth", "depth_filled": "depth", "nir": "nir", "infrared": "nir", "ir": "nir", "swir": "swir",
    "thermal": "thermal", "lwir": "thermal",
}  # fmt: skip
"""Names of folders and lists → modality."""
FORM_OF = {"rgb": "colour", "depth": "depth", "nir": "grey", "swir": "grey", "thermal": "grey"}
"""Modality → how its files are read, unless the set has a form of its own."""
UNKNOWN = "unknown"
"""The class of a scene without a label."""
TEST_SHARE = 0.2
SEVERAL = 5
"""Recordings of a class from which on whole recordings are held out, and not the end of each."""
ALIKE = 0.3
"""Distance of near-duplicates in medians of all distances: of independent rooms 1 % are so near to
one another, of the frames that are drawn at random from a video of a hand 50 %."""
BLOCK, BLOCKS = 8, 10
"""A recording is cut into blocks of so many consecutive images at least, and into so many blocks at most."""
SHOWN = 8
"""Problems of a sort that a report shows; the manifest of the pack has them all."""
_OTHER_FILES = {"", ".txt", ".json", ".xml", ".md", ".csv", ".db", ".ini", ".html", ".yaml", ".yml", ".log"}


@dataclass(frozen=True)
class Problem:
    """What keeps a scene out: its category, the place below the folder, and why."""

    what: str
    where: str
    why: str


@dataclass(frozen=True)
class Frame:
    """One scene."""

    name: str  # unique in the data set
    domain: str  # the sensor, or the name of the set
    kind: str  # its class, relevant to the task or not; "unknown" where there is no label
    pictures: dict[str, Picture]  # modality → file
    group: str = ""  # scenes of one group were taken in one place: they stay on one side of train and test
    split: str = ""  # one of SPLITS, or empty until it is decided
    focal: tuple[float, float] | None = None  # focal lengths f_x, f_y in pixels of the files
    size: tuple[int, int] = (0, 0)  # width and height of the files
    block: str = ""  # scenes of one block are not independent of each other


@dataclass
class Survey:
    """All that was found in the folder of a data set, and what will be done with it."""

    kind: str  # of data set, a name in importers.KINDS
    root: Path
    modalities: tuple[str, ...] = ()  # in the order in which they are stored
    frames: tuple[Frame, ...] = ()  # the usable scenes, by split, domain and name
    problems: list[Problem] = field(default_factory=list)  # what keeps scenes out
    lost: int = 0  # scenes that did not become frames
    left_out: int = 0  # how many scenes the problems keep out
    notes: list[str] = field(default_factory=list)  # other things worth knowing
    classes: tuple[str, ...] = ()  # of the task
    protocol: dict[str, str] = field(default_factory=dict)  # how classes and splits were chosen, by topic
    ranges: list[str] = field(default_factory=list)  # of the values of each modality and domain, a line each
    _unread: dict[str, list[str]] = field(default_factory=dict)

    def bad(self, what: str, where: Path | str, why: str, scenes: int = 0) -> None:
        """Add a problem, at a place below the folder of the set, that keeps so many scenes out."""
        self.problems.append(Problem(what, place(where, self.root), readable(why)))
        self.lost += scenes

    def not_read(self, what: str, file: Path) -> None:
        """Count a file that is passed over, by the reason."""
        self._unread.setdefault(what, []).append(place(file, self.root))

    def unread(self) -> list[str]:
        """The files passed over: how many for which reason, with an example."""
        return [f"not read: {len(files)} × {what} ({files[0]})" for what, files in self._unread.items()]

    def reasons(self) -> str:
        """Why there is nothing: every category with its count and its first file."""
        sorts = self.problems_by_sort().items()
        found = [f"{len(some)} × {what} ({some[0].where}: {some[0].why})" for what, some in sorts]
        return "; ".join(found + self.unread()) or "no pictures were found"

    def problems_by_sort(self) -> dict[str, list[Problem]]:
        """The problems of each category, in the order in which the first of each was found."""
        found: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            found[problem.what].append(problem)
        return found

    def counted(self) -> str:
        """How many problems of which category."""
        return ", ".join(f"{len(some)} × {what}" for what, some in sorted(self.problems_by_sort().items()))

    @property
    def domains(self) -> list[str]:
        """Names of the domains, sorted."""
        return sorted({frame.domain for frame in self.frames})

    def report(self) -> str:
        """The survey in words: one page, however many files there are."""
        lines = [f"{self.protocol['set']} in {readable(self.root.name)}: {len(self.frames)} usable scenes"]
        lines += [f"  {topic}: {words}" for topic, words in self.protocol.items() if topic != "set"]
        lines.append(f"  {'':<14}" + "".join(f"{split:>8}" for split in SPLITS))
        counts = Counter((frame.domain, frame.split) for frame in self.frames)
        for domain in self.domains:
            lines.append(f"  {domain:<14}" + "".join(f"{counts[domain, split]:>8}" for split in SPLITS))
        lines += [f"  {line}" for line in self.ranges] + [f"  note: {note}" for note in self.notes]
        if not self.problems:
            return "\n".join([*lines, "no scene is left out"])
        lines.append(f"problems: {self.counted()}; they keep {self.left_out} scenes out")
        for what, some in sorted(self.problems_by_sort().items(), key=lambda one: -len(one[1])):
            lines.append(f"  {what} ({len(some)})")
            lines += [f"    {problem.where}: {problem.why}" for problem in some[:SHOWN]]
            lines += [f"    … and {len(some) - SHOWN} more"] if len(some) > SHOWN else []
        return "\n".join(lines)

    def require_few(self, on_bad: str, failed: int = 0) -> None:
        """A `LabError` when more scenes are lost, with those that failed since, than ``on_bad`` allows."""
        lost, every = self.left_out + failed, len(self.frames) + self.left_out
        shown = "; ".join(f"{one.where}: {one.why}" for one in self.problems[:3])
        if failed == len(self.frames):
            raise LabError(f"No scene of {self.root.name} could be decoded: {shown}.")
        if {"auto": 2 * lost > every, "stop": bool(self.problems), "skip": False}[on_bad]:
            what = f"{lost} of {every} scenes cannot be used ({self.counted()}; {shown})"
            raise LabError(f'{what}: put them right, or leave them out with on_bad="skip" (--on-bad skip).')


def readable(text: object) -> str:
    """Text that can be printed and stored, whatever bytes a file name has."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def composed(text: str) -> str:
    """A name in the composed form of Unicode: some systems write ü as u and two dots."""
    return unicodedata.normalize("NFC", text)


def place(path: Path | str, root: Path) -> str:
    """A path below the data set's folder, with forward slashes: no private folder is named."""
    path = Path(path)
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return readable(inside.as_posix())


def walk(folder: Path, survey: Survey) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """A folder and all below it, with their subfolders and files, sorted; links are followed, in no circle.

    What cannot be read is reported; hidden entries are left out, and what is taken out of the subfolders.
    """

    def unreadable(error: OSError) -> None:
        survey.bad("unreadable folder", error.filename, error.strerror or "it cannot be read")

    for path, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        here, real = Path(path), os.path.realpath(path)
        for name in [*folders, *files]:
            if readable(name) != name:
                survey.bad("unreadable file", here / name, "its name is not text")
            elif name in folders and f"{real}/".startswith(f"{os.path.realpath(here / name)}/"):
                survey.bad("symlink loop", here / name, "it leads to a folder that it lies in")
            elif name[0] != ".":
                continue
            (folders if name in folders else files).remove(name)
        inner = [here / name for name in sorted(folders)]
        yield here, inner, [here / name for name in sorted(files)]
        folders[:] = [one.name for one in inner]


def listed(folder: Path, survey: Survey) -> tuple[list[Path], list[Path]]:
    """Subfolders and files of a folder, as `walk` gives them; nothing where there is no such folder."""
    return next(walk(folder, survey), (folder, [], []))[1:] if folder.is_dir() else ([], [])


def text_of(file: Path) -> tuple[str, str]:
    """The text of a small file, and why it cannot be read."""
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            return "", "it is not a file"
        data = file.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        return "", error.strerror or "it cannot be read"
    except UnicodeDecodeError:
        return "", "it is text neither in UTF-8 nor in UTF-16"
    return text.replace("\r\n", "\n").replace("\r", "\n"), ""


def pictures_of(folders: list[Path], files: list[Path], survey: Survey) -> list[Path]:
    """The picture files among the entries of a folder; a folder with a picture's name is taken out."""
    for inner in [one for one in folders if one.suffix.lower() in SUFFIXES]:
        survey.bad("folder in place of a file", inner, "a picture was expected")
        folders.remove(inner)
    for file in files:
        if file.suffix.lower() not in (*SUFFIXES, *_OTHER_FILES):
            survey.not_read(f"file ending in {readable(file.suffix)}", file)
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def whole(frames: Sequence[Frame], survey: Survey, may_lack: Sequence[str]) -> list[Frame]:
    """The frames with every modality, or of the task and of a class that may lack one."""
    seen: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        seen[frame.kind] |= set(frame.pictures)
    gaps = {kind: [m for m in survey.modalities if m not in have] for kind, have in sorted(seen.items())}
    kept, without = [], set()
    for frame in frames:
        lacking = [modality for modality in survey.modalities if modality not in frame.pictures]
        of_the_task = frame.split in ("train", "test") or (not frame.split and frame.kind in may_lack)
        if not lacking or (may_lack and of_the_task):
            kept.append(frame)
        elif lacking == gaps[frame.kind]:
            without.add(frame.kind)
        else:
            file = next((one.path for one in frame.pictures.values()), frame.name)
            survey.bad("orphan", file, f"{frame.name} has no {' and no '.join(lacking)} image")
    for kind, lacking in gaps.items():
        if kind in without:
            why = f"none of its scenes has {' or '.join(lacking)}"
            survey.bad("class missing in a modality", kind, why)
        elif lacking:
            survey.notes.append(f"class {kind} has no {' and no '.join(lacking)} images")
    return kept


def checked(frames: list[Frame], survey: Survey) -> Iterator[Frame]:
    """The frames whose files are whole and of one shape: the ratio of the sides is the same to 1 %."""
    files = {(one.path, one.form): one for frame in frames for one in frame.pictures.values()}
    sizes: dict[tuple[Path, str], tuple[int, int]] = {}
    for key, picture in bar(files.items(), desc="looking", unit="image"):
        try:
            sizes[key] = size_of(picture)
        except BadPicture as bad:
            survey.bad(bad.what, picture.path, bad.why)
    for frame in frames:
        found = {m: sizes.get((one.path, one.form), (0, 0)) for m, one in frame.pictures.items()}
        if (0, 0) in found.values():
            continue
        ratios = [width / height for width, height in found.values()]
        if max(ratios) > 1.01 * min(ratios):
            words = ", ".join(f"{modality} {width} × {height}" for modality, (width, height) in found.items())
            survey.bad("size mismatch", next(iter(frame.pictures.values())).path, words)
        else:
            yield replace(frame, size=found.get("depth") or next(iter(found.values())))


def divided(frames: Sequence[Frame], relevant: set[str], numbered: bool) -> tuple[list[Frame], str]:
    """The frames with their splits and blocks, and how they were divided, in words.

    Where the set has no split of its own, scenes of the task are divided domain by domain and class by class.
    Neighbours in a recording are near-duplicates, so they must not lie on both sides: whole places and
    recordings are held out where there are several (by the digests of their names, so that no seed is
    needed), else the last fifth of each recording.
    """
    sides = [frame.split or ("" if frame.kind in relevant else "pairs") for frame in frames]
    groups = [frame.group for frame in frames]
    numbers: dict[tuple[str, str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for i, frame in enumerate(frames):
        parts = re.search(r"(\d{1,15})\D*$", frame.name.rpartition("/")[2]) if numbered else None
        if parts is not None and not frame.group:
            run = frame.name.removesuffix(parts[0])
            numbers[sides[i], frame.domain, frame.kind, run].append((int(parts[1]), i))
    runs = {key: [i for _, i in sorted(mine)] for key, mine in numbers.items() if len(mine) > 1}
    recordings = Counter(key[:3] for key in runs)
    tests, ends = set(), set()
    for (side, domain, kind, run), members in runs.items():
        if recordings[side, domain, kind] >= SEVERAL:
            for i in members:
                groups[i] = run
        elif not side:
            ends |= set(members)
            tests |= set(members[-max(1, round(TEST_SHARE * len(members))) :])
    by_group: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, frame in enumerate(frames):
        if not sides[i] and i not in ends:
            by_group[frame.domain, groups[i] or frame.name].append(i)
    tests |= {i for key in for_testing(by_group, [frame.kind for frame in frames]) for i in by_group[key]}
    splits = [side or ("test" if i in tests else "train") for i, side in enumerate(sides)]
    blocks = [group or frame.name for group, frame in zip(groups, frames, strict=True)]
    for members in runs.values():
        for split in SPLITS:
            mine = [i for i in members if splits[i] == split and not groups[i]]
            pieces = max(1, min(BLOCKS, len(mine) // BLOCK))
            for rank, i in enumerate(mine):
                blocks[i] = f"{frames[mine[0]].name} … {rank * pieces // len(mine)}"
    several = any(len(members) > 1 for members in by_group.values())
    each = "by whole places or recordings" if several else "scene by scene"
    ways = {
        "the set's own": any(frame.split not in ("", "pairs") for frame in frames),
        "the last fifth of each numbered recording for testing": ends,
        f"a fifth for testing, {each}, by the digests of names": by_group,
    }
    found = [
        replace(frame, group=group, split=split, block=block)
        for frame, group, split, block in zip(frames, groups, splits, blocks, strict=True)
    ]
    return found, "; ".join(way for way, holds in ways.items() if holds) or "there are pairs alone"


def for_testing(groups: dict[tuple[str, str], list[int]], kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Of groups (domain, name) → scenes, a fifth of each domain and class; one at least, of two or more."""
    by_class: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for (domain, group), members in groups.items():
        kind = Counter(sorted(kinds[i] for i in members)).most_common(1)[0][0]
        by_class[domain, kind].append((domain, group))
    for keys in by_class.values():
        wanted, taken = TEST_SHARE * sum(len(groups[key]) for key in keys), 0
        keys.sort(key=lambda key: hashlib.sha256("/".join(key).encode()).digest())
        for key in keys:
            if taken + len(groups[key]) / 2 <= wanted:
                taken += len(groups[key])
                yield key
        if not taken and len(keys) > 1:
            yield min(keys, key=lambda key: len(groups[key]))


Thumbnails = dict[str, list[tuple[str, NDArray[np.float32]]]]
"""Modality → name and thumbnail of each scene."""


def thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """(C, S, S) → (C × 12 × 12) means of its squares; a smaller image as it is."""
    channels, height, _ = image.shape
    side = min(12, height)
    block = height // side
    used = image[:, : side * block, : side * block].astype(np.float32)
    return used.reshape(channels, side, block, side, block).mean((2, 4)).ravel()


def near_duplicates(train: Thumbnails, test: Thumbnails) -> list[str]:
    """A note when a tenth of the test scenes or more are nearer to one of training than ``ALIKE`` medians."""
    from sklearn.metrics import pairwise_distances_chunked

    modality = next((one for one in test if one in train), None)
    if modality is None:
        return []
    (names, mine), (others, seen) = (zip(*side[modality], strict=True) for side in (test, train))

    def partner(distances: NDArray[Any], _start: int) -> NDArray[np.intp]:
        alike = distances.min(1) < ALIKE * np.median(distances, axis=1)
        return np.where(alike, distances.argmin(1), -1)

    chunks = pairwise_distances_chunked(np.stack(mine), np.stack(seen), reduce_func=partner)
    found = [(name, others[i]) for name, i in zip(names, np.concatenate([*chunks]), strict=True) if i >= 0]
    share = len(found) / len(names)
    if share < 0.1:
        return []
    return [
        f"{share:.0%} of the test scenes look nearly like a training scene ({' and '.join(found[0])}): their "
        "accuracy says little of other places; hold out whole places or recordings"
    ]
