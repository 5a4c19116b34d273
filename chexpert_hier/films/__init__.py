"""One film file becomes the network's input: decode to 8-bit grey, rescale, find the crop, normalise, batch."""

from ..faces import lazily

PUBLIC = {
    "decode": ("Decoded", "decode_film", "read_film"),
    "grey": ("DamagedError", "FilmError"),
    "headers": ("read_header",),
    "plausible": ("FLAGS", "flag", "graph_flag"),
    "template": ("Cropper", "learn_template", "read_template", "write_template"),
    "normalisation": ("IMAGENET", "Normalisation", "graph_normalise", "normalise"),
    "augment": ("AUGMENTATIONS", "TTA_VIEWS", "tta_views"),
    "batches": ("Batches", "CropSource", "FilmSource", "crop_batches", "stream"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
