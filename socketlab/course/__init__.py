"""What the notebooks' exercises need: `check`, `reveal`, `ask`, and `begin` to enter at a section."""

from socketlab.course.checks import check, reveal
from socketlab.course.quiz import ask
from socketlab.course.sections import begin

__all__ = ["ask", "begin", "check", "reveal"]
