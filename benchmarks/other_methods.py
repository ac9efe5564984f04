"""Jobs that are no recipe of `adapt`: other losses on the pairs, a translator, labels, distillation."""

from __future__ import annotations

import dataclasses
from typing import Any

LABELS = (1, 2, 5, 10, 20, 60)
"""Labelled images of each class."""
_adapted: dict[str, Any] = {}
"""The network that some jobs begin with, by the name of the job that makes it; the last one alone."""


def adapted_by(job: Any, sources: list[Any], target: Any, pairs: Any) -> Any:
    """The network that the job's ``baseline`` ends with; ``target`` has labels, which only some may see.

    "distillation:1", "contrast:1", "unpaired CORAL:30", "unpaired MMD:0.1" and "translator:0.3" use the
    pairs, with that weight; "fine-tuned:5", "from scratch:5" and "socket, then labels:5" five labelled images
    of each class; "distilled" is one network out of SOCKET's several, and "" what the recipe makes.
    """
    from rivals import distillation, supervised, translation
    from rivals.pair_losses import PAIR_LOSSES

    kind, _, number = job.baseline.partition(":")
    if not kind:
        return last(job, sources, target, pairs)
    if kind in PAIR_LOSSES:
        loss = PAIR_LOSSES[kind][0]
        return last(job, sources, target, pairs, lambda_ti=float(number), pair_loss=loss)
    if kind == "translator":
        return translation.translate(sources[0], target, pairs, float(number), seed=job.seed)
    if kind == "distilled":
        return distillation.distilled(last(job, sources, target, pairs), target, seed=job.seed)
    few = supervised.labelled_subset(target, int(number), job.seed)
    begin = {
        "fine-tuned": lambda: sources[0],
        "from scratch": lambda: supervised.untrained(target.classes, target, job.seed),
        "socket, then labels": lambda: first_adapted(job, sources, target, pairs),
    }[kind]()
    return supervised.fine_tune(begin, few, target, seed=job.seed)


def first_adapted(job: Any, sources: list[Any], target: Any, pairs: Any) -> Any:
    """`last`, once for all numbers of labels that begin with the same adaptation."""
    plain = dataclasses.replace(job, baseline="")
    if plain.origin not in _adapted:
        _adapted.clear()
        _adapted[plain.origin] = last(plain, sources, target, pairs)
    return _adapted[plain.origin]


def last(job: Any, sources: list[Any], target: Any, pairs: Any, lambda_ti: float = 0.0, **more: Any) -> Any:
    """The network after the job's recipe, perhaps with another loss on the pairs and its weight."""
    from socketlab import adapt
    from socketlab.speed import best_execution

    recipe = job.recipe.replace(lambda_ti=lambda_ti, ti_map=0.0) if more else job.recipe
    more |= {"seed": job.seed, "every": 10**6, "execution": best_execution()}
    for event in adapt(sources, target, pairs, recipe, **more):
        if hasattr(event, "state"):
            state = event.state
    return state.adapted


SIGNS = ("unevenness", "true_unevenness", "uncertainty", "stranger_auroc")
"""What `signs` measures."""


def signs(adapted: Any, target: Any) -> dict[str, str]:
    """What shows without labels that a target is not even, and, with labels, whether it shows the truth.

    "unevenness" is half the sum of the distances of the predicted classes' shares from even ones, in
    [0, 1 − 1/K], and "true_unevenness" that of the classes themselves; "uncertainty" the mean of 1 − max p.
    "stranger_auroc" is how often a stranger is less certain than an image of the task; "" without strangers.
    """
    import torch
    from sklearn.metrics import roc_auc_score

    from socketlab import features

    logits = features.predict(adapted, target.unlabelled())[0].float().cpu()
    uncertain = 1 - logits.softmax(dim=1).amax(dim=1)
    known = torch.tensor([kind in target.classes for kind in target.kinds])  # the others are strangers
    labels = target.take(known.nonzero()[:, 0]).labels.cpu()

    def unevenness(classes: Any) -> float:
        shares = classes.bincount(minlength=len(target.classes)) / len(classes)
        return float((shares - 1 / len(shares)).abs().sum() / 2)

    found = {
        "unevenness": unevenness(logits.argmax(dim=1)),
        "true_unevenness": unevenness(labels),
        "uncertainty": float(uncertain.mean()),
    }
    line = {name: f"{value:.4f}" for name, value in found.items()}
    return line | {"stranger_auroc": "" if known.all() else f"{roc_auc_score(~known, uncertain):.4f}"}


def untidy(target: Any, how: str, sensor: str, modality: str, seed: int) -> Any:
    """A target that is not even: "uneven" classes (10 : 1), one class "missing", or "strangers" among them.

    "even" leaves it as it is, "fewer" takes as many images of each class as "uneven" has on average.
    Which classes are the rare ones, and which is missing, is drawn by the seed. Strangers are 120 far rooms,
    of kinds that the network has no name for.
    """
    import torch

    from socketlab import rooms

    if how == "even":
        return target
    generator = torch.Generator().manual_seed(1000 + seed)
    classes = len(target.classes)
    order = torch.randperm(classes, generator=generator).tolist()
    labels = target.labels.tolist()
    if how == "strangers":
        far = rooms.load("ti_far", sensor, (modality,)).to(target.device)
        return rooms.join(target, far.take(torch.randperm(len(far), generator=generator)[:120]))
    most = max(labels.count(c) for c in range(classes))
    kept = {c: round(most * (1 - 0.9 * i / (classes - 1))) for i, c in enumerate(order)}
    if how == "fewer":
        kept = dict.fromkeys(range(classes), sum(kept.values()) // classes)
    if how == "missing":
        kept = {c: 0 if c == order[0] else most for c in range(classes)}
    rows = []
    for row in torch.randperm(len(labels), generator=generator).tolist():
        if kept[labels[row]] > 0:
            kept[labels[row]] -= 1
            rows.append(row)
    return target.take(sorted(rows))
