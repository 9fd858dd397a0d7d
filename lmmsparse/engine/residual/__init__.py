"""Covariances of the residuals: R(φ), its inverse in sets of rows, the criterion in (θ, φ)."""
