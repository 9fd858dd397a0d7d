"""`Fit` → denominator degrees of freedom, and what of V they are made of."""
