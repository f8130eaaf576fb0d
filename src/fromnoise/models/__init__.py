"""The networks of Stable Diffusion, each with a frozen config read from its published `config.json`."""
