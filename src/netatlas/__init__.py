"""The Network Atlas: shared, tested kernels for an executable research book on what shapes a network."""

__version__ = "0.1.0"
