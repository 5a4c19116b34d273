"""The phantom: a synthetic CheXpert with known truth and masks; no real patients."""

from ..faces import lazily

PUBLIC = {
    "making": ("default_folder", "ensure", "make", "mask_path", "read_marker", "read_masks"),
    "settings": ("Settings",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
