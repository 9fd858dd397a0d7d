"""Here so that processes find this package of tests, and not one that somebody has installed."""
