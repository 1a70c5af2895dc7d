//! The protobuf wire format, read in place.
//!
//! A message is a sequence of fields: a key (field number and wire type), then a value whose
//! length follows from the wire type. [`Reader`] iterates over the fields without copying and
//! without recursion, and checks every length. It knows nothing of the schema.

use thiserror::Error;

/// Why bytes are not a sequence of protobuf fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// A value reaches past the end of its message.
    #[error("a value reaches past the end of its message")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("a varint takes more than 64 bits")]
    Overlong,
    /// Field number 0, or one past 2^29 - 1.
    #[error("a field number is out of range")]
    FieldNumber,
    /// A group (deprecated in protobuf), or a wire type that does not exist.
    #[error("a field has an unknown wire type")]
    WireType,
}

/// The value of a field, classified by wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// Integers, booleans and enums.
    Varint(u64),
    /// A double.
    Fixed64(u64),
    /// A string, bytes, a message, or packed values.
    Bytes(&'a [u8]),
    /// A float.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number in the schema, from 1.
    pub number: u32,
    /// Its value.
    pub value: FieldValue<'a>,
}

/// Walks the fields of one message.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of a message.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The unread bytes. After an error they start at the offending field.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are not a field; the reader then does not advance.
    pub fn field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (key, rest) = varint(self.rest)?;
        let number = u32::try_from(key >> 3).map_err(|_| WireError::FieldNumber)?;
        if number == 0 || number >= 1 << 29 {
            return Err(WireError::FieldNumber);
        }
        let (value, rest) = match key & 7 {
            0 => {
                let (value, rest) = varint(rest)?;
                (FieldValue::Varint(value), rest)
            }
            1 => {
                let (bytes, rest) = rest.split_first_chunk().ok_or(WireError::Truncated)?;
                (FieldValue::Fixed64(u64::from_le_bytes(*bytes)), rest)
            }
            2 => {
                let (length, rest) = varint(rest)?;
                let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
                let (bytes, rest) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
                (FieldValue::Bytes(bytes), rest)
            }
            5 => {
                let (bytes, rest) = rest.split_first_chunk().ok_or(WireError::Truncated)?;
                (FieldValue::Fixed32(u32::from_le_bytes(*bytes)), rest)
            }
            _ => return Err(WireError::WireType),
        };
        self.rest = rest;
        Ok(Some(Field { number, value }))
    }
}

/// Appends a field to a message.
pub fn put(message: &mut Vec<u8>, field: Field<'_>) {
    let mut key = |wire_type: u64| put_varint(message, u64::from(field.number) << 3 | wire_type);
    match field.value {
        FieldValue::Varint(value) => {
            key(0);
            put_varint(message, value);
        }
        FieldValue::Fixed64(value) => {
            key(1);
            message.extend(value.to_le_bytes());
        }
        FieldValue::Bytes(bytes) => {
            key(2);
            put_varint(message, bytes.len() as u64);
            message.extend(bytes);
        }
        FieldValue::Fixed32(value) => {
            key(5);
            message.extend(value.to_le_bytes());
        }
    }
}

pub(crate) fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// Reads a varint and returns it with the bytes that follow. A varint has at most ten bytes; the
/// tenth contributes only bit 63.
///
/// # Errors
/// [`WireError::Truncated`] or [`WireError::Overlong`].
pub fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), WireError> {
    if let Some((&byte, rest)) = bytes.split_first()
        && byte < 0x80
    {
        return Ok((u64::from(byte), rest));
    }
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return Err(WireError::Overlong);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, bytes.get(i + 1..).unwrap_or_default()));
        }
    }
    Err(if bytes.len() < 10 { WireError::Truncated } else { WireError::Overlong })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        while let Some(field) = reader.field()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn reads_every_wire_type() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x1d, 0, 0, 0x80, 0x3f, // 3: 1.0f32
            0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // 4: 1.0f64
        ];
        let values: Vec<_> = fields(&bytes).unwrap().into_iter().map(|f| (f.number, f.value)).collect();
        assert_eq!(
            values,
            [
                (1, FieldValue::Varint(150)),
                (2, FieldValue::Bytes(b"hi")),
                (3, FieldValue::Fixed32(1f32.to_bits())),
                (4, FieldValue::Fixed64(1f64.to_bits())),
            ]
        );
    }

    #[test]
    fn a_length_past_the_end_is_truncation() {
        assert_eq!(fields(&[0x12, 0x03, b'h', b'i']), Err(WireError::Truncated));
        assert_eq!(
            fields(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Err(WireError::Truncated)
        );
        assert_eq!(fields(&[0x1d, 0, 0]), Err(WireError::Truncated));
        assert_eq!(fields(&[0x21, 0, 0]), Err(WireError::Truncated));
        assert_eq!(fields(&[0x08, 0x80]), Err(WireError::Truncated));
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert_eq!(varint(&[0xff; 11]), Err(WireError::Overlong));
        let mut widest = [0xff; 10];
        widest[9] = 1;
        assert_eq!(varint(&widest), Ok((u64::MAX, &[][..])));
        widest[9] = 2;
        assert_eq!(varint(&widest), Err(WireError::Overlong));
    }

    #[test]
    fn a_padded_varint_is_legal_protobuf() {
        assert_eq!(varint(&[0x81, 0x80, 0x00, 7]), Ok((1, &[7][..])));
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        assert_eq!(fields(&[0x0b]), Err(WireError::WireType));
        assert_eq!(fields(&[0x0c]), Err(WireError::WireType));
        assert_eq!(fields(&[0x0e]), Err(WireError::WireType));
        assert_eq!(fields(&[0x00, 0x00]), Err(WireError::FieldNumber));
    }
}
