"""latente: train generative models from scratch on your own data, and get back data you can use.

latente.train("vae", "digits", budget="60s").sample(64)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latente.launch import resume, train
    from latente.run import Run, load

__all__ = ["Run", "load", "resume", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads torch only when something that needs it is asked for."""
    if name in __all__:
        from latente import launch, run

        return getattr(launch if hasattr(launch, name) else run, name)
    raise AttributeError(f"module 'latente' has no attribute {name!r}")
