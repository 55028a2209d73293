"""One module a paper: its settings, profiles and variants, how its model is made, how to try it. Each has a PAPER."""
