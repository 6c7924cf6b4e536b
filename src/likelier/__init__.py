"""likelier makes the answers people prefer likelier."""
