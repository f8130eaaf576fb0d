"""Loads judges and scores what a model draws; never trains."""

from fromnoise.evaluation.evaluating import evaluate
from fromnoise.evaluation.quick import QuickScore
from fromnoise.evaluation.reference import is_prepared, prepare
from fromnoise.evaluation.report import Report

__all__ = ["QuickScore", "Report", "evaluate", "is_prepared", "prepare"]
