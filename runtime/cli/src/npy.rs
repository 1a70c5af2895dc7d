//! Reads and writes tensors as NumPy's `.npy` files.
//!
//! A file is a magic, a version, the length of the header, the header (a Python dictionary with
//! three known keys) and the elements. Existing libraries parse all of Python's literals and
//! allocate as much as an untrusted length says, so the header is parsed here. Format:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use skipstone::{DType, Fact, Shape, Tensor, TensorView};

use crate::failure::Failure;
use crate::{files, output};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest accepted header in bytes, as in NumPy. A plain array needs about 100 bytes.
const MAX_HEADER: usize = 10_000;

/// Writers pad the header so that the elements start at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// Reads the array in the file at `path`.
///
/// Accepts booleans, integers and floats of 16 to 64 bits, little-endian, in C or Fortran order.
/// Memory use is bounded by the size of the file, whatever shape its header declares.
pub fn read(path: &Path) -> Result<Tensor, Failure> {
    let read = if files::is_stream(path) {
        read_from(files::read(path)?.as_slice())
    } else {
        read_from(BufReader::new(File::open(path).map_err(|error| Failure::io(path, &error))?))
    };
    read.map_err(|error| match error {
        NpyError::Io(error) => Failure::io(path, &error),
        NpyError::Invalid(reason) => Failure::new("input.npy", format!("{}: {reason}", path.display())),
    })
}

/// Writes `tensor` to a file at `path`, in C order. NumPy has no bf16, so bf16 is widened to f32,
/// which is exact.
pub fn write(path: &Path, tensor: &TensorView<'_>) -> Result<(), Failure> {
    let file = File::create(path).map_err(|error| Failure::io(path, &error))?;
    let mut file = io::BufWriter::new(file);
    write_to(&mut file, tensor).and_then(|()| file.flush()).map_err(|error| Failure::io(path, &error))
}

/// Writes `tensor` to stdout.
pub fn print(tensor: &TensorView<'_>) -> Result<(), Failure> {
    output::file(|stdout| write_to(stdout, tensor))
}

#[derive(Debug)]
enum NpyError {
    Io(io::Error),
    Invalid(String),
}

fn invalid(reason: impl Into<String>) -> NpyError {
    NpyError::Invalid(reason.into())
}

/// Fills `buffer`, or fails if the file ends first.
fn fill(file: &mut impl Read, buffer: &mut [u8], what: &str) -> Result<(), NpyError> {
    file.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid(format!("ends within {what}")),
        _ => NpyError::Io(error),
    })
}

fn read_from(mut file: impl Read) -> Result<Tensor, NpyError> {
    let mut preamble = [0; 8];
    fill(&mut file, &mut preamble, "the first 8 bytes")?;
    if !preamble.starts_with(MAGIC) {
        return Err(invalid("not an .npy file"));
    }
    let length = match preamble[6] {
        1 => {
            let mut length = [0; 2];
            fill(&mut file, &mut length, "the header")?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            fill(&mut file, &mut length, "the header")?;
            usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)
        }
        version => return Err(invalid(format!("version {version} of the format is not supported"))),
    };
    if length > MAX_HEADER {
        return Err(invalid(format!("the header is {length} bytes long, the limit is {MAX_HEADER}")));
    }
    let mut header = vec![0; length];
    fill(&mut file, &mut header, "the header")?;
    let header = std::str::from_utf8(&header).map_err(|_| invalid("the header is not text"))?;
    let Header { fact, fortran } = Header::parse(header)?;

    // Read one extra byte to detect trailing data.
    let mut bytes = Vec::new();
    file.take(fact.bytes() as u64 + 1).read_to_end(&mut bytes).map_err(NpyError::Io)?;
    match bytes.len() {
        got if got < fact.bytes() => {
            return Err(invalid(format!("has {got} of the {} bytes that {fact} needs", fact.bytes())));
        }
        got if got > fact.bytes() => return Err(invalid(format!("has more bytes than {fact} needs"))),
        _ => {}
    }
    if fact.dtype == DType::Bool && bytes.iter().any(|&byte| byte > 1) {
        return Err(invalid("a boolean is neither 0 nor 1"));
    }
    if fortran {
        bytes = to_c_order(&fact, &bytes);
    }
    Tensor::from_bytes(fact, &bytes).map_err(|error| invalid(error.to_string()))
}

/// Converts elements of shape `fact` from column-major to row-major order.
fn to_c_order(fact: &Fact, bytes: &[u8]) -> Vec<u8> {
    let size = fact.dtype.size();
    let dims = fact.shape.dims();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; dims.len()];
    for _ in 0..fact.shape.elements() {
        let source = index.iter().zip(dims).rev().fold(0, |at, (&i, &dim)| at * dim + i);
        out.extend_from_slice(&bytes[source * size..][..size]);
        for (i, &dim) in index.iter_mut().zip(dims).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

fn write_to(file: &mut impl Write, tensor: &TensorView<'_>) -> io::Result<()> {
    let fact = tensor.fact();
    let dims = fact.shape.iter().map(|dim| format!("{dim},")).collect::<Vec<_>>().join(" ");
    let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({dims}), }}", type_string(fact.dtype));
    // Pad with spaces and a line feed up to the alignment. Rank and digits are bounded, so the
    // header always fits version 1.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    header.push('\n');
    file.write_all(MAGIC)?;
    file.write_all(&[1, 0])?;
    file.write_all(&(header.len() as u16).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    if fact.dtype == DType::Bf16 {
        for pair in tensor.bytes().chunks_exact(2) {
            file.write_all(&[0, 0, pair[0], pair[1]])?;
        }
        return Ok(());
    }
    file.write_all(tensor.bytes())
}

fn type_string(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::Bf16 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
    }
}

/// Parses a NumPy type string.
fn parse_type(text: &str) -> Result<DType, NpyError> {
    let refused = |why: &str| invalid(format!("elements of type '{text}' {why}"));
    let mut characters = text.chars();
    let order = characters.next();
    let dtype = match characters.as_str() {
        "b1" => DType::Bool,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => return Err(refused("are not supported: save booleans, integers or floats")),
    };
    match order {
        Some('<' | '=') => Ok(dtype),
        Some('|' | '>') if dtype.size() == 1 => Ok(dtype),
        Some('>') => Err(refused("are big-endian: save them little-endian")),
        _ => Err(refused("have an unknown byte order")),
    }
}

/// The parsed header.
struct Header {
    fact: Fact,
    fortran: bool,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }`, keys in any order.
    fn parse(text: &str) -> Result<Self, NpyError> {
        let mut rest = Cursor(text);
        let (mut dtype, mut fortran, mut dims) = (None, None, None);
        rest.expect('{')?;
        while !rest.take('}') {
            let key = rest.string()?;
            rest.expect(':')?;
            let twice = match key {
                "descr" => dtype.replace(parse_type(rest.string()?)?).is_some(),
                "fortran_order" => fortran.replace(rest.boolean()?).is_some(),
                "shape" => dims.replace(rest.tuple()?).is_some(),
                _ => return Err(invalid(format!("the header has an unknown key '{key}'"))),
            };
            if twice {
                return Err(invalid(format!("the header has '{key}' twice")));
            }
            if !rest.take(',') {
                rest.expect('}')?;
                break;
            }
        }
        if !rest.0.trim_start().is_empty() {
            return Err(invalid("the header has text after its dictionary"));
        }
        let missing = || invalid("the header lacks 'descr', 'fortran_order' or 'shape'");
        let dims = dims.ok_or_else(missing)?;
        let shape = Shape::new(&dims).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { fact: Fact::new(dtype.ok_or_else(missing)?, shape), fortran: fortran.ok_or_else(missing)? })
    }
}

/// The unparsed rest of the header. Every method first skips white space.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, token: char) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: char) -> Result<(), NpyError> {
        if self.take(token) {
            return Ok(());
        }
        let found = self.0.chars().next().map_or("its end".to_owned(), |c| format!("'{c}'"));
        Err(invalid(format!("the header has {found} where '{token}' is expected")))
    }

    fn string(&mut self) -> Result<&'a str, NpyError> {
        let quote = if self.take('"') { '"' } else { '\'' };
        if quote == '\'' {
            self.expect(quote).map_err(|_| invalid("records and other structured types are not supported"))?;
        }
        let (text, rest) = self.0.split_once(quote).ok_or_else(|| invalid("the header has an unterminated string"))?;
        self.0 = rest;
        Ok(text)
    }

    fn word(&mut self) -> &'a str {
        self.0 = self.0.trim_start();
        let end = self.0.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        match self.word() {
            "True" => Ok(true),
            "False" => Ok(false),
            other => Err(invalid(format!("'fortran_order' is '{other}'"))),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>, NpyError> {
        let mut dims = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            let word = self.word();
            // Python 2 wrote long integers as `3L`.
            let dim = word.strip_suffix('L').unwrap_or(word).parse();
            dims.push(dim.map_err(|_| invalid(format!("the shape has a dimension '{word}'")))?);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and these elements.
    fn file(version: u8, header: &str, elements: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(elements);
        bytes
    }

    fn plain(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
        file(1, &format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), elements)
    }

    fn refusal(bytes: &[u8]) -> String {
        match read_from(bytes) {
            Err(NpyError::Invalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_type_and_rank_round_trips() {
        let types = [
            DType::F32,
            DType::F64,
            DType::F16,
            DType::I8,
            DType::I16,
            DType::I32,
            DType::I64,
            DType::U8,
            DType::U16,
            DType::U32,
            DType::U64,
            DType::Bool,
        ];
        for dtype in types {
            for dims in [&[][..], &[1], &[5], &[2, 3], &[1, 3, 2, 2], &[0, 4], &[1, 1, 1, 1, 1, 1, 1, 2]] {
                let fact = Fact::new(dtype, Shape::new(dims).unwrap());
                let bytes: Vec<u8> = (0..fact.bytes()).map(|i| (i % 2) as u8).collect();
                let tensor = Tensor::from_bytes(fact.clone(), &bytes).unwrap();
                let mut written = Vec::new();
                write_to(&mut written, &tensor.view()).unwrap();
                assert_eq!((written.len() - fact.bytes()) % ALIGNMENT, 0);
                let read = read_from(written.as_slice()).unwrap();
                assert_eq!(read.fact(), &fact);
                assert_eq!(read.bytes(), bytes);
            }
        }
    }

    #[test]
    fn a_header_as_numpy_writes_it() {
        let tensor = Tensor::from_slice(&[3], &[1.0f32, 2.0, 3.0]).unwrap();
        let mut written = Vec::new();
        write_to(&mut written, &tensor.view()).unwrap();
        assert!(
            written.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }")
        );
        assert_eq!(written[127], b'\n');
    }

    #[test]
    fn fortran_order_becomes_c_order() {
        // numpy: asfortranarray([[1, 2, 3], [4, 5, 6]]) is stored as 1 4 2 5 3 6.
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
        let tensor = read_from(file(1, header, &[1, 4, 2, 5, 3, 6]).as_slice()).unwrap();
        assert_eq!(tensor.elements::<u8>().unwrap(), [1, 2, 3, 4, 5, 6]);
        // Element (i, j, k) has the value 100 i + 10 j + k; the first index varies fastest.
        let dims = [2usize, 3, 4];
        let mut columns = Vec::new();
        for k in 0..4u16 {
            for j in 0..3u16 {
                for i in 0..2u16 {
                    columns.extend((100 * i + 10 * j + k).to_le_bytes());
                }
            }
        }
        let header = "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 3, 4), }";
        let tensor = read_from(file(2, header, &columns).as_slice()).unwrap();
        assert_eq!(tensor.shape().dims(), dims);
        let elements = tensor.elements::<u16>().unwrap();
        assert_eq!((elements[0], elements[1], elements[4], elements[12], elements[23]), (0, 1, 10, 100, 123));
    }

    #[test]
    fn headers_of_other_writers_are_read() {
        for header in [
            "{'shape': (2,), 'fortran_order': False, 'descr': '<i2'}",
            "{\"descr\": \"<i2\", \"fortran_order\": False, \"shape\": (2L,)}   ",
            " { 'descr' : '=i2' , 'fortran_order':False,'shape':( 2 ) } \n",
        ] {
            for version in [1, 2, 3] {
                let tensor = read_from(file(version, header, &[1, 0, 2, 0]).as_slice()).unwrap();
                assert_eq!(tensor.elements::<i16>().unwrap(), [1, 2], "{header}");
            }
        }
    }

    #[test]
    fn bf16_is_widened() {
        let fact = Fact::new(DType::Bf16, Shape::new(&[2]).unwrap());
        // 1.0 and -2.0.
        let tensor = Tensor::from_bytes(fact, &[0x80, 0x3f, 0x00, 0xc0]).unwrap();
        let mut written = Vec::new();
        write_to(&mut written, &tensor.view()).unwrap();
        assert_eq!(read_from(written.as_slice()).unwrap().elements::<f32>().unwrap(), [1.0, -2.0]);
    }

    #[test]
    fn unsupported_arrays_are_named() {
        assert!(refusal(&plain("<c8", "(1,)", &[0; 8])).contains("'<c8' are not supported"));
        assert!(refusal(&plain("|O", "(1,)", &[0; 8])).contains("not supported"));
        assert!(refusal(&plain("", "(1,)", &[0; 8])).contains("not supported"));
        assert!(refusal(&plain(">f4", "(1,)", &[0; 4])).contains("big-endian"));
        assert!(refusal(&plain("|f4", "(1,)", &[0; 4])).contains("byte order"));
        let records = "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }";
        assert!(refusal(&file(1, records, &[0; 4])).contains("records"));
    }

    #[test]
    fn malformed_files_are_refused() {
        assert!(refusal(b"").contains("first 8 bytes"));
        assert!(refusal(b"PK\x03\x04 not an array").contains("not an .npy"));
        assert!(refusal(&file(9, "{}", &[])).contains("version 9"));
        assert!(refusal(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("4294967295 bytes long"));
        assert!(refusal(b"\x93NUMPY\x01\x00\x10\x00{'des").contains("ends within the header"));
        assert!(refusal(&plain("<f4", "(2,)", &[0; 7])).contains("7 of the 8 bytes"));
        assert!(refusal(&plain("<f4", "(2,)", &[0; 9])).contains("more bytes"));
        assert!(refusal(&plain("|b1", "(2,)", &[1, 2])).contains("boolean"));
        assert!(refusal(&plain("<f4", "(4000000000, 4000000000, 4000000000)", &[])).contains("too large"));
        assert!(refusal(&plain("<f4", "(1,1,1,1,1,1,1,1,1)", &[0; 4])).contains("too large"));
        // A header that declares a terabyte does not allocate it.
        assert!(refusal(&plain("<f4", "(250000000000,)", &[0; 12])).contains("12 of the 1000000000000 bytes"));
        for header in [
            "",
            "{",
            "}",
            "{}",
            "{'descr'",
            "{'descr': '<f4",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}",
        ] {
            refusal(&file(1, header, &[0; 4]));
        }
        refusal(&file(1, &"(".repeat(9000), &[]));
    }
}
