"""A sweep over hyperparameters: eight worker processes share one cache, and nothing is trained twice.

    python -m examples.sweep --cache-dir build/demo/.motools

`plan` decides who asks for what, `training` is the real work, `jobs` does it on a miss and keeps its files,
`asking` holds the one pattern that uses the cache, `workers` runs the processes, `report` prints what came out.
"""
