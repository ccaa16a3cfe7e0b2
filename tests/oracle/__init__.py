"""Plain row-by-row twins of the folds, written from the text; slow, and used by tests alone."""
