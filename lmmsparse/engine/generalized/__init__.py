"""The criterion of generalized linear mixed models: conditional modes, Laplace, quadrature."""
