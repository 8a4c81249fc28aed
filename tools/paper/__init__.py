"""The paper's tables and figures: what they consist of, the runs behind them, and how they are shown. Used by `reproduce.py`."""
