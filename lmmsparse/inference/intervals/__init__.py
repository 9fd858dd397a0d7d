"""`Fit` → how sure its parameters are: Wald, profile and bootstrap intervals."""
