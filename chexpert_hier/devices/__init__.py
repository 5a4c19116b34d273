"""Training over several devices and machines: who takes part, whose films, one loss, and what happens when one dies."""

from ..faces import lazily

PUBLIC = {
    "alone": ("Devices", "Share"),
    "joining": ("joined",),
    "launch": ("Place", "add_flags", "place_of"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
