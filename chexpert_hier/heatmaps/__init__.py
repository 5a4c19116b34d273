"""Where the network looks: class activation maps, laid on the film."""

from ..faces import lazily

PUBLIC = {
    "maps": ("film_maps", "heatmaps"),
    "overlays": ("FilmMaps", "overlay", "read_maps", "rectified"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
