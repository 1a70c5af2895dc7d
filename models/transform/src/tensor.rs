//! The constants of a model: their elements and parts, whichever field of the file stores them.

use half::f16;
use skipstone_onnx::ElementType;
use skipstone_onnx::wire::{Field, FieldValue, put, varint};
use skipstone_onnx::write::Message;

use crate::editor::{FLOAT, HALF, INT32, INT64, fields, push_ints, text};
use crate::error::Result;

/// A tensor with its data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tensor {
    pub name: String,
    pub dims: Vec<i64>,
    pub data_type: i64,
    rest: Vec<u8>,
}

impl Tensor {
    /// A tensor of little-endian bytes.
    pub fn new(name: impl Into<String>, dims: &[usize], data_type: i64, raw: &[u8]) -> Self {
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        Self { name: name.into(), dims, data_type, rest: Message::new().bytes(9, raw).into_bytes() }
    }

    /// An f32 tensor.
    pub fn of_floats(name: impl Into<String>, dims: &[usize], values: &[f32]) -> Self {
        Self::new(name, dims, FLOAT, &raw_floats(FLOAT, values))
    }

    /// An i64 tensor.
    pub fn of_ints(name: impl Into<String>, dims: &[usize], values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(name, dims, INT64, &raw)
    }

    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut tensor = Self::default();
        for field in fields(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, value) => push_ints(&mut tensor.dims, value)?,
                (2, FieldValue::Varint(number)) => tensor.data_type = number as i64,
                (8, value) => tensor.name = text(value)?,
                _ => put(&mut tensor.rest, field),
            }
        }
        Ok(tensor)
    }

    pub fn write(&self) -> Message {
        let message = self.dims.iter().fold(Message::of(&self.rest), |message, &dim| message.int(1, dim));
        message.int(2, self.data_type).text(8, &self.name)
    }

    /// The dimensions as lengths.
    pub fn lengths(&self) -> Vec<usize> {
        self.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
    }

    /// The elements of an f32 tensor; `None` for other types.
    pub fn floats(&self) -> Option<Vec<f32>> {
        if self.data_type != FLOAT { None } else { self.numbers() }
    }

    /// The elements of an f32 or f16 tensor.
    pub fn numbers(&self) -> Option<Vec<f32>> {
        let raw = self.raw()?;
        Some(match self.data_type {
            FLOAT => raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            HALF => raw.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            _ => return None,
        })
    }

    /// The elements of a 32-bit or 64-bit integer tensor.
    pub fn ints(&self) -> Option<Vec<i64>> {
        let raw = self.raw()?;
        Some(match self.data_type {
            INT32 => raw.as_chunks().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect(),
            INT64 => raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            _ => return None,
        })
    }

    /// Replaces the elements, rounded to the tensor's type, f32 or f16.
    pub fn set_numbers(&mut self, values: &[f32]) {
        *self = Self::new(
            std::mem::take(&mut self.name),
            &self.lengths(),
            self.data_type,
            &raw_floats(self.data_type, values),
        );
    }

    /// Multiplies the elements by a factor for each index of an axis, rounded to the tensor's type, f32 or f16.
    pub fn scale(&mut self, axis: usize, factors: &[f32]) {
        let Some(mut values) = self.numbers() else { return };
        let run: usize = self.lengths().iter().skip(axis + 1).product();
        for (value, at) in values.iter_mut().zip(0..) {
            *value *= factors.get(at / run.max(1) % factors.len().max(1)).copied().unwrap_or(1.0);
        }
        self.set_numbers(&values);
    }

    /// A tensor with the same type and name and only these indices of an axis; `None` if an index is out of range, or
    /// if elements are not whole bytes.
    pub fn take(&self, axis: usize, indices: &[usize]) -> Option<Self> {
        let mut dims = self.lengths();
        let bits = ElementType::from_number(self.data_type)?.bits();
        if bits == 0 || !bits.is_multiple_of(8) {
            return None;
        }
        let run = dims.get(axis + 1..)?.iter().product::<usize>() * (bits / 8) as usize;
        let whole = *dims.get(axis)? * run;
        let raw = self.raw()?;
        let mut taken = Vec::with_capacity(raw.len());
        for part in raw.chunks_exact(whole.max(1)) {
            for &index in indices {
                taken.extend_from_slice(part.get(index * run..(index + 1) * run)?);
            }
        }
        dims[axis] = indices.len();
        Some(Self::new(self.name.clone(), &dims, self.data_type, &taken))
    }

    /// The elements as little-endian bytes; `None` for non-numeric types.
    fn raw(&self) -> Option<Vec<u8>> {
        let bytes_each = ElementType::from_number(self.data_type)?.bits() / 8;
        let mut raw = Vec::new();
        for field in fields(&self.rest) {
            match (field.ok()?, self.data_type) {
                (Field { number: 9, value: FieldValue::Bytes(bytes) }, _) => raw.extend_from_slice(bytes),
                (Field { number: 4, value: FieldValue::Bytes(bytes) }, FLOAT) => raw.extend_from_slice(bytes),
                (Field { number: 4, value: FieldValue::Fixed32(bits) }, FLOAT) => raw.extend(bits.to_le_bytes()),
                (Field { number: 5 | 7, value }, _) => {
                    let mut push = |value: u64| raw.extend_from_slice(&value.to_le_bytes()[..bytes_each as usize]);
                    match value {
                        FieldValue::Varint(value) => push(value),
                        FieldValue::Bytes(mut packed) => {
                            while !packed.is_empty() {
                                let (value, rest) = varint(packed).ok()?;
                                push(value);
                                packed = rest;
                            }
                        }
                        _ => return None,
                    }
                }
                _ => {}
            }
        }
        let count = self.dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?))?;
        (raw.len() == count.checked_mul(bytes_each as usize)?).then_some(raw)
    }
}

/// Values as f32 or f16 bytes.
fn raw_floats(data_type: i64, values: &[f32]) -> Vec<u8> {
    match data_type {
        HALF => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_in_every_field() {
        let head = Message::new().int(1, 2).int(2, FLOAT);
        let packed = head.clone().bytes(4, &[1.5f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
        let single = head.clone().float(4, 1.5).float(4, 2.0);
        for message in [packed, single] {
            assert_eq!(Tensor::read(&message.into_bytes()).unwrap().numbers(), Some(vec![1.5, 2.0]));
        }
        let halves = Message::new().int(1, 2).int(2, HALF).int(5, 0x3e00).int(5, 0xc000);
        assert_eq!(Tensor::read(&halves.into_bytes()).unwrap().numbers(), Some(vec![1.5, -2.0]));
        let ints = Message::new().int(1, 2).int(2, INT64).int(7, -1).int(7, 5);
        assert_eq!(Tensor::read(&ints.into_bytes()).unwrap().ints(), Some(vec![-1, 5]));
        assert_eq!(Tensor::read(&head.float(4, 1.0).into_bytes()).unwrap().numbers(), None, "one of two");
    }

    #[test]
    fn a_factor_for_each_index_of_an_axis() {
        let mut tensor = Tensor::of_floats("t", &[2, 2, 2], &[1.0; 8]);
        tensor.scale(1, &[2.0, 0.5]);
        assert_eq!(tensor.numbers().unwrap(), [2.0, 2.0, 0.5, 0.5, 2.0, 2.0, 0.5, 0.5]);
        tensor.scale(2, &[1.0, 4.0]);
        assert_eq!(tensor.numbers().unwrap(), [2.0, 8.0, 0.5, 2.0, 2.0, 8.0, 0.5, 2.0]);
    }

    #[test]
    fn parts_are_taken_along_any_axis() {
        let tensor = Tensor::of_ints("t", &[2, 3, 2], &(0..12).collect::<Vec<_>>());
        assert_eq!(tensor.take(1, &[2, 0]).unwrap().ints().unwrap(), [4, 5, 0, 1, 10, 11, 6, 7]);
        assert_eq!(tensor.take(0, &[1]).unwrap().dims, [1, 3, 2]);
        assert!(tensor.take(2, &[2]).is_none() && tensor.take(3, &[]).is_none());
        let mut halves = Tensor::new("h", &[2], HALF, &[0, 0x3e, 0, 0xc0]);
        halves.set_numbers(&[0.0, -2.0]);
        assert_eq!((halves.numbers(), halves.data_type), (Some(vec![0.0, -2.0]), HALF));
    }
}
