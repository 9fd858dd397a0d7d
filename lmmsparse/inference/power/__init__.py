"""How often a test would find an effect."""
