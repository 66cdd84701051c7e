"""Floor 0: errors, headers, options and deadlines. Imports nothing of securews."""
