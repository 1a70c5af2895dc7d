//! Random inputs for a measurement: seeded, so that two measurements use the same, and fresh for every run, so that a
//! model whose path depends on its data takes many of its paths.

use half::{bf16, f16};

use crate::error::Result;
use crate::plan::Port;
use crate::tensor::{DType, Element, Tensor, TensorView};

/// Random tensors of a model's input types and shapes. Floats are uniform between -1 and 1, bytes (such as images) over
/// their whole range; wider integers are 0 or 1, since they are mostly indices and flags, like booleans.
pub struct RandomInputs {
    tensors: Vec<Tensor>,
    random: SplitMix,
}

impl RandomInputs {
    /// Inputs for `ports`; equal seeds give equal inputs.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(ports: &[Port], seed: u64) -> Result<Self> {
        let tensors = ports.iter().map(|port| Tensor::try_zeros(port.fact.clone()).map_err(|e| e.at(&port.name)));
        let mut inputs = Self { tensors: tensors.collect::<Result<_>>()?, random: SplitMix(seed) };
        inputs.refresh();
        Ok(inputs)
    }

    /// Draws new values.
    pub fn refresh(&mut self) {
        let random = &mut self.random;
        for tensor in &mut self.tensors {
            match tensor.dtype() {
                DType::F32 => fill::<f32>(tensor, || random.unit()),
                DType::F64 => fill::<f64>(tensor, || f64::from(random.unit())),
                DType::F16 => fill::<f16>(tensor, || f16::from_f32(random.unit())),
                DType::Bf16 => fill::<bf16>(tensor, || bf16::from_f32(random.unit())),
                DType::I8 => fill::<i8>(tensor, || random.next() as i8),
                DType::U8 => fill::<u8>(tensor, || random.next() as u8),
                DType::I16 => fill::<i16>(tensor, || i16::from(random.bit())),
                DType::I32 => fill::<i32>(tensor, || i32::from(random.bit())),
                DType::I64 => fill::<i64>(tensor, || i64::from(random.bit())),
                DType::U16 => fill::<u16>(tensor, || u16::from(random.bit())),
                DType::U32 => fill::<u32>(tensor, || u32::from(random.bit())),
                DType::U64 => fill::<u64>(tensor, || u64::from(random.bit())),
                DType::Bool => fill::<u8>(tensor, || random.bit()),
            }
        }
    }

    /// The inputs, as a session takes them.
    #[must_use]
    pub fn views(&self) -> Vec<TensorView<'_>> {
        self.tensors.iter().map(Tensor::view).collect()
    }
}

fn fill<T: Element>(tensor: &mut Tensor, mut value: impl FnMut() -> T) {
    if let Some(elements) = tensor.elements_mut::<T>() {
        elements.fill_with(&mut value);
    }
}

/// SplitMix64 (Steele, Lea and Flood): small, fast, and more than good enough here.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[-1, 1)`, with 24 bits.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn bit(&mut self) -> u8 {
        (self.next() >> 63) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Place;
    use crate::tensor::{Fact, Shape};

    fn port(dtype: DType, dims: &[usize]) -> Port {
        Port { name: "x".into(), fact: Fact::new(dtype, Shape::new(dims).unwrap()), place: Place::Input(0) }
    }

    #[test]
    fn the_generator_gives_its_published_sequence() {
        // First outputs for seed 1234567, as listed with the reference implementation.
        let mut random = SplitMix(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn equal_seeds_give_equal_inputs_and_runs_differ() {
        let ports = [port(DType::F32, &[3, 5])];
        let new = |seed| RandomInputs::new(&ports, seed).unwrap();
        let (mut a, b, c) = (new(1), new(1), new(2));
        assert_eq!(a.views()[0].bytes(), b.views()[0].bytes());
        assert_ne!(a.views()[0].bytes(), c.views()[0].bytes());
        a.refresh();
        assert_ne!(a.views()[0].bytes(), b.views()[0].bytes());
    }

    #[test]
    fn values_stay_in_their_range() {
        let ports = [port(DType::F32, &[1000]), port(DType::I64, &[100]), port(DType::Bool, &[])];
        let inputs = RandomInputs::new(&ports, 3).unwrap();
        let views = inputs.views();
        let floats = views[0].elements::<f32>().unwrap();
        assert!(floats.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!(floats.iter().any(|&v| v < -0.5) && floats.iter().any(|&v| v > 0.5));
        assert!(views[1].elements::<i64>().unwrap().iter().all(|v| [0, 1].contains(v)));
        assert!(views[2].bytes()[0] <= 1);
    }
}
