"""The labelling page: items, events as they happened, what follows from them, and the server that shows it."""
