"""A CSV on disk becomes one checked table of films and raw labels, split by patient."""

from ..faces import lazily

PUBLIC = {
    "dataset": ("Dataset", "SPLITS"),
    "reading": ("READERS", "read", "read_predictions", "read_rows"),
    "joint": ("read_all",),
    "options": ("Options",),
    "presence": ("BadFilm", "film_faults", "require_films"),
    "splits": ("draw_split", "frontal_only_fair"),
    "checks": ("check",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
