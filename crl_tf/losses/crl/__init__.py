"""Class rectification: profiling, mining, comparison, rectification, and the loss."""
