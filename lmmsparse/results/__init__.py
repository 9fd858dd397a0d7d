"""What one fit says, without a test: effects, variances, predictions, simulations, influence."""
