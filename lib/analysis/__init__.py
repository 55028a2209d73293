"""Looking inside, for the notebooks: what is true of a corpus, and what a trained model makes of it."""
