"""Sets larger than what a process may hold, adapted to in a process of its own: `test_prefetch` runs it."""

import itertools
import resource
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from worlds import CLASSES, trained_source

from socketlab.images import encodings
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.method.adaptation import Epoch, State, Step, adapt
from socketlab.method.recipe import Recipe

IMAGE = (64, 16384)
"""A view is cut from 56 × 56 of a megabyte, so that reading is dear and computing cheap."""


def sparse(file: Path, count: int, channels: int) -> torch.Tensor:
    """So many images of zeros that take no room on the disk, mapped into memory."""
    np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, channels, *IMAGE)).flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no tensors that cannot be written to
        return torch.from_numpy(np.load(file, mmap_mode="r"))


def scenes(folder: Path, count: int, **channels: int) -> PairedImages:
    images = {name: sparse(folder / f"{count}-{name}.npy", count, c) for name, c in channels.items()}
    return PairedImages(images, tuple(map(str, range(count))), ("unknown",) * count)


def megabytes(field: str) -> int:
    """A field of what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024


def a_few_steps(folder: Path) -> int:
    """Three steps on eight gigabytes of target and four of pairs: by how much the peak of memory grows."""
    source = trained_source()
    recipe = Recipe(batch_size=4, align_epochs=0, epochs=1, lambda_bn=0.5, lambda_pl=0.0, pair_views=0)
    target, pairs = scenes(folder, 8192, nir=1), scenes(folder, 1024, rgb=3, nir=1)
    state = State.start(source, Normalisation("nir", (0.4,) * 3, (0.2,) * 3), recipe, 0)
    before = megabytes("VmHWM")
    events = list(itertools.islice(adapt(source, target, pairs, recipe, state=state), 3))
    assert all(isinstance(event, Step) for event in events)
    return megabytes("VmHWM") - before


def all_of_it(folder: Path) -> None:
    """Statistics, an epoch and the end on a gigabyte, with room for 300 megabytes that are not the file."""
    encodings.MOST_AT_ONCE = 2**22
    source, target = trained_source(), scenes(folder, 1024, nir=1)
    room = (megabytes("VmData") + 300) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    recipe = Recipe.shot().replace(batch_size=128, epochs=1)
    *_, last = adapt(source, target, None, recipe)
    assert isinstance(last, Epoch) and last.state.adapted.classes == CLASSES
    try:
        target.images["nir"].clone()
    except RuntimeError:
        return
    raise AssertionError("the limit would have let the whole set pass")


if __name__ == "__main__":
    torch.set_num_threads(1)
    grown = a_few_steps(Path(sys.argv[1]))
    all_of_it(Path(sys.argv[1]))
    print(grown)
