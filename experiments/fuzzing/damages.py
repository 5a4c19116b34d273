"""Damages: of bytes, of JSON values, of tables, of zip archives, of protocol buffers; each drawn from a generator."""

import csv
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ODD_TEXTS = ("", " ", "nan", "inf", "-1", "2", "1e400", "0.5", "=1+1", "@x", "é", "\x00", "\x1b[31mred", "a\nerror: b",
             "\u2028", "\ud800", "<script>alert(1)</script>", "../../etc/passwd", "/dev/zero", "/proc/self/mem", '"',
             ",", "x" * 70000, "9" * 400, "None", "%s%n", "{0}", "CON")
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2 ** 31, 2 ** 63, -2 ** 63, 10 ** 400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    [], {}, [[]], [None], {"a": {}}, [0] * 5000, *ODD_TEXTS)
Damage = Callable[[Any, np.random.Generator], Any]


def bytes_damaged(data: bytes, draw: np.random.Generator) -> bytes:
    """Bits flipped, cut off, parts lost, doubled, overwritten, exchanged, set to zero; lying headers."""
    if not data:
        return draw.bytes(int(draw.integers(1, 200)))
    changed, kind = bytearray(data), int(draw.integers(10))
    place, length = int(draw.integers(len(data))), int(draw.integers(1, draw.choice([8, 64, 4096])))
    if kind == 0:
        for _ in range(int(draw.integers(1, 20))):
            changed[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        del changed[place:place + length]
    elif kind == 3:
        changed[place:place] = changed[place:place + length]
    elif kind == 4:
        changed[place:place + length] = draw.bytes(length)
    elif kind == 5:  # bytes of the head, where sizes and counts stand
        for _ in range(int(draw.integers(1, 6))):
            changed[int(draw.integers(min(400, len(data))))] = int(draw.choice([0, 1, 0x7F, 0x80, 0xFF]))
    elif kind == 6:
        changed += draw.bytes(length)
    elif kind == 7:
        changed[place:place + length] = bytes(length)
    elif kind == 8:
        other = int(draw.integers(len(data)))
        changed[place:place + length], changed[other:other + length] = (changed[other:other + length],
                                                                         changed[place:place + length])
    elif draw.random() < 0.1:
        changed.clear()
    else:  # a size of four bytes, either way round
        changed[place:place + 4] = struct.pack(str(draw.choice(["<I", ">I"])), int(draw.choice(
            [0, 1, 2 ** 16, 2 ** 31 - 1, 2 ** 32 - 1])))
    return bytes(changed)


def png_mended(data: bytes) -> bytes:
    """Give a damaged PNG right checksums again, so that the damage reaches the decoder."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    out, place = bytearray(data[:8]), 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place:place + 4], "big")
        if place + 12 + length > len(data):
            break
        body = data[place + 4:place + 8 + length]
        out += data[place:place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(out) + data[place:]


def json_damaged(text: bytes, draw: np.random.Generator) -> bytes:
    """One to three fields left out, renamed, added, exchanged or of another type; now and then the bytes themselves."""
    kind = draw.random()
    if kind < 0.15:
        return bytes_damaged(text, draw)
    if kind < 0.17:
        return b"[" * 20000 + b"]" * 20000
    value = json.loads(text)
    for _ in range(int(draw.integers(1, 4))):
        value = value_damaged(value, draw)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def value_damaged(value: Any, draw: np.random.Generator) -> Any:
    """One place of nested lists and objects changed."""
    places = list(_places(value))
    if not places or draw.random() < 0.02:
        return _odd(draw)
    owner, name = places[int(draw.integers(len(places)))]
    kind = int(draw.integers(6))
    if kind == 0:
        del owner[name]
    elif kind == 1 and isinstance(owner, dict):
        owner["x" + str(name)] = owner.pop(name)
    elif kind == 2:
        other, there = places[int(draw.integers(len(places)))]
        owner[name] = json.loads(json.dumps(other[there]))
    elif kind == 3 and isinstance(owner[name], int | float) and not isinstance(owner[name], bool):
        owner[name] = owner[name] * float(draw.choice([-1, 0, 2, 0.5, 1e3, 1e9]))
    elif kind == 4 and isinstance(owner, dict):
        owner[str(draw.choice(["extra", "later", "__class__", ""]))] = _odd(draw)
    else:
        owner[name] = _odd(draw)
    return value


def _odd(draw: np.random.Generator) -> Any:
    return ODD_VALUES[int(draw.integers(len(ODD_VALUES)))]


def _places(value: Any) -> Any:
    names = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in list(names):
        yield value, name
        yield from _places(value[name])


def table_damaged(text: bytes, draw: np.random.Generator) -> bytes:
    """Cells, columns, rows, separators, quotation marks, line ends or encodings of a CSV changed."""
    kind = int(draw.integers(12))
    rows = [row for row in csv.reader(io.StringIO(text.decode("utf-8"))) if row]
    if kind == 0 or len(rows) < 2:
        return bytes_damaged(text, draw)
    if kind < 5:
        for _ in range(int(draw.integers(1, 6))):
            row = rows[int(draw.integers(len(rows)))]
            if row:
                row[int(draw.integers(len(row)))] = _cell(draw)
    elif kind == 5:  # a whole column
        place, cell = int(draw.integers(len(rows[0]))), _cell(draw)
        for row in rows[int(draw.integers(2)):]:
            row[place:place + 1] = [] if draw.random() < 0 else [cell]
    elif kind == 6:
        place = int(draw.integers(len(rows[0])))
        rows = [row[:place] + row[place + 1:] for row in rows]
    elif kind == 7:
        one, two = draw.integers(len(rows[0]), size=2)
        rows[0][one] = rows[0][two]
    elif kind == 8:
        del rows[int(draw.integers(len(rows))):]
    elif kind == 9:
        rows += [list(rows[int(draw.integers(len(rows)))]) for _ in range(int(draw.choice([1, 3, 300])))]
    elif kind == 10:
        rows = [rows[0], *draw.permutation(np.array(rows[1:], object)).tolist()]
        rows[int(draw.integers(len(rows)))] = rows[0][:int(draw.integers(len(rows[0]) + 1))]
    else:
        return _written_oddly(rows, draw)
    return _csv(rows)


def _cell(draw: np.random.Generator) -> str:
    return ODD_TEXTS[int(draw.integers(len(ODD_TEXTS)))]


def _csv(rows: list[list[str]], **how: Any) -> bytes:
    text = io.StringIO()
    try:
        csv.writer(text, lineterminator="\n", **how).writerows(rows)
    except csv.Error:  # a zero byte, in older Pythons
        return b"\n".join(",".join(row).encode("utf-8", "surrogatepass") for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _written_oddly(rows: list[list[str]], draw: np.random.Generator) -> bytes:
    text = _csv(rows, quoting=int(draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
                delimiter=str(draw.choice([",", ";", "\t", "|"])))
    how = int(draw.integers(6))
    if how == 0:
        return text.replace(b"\n", bytes([13, 10]))
    if how == 1:
        return b"\xef\xbb\xbf" + text
    if how == 2:
        return text.decode("utf-8").encode("utf-16")
    if how == 3:
        return text.replace(b"\n", b"\r")
    if how == 4:
        return text.replace(b"\n", b"\n\n") + b'"'
    return text.decode("utf-8").encode("cp1252", "replace")


def zip_damaged(data: bytes, members: dict[str, Damage], draw: np.random.Generator) -> bytes:
    """A zip archive with one member damaged, lost, renamed, doubled, unpacking to very much, or its bytes damaged.

    Args:
        data: the archive.
        members: how each member's content is damaged, by the end of its name; other members byte by byte.
        draw: the generator.
    """
    if draw.random() < 0.3:
        return bytes_damaged(data, draw)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    place, kind = int(draw.integers(len(parts))), draw.random()
    name, content = parts[place]
    packed = zipfile.ZIP_STORED
    if kind < 0.08:
        del parts[place]
    elif kind < 0.12:
        parts[place] = (str(draw.choice(["../" + name, "/tmp/" + name, name.upper(), "x" + name])), content)
    elif kind < 0.16:
        parts.append((name, bytes_damaged(content, draw)))
    elif kind < 0.18:
        parts[place], packed = (name, content + bytes(400_000_000)), zipfile.ZIP_DEFLATED
    else:
        how = next((how for end, how in members.items() if name.endswith(end)), bytes_damaged)
        parts[place] = (name, how(content, draw))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, content in parts:
            archive.writestr(zipfile.ZipInfo(name), content, packed)
    return out.getvalue()


def network_grown(text: bytes, draw: np.random.Generator) -> bytes:
    """The configuration of a network with a few of its sizes multiplied, up to a billion times."""
    value = json.loads(text)
    sizes = [(owner, name) for owner, name in _places(value) if type(owner[name]) is int and owner[name] > 0]
    if not sizes:
        return json_damaged(text, draw)
    for _ in range(int(draw.integers(1, 4))):
        owner, name = sizes[int(draw.integers(len(sizes)))]
        owner[name] *= int(draw.choice([2, 10, 1000, 10 ** 6, 10 ** 9]))
    return json.dumps(value).encode()


def weights_grown(data: bytes, draw: np.random.Generator) -> bytes:
    """An HDF5 file with an array of a vast shape, in place of one or beside, or a link out of it or into itself."""
    import h5py

    file, names = io.BytesIO(data), []
    with h5py.File(file, "r+") as root:
        root.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
        name, kind = names[int(draw.integers(len(names)))], int(draw.integers(5))
        rank, vast = len(root[name].shape) or 1, int(draw.choice([10 ** 3, 10 ** 6, 10 ** 9]))
        if kind < 4:
            del root[name]
        if kind == 0:
            root[name] = h5py.ExternalLink("/dev/zero", "x")
        elif kind == 1:
            root[name] = root["/"]
        elif kind == 2:
            root.create_dataset(name, (4,), "u1", external=[("/etc/passwd", 0, 4)])
        else:
            root.create_dataset(name if kind == 3 else "vast", (vast,) * rank, "f4", chunks=(10,) * rank)
    return file.getvalue()


def array_damaged(data: bytes, draw: np.random.Generator) -> bytes:
    """An .npy file of another shape, type or content, or with pickled objects."""
    kind = int(draw.integers(6))
    if kind == 0:
        return bytes_damaged(data, draw)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if kind == 1:
        array = np.resize(array, tuple(draw.integers(0, 5, int(draw.integers(0, 4)))))
    elif kind == 2:
        array = array.astype(str(draw.choice(["float16", "float64", "int8", "complex64", "U8", "S3", "bool"]))) \
            if array.dtype.kind in "fiu" else np.zeros(3)
    elif kind == 3:
        array = np.full(array.shape, float(draw.choice([np.nan, np.inf, 1e30]))) if array.dtype.kind == "f" else \
            np.array(_cell(draw).replace("\x00", ""))
    elif kind == 4:
        array = np.array([{"pickled": array.shape}, print], object)
    else:  # a header that claims a huge array
        return data.replace(b"'shape': (", b"'shape': (99999999, ", 1)
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def message_damaged(message: Any, draw: np.random.Generator) -> None:
    """Change one field of a protocol buffer in place, anywhere inside it."""
    for _ in range(int(draw.integers(2, 12))):  # go down at random
        fields = [(field, value) for field, value in message.ListFields()]
        if not fields:
            return
        field, value = fields[int(draw.integers(len(fields)))]
        inner = _inside(field, value, draw)
        if inner is None or draw.random() < 0.1:
            _change(message, field, value, draw)
            return
        message = inner


def _inside(field: Any, value: Any, draw: np.random.Generator) -> Any:
    """A message inside a field, None where it holds none."""
    if field.message_type is None:
        return None
    if hasattr(value, "ListFields"):
        return value
    if hasattr(value, "keys"):  # a map
        found = value[list(value)[int(draw.integers(len(value)))]]
    else:
        found = value[int(draw.integers(len(value)))]
    return found if hasattr(found, "ListFields") else None


def _change(message: Any, field: Any, value: Any, draw: np.random.Generator) -> None:
    if draw.random() < 0.3 or field.message_type is not None or hasattr(value, "keys"):
        message.ClearField(field.name)
        return
    repeated = hasattr(value, "append")
    given = value[int(draw.integers(len(value)))] if repeated else value
    if isinstance(given, bytes):
        odd: Any = bytes_damaged(given[:10 ** 6], draw)
    elif isinstance(given, str):
        odd = str(draw.choice(["", given + "x", "ReadFile", "PyFunc", "x" * 9000, "Identity", "../../x", "^" + given]))
    else:
        odd = type(given)(draw.choice([0, 1, -1, 7, 65536, 2 ** 31 - 1]))
    try:
        if repeated:
            value[int(draw.integers(len(value)))] = odd
        else:
            setattr(message, field.name, odd)
    except (TypeError, ValueError, OverflowError):  # a number that this field cannot hold
        message.ClearField(field.name)
