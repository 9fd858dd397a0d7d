"""`Fit` → tests: of contrasts, of terms, between models."""
