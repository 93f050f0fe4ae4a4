"""What the tests train each family on: the embedded source of its kind, text in windows so short that a step takes no time."""

from latente import registry
from latente.data.named import EMBEDDED
from latente.data.sources import OPTIONS, open_source

SMALL = {"image": {}, "text": {"context": 32}, "table": {}, "pair": {}}


def arguments(name):
    """Keyword arguments of `latente.train` for the family `name`."""
    kind = registry.load(name).kind
    return {"model": name, "source": EMBEDDED[kind], **SMALL[kind]}


def opened(name):
    """The dataset those arguments stand for."""
    kind = registry.load(name).kind
    return open_source(EMBEDDED[kind], OPTIONS[kind](**SMALL[kind]))
