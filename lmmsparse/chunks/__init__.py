"""Data larger than memory: sources read in chunks, two passes over them, values of rows lazily."""
