"""Loads judges and scores what a model draws; never trains."""

from fromnoise.evaluation.distances import gap_closed
from fromnoise.evaluation.evaluating import evaluate
from fromnoise.evaluation.quick import QuickScore, quick_score
from fromnoise.evaluation.reference import is_prepared, prepare
from fromnoise.evaluation.report import Report, require_room
from fromnoise.evaluation.scoring import features, score

__all__ = [
    "QuickScore",
    "Report",
    "evaluate",
    "features",
    "gap_closed",
    "is_prepared",
    "prepare",
    "quick_score",
    "require_room",
    "score",
]
