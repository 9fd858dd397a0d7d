"""Linear algebra: penalized least squares by one algorithm or another."""
