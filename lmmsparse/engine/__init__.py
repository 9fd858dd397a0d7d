"""Numbers only: cross-products, covariance factors, linear algebra → the criterion, derivatives."""
