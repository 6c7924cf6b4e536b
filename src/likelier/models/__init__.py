"""Loading, saving and shrinking language models, and telling them apart by content."""
