//! Names of files that are not read as images, by their first bytes: "HEIC picture" says more than "unknown format".

/// What is read instead.
pub const READ: &str = "png, jpg, bmp and webp are read";

/// Bytes at an offset, and what a file with them is.
const SIGNATURES: [(usize, &[u8], &str); 19] = [
    (0, b"GIF87a", "a GIF picture"),
    (0, b"GIF89a", "a GIF picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"II+\0", "a TIFF picture"),
    (0, b"MM\0+", "a TIFF picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\0\0\x01\0", "an ICO picture"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"<svg", "an SVG picture"),
    (0, b"<?xml", "an XML document"),
    (0, b"<", "an HTML page"),
    (4, b"ftyp", "a video"),
];

/// Brands of files in the container of MPEG-4 (ISO 14496-12) that are pictures. Some cameras write a general brand
/// first, and the particular one among the compatible brands.
const BRANDS: [(&[&[u8; 4]], &str); 2] = [
    (&[b"avif", b"avis"], "an AVIF picture"),
    (&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"], "a HEIC picture"),
];

/// What a file with these bytes is, as `a HEIC picture`; `None` if unknown.
pub fn name(bytes: &[u8]) -> Option<&'static str> {
    let brands = || {
        let size = usize::try_from(u32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
        bytes.get(4..8).filter(|kind| *kind == b"ftyp")?;
        let listed = bytes.get(8..size.min(bytes.len()))?.chunks_exact(4);
        let found = |brands: &[&[u8; 4]]| listed.clone().any(|brand| brands.iter().any(|it| brand == it.as_slice()));
        BRANDS.iter().find(|(brands, _)| found(brands)).map(|&(_, name)| name)
    };
    let text = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let begins = |&&(at, signature, _): &&(usize, &[u8], &str)| {
        let start = if signature.starts_with(b"<") { text } else { at };
        bytes.get(start..).is_some_and(|rest| rest.starts_with(signature))
    };
    brands().or_else(|| SIGNATURES.iter().find(begins).map(|&(_, _, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_first_bytes() {
        for (bytes, want) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], Some("a HEIC picture")),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Some("a HEIC picture")),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", Some("an AVIF picture")),
            (b"\0\0\0\x14ftypavif\0\0\0\0mif1", Some("an AVIF picture")),
            (b"\0\0\0\x14ftypisom\0\0\0\0mp42", Some("a video")),
            // The list of brands ends with its box.
            (b"\0\0\0\x14ftypisom\0\0\0\0mp42heic", Some("a video")),
            (b"GIF89a\x01\0", Some("a GIF picture")),
            (b"MM\0*\0\0\0\x08", Some("a TIFF picture")),
            (b"II*\0", Some("a TIFF picture")),
            (b"\n <!DOCTYPE html>", Some("an HTML page")),
            (b"<svg xmlns", Some("an SVG picture")),
            (b"\0\0\0\x18ftyp", Some("a video")),
            (b"\xff\xff\xff\xffftypheic", Some("a HEIC picture")),
            (b"", None),
            (b"\0\0\0", None),
            (b"cat", None),
        ] {
            assert_eq!(name(bytes), want, "{}", bytes.escape_ascii());
        }
    }
}
