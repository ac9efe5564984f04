"""What the tests of all panels need: their pixels, and an end without an error left behind."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from socketlab.panels import session
from socketlab.panels.base import Panel


def pixels(picture: session.LiveFigure) -> np.ndarray:
    """What a picture shows: (height, width, channels)."""
    return np.asarray(Image.open(io.BytesIO(picture.image.value)))


def end_all(panels: Iterable[Panel], seconds: float = 30) -> None:
    """Stop them; none may be left with a thread at work or an error that nobody expected.

    Parameters
    ----------
    panels : made by a test.
    seconds : the most to wait for each thread.
    """
    for panel in panels:
        panel.stop()
        assert panel.session.join(seconds)
        if panel.session.error is None:
            panel.wait(seconds)
        assert panel.box.errors == []
