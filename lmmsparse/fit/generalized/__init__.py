"""Fitting generalized linear mixed models: start, search, standard errors, verdict."""
