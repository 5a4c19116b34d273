"""Crops kept once for all later runs, and where a run's films come from."""

from ..faces import lazily

PUBLIC = {
    "making": ("cache_name", "pixel_statistics", "prepare"),
    "croppers": ("croppers_in", "learn_croppers"),
    "cache": ("Cache", "read_meta"),
    "sources": ("Films", "Source", "from_cache", "from_files", "read_data"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
