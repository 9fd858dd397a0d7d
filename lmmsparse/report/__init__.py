"""Results → what is read: summaries, data frames, figures."""
