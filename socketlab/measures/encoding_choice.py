"""Which reading of depth suits a source network: chosen by the pairs, without a label.

Pairs are task-irrelevant, but it is known which depth picture belongs to which colour picture. A tenth of
them is held out. After a short alignment on the others, the depth features of the held-out pairs are compared
with the colour features; the encoding under which partners lie nearest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages
from socketlab.method.adaptation import Epoch, adapt
from socketlab.method.evaluate import predict
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source

CANDIDATES = ("metric", "inverse", "relative", "normals")
HELD_OUT_SHARE, LEAST_HELD_OUT = 0.1, 20
STEPS = 45
"""Of alignment: on held-out pairs of PocketRooms the partner rank is lowest about there."""


@dataclass(frozen=True)
class EncodingChoice:
    """The encoding that was taken, and the partner rank of every candidate on the held-out pairs.

    Parameters
    ----------
    encoding : one of the candidates.
    ranks : candidate → mean share of other scenes that lie nearer than the partner, in [0, 1]; 0.5 is chance.
    held_out : number of pairs that they were measured on.
    """

    encoding: str
    ranks: dict[str, float]
    held_out: int

    @property
    def reason(self) -> str:
        """One sentence for the report."""
        listed = ", ".join(
            f"{name} {rank:.3f}" for name, rank in sorted(self.ranks.items(), key=lambda x: x[1])
        )
        return (
            f"Depth is read as {self.encoding}: after a short alignment it has the lowest partner rank on "
            f"{self.held_out} held-out pairs ({listed}; 0.5 is chance). No label was used."
        )


def choose_encoding(
    source: Source,
    target: PairedImages,
    pairs: PairedImages,
    recipe: Recipe,
    *,
    candidates: Sequence[str] = CANDIDATES,
    focal: tuple[float, float] = encodings.FOCAL,
    seed: int = 0,
) -> EncodingChoice:
    """Align with each encoding for some 45 steps, and compare on held-out pairs.

    Costs about as much as half of an adaptation with the default recipe.

    Parameters
    ----------
    source : the network that will be adapted; not changed.
    target : unlabelled depth images.
    pairs : colour and depth; a tenth, 20 at least, is held out for the choice. The adaptation uses all.
    candidates : names in ``encodings.DEPTH_ENCODINGS``.

    Raises
    ------
    LabError : the target is not depth, or there are fewer than 40 pairs.
    """
    if target.modality != "depth":
        raise LabError(f"{target.modality} images have no depth encoding: leave --depth-encoding out.")
    if len(pairs) < 2 * LEAST_HELD_OUT:
        raise LabError(
            f"{len(pairs)} pairs are too few to choose a depth encoding by: bring {2 * LEAST_HELD_OUT}, or "
            "name the encoding."
        )
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    count = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * len(pairs)))
    held_out, learned = pairs.take(order[:count]), pairs.take(order[count:])
    epoch = max(1, len(target) // recipe.batch_size)
    short = recipe.replace(align_epochs=min(100, -(-STEPS // epoch)), epochs=0)
    ranks = {}
    for name in candidates:
        normalisation = encodings.measure(target.images["depth"], "depth", name, focal)
        events = adapt(
            source, target, learned, short, seed=seed, every=short.align_epochs, normalisation=normalisation
        )
        last = [event for event in events if isinstance(event, Epoch)][-1]
        ranks[name] = partner_rank(source, last.state.adapted, held_out)
    return EncodingChoice(min(ranks, key=lambda name: ranks[name]), ranks, count)


def partner_rank(source: Source, adapted: Source, pairs: PairedImages) -> float:
    """Mean share of the other scenes whose source feature lies nearer than the partner's, in [0, 1].

    0: every partner comes first; 0.5: chance. Unlike the alignment's own error it has no scale, so networks
    with large features are not at a disadvantage.
    """
    wanted = predict(source, pairs.only(source.modality))[1].float()
    own = predict(adapted, pairs.only(adapted.modality))[1].float()
    distance = torch.cdist(own, wanted)  # (N, N)
    nearer = (distance < distance.diagonal()[:, None]).sum(dim=1)
    return float(nearer.float().mean() / (len(pairs) - 1))
