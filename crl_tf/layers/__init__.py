"""Keras layers: logits, joined and normalised features, decisions by neighbours and by clusters, HOG."""
