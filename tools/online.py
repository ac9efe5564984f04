"""Badges for running the course online: ``python -m tools.online OWNER/NAME`` puts them into README.

Where a copy of the repository lies on GitHub, Binder builds it from ``.binder/``, and Colab opens its
notebooks; there a first cell installs the kit.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from socketlab.errors import LabError
from socketlab.files import write_whole

PAGE = Path(__file__).resolve().parent.parent / "README.md"
START = "notebooks/00_start_here.ipynb"
MARK = re.compile(r"(<!-- online -->\n).*?(<!-- /online -->)", re.DOTALL)
BADGES = """[![Run on Binder](docs/binder.svg)](https://mybinder.org/v2/gh/{name}/HEAD?urlpath=lab/tree/{start})
[![Run on Colab](docs/colab.svg)](https://colab.research.google.com/github/{name}/blob/HEAD/{start})

In Colab every notebook needs a first cell:

```
{cell}
```
"""
COLAB = """!git clone -q --depth 1 https://github.com/{name} /content/socketlab
%pip install -q /content/socketlab
%env SOCKETLAB_DATA=/content/socketlab/data"""


def badges(name: str) -> str:
    """Markdown: both badges, and the cell that Colab needs; ``name`` is OWNER/NAME on GitHub."""
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", name):
        raise LabError(f"{name!r} is no repository on GitHub: write OWNER/NAME.")
    return BADGES.format(name=name, start=START, cell=COLAB.format(name=name))


def filled(text: str, name: str) -> str:
    """The page with the badges of this repository; `LabError` when it has no place for them."""
    if not MARK.search(text):
        raise LabError(f"{PAGE.name} has no place for badges: put <!-- online --> and its end there.")
    return MARK.sub(lambda mark: mark[1] + badges(name) + mark[2], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Put the badges of a repository into README."""
    names = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(names) != 1:
            raise LabError("Name the repository on GitHub: python -m tools.online OWNER/NAME")
        write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), names[0]).encode())
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
