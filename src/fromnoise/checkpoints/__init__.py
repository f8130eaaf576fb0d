"""Formats of checkpoints: what is read is checked against what is expected, loudly."""

from fromnoise.checkpoints.checkpoint import Checkpoint, Part
from fromnoise.checkpoints.folder import load_module, read_json, save_module
from fromnoise.checkpoints.opening import open_checkpoint
from fromnoise.checkpoints.report import LoadReport

__all__ = ["Checkpoint", "LoadReport", "Part", "load_module", "open_checkpoint", "read_json", "save_module"]
