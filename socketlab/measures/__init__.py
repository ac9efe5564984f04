"""How far apart two sets of features are."""
