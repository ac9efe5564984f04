"""One network out of several: a mixture's predictions taught to one network (DECISION's distillation)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from rivals.training import descend, endless_batches, sgd
from socketlab.images.paired_images import PairedImages, random_views
from socketlab.method.bnstats import reestimate_statistics
from socketlab.method.evaluate import encoded_batches, predict
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Mixture, device_of, mixing_weights


def distilled(
    mixture: Source,
    target: PairedImages,
    *,
    steps: int = 300,
    rate: float = 0.02,
    batch_size: int = 32,
    seed: int = 0,
) -> Source:
    r"""The network with the largest share, taught to predict what the mixture predicts.

    .. math:: L = \tfrac1B \sum_i KL(p^{mix}(x_i) \,\|\, p(x_i))

    Parameters
    ----------
    mixture : several adapted networks; not changed. One network alone is returned as it is.
    target : unlabelled images of the target.

    Returns
    -------
    One network, as large as one of the mixture's.

    Source: Ahmed et al., CVPR 2021 (DECISION), supplement; the cross-entropy there has the same gradient.
    """
    if not isinstance(mixture.network, Mixture):
        return mixture
    target = target.unlabelled()
    best = int(mixing_weights(mixture.network.mixing.detach()).argmax())
    network = copy.deepcopy(list(mixture.network.networks)[best]).requires_grad_(True)
    student = Source(network, mixture.classes, mixture.normalisation, dict(mixture.card))  # type: ignore[arg-type]
    wanted = predict(mixture, target)[0].float().log_softmax(dim=1)  # (N, K)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(rows: Tensor) -> Tensor:
        images = mixture.normalisation.encode(random_views(target, rows, generator)[target.modality])
        own = network(images).log_softmax(dim=1)
        return F.kl_div(own, wanted[rows.to(wanted.device)], log_target=True, reduction="batchmean")

    network.train()
    batches = endless_batches(len(target), min(batch_size, len(target)), generator)
    descend(sgd(network, rate), loss_of, batches, steps, rate)
    batches_of = encoded_batches(target, mixture.normalisation, 128, device_of(network))
    reestimate_statistics(network, batches_of)
    network.eval()
    return student
