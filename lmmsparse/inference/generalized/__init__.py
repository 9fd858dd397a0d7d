"""Tests and intervals of generalized linear mixed models: normal approximation and likelihood."""
