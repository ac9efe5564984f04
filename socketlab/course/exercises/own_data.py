"""Exercises of notebook 07, your own data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question


def encode_depth(depth: Tensor, mean: float, std: float) -> Tensor:
    """From millimetres to what a network reads; a pixel that is missing becomes 0, the mean.

    depth: (batch, 1, height, width) uint16 millimetres, 0 where the sensor saw nothing;
    mean, std: of the depth that is there, on the scale where 8 m is 1 → (batch, 1, height, width) float.
    """
    # begin
    values = depth.float() / 8000
    there = values > 0
    return (values - mean) / std * there
    # end


def pair_up(rgb: list[str], depth: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Bring the files of two folders together by their names, and tell who is left over.

    rgb, depth: file names in any order → [(rgb file, depth file), …] in the order of their names, and the
    files that have no partner.
    """
    # begin
    sides = [{name.rpartition(".")[0]: name for name in names} for names in (rgb, depth)]
    both = sorted(set(sides[0]) & set(sides[1]))
    pairs = [(sides[0][stem], sides[1][stem]) for stem in both]
    orphans = [name for side in sides for stem, name in side.items() if stem not in both]
    return pairs, orphans
    # end


def _depths() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    depth = 500 + 9000 * torch.rand(2, 1, 5, 6, generator=generator)
    holes = torch.rand(2, 1, 5, 6, generator=generator) < 0.2
    near = 400 + 1500 * torch.rand(1, 1, 4, 4, generator=generator)
    return [
        Case("rooms with holes", (depth.masked_fill(holes, 0).to(torch.uint16), 0.31, 0.17)),
        Case("a near wall without holes", (near.to(torch.uint16), 0.25, 0.12)),
    ]


def _folders() -> list[Case]:
    return [
        Case(
            "a folder that is sorted differently",
            (["room2.jpg", "room10.jpg", "room1.jpg"], ["room1.png", "room10.png", "room2.png"]),
        ),
        Case(
            "two folders that lack a file each",
            (["a.jpg", "c.jpg", "room1.jpg", "d.jpg"], ["room10.png", "d.png", "b.png", "c.png", "a.png"]),
        ),
        Case(
            "names with capitals and points",
            (["hall.2.jpg", "Attic.jpg", "hall.1.jpg", "end.jpg"], ["attic.png", "hall.1.png", "hall.2.png"]),
        ),
    ]


def _sorted_out(result: Any) -> list[Any]:
    """The pairs as they are and the orphans in any order, with a word between to keep them apart."""
    pairs, orphans = result
    return ["pairs", *(tuple(pair) for pair in pairs), "orphans", *sorted(orphans)]


def _by(key: Any, rgb: list[str], depth: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs by what `key` makes of a name, in the order of `key`; of equal keys the last file counts."""
    one, two = ({key(name): name for name in names} for names in (rgb, depth))
    pairs = [(one[k], two[k]) for k in sorted(set(one) & set(two))]
    return pairs, [(one | two)[k] for k in set(one) ^ set(two)]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _by_beginning(rgb: list[str], depth: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """For each colour file the first depth file that begins like it."""
    pairs = []
    for name in sorted(rgb):
        found = [other for other in sorted(depth) if other.startswith(_stem(name))]
        pairs += [(name, other) for other in found[:1]]
    paired = {name for pair in pairs for name in pair}
    return pairs, [name for name in (*rgb, *depth) if name not in paired]


def _in_line(rgb: list[str], depth: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The first with the first, the second with the second; the rest of the longer list is left over."""
    count = min(len(rgb), len(depth))
    return list(zip(rgb, depth, strict=False)), [*rgb[count:], *depth[count:]]


EXERCISES = (
    Exercise(
        id="07-depth",
        title="depth with holes",
        task=(
            "A depth camera stores whole millimetres, and 0 where it saw nothing. Encode it as the kit does: "
            "divide by 8000, so that 8 m is 1 (nothing is clipped), subtract the mean, divide by the "
            "deviation; and where the depth is missing, put 0, which is the mean."
        ),
        answer=encode_depth,
        cases=_depths,
        mistakes=(
            Mistake(
                "missing is near",
                lambda depth, mean, std: (depth.float() / 8000 - mean) / std,
                "You encoded a missing pixel as a distance of 0 m, nearer than anything can be. Glass, "
                "black cloth and the far end of a hall would jump at the camera: put 0 there, *after* the "
                "normalisation.",
            ),
            Mistake(
                "millimetres",
                lambda depth, mean, std: (depth.float() - mean) / std * (depth.float() > 0),
                "You normalised millimetres with a mean and a deviation that count in units of 8 m: the "
                "numbers are thousands of times too large. Divide by 8000 first.",
            ),
            Mistake(
                "metres",
                lambda depth, mean, std: (depth.float() / 1000 - mean) / std * (depth.float() > 0),
                "You converted to metres, but mean and deviation are on the scale where 8 m is 1: divide by "
                "8000.",
            ),
            Mistake(
                "mean after the deviation",
                lambda depth, mean, std: (depth.float() / 8000 / std - mean) * (depth.float() > 0),
                "You divided first and subtracted the mean then: it would have to be divided too.",
            ),
            Mistake(
                "divided by the variance",
                lambda depth, mean, std: (depth.float() / 8000 - mean) / std**2 * (depth.float() > 0),
                "You divided by the square of the deviation, which has other units than what it divides.",
            ),
            Mistake(
                "clipped at 8 m",
                lambda depth, mean, std: (
                    ((depth.float() / 8000).clamp(max=1) - mean) / std * (depth.float() > 0)
                ),
                "You clipped at 8 m: a hall's end and its middle come out alike. 8 m is where the scale is "
                "1, and depth may go beyond.",
            ),
        ),
        hints=(
            "Begin with `depth.float()`: torch hardly computes with uint16. Remember where it is above 0.",
            "`values = depth.float() / 8000`, then `(values - mean) / std * (values > 0)`: the product with "
            "False is 0.",
        ),
        because=(
            "Right: a hole tells the network nothing, neither near nor far. And a mean taken over valid "
            "pixels stays what it is, however many holes a camera leaves."
        ),
        minutes=6,
        difficulty=1,
        importance=3,
    ),
    Exercise(
        id="07-pairs",
        title="who belongs to whom",
        task=(
            "Two folders, one with colour and one with depth; a pair has the same name but for the ending "
            "after the last point, `room1.jpg` and `room1.png`. Return the pairs in the order of these "
            "names, and all files, of either folder, that have no partner. Capitals count: `Hall` is not "
            "`hall`."
        ),
        answer=pair_up,
        cases=_folders,
        mistakes=(
            Mistake(
                "in the order of listing",
                _in_line,
                "You paired the first with the first and the second with the second. A disk lists files in "
                "any order it likes: nearly all partners are strangers, and no loss will tell you.",
            ),
            Mistake(
                "sorted, then in line",
                lambda rgb, depth: _in_line(sorted(rgb), sorted(depth)),
                "You sorted both lists and paired them line by line. One missing file, and everybody after "
                "it gets a stranger: compare the names themselves.",
            ),
            Mistake(
                "names that begin alike",
                _by_beginning,
                "You took names that *begin* alike for the same: `room1` got the depth of `room10`.",
            ),
            Mistake(
                "up to the first point",
                lambda rgb, depth: _by(lambda name: name.split(".")[0], rgb, depth),
                "You cut names at their first point, and `hall.1` and `hall.2` became one. The ending "
                "begins at the last point.",
            ),
            Mistake(
                "capitals do not count",
                lambda rgb, depth: _by(lambda name: _stem(name).lower(), rgb, depth),
                "You made all letters small: two files that may be two rooms were paired. It is safer to "
                "tell of an orphan and let somebody look.",
            ),
            Mistake(
                "orphans are dropped",
                lambda rgb, depth: (_by(_stem, rgb, depth)[0], []),
                "Your pairs are right, but the files left over are not told. A forgotten half is the first "
                "sign that two folders do not belong together.",
            ),
            Mistake(
                "orphans of colour only",
                lambda rgb, depth: (
                    _by(_stem, rgb, depth)[0],
                    [name for name in _by(_stem, rgb, depth)[1] if name in rgb],
                ),
                "You told of colour without depth only. Depth without colour has lost its partner as well.",
            ),
            Mistake(
                "in the order of one folder",
                lambda rgb, depth: (
                    sorted(_by(_stem, rgb, depth)[0], key=lambda pair: rgb.index(pair[0])),
                    _by(_stem, rgb, depth)[1],
                ),
                "Your pairs are right, and stand in the order in which the disk lists the colour files: on "
                "another computer pair 7 is another room. Sort them by name.",
            ),
        ),
        hints=(
            "A dictionary from name to file for each folder; what both have in common is paired.",
            "`name.rpartition('.')[0]` cuts at the last point. For dictionaries `one` and `two`, "
            "`sorted(set(one) & set(two))` are the pairs, `set(one) ^ set(two)` the orphans.",
        ),
        because=(
            "Right: names decide, the same on every computer, and nobody is lost in silence. The kit does "
            "this when it imports folders."
        ),
        minutes=8,
        difficulty=2,
        importance=3,
        canonical=_sorted_out,
    ),
)

QUESTIONS = (
    Question(
        "07-first",
        "You have colour and depth pictures of your own, and labels for a few dozen of them that no method "
        "will see. What do you measure first?",
        (
            Option(
                "The source network on your colour pictures.",
                "If it cannot name your rooms in the modality that it was trained on, the gap is not the "
                "sensor's, and no pairs will close it. Next comes the same network on depth: that is where "
                "the way begins.",
                right=True,
            ),
            Option(
                "The full method on depth.",
                "Without the start and the end of the way, a number says neither what was gained nor what "
                "there was to gain.",
            ),
            Option(
                "A map of the features.",
                "Two modalities make two clouds in any case. A map asks questions; it does not say whether "
                "rooms are named right.",
            ),
            Option(
                "The distance of the batch-norm statistics.",
                "It says that something differs, not whether it matters: in this kit's own table it points "
                "the wrong way.",
            ),
        ),
    ),
    Question(
        "07-selection",
        "No label of your target is known. Which epoch do you hand in?",
        (
            Option(
                "The one with the lowest training loss.",
                "The loss falls in nearly every run, with the wrong partners too. It does not measure what "
                "you want.",
            ),
            Option(
                "The one that looks best on a map.",
                "Who looks long enough finds an epoch that looks good. Write down a rule that another person "
                "would apply with the same result.",
            ),
            Option(
                "The last, or one that a rule without labels names; the rule is fixed before the run.",
                "Then the number is what others will get who have no labels either. Write the rule beside "
                "it.",
                right=True,
            ),
            Option(
                "Label fifty images, take the best epoch on them, and report its accuracy on them.",
                "The same labels would choose and judge, and the number would be too good. Fifty labels are "
                "well spent on judging, if nothing was chosen by them.",
            ),
        ),
    ),
)
