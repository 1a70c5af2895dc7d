//! Iterates over the fields of one message, with their offsets in the file, and converts their
//! values to the types that ONNX declares.

use crate::wire::{FieldValue, Reader, WireError};

use crate::invalid::{Invalid, Place, Rule};

type Result<T> = std::result::Result<T, Invalid>;

/// A message that is being read.
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    /// Address of the first byte of the file, from which offsets are computed.
    pub origin: usize,
    pub depth: usize,
    /// Bit sets of field numbers: singular fields not yet seen, and all singular fields.
    unseen: u64,
    singular: u64,
}

/// A field of a message, with the offset of its key in the file.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub number: u32,
    pub value: FieldValue<'a>,
    pub at: usize,
}

/// Wire encoding of a numeric field.
#[derive(Clone, Copy)]
pub(super) enum Scalar {
    Varint,
    Fixed32,
    Fixed64,
}

impl<'a> Message<'a> {
    pub fn new(bytes: &'a [u8], origin: usize, depth: usize) -> Self {
        Self { bytes, reader: Reader::new(bytes), origin, depth, unseen: 0, singular: 0 }
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of the message from file offset `start` up to the read position.
    pub fn read_since(&self, start: usize) -> &'a [u8] {
        let start = start.saturating_sub(self.bytes.as_ptr().addr().wrapping_sub(self.origin));
        let end = self.bytes.len().saturating_sub(self.reader.rest().len());
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Declares the fields that may occur at most once. Their numbers are below 64.
    pub fn singular(&mut self, numbers: &[u32]) {
        self.singular = numbers.iter().fold(0, |bits, number| bits | 1 << (number & 63));
        self.unseen = self.singular;
    }

    /// The next field.
    pub fn next(&mut self) -> Result<Option<Item<'a>>> {
        let at = self.reader.rest().as_ptr().addr().wrapping_sub(self.origin);
        let Some(field) = self.reader.field().map_err(|error| wire_error(error, at))? else {
            return Ok(None);
        };
        let item = Item { number: field.number, value: field.value, at };
        let bit = 1u64.checked_shl(item.number).unwrap_or(0);
        if self.singular & bit != 0 && self.unseen & bit == 0 {
            return Err(item.invalid(Rule::RepeatedField, format!("field {} occurs twice in one message", item.number)));
        }
        self.unseen &= !bit;
        Ok(Some(item))
    }
}

pub(super) fn wire_error(error: WireError, at: usize) -> Invalid {
    let rule = if error == WireError::Truncated { Rule::Truncated } else { Rule::Malformed };
    Invalid::new(rule, Place::Byte(at), error.to_string())
}

impl<'a> Item<'a> {
    pub fn invalid(self, rule: Rule, what: impl Into<String>) -> Invalid {
        Invalid::new(rule, Place::Byte(self.at), what)
    }

    pub fn wrong_type(self) -> Invalid {
        self.invalid(Rule::Malformed, format!("field {} does not have the wire type that ONNX declares", self.number))
    }

    pub fn int(self) -> Result<i64> {
        match self.value {
            // Two's complement, as protobuf stores negative numbers.
            FieldValue::Varint(value) => Ok(value as i64),
            _ => Err(self.wrong_type()),
        }
    }

    pub fn float(self) -> Result<f32> {
        match self.value {
            FieldValue::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong_type()),
        }
    }

    pub fn bytes(self) -> Result<&'a [u8]> {
        match self.value {
            FieldValue::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type()),
        }
    }

    pub fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| self.invalid(Rule::Text, format!("the string in field {} is not UTF-8", self.number)))
    }

    /// Text of at most `limit` bytes, which the limit called `name` says.
    pub fn text_up_to(self, limit: usize, name: &str) -> Result<&'a str> {
        let length = self.bytes()?.len();
        if length > limit {
            let what = format!("the string in field {} has {length} bytes, the limit '{name}' is {limit}", self.number);
            return Err(self.invalid(Rule::Limit, what));
        }
        self.text()
    }
}
