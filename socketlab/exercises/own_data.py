"""Exercises of the notebook on own data."""

from socketlab.checks import Exercise

EXERCISES: tuple[Exercise, ...] = ()
