"""A trained model for servers."""
