//! The memory that the tables of codes of a lossless WEBP take, found before it is decoded.
//!
//! Such a picture has up to 65,536 groups of five codes, and ten bytes of the file describe a code whose tables take
//! 70 kB: a file of 800 kB would take 4.5 GB. So the codes are read here first, one by one, and only their sizes are
//! kept. The format is that of RFC 9649, section 3.

/// Bytes of the tables of all codes that the decoder keeps at a time, counted up to `bound`; 0 for a lossy picture.
/// `None` if the file is malformed before its last code.
pub fn table_bytes(file: &[u8], bound: u64) -> Option<u64> {
    let mut most = 0;
    for (stream, size) in streams(file)? {
        most = most.max(Stream { bits: Bits { bytes: stream, at: 0 }, bound }.table_bytes(size)?);
    }
    Some(most)
}

/// Width and height.
type Size = [u32; 2];

/// The lossless streams of a picture, or of the first frame of an animation: its pixels, or the alpha of lossy ones,
/// whose size is that of the picture.
fn streams(file: &[u8]) -> Option<Vec<(&[u8], Option<Size>)>> {
    let mut found = Vec::new();
    let mut size = [0; 2];
    let mut frames = 0;
    for (name, content) in chunks(file.get(12..)?) {
        match name {
            b"VP8L" => found.push((content, None)),
            b"ALPH" => found.extend(alpha(content, size)),
            b"VP8X" => size = sides(content.get(4..10)?),
            b"ANMF" => {
                frames += 1;
                let size = sides(content.get(6..12)?);
                let inner = if frames == 1 { content.get(16..)? } else { &[] };
                for (name, content) in chunks(inner) {
                    match name {
                        b"VP8L" => found.push((content, None)),
                        b"ALPH" => found.extend(alpha(content, size)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(found)
}

/// The chunks of a file or frame: their names and contents, up to one that is incomplete.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        // Chunks begin at even places.
        rest = after.get(length.checked_next_multiple_of(2)?..).unwrap_or_default();
        Some((name, after.get(..length).unwrap_or(after)))
    })
}

/// Two sides of three bytes each, of which one is subtracted.
fn sides(bytes: &[u8]) -> Size {
    let side = |at: usize| bytes.iter().skip(at).take(3).rev().fold(0, |side, &byte| side << 8 | u32::from(byte)) + 1;
    [side(0), side(3)]
}

/// The stream of an alpha channel, if it is compressed.
fn alpha(chunk: &[u8], size: Size) -> Option<(&[u8], Option<Size>)> {
    let (kind, stream) = chunk.split_first()?;
    (kind & 3 == 1).then_some((stream, Some(size)))
}

/// Numbers of bits, the lowest bit of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next number, of at most 32 bits.
    fn take(&mut self, count: u32) -> Option<u32> {
        let end = self.at + count as usize;
        if end > self.bytes.len() * 8 {
            return None;
        }
        let held = self.bytes.iter().skip(self.at / 8).take(5).rev();
        let held = held.fold(0u64, |held, &byte| held << 8 | u64::from(byte));
        let number = held >> (self.at % 8) & ((1 << count) - 1);
        self.at = end;
        Some(number as u32)
    }

    fn is_set(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }
}

/// Symbols of the five codes of a group, without a cache of colors: green, with lengths of copies; red; blue; alpha;
/// distances of copies.
const SYMBOLS: [usize; 5] = [256 + LENGTHS, 256, 256, 256, 40];
/// Longest side of a picture.
const SIDE: u32 = 1 << 14;
/// Symbols for the lengths of copies.
const LENGTHS: usize = 24;
/// Bytes of a group itself.
const GROUP: u64 = 1 << 10;

struct Stream<'a> {
    bits: Bits<'a>,
    bound: u64,
}

impl Stream<'_> {
    /// Bytes of the tables of all codes, up to the bound. A stream without a `size` has a header.
    fn table_bytes(&mut self, size: Option<Size>) -> Option<u64> {
        let [mut width, height] = match size {
            Some(size) => size,
            None => {
                self.bits.take(8)?;
                let size = [self.bits.take(14)? + 1, self.bits.take(14)? + 1];
                self.bits.take(4)?;
                size
            }
        };
        // The sizes of canvases and frames have more bits than those of pictures.
        if width.max(height) > SIDE {
            return None;
        }
        let mut seen = [false; 4];
        while self.bits.is_set()? {
            let kind = self.bits.take(2)?;
            if std::mem::replace(seen.get_mut(kind as usize)?, true) {
                return None;
            }
            match kind {
                // A predictor, or a color transform, for each block.
                0 | 1 => {
                    let block = self.bits.take(3)? + 2;
                    self.highest(blocks(width, block), blocks(height, block))?;
                }
                // Green subtracted.
                2 => {}
                // A table of colors; small numbers share a pixel.
                _ => {
                    let colors = self.bits.take(8)? + 1;
                    self.highest(colors, 1)?;
                    let shared = [(2, 3), (4, 2), (16, 1)].iter().find(|(most, _)| colors <= *most);
                    width = blocks(width, shared.map_or(0, |(_, bits)| *bits));
                }
            }
        }
        let cache = self.cache()?;
        let mut groups = 1;
        if self.bits.is_set()? {
            let block = self.bits.take(3)? + 2;
            groups += self.highest(blocks(width, block), blocks(height, block))?;
        }
        let mut bytes = 0;
        for _ in 0..groups {
            bytes += GROUP + self.group(cache)?.iter().map(Code::bytes).sum::<u64>();
            if bytes > self.bound {
                break;
            }
        }
        Some(bytes)
    }

    /// Symbols for the entries of a cache of colors.
    fn cache(&mut self) -> Option<usize> {
        if !self.bits.is_set()? {
            return Some(0);
        }
        let bits = self.bits.take(4)?;
        (1..=11).contains(&bits).then(|| 1 << bits)
    }

    /// Reads a picture with one group of codes; returns the highest number that the red and green of a pixel are. Copies
    /// and the cache only repeat pixels.
    fn highest(&mut self, width: u32, height: u32) -> Option<u32> {
        let cache = self.cache()?;
        let [green, red, blue, alpha, distance] = self.group(cache)?;
        let mut left = u64::from(width) * u64::from(height);
        let mut highest = 0;
        while left > 0 {
            let symbol = green.read(&mut self.bits)?;
            let pixels = match usize::from(symbol) {
                0..256 => {
                    highest = highest.max(u32::from(red.read(&mut self.bits)?) << 8 | u32::from(symbol));
                    blue.read(&mut self.bits)?;
                    alpha.read(&mut self.bits)?;
                    let is_constant = [&green, &red, &blue, &alpha].iter().all(|code| code.symbols.len() == 1);
                    if is_constant { left } else { 1 }
                }
                256..280 => {
                    let length = self.length(symbol - 256)?;
                    let prefix = distance.read(&mut self.bits)?;
                    self.length(prefix)?;
                    length
                }
                // The rest, if the code has no other symbol and so takes no bits.
                _ if green.symbols.len() == 1 => left,
                _ => 1,
            };
            left = left.checked_sub(pixels)?;
        }
        Some(highest)
    }

    /// A length or distance with its prefix.
    fn length(&mut self, prefix: u16) -> Option<u64> {
        let prefix = u32::from(prefix);
        if prefix < 4 {
            return Some(u64::from(prefix) + 1);
        }
        let extra = (prefix - 2) >> 1;
        Some((u64::from(2 + (prefix & 1)) << extra) + u64::from(self.bits.take(extra)?) + 1)
    }

    fn group(&mut self, cache: usize) -> Option<[Code; 5]> {
        let mut codes = [const { Code { counts: [0; 16], symbols: Vec::new() } }; 5];
        for (at, (code, symbols)) in codes.iter_mut().zip(SYMBOLS).enumerate() {
            *code = self.code(if at == 0 { symbols + cache } else { symbols })?;
        }
        Some(codes)
    }

    /// A code of `symbols` symbols.
    fn code(&mut self, symbols: usize) -> Option<Code> {
        if self.bits.is_set()? {
            let has_two = self.bits.is_set()?;
            let width = if self.bits.is_set()? { 8 } else { 1 };
            let mut named = vec![self.bits.take(width)? as u16];
            if has_two {
                named.push(self.bits.take(8)? as u16);
            }
            return named.iter().all(|&symbol| usize::from(symbol) < symbols).then(|| Code::of_named(named));
        }
        // The lengths of the code have a code of their own.
        const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut lengths = [0; 19];
        let count = self.bits.take(4)? as usize + 4;
        for &at in ORDER.iter().take(count) {
            lengths[at] = self.bits.take(3)? as u8;
        }
        let of_lengths = Code::of_lengths(&lengths)?;
        let mut left = symbols;
        if self.bits.is_set()? {
            let width = 2 + 2 * self.bits.take(3)?;
            left = self.bits.take(width)? as usize + 2;
            if left > symbols {
                return None;
            }
        }
        let mut lengths = Vec::with_capacity(symbols);
        let mut last = 8;
        while left > 0 && lengths.len() < symbols {
            left -= 1;
            let (length, times) = match of_lengths.read(&mut self.bits)? {
                16 => (last, 3 + self.bits.take(2)?),
                17 => (0, 3 + self.bits.take(3)?),
                18 => (0, 11 + self.bits.take(7)?),
                length => (length as u8, 1),
            };
            if length != 0 {
                last = length;
            }
            lengths.extend(std::iter::repeat_n(length, times as usize));
        }
        if lengths.len() > symbols {
            return None;
        }
        Code::of_lengths(&lengths)
    }
}

/// How many blocks of 2^`bits` pixels cover a side.
fn blocks(side: u32, bits: u32) -> u32 {
    side.div_ceil(1 << bits)
}

/// A canonical prefix code.
struct Code {
    /// Symbols of each length in bits.
    counts: [u16; 16],
    /// The symbols in the order of their codes. A single one takes no bits.
    symbols: Vec<u16>,
}

impl Code {
    /// The code with these lengths, 0 for a symbol that does not occur; `None` if it is not complete.
    fn of_lengths(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; 16];
        lengths.iter().filter(|&&length| length > 0).for_each(|&length| counts[usize::from(length)] += 1);
        let mut symbols: Vec<u16> = (0..).zip(lengths).filter(|(_, length)| **length > 0).map(|(at, _)| at).collect();
        symbols.sort_by_key(|&symbol| lengths[usize::from(symbol)]);
        let shares = (1..16).map(|length| u64::from(counts[length]) << (15 - length)).sum::<u64>();
        let is_complete = symbols.len() == 1 || shares == 1 << 15;
        is_complete.then_some(Self { counts, symbols })
    }

    /// The code of one symbol, or of two with a bit each.
    fn of_named(symbols: Vec<u16>) -> Self {
        let mut counts = [0; 16];
        counts[1] = symbols.len() as u16;
        Self { counts, symbols }
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<u16> {
        if let [only] = self.symbols[..] {
            return Some(only);
        }
        // The first code of this length, and the place of its symbol.
        let (mut code, mut first, mut place) = (0, 0, 0);
        for count in self.counts.iter().skip(1).map(|&count| usize::from(count)) {
            code = code << 1 | bits.take(1)? as usize;
            if code < first + count {
                return self.symbols.get(place + code - first).copied();
            }
            first = (first + count) << 1;
            place += count;
        }
        None
    }

    /// Bytes of the decoder's tables: entries of four bytes for all codes of up to ten bits, and two nodes of 16 bytes
    /// for each longer code.
    fn bytes(&self) -> u64 {
        if self.symbols.len() == 1 {
            return 0;
        }
        let longest = self.counts.iter().rposition(|&count| count > 0).unwrap_or_default();
        let longer = self.counts.iter().skip(11).map(|&count| u64::from(count)).sum::<u64>();
        (4 << longest.min(10)) + 32 * longer
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stream of numbers, each with its bits.
    fn stream(numbers: &[(u32, u32)]) -> Vec<u8> {
        let bits: Vec<u32> =
            numbers.iter().flat_map(|&(number, count)| (0..count).map(move |bit| number >> bit & 1)).collect();
        bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | *bit as u8)).collect()
    }

    fn file(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let length = |of: &[u8]| (of.len() as u32).to_le_bytes();
        let chunk = [&name[..], &length(content), content].concat();
        [&b"RIFF"[..], &(chunk.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunk].concat()
    }

    /// A code of one symbol of eight bits.
    const ONLY: [(u32, u32); 4] = [(1, 1), (0, 1), (1, 1), (7, 8)];

    /// Bytes of the pixels below.
    const PIXELS: usize = 100 * 100 * 11 / 8;

    /// A picture of 100 x 100 pixels with `groups` groups of codes, all but the last of which no block uses. The code of green has 2,048 of 2,328
    /// symbols, of eleven bits each, and takes ten bytes.
    pub(crate) fn bomb(groups: u32) -> Vec<u8> {
        let mut numbers = vec![(0x2f, 8), (99, 14), (99, 14), (0, 4), (0, 1), (1, 1), (11, 4), (1, 1), (0, 3)];
        // The numbers of the groups: one color.
        let code = |symbol: u32| [(1, 1), (0, 1), (1, 1), (symbol, 8)];
        let last = groups - 1;
        numbers.push((0, 1));
        [last & 255, last >> 8, 0, 0, 0].iter().for_each(|&symbol| numbers.extend(code(symbol)));
        for _ in 0..groups {
            // Lengths for 17, 18, and 0 to 11: only 11 occurs, and the first 2,048 symbols have it.
            numbers.extend([(0, 1), (12, 4)]);
            numbers.extend((0..16).map(|at| (u32::from(at == 14), 3)));
            numbers.extend([(1, 1), (5, 3), (2046, 12)]);
            (0..4).for_each(|_| numbers.extend(ONLY));
        }
        // Every pixel is symbol 0 of green, of eleven bits.
        file(b"VP8L", &[stream(&numbers), vec![0; PIXELS]].concat())
    }

    #[test]
    fn the_tables_of_every_group_are_counted() {
        let of_group = GROUP + (4 << 10) + 2048 * 32;
        assert_eq!(table_bytes(&bomb(1), u64::MAX), Some(of_group));
        assert_eq!(table_bytes(&bomb(700), u64::MAX), Some(700 * of_group));
        assert_eq!(table_bytes(&bomb(65_536), 10 * of_group), Some(11 * of_group));
        assert!(bomb(700).len() < 700 * 24 + PIXELS);
        let whole = bomb(3);
        for length in 20..whole.len() - PIXELS {
            assert_eq!(table_bytes(&whole[..length], u64::MAX), None, "{length}");
        }
    }

    /// Regression: the pixels of a frame of 2^48 were counted, although the picture was checked to be small.
    #[test]
    fn a_frame_is_no_larger_than_a_picture_can_be() {
        let numbers: Vec<_> = [(0, 3)].into_iter().chain((0..5).flat_map(|_| ONLY)).collect();
        let alpha = [vec![1], stream(&numbers)].concat();
        let frame = |side: [u8; 3]| {
            let length = (alpha.len() as u32).to_le_bytes();
            let head = [&[0; 6][..], &side, &side, &[0; 4], b"ALPH", &length].concat();
            file(b"ANMF", &[head, alpha.clone()].concat())
        };
        assert_eq!(table_bytes(&frame([255, 63, 0]), u64::MAX), Some(GROUP));
        assert_eq!(table_bytes(&frame([0, 64, 0]), u64::MAX), None);
        assert_eq!(table_bytes(&frame([255; 3]), u64::MAX), None);
    }

    #[test]
    fn lossy_pictures_have_no_tables() {
        assert_eq!(table_bytes(&file(b"VP8 ", &[1, 2, 3]), 0), Some(0));
        assert_eq!(table_bytes(b"RIFF", 0), None);
    }
}
