"""Exercises of the notebook on infrared."""

from socketlab.checks import Exercise

EXERCISES: tuple[Exercise, ...] = ()
