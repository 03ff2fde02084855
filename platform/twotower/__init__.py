"""`twotower`: which self-supervised two-tower retrieval model is best, found out at scale."""

__version__ = "0.1.0"
