"""The command line with a map by principal components, as `torchrun` starts it: UMAP compiles for long."""

import contextlib

from socketlab import cli, embed, runs

if __name__ == "__main__":
    embed.joint_map = lambda sets, seed=0: embed.pca_map(sets)
    runs.MapMaker = contextlib.nullcontext
    cli.main()
