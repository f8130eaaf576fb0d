"""The whole story of drawing: start from noise, and take steps that pull a picture out of it."""

from fromnoise.diffusion.samplers import last
from fromnoise.pipeline.drawing import BATCH, Picture, Pipeline, seeds
from fromnoise.pipeline.loading import load
from fromnoise.pipeline.scheduler import Habits, Scheduler

__all__ = ["BATCH", "Habits", "Picture", "Pipeline", "Scheduler", "last", "load", "seeds"]
