"""Text lists of pictures, ``path label`` per line, as the published code reads them.

A list belongs to a domain and a modality, ``rgb/kv1_list.txt`` or ``kv1_rgb_list.txt``. It holds scenes of
the task, ``kv1_test_list.txt`` those to test on, ``kv1_ti_list.txt`` task-irrelevant ones: line i of such a
list belongs to line i of the other modality's, and that their stems agree is verified. Label −1 is unknown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from socketlab.images.decode import Picture
from socketlab.images.scan import (
    FORM_OF,
    MODALITY_NAMES,
    UNKNOWN,
    Findings,
    Found,
    Frame,
    chosen_classes,
    listed,
    readable,
    text_of,
)

Entries = list[tuple[Path, int] | None]
"""Path and label of each line of a list; None where the line cannot be read."""

_ENDING = re.compile(
    r"[_-](?:c|rgb|color|colour|nir|swir|depth|depth_filled|d|abs|abs_smooth)$", re.IGNORECASE
)
_ROLE = "(?:_(?P<role>train|test|ti|pairs))?"
_LINE = re.compile(r"\s*(?P<path>\S.*?)\s+(?P<label>-1|[0-9]{1,6})\s*")


def find_lists(
    findings: Findings, task: Sequence[str] | None, by_line: bool = False, base: str | Path | None = None
) -> Found:
    """Scenes of the lists in a folder.

    Parameters
    ----------
    task : classes of the task; None for all that have a label in a list of the task.
    by_line : lines of the lists of pairs are partners whatever their files are called.
    base : folder that paths begin at; None for that of the data set, or of the list.
    """
    start = findings.root if base is None else Path(base).expanduser().absolute()
    lists: dict[tuple[str, str], dict[str, Entries]] = defaultdict(dict)
    for file, domain, modality, role in _lists_in(findings):
        if modality in lists[domain, role]:
            findings.bad("duplicate", file, f"a second list of {modality} images of {domain}")
        else:
            lists[domain, role][modality] = _read_list(file, start, findings)
    names = _label_names(lists.values(), findings)
    frames: list[Frame] = []
    for (domain, role), modalities in sorted(lists.items()):
        join = _joined_by_line if role == "pairs" else _joined_by_stem
        frames += join(modalities, domain, role, names, findings, by_line)
    labelled = {frame.kind for frame in frames if frame.split != "pairs"} - {UNKNOWN}
    shown = {frame.kind for frame in frames if frame.split == "pairs"} & labelled
    if shown:
        findings.notes.append(f"pairs show classes of the task: {', '.join(sorted(shown))}")
    if task is not None:
        return frames, chosen_classes(task, labelled), "chosen"
    return frames, tuple(sorted(labelled)), "the labels of the lists"


def _lists_in(findings: Findings) -> Iterator[tuple[Path, str, str, str]]:
    """Every list: its file, domain, modality, and the split of its scenes."""
    words = "|".join(sorted(MODALITY_NAMES, key=len, reverse=True))
    named = re.compile(rf"(?P<domain>.+?)_(?P<modality>{words}){_ROLE}_list\.txt", re.IGNORECASE)
    plain = re.compile(rf"(?P<domain>.+?){_ROLE}_list\.txt", re.IGNORECASE)
    folders, files = listed(findings.root, findings)
    candidates = [(file, named.fullmatch(file.name), "") for file in files]
    for folder in folders:
        if folder.name.lower() in MODALITY_NAMES:
            inside = listed(folder, findings)[1]
            candidates += [(file, plain.fullmatch(file.name), folder.name.lower()) for file in inside]
    for file, parts, modality in candidates:
        if parts is not None:
            role = (parts["role"] or "train").lower()
            modality = MODALITY_NAMES[modality or parts["modality"].lower()]
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
        findings.bad("unreadable file", file, "it is not text in UTF-8")
        return []
    entries: Entries = []
    for number, line in enumerate(text.rstrip().split("\n") if text.strip() else (), 1):
        parts = _LINE.fullmatch(line)
        if parts is None or "\0" in line:
            findings.bad("bad line", f"{file.name}:{number}", "a path, a space and a label were expected")
            entries.append(None)
        else:
            beside = file.parent / parts["path"]
            path = beside if start != file.parent and beside.exists() else start / parts["path"]
            entries.append((path, int(parts["label"])))
    return entries


def _label_names(lists: Iterable[dict[str, Entries]], findings: Findings) -> dict[int, str]:
    """Names of the labels: ``classes.txt``, one a line, else the folders of the files where these agree."""
    folders: dict[int, set[str]] = defaultdict(set)
    for modalities in lists:
        for entries in modalities.values():
            for entry in entries:
                if entry is not None and entry[1] >= 0:
                    folders[entry[1]].add(entry[0].parent.name)
    try:
        lines = text_of(findings.root / "classes.txt").split("\n")
        return dict(enumerate(line.strip() for line in lines if line.strip()))
    except (OSError, UnicodeDecodeError):
        pass
    single = {label: next(iter(names)) for label, names in folders.items() if len(names) == 1}
    if len(single) == len(folders) == len(set(single.values())):
        return single
    return {label: f"class_{label}" for label in folders}


def _joined_by_line(
    modalities: dict[str, Entries],
    domain: str, role: str, names: dict[int, str], findings: Findings, by_line: bool,
) -> list[Frame]:  # fmt: skip
    """Pairs: line i of one list and line i of another are partners, which their stems must bear out."""
    lengths = {modality: len(entries) for modality, entries in modalities.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count} {modality}" for modality, count in lengths.items())
        why = f"the lists of pairs are not of one length ({told}); the rest is left out"
        findings.bad("orphan", domain, why)
    frames = []
    for number, row in enumerate(zip(*modalities.values(), strict=False), 1):
        if any(entry is None for entry in row):
            continue
        entries = dict(zip(modalities, (entry for entry in row if entry is not None), strict=True))
        stems = {_bare(path) for path, _ in entries.values()}
        if len(stems) > 1 and not by_line:
            words = " and ".join(readable(path.name) for path, _ in entries.values())
            findings.bad("strangers on a line", f"{domain}, pair {number}", f"{words} have different names")
            continue
        pictures = {modality: Picture(path, FORM_OF[modality]) for modality, (path, _) in entries.items()}
        label = next(iter(entries.values()))[1]
        kind = names.get(label, UNKNOWN if label < 0 else f"class_{label}")
        stem = _bare(next(iter(entries.values()))[0])
        frames.append(Frame(f"{domain}/ti/{number:06}/{stem}", domain, kind, pictures, split=role))
    return frames


def _joined_by_stem(
    modalities: dict[str, Entries],
    domain: str, role: str, names: dict[int, str], findings: Findings, by_line: bool,
) -> list[Frame]:  # fmt: skip
    """Scenes of the task: they need no partner, and have one where folder and stem are the same."""
    scenes: dict[str, dict[str, tuple[Path, int]]] = defaultdict(dict)
    for modality, entries in modalities.items():
        for entry in filter(None, entries):
            name = f"{entry[0].parent.name}/{_bare(entry[0])}"
            if modality in scenes[name]:
                findings.bad("duplicate", entry[0], f"a second {modality} image of this name")
            else:
                scenes[name][modality] = entry
    frames = []
    for name, found in scenes.items():
        labels = {label for _, label in found.values() if label >= 0}
        if len(labels) > 1:
            findings.bad("contradictory labels", name, f"labels {sorted(labels)} in the lists of {domain}")
            continue
        kind = next((names.get(label, f"class_{label}") for label in labels), UNKNOWN)
        pictures = {modality: Picture(path, FORM_OF[modality]) for modality, (path, _) in found.items()}
        frames.append(Frame(f"{domain}/{role}/{name}", domain, kind, pictures, split=role))
    return frames


def _bare(path: Path) -> str:
    """The stem without the word for the modality: ``in_00_c`` and ``in_00_depth_filled`` are partners."""
    return _ENDING.sub("", path.stem)
