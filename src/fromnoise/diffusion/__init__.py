"""Noise schedules, the denoiser, guidance, samplers and objectives. Callables go in; no model is known here."""
