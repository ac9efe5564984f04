"""What lies in a folder of pictures: scenes, classes, and everything that is wrong, told before any work."""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from socketlab.errors import LabError
from socketlab.images.decode import SUFFIXES, Picture, look
from socketlab.images.parallel import run_jobs

SPLITS = ("train", "test", "pairs")
"""Task-relevant scenes to learn from, task-relevant scenes to test on, task-irrelevant pairs."""

MODALITY_NAMES = {
    "rgb": "rgb", "color": "rgb", "colour": "rgb", "image": "rgb", "images": "rgb",
    "depth": "depth", "depth_filled": "depth", "nir": "nir", "infrared": "nir", "swir": "swir",
}  # fmt: skip
"""Names of folders and lists → modality."""

FORM_OF = {"rgb": "colour", "depth": "depth", "nir": "grey", "swir": "grey"}
"""Modality → how its files are read, unless the set has a form of its own."""

TEST_SHARE = 0.2
UNKNOWN = "unknown"
SHOWN = 8
"""Problems of a sort that a report shows; the manifest of the pack has them all."""

_CHUNK = 64


@dataclass(frozen=True)
class Problem:
    """Something that keeps a scene out: its category, the place below the folder, and why."""

    what: str
    where: str
    why: str


@dataclass(frozen=True)
class Frame:
    """One scene.

    Parameters
    ----------
    name : unique in the data set.
    domain : the sensor, or the name of the set.
    kind : its class, relevant to the task or not; ``unknown`` where there is no label.
    pictures : modality → file.
    group : scenes of one group were taken in one place, and stay on one side of train and test.
    split : one of ``SPLITS``, or empty until it is decided.
    intrinsics : f_x, f_y, c_x, c_y in pixels of the files, where the set tells.
    size : width and height of the files.
    """

    name: str
    domain: str
    kind: str
    pictures: dict[str, Picture]
    group: str = ""
    split: str = ""
    intrinsics: tuple[float, ...] | None = None
    size: tuple[int, int] = (0, 0)


Found = tuple[list[Frame], tuple[str, ...], str]
"""What a finder returns: frames, the classes of the task, and how these were chosen."""


@dataclass
class Findings:
    """What a finder has to say besides its frames."""

    root: Path
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def bad(self, what: str, where: Path | str, why: str) -> None:
        """Add a problem; ``where`` is told from the folder of the set."""
        self.problems.append(Problem(what, place(where, self.root), readable(why)))


@dataclass(frozen=True)
class Survey:
    """All that was found, and what will be done with it.

    Parameters
    ----------
    kind : of data set, a name in ``importers.KINDS``.
    root : its folder.
    modalities : in the order in which they are stored.
    frames : the usable scenes, by split, domain and name.
    problems : what keeps scenes out.
    left_out : how many scenes the problems keep out.
    notes : other things worth knowing.
    classes : of the task.
    protocol : how classes and splits were chosen, in words, by topic.
    size : side of the stored images unless another is asked for.
    """

    kind: str
    root: Path
    modalities: tuple[str, ...]
    frames: tuple[Frame, ...]
    problems: tuple[Problem, ...]
    left_out: int
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    protocol: dict[str, str]
    size: int

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, sorted."""
        return tuple(sorted({frame.domain for frame in self.frames}))

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Scenes by split, domain and class."""
        found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for frame in self.frames:
            found[frame.split][frame.domain][frame.kind] += 1
        return {
            split: {domain: dict(sorted(kinds.items())) for domain, kinds in sorted(found[split].items())}
            for split in SPLITS
            if split in found
        }

    def report(self) -> str:
        """The survey in words: one page, however many files there are."""
        lines = [f"{self.protocol['set']} in {readable(self.root.name)}: {len(self.frames)} usable scenes"]
        lines += [f"  {topic}: {words}" for topic, words in self.protocol.items() if topic != "set"]
        lines.append(f"  {'':<14}" + "".join(f"{split:>8}" for split in SPLITS))
        counts = self.counts()
        for domain in self.domains:
            numbers = [sum(counts.get(split, {}).get(domain, {}).values()) for split in SPLITS]
            lines.append(f"  {domain:<14}" + "".join(f"{number:>8}" for number in numbers))
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines + self._told_problems())

    def _told_problems(self) -> list[str]:
        if not self.problems:
            return ["no problems"]
        lines = [f"problems: {self.summary()}; they keep {self.left_out} scenes out"]
        for what, count in Counter(problem.what for problem in self.problems).most_common():
            shown = [problem for problem in self.problems if problem.what == what][:SHOWN]
            lines.append(f"  {what} ({count})")
            lines += [f"    {problem.where}: {problem.why}" for problem in shown]
            if count > len(shown):
                lines.append(f"    … and {count - len(shown)} more")
        return lines

    def summary(self) -> str:
        """The problems in one line: how many of which sort."""
        counts = Counter(problem.what for problem in self.problems)
        return ", ".join(f"{count} × {what}" for what, count in sorted(counts.items())) or "none"


# names and folders


def readable(text: object) -> str:
    """Text that can be printed and stored, whatever bytes a file name has."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def place(path: Path | str, root: Path) -> str:
    """A path told from the data set's folder, with forward slashes: no private folder is named."""
    path = Path(path)
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return readable(inside.as_posix())


def listed(folder: Path, findings: Findings) -> tuple[list[Path], list[Path]]:
    """Subfolders and files of a folder, sorted by name; hidden ones left out, unreadable ones told."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        findings.bad("unreadable folder", folder, error.strerror or "it cannot be read")
        return [], []
    for entry in found:
        if entry.name.startswith("."):
            continue
        try:
            entry.name.encode()
            (folders if entry.is_dir() else files).append(Path(entry.path))
        except UnicodeEncodeError:
            findings.bad("unreadable file", Path(entry.path), "its name is not text")
        except OSError as error:  # a link to itself
            findings.bad("symlink loop", Path(entry.path), error.strerror or "it leads nowhere")
    return folders, files


def walk(
    folder: Path, findings: Findings, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """A folder and all below it, with their subfolders and files; links are followed, but in no circle.

    Whoever takes names out of the list of subfolders keeps the walk out of them.
    """
    try:
        found = os.stat(folder)
    except OSError as error:
        findings.bad("unreadable folder", folder, error.strerror or "it cannot be read")
        return
    if (found.st_dev, found.st_ino) in above:
        findings.bad("symlink loop", folder, "it leads to a folder that it lies in")
        return
    folders, files = listed(folder, findings)
    yield folder, folders, files
    for inner in folders:
        yield from walk(inner, findings, (*above, (found.st_dev, found.st_ino)))


def text_of(file: Path) -> str:
    """The text of a small file; an OSError when it is none (opening a pipe would wait for ever)."""
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, "it is not a file")
    return file.read_text(encoding="utf-8-sig")


def pictures_in(folder: Path, findings: Findings) -> list[Path]:
    """The picture files of a folder; a folder named like a picture is told."""
    folders, files = listed(folder, findings)
    for inner in folders:
        if inner.suffix.lower() in SUFFIXES:
            findings.bad("folder in place of a file", inner, "a picture was expected")
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def by_stem(
    files: Iterable[Path], findings: Findings, stem: Callable[[Path], str] = lambda path: path.stem
) -> dict[str, Path]:
    """Stem → file; of two files with the same stem (in any case, in any form of Unicode) neither is taken.

    The duplicates stay out because nobody can know which of them belongs to the partner.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        found[unicodedata.normalize("NFC", stem(file)).casefold()].append(file)
    for same in found.values():
        for file in same[1:]:
            findings.bad("duplicate", file, f"the same name as {readable(same[0].name)}")
    return {unicodedata.normalize("NFC", stem(same[0])): same[0] for same in found.values() if len(same) == 1}


# from frames to a survey


def surveyed(
    kind: str,
    findings: Findings,
    frames: Sequence[Frame],
    protocol: Mapping[str, str],
    classes: Sequence[str],
    *,
    size: int,
    modalities: tuple[str, ...],
    unpaired: bool = False,
    thorough: bool = False,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Check every file of the frames and decide the splits.

    Parameters
    ----------
    classes : of the task.
    unpaired : whether scenes of the task may lack a modality.
    thorough : decode every file, and not only look at its header and its end.

    Raises
    ------
    LabError : no scene is usable.
    """
    relevant = set(classes)
    frames, lost = _without_doubles(frames, findings)
    missing = _missing_classes(frames, modalities)
    whole, gaps = [], set()
    for frame in frames:
        lacking = tuple(modality for modality in modalities if modality not in frame.pictures)
        if not lacking or (unpaired and _of_the_task(frame, relevant)):
            whole.append(frame)
        elif lacking == missing.get(frame.kind):
            gaps.add(frame.kind)  # the class is told, once
        else:
            file = next((one.path for one in frame.pictures.values()), frame.name)
            findings.bad("orphan", file, f"{frame.name} has no {' and no '.join(lacking)} image")
    for kind_of_scene, lacking in sorted(missing.items()):
        if kind_of_scene in gaps:
            why = f"none of its scenes has {' or '.join(lacking)}"
            findings.bad("class missing in a modality", kind_of_scene, why)
        else:
            findings.notes.append(f"class {kind_of_scene} has no {' and no '.join(lacking)} images")
    usable = list(_checked(whole, findings, thorough, processes, progress))
    if not usable:
        reasons = Counter(problem.what for problem in findings.problems)
        told = ", ".join(f"{count} × {what}" for what, count in reasons.items()) or "no pictures were found"
        raise LabError(f"{readable(findings.root.name)} holds no usable scene: {told}.")
    placed = with_splits(usable, relevant)
    ordered = sorted(placed, key=lambda frame: (SPLITS.index(frame.split), frame.domain, frame.name))
    return Survey(
        kind, findings.root, modalities, tuple(ordered), tuple(findings.problems),
        len(frames) + lost - len(ordered), tuple(findings.notes), tuple(classes), dict(protocol), size,
    )  # fmt: skip


def _without_doubles(frames: Sequence[Frame], findings: Findings) -> tuple[list[Frame], int]:
    """The frames whose name is their own, and how many are not among them."""
    names = Counter(frame.name for frame in frames)
    for name, count in names.items():
        if count > 1:
            findings.bad("duplicate", name, f"{count} scenes have this name")
    kept = [frame for frame in frames if names[frame.name] == 1]
    return kept, len(frames) - len(kept)


def _missing_classes(frames: Sequence[Frame], modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Class → modalities of which it has no image at all."""
    seen: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        seen[frame.kind] |= set(frame.pictures)
    gaps = {kind: tuple(one for one in modalities if one not in have) for kind, have in seen.items()}
    return {kind: lacking for kind, lacking in gaps.items() if lacking}


def _of_the_task(frame: Frame, relevant: set[str]) -> bool:
    return frame.split != "pairs" and (frame.split != "" or frame.kind in relevant)


def _checked(
    frames: list[Frame],
    findings: Findings,
    thorough: bool,
    processes: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Frame]:
    """The frames whose files are whole and of one shape."""
    files = {(one.path, one.form): one for frame in frames for one in frame.pictures.values()}
    every = list(files.values())
    chunks = [every[i : i + _CHUNK] for i in range(0, len(every), _CHUNK)]
    enough = processes if thorough or len(chunks) > 32 else 1  # looking is quicker than starting processes
    sizes: dict[tuple[Path, str], tuple[int, int] | tuple[str, str]] = {}
    for chunk, found in run_jobs(partial(_looked_at, thorough=thorough), chunks, enough):
        sizes |= {(one.path, one.form): size for one, size in zip(chunk, found, strict=True)}
        if progress is not None:
            progress(len(sizes), len(every))
    told = set()
    for frame in frames:
        pictures = frame.pictures.values()
        bad = [one for one in pictures if isinstance(sizes[one.path, one.form][0], str)]
        for one in bad:
            if one.path not in told:
                told.add(one.path)
                what, why = sizes[one.path, one.form]
                findings.bad(str(what), one.path, str(why))
        if bad:
            continue
        shapes = {modality: sizes[one.path, one.form] for modality, one in frame.pictures.items()}
        if not _same_shape(list(shapes.values())):
            words = ", ".join(f"{modality} {size[0]} × {size[1]}" for modality, size in shapes.items())
            findings.bad("size mismatch", next(iter(pictures)).path, words)
            continue
        width, height = shapes.get("depth") or next(iter(shapes.values()))
        yield replace(frame, size=(int(width), int(height)))


def _looked_at(
    pictures: list[Picture], thorough: bool
) -> tuple[list[Picture], list[tuple[int, int] | tuple[str, str]]]:
    return pictures, look(pictures, thorough)


def _same_shape(sizes: Sequence[tuple[int, int] | tuple[str, str]]) -> bool:
    """Whether pictures can be of one view: as many pixels, or the same ratio of the sides to 1 %."""
    ratios = [int(width) / int(height) for width, height in sizes]
    return max(ratios) <= 1.01 * min(ratios)


def with_splits(frames: Sequence[Frame], relevant: set[str]) -> list[Frame]:
    """The frames with their splits, where the set has not given one.

    Scenes of the task are divided by groups: of every domain and class, whole groups go to the test, in the
    order of their digests, as long as that brings it nearer to its share. So the split needs no seed, and no
    place is seen on both sides.
    """
    groups: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        if not frame.split and frame.kind in relevant:
            groups[frame.domain, frame.group or frame.name].append(frame)
    by_class: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, members in groups.items():
        kinds = Counter(frame.kind for frame in members)
        commonest = min(kinds, key=lambda kind: (-kinds[kind], kind))
        by_class[key[0], commonest].append(key)
    tests = {key for keys in by_class.values() for key in _for_testing(keys, groups)}

    def split_of(frame: Frame) -> str:
        if not _of_the_task(frame, relevant):
            return "pairs"
        return frame.split or ("test" if (frame.domain, frame.group or frame.name) in tests else "train")

    return [replace(frame, split=split_of(frame)) for frame in frames]


def _for_testing(
    keys: list[tuple[str, str]], groups: Mapping[tuple[str, str], list[Frame]]
) -> list[tuple[str, str]]:
    """The groups of one domain and class that are kept for testing; one at least, of two or more."""
    ordered = sorted(keys, key=lambda key: hashlib.sha256("/".join(key).encode()).digest())
    wanted = TEST_SHARE * sum(len(groups[key]) for key in keys)
    chosen, taken = [], 0
    for key in ordered:
        if taken + len(groups[key]) / 2 <= wanted:
            chosen.append(key)
            taken += len(groups[key])
    if not chosen and len(ordered) > 1:
        chosen = [min(ordered, key=lambda key: len(groups[key]))]
    return chosen


def chosen_classes(task: Sequence[str], found: Iterable[str]) -> tuple[str, ...]:
    """The classes that were asked for, sorted; a LabError names one that is not there."""
    found = sorted(set(found))
    for name in task:
        if name not in found:
            near = get_close_matches(name, found, 3) or found[:8]
            raise LabError(f"There is no class {name!r} in this set: did you mean {', '.join(near)}?")
    if not task:
        raise LabError(f"A task needs classes: choose some of {', '.join(found[:20])}.")
    return tuple(sorted(set(task)))
