"""Pictures as files, as tensors and as sheets; and the settings that a picture carries."""
