"""Formats of checkpoints: what is read is checked against what is expected, loudly."""

from fromnoise.checkpoints.folder import load_module, read_json, save_module
from fromnoise.checkpoints.report import LoadReport

__all__ = ["LoadReport", "load_module", "read_json", "save_module"]
