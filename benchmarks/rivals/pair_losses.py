"""Other ways to use the same pairs, in place of L_TI: ``adapt(…, pair_loss=distillation)``.

Each is a `socketlab.method.steps.PairLoss`: a scalar tensor from the target network, the frozen source
network's map and features of the source halves, and the target network's of the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.method.steps import Features
from socketlab.networks.networks import Network


def distillation(network: Network, wanted: Features, own: Features, temperature: float = 4.0) -> Tensor:
    r"""Predictions of partners agree: the source network's on colour teach the target network's on depth.

    .. math:: L = T^2 \, \tfrac1B \sum_i KL(softmax(z^s_i / T) \,\|\, softmax(z^t_i / T))

    Both go through the same frozen head; ≥ 0, nats. The pairs show no class of the task, so what is taught is
    how the source network would confuse them.

    Source: Hinton et al., 2015, for the temperature; Gupta et al., CVPR 2016, for teaching across modalities;
    a part of TGKT (Zhu, Chen, Wang, arXiv 2401.05014).
    """
    taught = (network.head(wanted[1].float()) / temperature).log_softmax(dim=1).detach()
    made = (network.head(own[1].float()) / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(made, taught, log_target=True, reduction="batchmean")


def contrast(network: Network, wanted: Features, own: Features, temperature: float = 0.5) -> Tensor:
    r"""Each depth feature is nearer to its partner's than to those of the other scenes of the batch.

    .. math:: L = - \tfrac1B \sum_i \log
        \frac{\exp(\cos(f^t_i, f^s_i) / \tau)}{\sum_j \exp(\cos(f^t_i, f^s_j) / \tau)}

    ≥ 0, nats; log B for features that are independent of their partners'.

    Source: van den Oord et al., 2018 (InfoNCE), eq. 4; across modalities as in Tian et al., ECCV 2020.
    """
    likeness = F.normalize(own[1].float(), dim=1) @ F.normalize(wanted[1].float().detach(), dim=1).T
    return F.cross_entropy(likeness / temperature, torch.arange(len(likeness), device=likeness.device))


def unpaired_coral(network: Network, wanted: Features, own: Features) -> Tensor:
    r"""Only mean and covariance of the two sets of features agree: who is whose partner is not used.

    .. math:: L = \tfrac1{D^2} \| C^s - C^t \|_F^2 + \tfrac1D \| \mu^s - \mu^t \|_2^2

    Source: Sun and Saenko, 2016 (Deep CORAL), eq. 1 less its factor ¼, with the means beside it.
    """
    taught, made = wanted[1].float().detach(), own[1].float()
    return F.mse_loss(made.T.cov(), taught.T.cov()) + F.mse_loss(made.mean(dim=0), taught.mean(dim=0))


def unpaired_mmd(network: Network, wanted: Features, own: Features) -> Tensor:
    r"""The two sets of features agree in distribution: maximum mean discrepancy, five Gaussian kernels.

    .. math:: L = \overline{k(f^s, f^s)} + \overline{k(f^t, f^t)} - 2\, \overline{k(f^s, f^t)}

    In [0, 10]. The squared widths are ¼, ½, 1, 2 and 4 times the mean squared distance within the batch.

    Source: Long et al., ICML 2015 (DAN), eq. 2.
    """
    both = torch.cat([wanted[1].float().detach(), own[1].float()])  # (2B, D)
    distance = torch.cdist(both, both).square()
    scale = distance.detach().mean()
    kernels = [torch.exp(-distance / (factor * scale)) for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
    kernel, half = torch.stack(kernels).sum(dim=0), len(both) // 2
    return kernel[:half, :half].mean() + kernel[half:, half:].mean() - 2 * kernel[:half, half:].mean()


PAIR_LOSSES = {
    "distillation": (distillation, 1.0),
    "contrast": (contrast, 1.0),
    "unpaired CORAL": (unpaired_coral, 30.0),
    "unpaired MMD": (unpaired_mmd, 0.1),
}
"""Name → the loss and its weight λ_TI, as `rival_weights` chose it; temperatures were not tuned."""
