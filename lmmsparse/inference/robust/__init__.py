"""Covariance matrices of the fixed effects that hold whatever happens within clusters."""
