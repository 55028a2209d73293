"""How anything is run: the one training loop, variants and seeds, the store of runs. `python -m lib.run` trains one."""
