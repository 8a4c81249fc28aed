"""Keras layers: logits, joined features, neighbours and clusters that decide, HOG."""
