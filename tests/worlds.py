"""A tiny world for tests: two "modalities" of simple patterns, and a network trained on one of them."""

from functools import cache

import torch

from socketlab.images.paired_images import PairedImages
from socketlab.networks.checkpoints import Source
from socketlab.runs.train_source import SourceRecipe, Trained, train

CLASSES = ("bars", "columns", "blank")


def patterned(count: int, seed: int, classes: tuple[str, ...] = CLASSES) -> PairedImages:
    """Scenes of stripes in colour whose depth shows them *turned by a right angle*: only pairs can tell."""
    generator = torch.Generator().manual_seed(seed)
    kinds = tuple(CLASSES[i % len(CLASSES)] for i in range(count))
    wave = 60 * torch.sin(torch.arange(64) * 0.6)
    shapes = {
        "bars": wave[:, None].expand(64, 64),
        "columns": wave.expand(64, 64),
        "blank": torch.zeros(64, 64),
    }
    ideal = torch.stack([shapes[kind] for kind in kinds])[:, None]
    noise = 10 * torch.randn(count, 3, 64, 64, generator=generator)
    rgb = (128 + ideal + noise).clamp(0, 255).to(torch.uint8)
    depth = (2500 - 9 * ideal.transpose(2, 3) + 40 * torch.randn(count, 1, 64, 64, generator=generator)).to(
        torch.int32
    )
    images = {"rgb": rgb, "depth": depth.to(torch.uint16)}
    return PairedImages(images, tuple(f"scene-{seed}-{i}" for i in range(count)), kinds, classes)


@cache
def trained_source() -> Source:
    """A narrow network trained on the colour patterns for a few epochs; the same in every process.

    By one thread: another number adds up in another order, and 48 steps magnify that.
    """
    threads, last = torch.get_num_threads(), None
    recipe = SourceRecipe(epochs=4, batch_size=8, rate=0.05, width=8)
    torch.set_num_threads(1)
    try:
        for event in train(patterned(48, 0).only("rgb"), recipe, seed=0):
            if isinstance(event, Trained):
                last = event.source
    finally:
        torch.set_num_threads(threads)
    assert last is not None
    last.network.eval()
    return last
