"""What is wrong with a film, as a number in the answers of exported models; 0 is good."""

GOOD, EMPTY, DICOM, OTHER, COLOURS, DAMAGED, SMALL, LARGE, FLAT = range(9)

# What metadata.json says of each; `{}` below are the limits of films.grey.
MEANINGS = {
    GOOD: "good: all numbers are answers",
    EMPTY: "the file is empty",
    DICOM: "DICOM; it is read by python -m chexpert_hier.predict",
    OTHER: "no JPEG or PNG (WebP, TIFF, a web page, ...); save it as PNG, or ask python -m chexpert_hier.predict",
    COLOURS: "a JPEG of four colours (CMYK), or a PNG whose palette has fewer than 8 bits; save it as grey",
    DAMAGED: "damaged or cut off",
    SMALL: "too small: a side has fewer than 32 pixels",
    LARGE: "too large: more than 200,000,000 pixels, or more than the decoder may hold",
    FLAT: "no picture content: every pixel has the same value",
}
