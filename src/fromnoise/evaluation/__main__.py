"""`python -m fromnoise.evaluation JUDGE DATASET MODEL...`: a quick score of each model folder, a line each."""

import sys
from pathlib import Path

from fromnoise.data import load_dataset
from fromnoise.evaluation.quick import as_line, quick_score


def main(judge: str, dataset: str, *models: str) -> None:
    """Score each model and print its line."""
    pictures = load_dataset(Path(dataset))
    for model in models:
        print(f"{model} | {as_line(quick_score(Path(model), Path(judge), pictures))}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
