"""Building blocks of the models: attention, residual blocks, resampling, time embedding.

Attribute names are the keys of published diffusers checkpoints, so their weights load without a map.
"""
