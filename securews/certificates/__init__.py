"""Floor 4: certificates. Those for development today, and where they are."""
