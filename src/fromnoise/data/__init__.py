"""Pictures and captions on disk: building a dataset folder from pinned sources, and reading it."""

from fromnoise.data.building import build_dataset
from fromnoise.data.reading import Dataset, load_dataset
from fromnoise.data.records import Manifest, Picture

__all__ = ["Dataset", "Manifest", "Picture", "build_dataset", "load_dataset"]
