"""Penalized least squares without a factor of M: conjugate gradients, and probes for log|M|."""
