"""Records, readers of other formats, checks, chat templates, token trees, order."""
