"""An omnichannel commercial-messaging dispatcher that keeps a bank's promise to its customers."""

from dispatcher.version import VERSION as __version__

__all__ = ["__version__"]
