"""θ → the relative covariance factor T of each term, and how TT' changes with θ."""
