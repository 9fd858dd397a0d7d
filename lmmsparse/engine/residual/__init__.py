"""Covariances of the residuals: R(φ), its inverse in sets of rows, and the criterion over (θ, φ)."""
