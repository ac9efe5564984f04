"""Training, run folders, comparisons, experiments."""
