"""Shipped data sets and files of data → a DataFrame."""
