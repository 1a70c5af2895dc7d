//! Random numbers that are the same on every machine.

/// SplitMix64 (G. Steele, D. Lea and C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A sequence for a seed and a name, such as a layer's.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(name.bytes().fold(seed, |hash, byte| mixed(hash ^ u64::from(byte))))
    }

    /// Uniform over all integers of 24 bits, which f32 holds exactly.
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (mixed(self.0) >> 40) as u32
    }

    /// Uniform from 0 to `end`, which it does not reach.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() as usize * end) >> 24
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
