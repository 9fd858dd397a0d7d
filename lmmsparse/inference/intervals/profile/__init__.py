"""`Fit` → the profile of its deviance along every parameter."""
