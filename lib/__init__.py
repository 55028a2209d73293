"""Fivefold: five multimodal papers, re-run. Importing it makes torchvision importable on every torch."""

from lib.setup import ROOT, cure_torchvision

cure_torchvision()

__all__ = ["ROOT"]
