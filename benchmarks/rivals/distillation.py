"""One network out of several: a mixture's predictions taught to one network (DECISION's distillation)."""

from __future__ import annotations

import copy

from torch.nn import functional as F

from rivals.training import BATCH, train
from socketlab.images.paired_images import PairedImages
from socketlab.method.evaluate import predict
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Mixture, mixing_weights


def distilled(mixture: Source, target: PairedImages, *, steps: int = 300, seed: int = 0) -> Source:
    r"""The network with the largest share, taught to predict what the mixture predicts.

    .. math:: L = \tfrac1B \sum_i KL(p^{mix}(x_i) \,\|\, p(x_i))

    Of one network alone, that network. The mixture is not changed, the target's labels are not read.

    Source: Ahmed et al., CVPR 2021 (DECISION), supplement; the cross-entropy there has the same gradient.
    """
    if not isinstance(mixture.network, Mixture):
        return mixture
    target = target.unlabelled()
    best = int(mixing_weights(mixture.network.mixing.detach()).argmax())
    network = copy.deepcopy(list(mixture.network.networks)[best])
    student = Source(network, mixture.classes, mixture.normalisation, dict(mixture.card))  # type: ignore[arg-type]
    wanted = predict(mixture, target)[0].float().log_softmax(dim=1)  # (N, K)
    return train(
        student, target, target,
        lambda logits, rows: F.kl_div(
            logits.log_softmax(dim=1), wanted[rows.to(wanted.device)], log_target=True, reduction="batchmean"
        ),
        steps, seed, min(BATCH, len(target)),
    )  # fmt: skip
