"""Exercises of notebook 03, paired alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question


def paired_loss(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Mean squared difference of partners.

    f_s, f_t: (batch, features), row i of both is one room → a single number.
    """
    # begin
    return ((f_s - f_t) ** 2).mean()
    # end


def partner_rank(f_s: Tensor, f_t: Tensor) -> Tensor:
    """For each colour image, the share of the other depth images that lie nearer than its partner.

    f_s, f_t: (rooms, features), row i of both is one room → (rooms,), 0 is first, 1 is last.
    """
    distance = torch.cdist(f_s, f_t)  # (rooms, rooms): colour image i to depth image j
    # begin
    nearer = distance < distance.diagonal()[:, None]
    return nearer.sum(dim=1) / (len(f_s) - 1)
    # end


def same_cut(
    rgb: Tensor, depth: Tensor, top: int, left: int, side: int, mirror: bool
) -> tuple[Tensor, Tensor]:
    """Cut the same square out of both halves of a batch of pairs; mirror both, left to right, or neither.

    rgb: (batch, 3, height, width), depth: (batch, 1, height, width) → both (batch, ., side, side).
    """
    # begin
    halves = [x[..., top : top + side, left : left + side] for x in (rgb, depth)]
    halves = [x.flip(-1) if mirror else x for x in halves]
    return halves[0], halves[1]
    # end


def _features(count: int, wide: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(count, wide, generator=generator)
    return f_s, f_s + 0.7 * torch.randn(count, wide, generator=generator)


def _feature_pairs() -> list[Case]:
    return [
        Case("eight pairs of five features", _features(8, 5, 0)),
        Case("three pairs of sixteen features", _features(3, 16, 1)),
    ]


def _feature_pairs_that_learn() -> list[Case]:
    return [Case(c.name, (c.arguments[0], c.arguments[1].requires_grad_())) for c in _feature_pairs()]


def _pictures() -> list[Case]:
    generator = torch.Generator().manual_seed(2)
    rgb, depth = (torch.rand(2, channels, 9, 12, generator=generator) for channels in (3, 1))
    return [
        Case("a cut that is not mirrored", (rgb, depth, 1, 3, 6, False)),
        Case("a mirrored cut", (rgb, depth, 2, 5, 4, True)),
    ]


def _cut(x: Tensor, top: int, left: int, side: int) -> Tensor:
    return x[..., top : top + side, left : left + side]


EXERCISES = (
    Exercise(
        id="03-loss",
        title="the paired loss",
        task=(
            "Write the loss that ties the two halves of a pair together, "
            r"$L_{TI} = \frac{1}{BD} \sum_i \lVert f^s(s_i) - f^t(t_i) \rVert^2$, "
            "for a batch of $B$ pairs with $D$ features each."
        ),
        answer=paired_loss,
        cases=_feature_pairs_that_learn,
        mistakes=(
            Mistake(
                "sum over features",
                lambda f_s, f_t: ((f_s - f_t) ** 2).sum(dim=1).mean(),
                "You averaged over the pairs but summed over the features: "
                "a wider network would get a larger loss, and λ would mean something else for each.",
            ),
            Mistake(
                "mean of distances",
                lambda f_s, f_t: (f_s - f_t).norm(dim=1).mean(),
                "You took the length of each difference, not its square: the pull would be as strong "
                "on a pair that nearly agrees as on one that does not.",
            ),
            Mistake(
                "absolute difference",
                lambda f_s, f_t: (f_s - f_t).abs().mean(),
                "You took absolute differences; the loss takes squares.",
            ),
            Mistake(
                "difference of the means",
                lambda f_s, f_t: ((f_s.mean(dim=0) - f_t.mean(dim=0)) ** 2).mean(),
                "You compared the batches' means. That forgets who is whose partner: "
                "broken pairs would give the same loss.",
            ),
            Mistake(
                "mean before the square",
                lambda f_s, f_t: (f_s - f_t).mean() ** 2,
                "You averaged first and squared then, so that differences of both signs cancel.",
            ),
        ),
        hints=(
            "Three steps: difference, square, mean over everything.",
            "`(f_s - f_t) ** 2` has the shape (batch, features); `.mean()` without `dim` averages over both.",
        ),
        because="Right: it compares partners one by one, in units that do not depend on batch or width.",
        minutes=4,
        difficulty=1,
        importance=3,
        gradient=True,
    ),
    Exercise(
        id="03-rank",
        title="the partner's rank",
        task=(
            "How well do features of pairs agree, without units? For each colour image, count the depth "
            "images that lie *nearer* to it than its own partner does, as a share of all others. "
            "`distance[i, j]` is given."
        ),
        answer=partner_rank,
        cases=_feature_pairs,
        mistakes=(
            Mistake(
                "counts the partner",
                lambda f_s, f_t: (d := torch.cdist(f_s, f_t)).le(d.diagonal()[:, None]).sum(1) / (len(d) - 1),
                "You counted the partner itself, with `<=`: nobody could ever be first.",
            ),
            Mistake(
                "divides by all",
                lambda f_s, f_t: (d := torch.cdist(f_s, f_t)).lt(d.diagonal()[:, None]).float().mean(1),
                "You divided by the number of rooms. A partner has one competitor fewer: the last would "
                "not be at 1.",
            ),
            Mistake(
                "asks the depth images",
                lambda f_s, f_t: (d := torch.cdist(f_s, f_t)).lt(d.diagonal()[None]).sum(0) / (len(d) - 1),
                "You asked each depth image which colour images lie nearer. That is a fair question too, but "
                "here row i belongs to colour image i: compare along the row, with the partner's distance "
                "as a column.",
            ),
            Mistake(
                "counts who is farther",
                lambda f_s, f_t: (d := torch.cdist(f_s, f_t)).gt(d.diagonal()[:, None]).sum(1) / (len(d) - 1),
                "You counted the depth images that lie farther away: with you, 1 would be best.",
            ),
            Mistake(
                "a count, no share",
                lambda f_s, f_t: (d := torch.cdist(f_s, f_t)).lt(d.diagonal()[:, None]).sum(1),
                "You have the count. As a share of all others it can be compared between sets of any size.",
            ),
        ),
        hints=(
            "The partners' distances stand on the diagonal of `distance`.",
            "`distance < distance.diagonal()[:, None]` says for each row who is nearer; count the true ones "
            "and divide by how many others there are.",
        ),
        because="Right: 0 for a network that knows the partner, 0.5 for one that guesses, in any units.",
        minutes=6,
        difficulty=2,
    ),
    Exercise(
        id="03-cut",
        title="the same cut for both halves",
        task=(
            "In training each pair is cut and mirrored at random. Write the cut: the same square out of "
            "both halves, mirrored from left to right if `mirror`."
        ),
        answer=same_cut,
        cases=_pictures,
        mistakes=(
            Mistake(
                "mirrors one half",
                lambda rgb, depth, top, left, side, mirror: (
                    _cut(rgb, top, left, side).flip(-1) if mirror else _cut(rgb, top, left, side),
                    _cut(depth, top, left, side),
                ),
                "You mirrored the colour half only: the loss would teach that a room "
                "equals its mirror image.",
            ),
            Mistake(
                "upside down",
                lambda rgb, depth, top, left, side, mirror: tuple(
                    _cut(x, top, left, side).flip(-2) if mirror else _cut(x, top, left, side)
                    for x in (rgb, depth)
                ),
                "You turned the picture upside down: the last dimension runs from left to right, "
                "the one before from top to bottom.",
            ),
            Mistake(
                "rows and columns exchanged",
                lambda rgb, depth, top, left, side, mirror: tuple(
                    _cut(x, left, top, side).flip(-1) if mirror else _cut(x, left, top, side)
                    for x in (rgb, depth)
                ),
                "You exchanged rows and columns: in (batch, channel, height, width) `top` counts along "
                "the height.",
            ),
            Mistake(
                "mirrors always",
                lambda rgb, depth, top, left, side, mirror: tuple(
                    _cut(x, top, left, side).flip(-1) for x in (rgb, depth)
                ),
                "You mirrored in any case, whatever `mirror` says.",
            ),
            Mistake(
                "never mirrors",
                lambda rgb, depth, top, left, side, mirror: tuple(
                    _cut(x, top, left, side) for x in (rgb, depth)
                ),
                "You never mirrored, whatever `mirror` says.",
            ),
        ),
        hints=(
            "Slice the last two dimensions: `x[..., rows, columns]`.",
            "`x[..., top : top + side, left : left + side]`, then `.flip(-1)` for both if `mirror`.",
        ),
        because="Right: whatever happens to one half happens to the other.",
        minutes=6,
        difficulty=1,
    ),
)

QUESTIONS = (
    Question(
        "03-broken",
        "All pairs are given somebody else's depth image. What does the training loss do?",
        (
            Option("It stays where it was.", "It cannot: the network learns the average of all partners."),
            Option(
                "It goes down nearly as usual.",
                "The mean feature of many rooms is a fair guess for any room, and the loss is content with "
                "it. That is why a falling loss proves nothing about the pairs.",
                right=True,
            ),
            Option("It rises.", "Gradient descent lowers whatever loss it is given, sensible or not."),
            Option("It becomes NaN.", "Wrong partners are perfectly finite numbers."),
        ),
    ),
    Question(
        "03-which",
        "You may record 100 pairs of rooms that are much like those of the task, or 500 of stairwells and "
        "gyms. Which do you take?",
        (
            Option(
                "The 100 that are like the task's.",
                "What pairs show counts for more than how many they are: the table of this notebook has "
                "both, over five seeds.",
                right=True,
            ),
            Option("The 500: more is better.", "Walls and floors are learned soon; beds are not there."),
            Option(
                "Neither: without the task's own classes pairs are useless.",
                "Both help, as the table shows; no pair shows a class of the task.",
            ),
        ),
    ),
)
