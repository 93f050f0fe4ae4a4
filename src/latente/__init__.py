"""latente: train generative models from scratch on your own data, and get back data you can use.

latente.train("vae", "digits", budget="60s").sample(64)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latente.compression import Archive, compress, decompress
    from latente.launch import resume, train
    from latente.reports import report
    from latente.run import Run, load

__all__ = ["Archive", "Run", "compress", "decompress", "load", "report", "resume", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads torch only when something that needs it is asked for."""
    if name in __all__:
        from latente import compression, launch, reports, run

        return next(getattr(room, name) for room in (launch, run, reports, compression) if hasattr(room, name))
    raise AttributeError(f"module 'latente' has no attribute {name!r}")
