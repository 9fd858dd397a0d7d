"""The words typed in a terminal."""
