"""What every part uses and no model is needed for: errors, options, tables, progress, threads."""
