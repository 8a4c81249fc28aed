"""Large Margin Local Embedding."""
