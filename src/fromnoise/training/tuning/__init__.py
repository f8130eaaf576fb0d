"""Make it yours: textual inversion, LoRA, full fine-tuning and DreamBooth, each one short recipe on the one Learner."""
