"""Exercises and quizzes."""
