"""Exercises of the notebook on statistics."""

from socketlab.checks import Exercise

EXERCISES: tuple[Exercise, ...] = ()
