"""Exercises of the notebook on gap."""

from socketlab.checks import Exercise

EXERCISES: tuple[Exercise, ...] = ()
