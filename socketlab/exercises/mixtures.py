"""Exercises of the notebook on mixtures."""

from socketlab.checks import Exercise

EXERCISES: tuple[Exercise, ...] = ()
