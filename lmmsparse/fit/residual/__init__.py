"""Models whose residuals have a covariance of their own: problem, search in (θ, φ), fit."""
