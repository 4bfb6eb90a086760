"""The Network Atlas: shared, tested kernels for an executable research book on what shapes a network."""

import warnings

# torch_geometric asks tqdm for a notebook's progress bar, which wants ipywidgets; nothing here shows one.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
