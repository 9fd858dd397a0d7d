"""Many responses of one design → their estimates, searched together."""
