"""What a model is asked: examples as tensors, predictions, scores, and the statistics that intervals need."""
