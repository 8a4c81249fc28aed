"""The experiment tool: configuration, methods, training, comparing, reporting."""
