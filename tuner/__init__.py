"""tuner: hyperparameter tuning for PyTorch."""

__version__ = "0.1.0"
