"""Exercises of the notebook on adaptation."""

from socketlab.checks import Exercise

EXERCISES: tuple[Exercise, ...] = ()
