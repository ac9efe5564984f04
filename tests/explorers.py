"""An explorer of a tiny world, for tests of its Python side and of its page."""

from typing import Any

import numpy as np
from worlds import patterned

from socketlab.figures.map_figures import Cloud
from socketlab.panels.explorer import Explorer


def clouds(points: dict[str, np.ndarray]) -> dict[str, Cloud]:
    """Positions as clouds, each of the modality it is named after."""
    return {name: Cloud(np.asarray(at, np.float32), name, name) for name, at in points.items()}


def made(count: int = 12, **more: Any) -> Explorer:
    """Two modalities of the same scenes; depth lies one step to the right of RGB, on the map and in D = 5."""
    rgb = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    points = {"rgb": rgb, "depth": rgb + np.array([1, 0], np.float32)}
    features = {name: np.pad(p, ((0, 0), (0, 3))) for name, p in points.items()}
    logits = {"depth": np.eye(3)[np.arange(count) % 3] * 4}
    after = {"depth": np.roll(logits["depth"], 1, axis=1)}
    settings: dict[str, Any] = {"features": features, "before": logits, "after": after}
    return Explorer(clouds(points), **({"images": patterned(count, 0)} | settings | more))
