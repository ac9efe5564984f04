"""Exercises of notebook 01, the modality gap, and the question of notebook 00."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question


def same_world_share(f_rgb: Tensor, f_depth: Tensor, k: int) -> Tensor:
    """Of all images' k nearest neighbours, the share that come from the image's own world.

    f_rgb, f_depth: (images, features) each, as many of both → a single number in [0, 1].
    """
    x = torch.cat([f_rgb, f_depth])
    is_rgb = torch.arange(len(x)) < len(f_rgb)
    # begin
    distance = torch.cdist(x, x).fill_diagonal_(torch.inf)
    near = distance.topk(k, largest=False).indices
    return (is_rgb[near] == is_rgb[:, None]).float().mean()
    # end


def mean_gap(f_rgb: Tensor, f_depth: Tensor) -> Tensor:
    """Distance of the two worlds' means, in units of the spread within a world.

    f_rgb: (n, features), f_depth: (m, features) → a single number ≥ 0, without units.
    """
    # begin
    mean_rgb, mean_depth = f_rgb.mean(dim=0), f_depth.mean(dim=0)
    inner = torch.cat([f_rgb - mean_rgb, f_depth - mean_depth])
    spread = (inner**2).sum(dim=1).mean().sqrt()
    return (mean_rgb - mean_depth).norm() / spread
    # end


def unbiased_mmd(k_xx: Tensor, k_yy: Tensor, k_xy: Tensor) -> Tensor:
    """MMD², unbiased, from how alike images are: k_xy[i, j] is the kernel of x_i and y_j.

    k_xx, k_yy, k_xy: (n, n) each, for n images of either world → a single number.
    """
    n = len(k_xx)
    # begin
    within = [(k.sum() - k.trace()) / (n * (n - 1)) for k in (k_xx, k_yy)]
    return within[0] + within[1] - 2 * k_xy.mean()
    # end


def project_on_source(f_rgb: Tensor, f_depth: Tensor) -> tuple[Tensor, Tensor]:
    """Put both worlds on the two principal components of colour alone.

    f_rgb: (n, features), f_depth: (m, features) → (n, 2) and (m, 2); an axis may point either way.
    """
    centre = f_rgb.mean(dim=0)
    # begin
    directions = torch.linalg.svd(f_rgb - centre, full_matrices=False).Vh[:2]
    return (f_rgb - centre) @ directions.T, (f_depth - centre) @ directions.T
    # end


def either_way(points: Any) -> Any:
    """Two sets of points, each axis turned so that its largest number is positive; all else as it is."""
    if not isinstance(points, tuple | list) or len(points) != 2:
        return points
    if not all(isinstance(p, Tensor) and p.ndim == 2 and p.numel() for p in points):
        return points
    if points[0].shape[1] != points[1].shape[1]:
        return points
    both = torch.cat(list(points))
    largest = both.gather(0, both.abs().argmax(dim=0, keepdim=True))
    return [p * largest.sign() for p in points]


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _mixed_clouds() -> list[Case]:
    return [
        Case(
            "two clouds of twelve images", (1 + _noise(12, 4, seed=0), 1.6 + 0.6 * _noise(12, 4, seed=1), 5)
        ),
        Case("two clouds of nine images", (2 + _noise(9, 6, seed=2), 1 + 0.5 * _noise(9, 6, seed=3), 3)),
    ]


def _unequal_clouds() -> list[Case]:
    return [
        Case("twenty colour and eight depth images", (_noise(20, 5, seed=4), 2 + 0.4 * _noise(8, 5, seed=5))),
        Case(
            "six colour and fifteen depth images",
            (3 * _noise(6, 9, seed=6) - 1, 1 + _noise(15, 9, seed=7)),
        ),
    ]


def _kernels() -> list[Case]:
    found = []
    for n, shift, seed in ((12, 1.0, 8), (7, 0.7, 10)):
        x, y = _noise(n, 3, seed=seed), shift + 0.8 * _noise(n, 3, seed=seed + 1)
        kernels = [torch.exp(-(torch.cdist(a, b) ** 2) / 4) for a, b in ((x, x), (y, y), (x, y))]
        found.append(Case(f"kernels of {n} and {n} images", tuple(kernels)))
    return found


def _long_clouds() -> list[Case]:
    """Colour varies most along its first features; depth is shifted, and varies elsewhere."""
    found = []
    for n, m, wide, seed in ((30, 12, 4, 12), (15, 20, 6, 15)):
        scales = 3.0 * 0.6 ** torch.arange(wide)
        turn = torch.linalg.qr(_noise(wide, wide, seed=seed)).Q
        f_rgb = 1 + (_noise(n, wide, seed=seed + 1) * scales) @ turn
        f_depth = 3 + (_noise(m, wide, seed=seed + 2) * scales.flip(0)) @ turn
        found.append(Case(f"{n} colour and {m} depth images", (f_rgb, f_depth)))
    return found


# known mistakes that take more than a line


def _shares(a: Tensor, b: Tensor, k: int, itself: bool = False, angle: bool = False) -> Tensor:
    """(images of both,): each image's own share."""
    x = torch.cat([a, b])
    unit = x / x.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T if angle else torch.cdist(x, x)
    if not itself:
        distance = distance.fill_diagonal_(torch.inf)
    own = torch.arange(len(x)) < len(a)
    near = distance.topk(k, largest=False).indices
    return (own[near] == own[:, None]).float().mean(dim=1)


def _farthest(a: Tensor, b: Tensor, k: int, diagonal: float = 0) -> Tensor:
    x = torch.cat([a, b])
    own = torch.arange(len(x)) < len(a)
    far = torch.cdist(x, x).fill_diagonal_(diagonal).topk(k).indices
    return (own[far] == own[:, None]).float().mean()


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance of the means, and each image's squared distance from the mean of its world."""
    squares = [((f - f.mean(dim=0)) ** 2).sum(dim=1) for f in (a, b)]
    return (a.mean(dim=0) - b.mean(dim=0)).norm(), squares[0], squares[1]


def _gap_by_both(a: Tensor, b: Tensor) -> Tensor:
    x = torch.cat([a, b])
    return _parts(a, b)[0] / ((x - x.mean(dim=0)) ** 2).sum(dim=1).mean().sqrt()


def _gap_by_two(a: Tensor, b: Tensor) -> Tensor:
    gap, one, other = _parts(a, b)
    return gap / ((one.mean() + other.mean()) / 2).sqrt()


def _gap_of_one_feature(a: Tensor, b: Tensor) -> Tensor:
    gap, one, other = _parts(a, b)
    return gap / (torch.cat([one, other]).mean() / a.shape[1]).sqrt()


def _gap_squared_spread(a: Tensor, b: Tensor) -> Tensor:
    gap, one, other = _parts(a, b)
    return gap / torch.cat([one, other]).mean()


def _gap_less_two(a: Tensor, b: Tensor) -> Tensor:
    gap, one, other = _parts(a, b)
    return gap / ((one.sum() + other.sum()) / (len(a) + len(b) - 2)).sqrt()


def _off(k: Tensor) -> Tensor:
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


def _axes(f: Tensor, centred: bool = True) -> Tensor:
    """(features, features): a principal component in each row, the largest first."""
    return torch.linalg.svd(f - f.mean(dim=0) if centred else f, full_matrices=False).Vh


def _on(directions: Tensor, *sets: Tensor) -> list[Tensor]:
    return [f @ directions.T for f in sets]


def _fitted_on_both(a: Tensor, b: Tensor) -> list[Tensor]:
    x = torch.cat([a, b])
    return _on(_axes(x)[:2], a - x.mean(dim=0), b - x.mean(dim=0))


def _of_length_one(a: Tensor, b: Tensor) -> list[Tensor]:
    points = _on(_axes(a)[:2], a - a.mean(dim=0), b - a.mean(dim=0))
    return [p / points[0].norm(dim=0) for p in points]


EXERCISES = (
    Exercise(
        id="01-mixing",
        title="who are your neighbours",
        task=(
            "How separate are the two worlds? For every image take its $k$ nearest neighbours among *all "
            "others*, of both worlds. Return the share of neighbours that come from the image's own world, "
            "over all images. `x` holds both worlds, row by row, and `is_rgb` says which row is colour."
        ),
        answer=same_world_share,
        cases=_mixed_clouds,
        mistakes=(
            Mistake(
                "counts itself",
                lambda a, b, k: _shares(a, b, k, itself=True).mean(),
                "You counted each image as its own nearest neighbour. It is always of its own world, so that "
                "even a perfect mixture would look separate: put infinity on the diagonal first.",
            ),
            Mistake(
                "one neighbour short",
                lambda a, b, k: (_shares(a, b, k, itself=True) * k - 1).mean() / (k - 1),
                "You took k nearest rows and then left out the image itself, so that k - 1 neighbours "
                "remain. Take one more, or put infinity on the diagonal first.",
            ),
            Mistake(
                "the other world",
                lambda a, b, k: 1 - _shares(a, b, k).mean(),
                "You counted the neighbours from the *other* world: with you, 0 would be two islands.",
            ),
            Mistake(
                "asks colour only",
                lambda a, b, k: _shares(a, b, k)[: len(a)].mean(),
                "You asked the colour images only. A small tight cloud inside a wide one has neighbours of "
                "its own kind while the wide one has not: ask all.",
            ),
            Mistake(
                "asks depth only",
                lambda a, b, k: _shares(a, b, k)[len(a) :].mean(),
                "You asked the depth images only. A small tight cloud inside a wide one has neighbours of "
                "its own kind while the wide one has not: ask all.",
            ),
            Mistake(
                "a count, no share",
                lambda a, b, k: _shares(a, b, k).mean() * k,
                "You have the mean *count* of neighbours of the own world. As a share of k it can be "
                "compared between any k.",
            ),
            Mistake(
                "the farthest",
                _farthest,
                "You took the k images that lie farthest away: `topk` takes the largest distances. "
                "The nearest need `largest=False`.",
            ),
            Mistake(
                "itself and the farthest",
                lambda a, b, k: _farthest(a, b, k, diagonal=torch.inf),
                "The infinity on the diagonal is right, but `topk` takes the largest distances: the image "
                "itself and the k − 1 farthest. The nearest need `largest=False`.",
            ),
            Mistake(
                "by angle",
                lambda a, b, k: _shares(a, b, k, angle=True).mean(),
                "You compared angles, by cosine. A fair choice too, but it does not see how long a feature "
                "is, and depth's may well be shorter: take Euclidean distances, `torch.cdist`.",
            ),
        ),
        hints=(
            "Distances of all to all, (rows, rows); nobody is a neighbour of itself; the k smallest in each "
            "row.",
            "`torch.cdist(x, x).fill_diagonal_(torch.inf).topk(k, largest=False).indices` has the shape "
            "(rows, k); `is_rgb[near] == is_rgb[:, None]` is true where a neighbour is of the own world.",
        ),
        because=(
            "Right: 1 is two islands, about one half is one cloud, whatever the units and wherever the "
            "clouds lie on a map."
        ),
        minutes=7,
        difficulty=2,
        importance=3,
    ),
    Exercise(
        id="01-mean-gap",
        title="the gap between the means",
        task=(
            "The distance of two means says nothing by itself: features may be of any size. Measure it in "
            r"units of the spread *within* a world, $\lVert \mu_s - \mu_t \rVert \,/\, \sigma$, where "
            r"$\sigma^2$ is the mean, over all $n + m$ images, of an image's squared distance to the mean "
            "of *its own* world."
        ),
        answer=mean_gap,
        cases=_unequal_clouds,
        mistakes=(
            Mistake(
                "spread of all together",
                _gap_by_both,
                "You took the spread around the mean of both worlds together. The gap itself widens that "
                "spread: with worlds of one size you could never get more than 2, however large the gap.",
            ),
            Mistake(
                "averages the two spreads",
                _gap_by_two,
                "You took the mean of the two worlds' own numbers. They have different numbers of images: "
                "average over all images.",
            ),
            Mistake(
                "colour's spread only",
                lambda a, b: _parts(a, b)[0] / _parts(a, b)[1].mean().sqrt(),
                "You took the spread of colour only; depth's images count as well.",
            ),
            Mistake(
                "no units",
                lambda a, b: _parts(a, b)[0],
                "You have the distance of the means, in units of features. Twice as large features would "
                "give twice the gap: divide by the spread.",
            ),
            Mistake(
                "variance for its root",
                _gap_squared_spread,
                "You divided by σ², not by σ: a length over a squared length still depends on the "
                "features' size.",
            ),
            Mistake(
                "spread of one feature",
                _gap_of_one_feature,
                "Above the line is a length, over all features; below it you took the spread of *one* "
                "feature on average. A wider layer would show a larger gap: add up the squares over the "
                "features.",
            ),
            Mistake(
                "squared gap",
                lambda a, b: mean_gap(a, b) ** 2,
                "You have the square of it. That ranks networks alike, but is not in units of spread.",
            ),
            Mistake(
                "divides by two less",
                _gap_less_two,
                "You divided the squares by n + m - 2. That is the unbiased estimate, and a fair choice; "
                "here the plain mean over all images is asked for.",
            ),
        ),
        hints=(
            "Subtract from each world its own mean first; the spread is taken from what is left of both.",
            "`inner = torch.cat([f_rgb - mean_rgb, f_depth - mean_depth])` has a row for each image. Its "
            "rows' squared lengths, averaged, are σ².",
        ),
        because=(
            "Right: above 1 the means are further apart than images of one world are from their mean. It "
            "sees a shift and nothing else: two worlds of one mean, mixed or not, have gap 0."
        ),
        minutes=6,
        difficulty=2,
    ),
    Exercise(
        id="01-mmd",
        title="MMD without bias",
        task=(
            "The kernels are given as matrices. Put them together, *without bias*: "
            r"$\mathrm{MMD}^2 = \operatorname{mean}_{i \ne j} k(x_i, x_j) + "
            r"\operatorname{mean}_{i \ne j} k(y_i, y_j) - 2 \operatorname{mean}_{i,j} k(x_i, y_j)$."
        ),
        answer=unbiased_mmd,
        cases=_kernels,
        mistakes=(
            Mistake(
                "keeps the diagonal",
                lambda xx, yy, xy: xx.mean() + yy.mean() - 2 * xy.mean(),
                "You kept k(x_i, x_i) = 1: every image is most alike to itself. This is the biased form, "
                "above zero even for two halves of one world, the more the fewer images there are.",
            ),
            Mistake(
                "divides by all",
                lambda xx, yy, xy: (_off(xx) + _off(yy)) * (1 - 1 / len(xx)) - 2 * xy.mean(),
                "You left out the diagonal and still divided by n². Without it there are n (n - 1) numbers.",
            ),
            Mistake(
                "leaves out partners",
                lambda xx, yy, xy: _off(xx) + _off(yy) - 2 * _off(xy),
                "You left out the diagonal of k_xy too. There x_i and y_i are different images: all n² "
                "count.",
            ),
            Mistake(
                "between once",
                lambda xx, yy, xy: _off(xx) + _off(yy) - xy.mean(),
                "You took the likeness between the worlds once; it counts twice, against two likenesses "
                "within. Two halves of one world would not come out at zero.",
            ),
            Mistake(
                "root",
                lambda xx, yy, xy: (_off(xx) + _off(yy) - 2 * xy.mean()).sqrt(),
                "You took the root. The unbiased MMD² may fall below zero where there is no gap, and then it "
                "has none.",
            ),
        ),
        hints=(
            "Within a world leave out the diagonal, and divide by how many numbers are left.",
            "`k.sum() - k.trace()` is the sum without the diagonal, over n (n - 1) numbers; the mean of k_xy "
            "is over all.",
        ),
        because=(
            "Right: for two draws from one world it scatters about zero, at any number of images, and a test "
            "can tell a gap from chance."
        ),
        minutes=5,
        difficulty=1,
    ),
    Exercise(
        id="01-projection",
        title="depth on colour's axes",
        task=(
            "Find the two directions in which the *colour* features vary most, and give the coordinates of "
            "both worlds along them. `centre` is colour's mean. An axis may point either way."
        ),
        answer=project_on_source,
        cases=_long_clouds,
        canonical=either_way,
        mistakes=(
            Mistake(
                "fitted on both",
                _fitted_on_both,
                "You found the directions in both worlds together. Then the gap is itself a direction of "
                "large variance, and the map shows it; here the axes are colour's alone.",
            ),
            Mistake(
                "each its own mean",
                lambda a, b: _on(_axes(a)[:2], a - a.mean(dim=0), b - b.mean(dim=0)),
                "You centred depth by its own mean, and so took the shift between the worlds away before "
                "anybody could see it. Subtract colour's mean from both.",
            ),
            Mistake(
                "each its own axes",
                lambda a, b: [*_on(_axes(a)[:2], a - a.mean(dim=0)), *_on(_axes(b)[:2], b - b.mean(dim=0))],
                "You made a map of each world by itself. Two points in one place then mean two things.",
            ),
            Mistake(
                "directions without centre",
                lambda a, b: _on(_axes(a, centred=False)[:2], a - a.mean(dim=0), b - a.mean(dim=0)),
                "You took the directions of features that were not centred: the first of them mostly points "
                "to the mean, not along the variance.",
            ),
            Mistake(
                "points not centred",
                lambda a, b: _on(_axes(a)[:2], a, b),
                "Directions are right, but the points were not centred: subtract colour's mean from both.",
            ),
            Mistake(
                "smallest variance",
                lambda a, b: _on(_axes(a).flip(0)[:2], a - a.mean(dim=0), b - a.mean(dim=0)),
                "You took the directions in which colour varies *least*: `eigh` gives the smallest first, "
                "`svd` the largest.",
            ),
            Mistake(
                "columns for rows",
                lambda a, b: [(f - a.mean(dim=0)) @ _axes(a)[:, :2] for f in (a, b)],
                "You took two columns of `Vh`. Its *rows* are the directions: `Vh[:2]`, transposed for the "
                "product.",
            ),
            Mistake(
                "axes of one length",
                _of_length_one,
                "You divided each axis by colour's spread along it: the map would no longer show that "
                "the first direction is the widest.",
            ),
        ),
        hints=(
            "`torch.linalg.svd(f_rgb - centre, full_matrices=False)` gives U, S and Vh; the rows of Vh are "
            "directions, widest first.",
            "`directions = ….Vh[:2]` has the shape (2, features). Subtract the *same* centre from both "
            "worlds, and multiply by `directions.T`.",
        ),
        because=(
            "Right: nothing is bent, and both worlds are seen in one frame. What lies outside colour's two "
            "directions is not seen at all, a gap too."
        ),
        minutes=7,
        difficulty=2,
    ),
)

QUESTIONS = (
    Question(
        "00-given",
        "You are to teach the network depth pictures of bedrooms and kitchens. What may it look at?",
        (
            Option(
                "The colour pictures of bedrooms and kitchens that it was trained on.",
                "They are what source-free means: the network is given, its pictures are not.",
            ),
            Option(
                "A few labelled depth pictures of bedrooms.",
                "Nobody has labelled any. A few labels would be another, easier problem.",
            ),
            Option(
                "Pairs, colour and depth taken together, of stairwells and gyms.",
                "Those are the task-irrelevant pairs: they show how depth looks when one knows colour, and "
                "nothing of the rooms in question.",
                right=True,
            ),
            Option(
                "Its accuracy on held-out depth pictures, to stop at the best epoch.",
                "Accuracy needs labels. Whoever chooses an epoch by it has used the labels of the target.",
            ),
        ),
    ),
    Question(
        "01-umap",
        "In a joint UMAP, colour and depth are two islands that touch at one shore. What may you conclude?",
        (
            Option(
                "The images at that shore are alike in colour and depth.",
                "They may be, or the layout had to put the islands somewhere. The features themselves would "
                "tell: are they each other's neighbours there?",
            ),
            Option(
                "The gap is small.",
                "The width of a strait on a map is no measure: it depends on min_dist, on the seed and on "
                "where the layout began.",
            ),
            Option(
                "That most images have neighbours of their own world; all else needs a number.",
                "Two islands come of that and of nothing more: a shift no larger than the noise can be "
                "enough. Whether they touch may be another matter with the next seed.",
                right=True,
            ),
            Option(
                "Nothing at all; a UMAP is random.",
                "It keeps a good part of the neighbours, more than chance would. It is weak evidence, not "
                "none.",
            ),
        ),
    ),
    Question(
        "01-joint",
        "The joint UMAP shows two islands; the map fitted on colour, with depth placed in it, shows one "
        "country. Which is right?",
        (
            Option(
                "The joint one: it has seen both worlds.",
                "That is why it exaggerates: with a choice, most images prefer neighbours of their own "
                "world, and a UMAP draws neighbours only.",
            ),
            Option(
                "The placed one: it compares depth with what the network was trained for.",
                "Every depth image is put among its nearest colour images, however far off they are. The gap "
                "cannot be seen in it.",
            ),
            Option(
                "Neither is wrong; they answer different questions.",
                "One asks who is whose neighbour among all, the other which colour images are nearest to a "
                "depth image. How large the gap is, neither tells: that takes a number.",
                right=True,
            ),
            Option(
                "Neither: with the right seed they would agree.",
                "The seed moves points, not what is asked. They differ with every seed.",
            ),
        ),
    ),
    Question(
        "01-distance",
        "On a UMAP of colour, the island of kitchens is twice as far from the bedrooms as from the offices. "
        "What does that say of the features?",
        (
            Option(
                "A kitchen is twice as far from a bedroom as from an office.",
                "A UMAP keeps who is near whom. How far apart islands lie is hardly part of what it fits.",
            ),
            Option(
                "Hardly anything: measure it in the features.",
                "Distances between islands depend on the start and the seed. Distances in feature space cost "
                "one line.",
                right=True,
            ),
            Option(
                "The network confuses kitchens with offices more than with bedrooms.",
                "It may, and the confusion matrix would tell. Two islands, near or far, are told apart.",
            ),
        ),
    ),
)
