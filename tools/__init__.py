"""Commands for whoever changes or teaches the course; run from the repository, not installed."""
