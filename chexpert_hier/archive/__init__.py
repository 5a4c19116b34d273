"""A whole archive: millions of films on Ray Data, from disk or object storage to Parquet, each exactly once.

`manifest` lists the films, `commits` knows which rows count, `worker` scores a block, `cluster` alone imports Ray,
`summary` and `studies` read what was written. docs/scale.md says what it costs.
"""

from ..faces import lazily

PUBLIC = {
    "commits": ("ResultStore",),
    "manifest": ("Manifest", "Source"),
    "worker": ("Opening", "Worker"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
