//! Conversions of 16-bit floats by operations on their bits, without branches, so that the compiler can vectorize a
//! loop over them.
//!
//! The types' own conversions branch on special values.

/// The f16 nearest to `x`, ties to even.
#[inline(always)]
pub(super) fn f16_from_f32(x: f32) -> u16 {
    const INFINITE: u32 = 0x7f80_0000;
    /// 2^16, the smallest power of two that is too large for f16.
    const TOO_LARGE: u32 = (127 + 16) << 23;
    /// 2^-14, the smallest normal f16.
    const NORMAL: u32 = (127 - 14) << 23;
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal: the exponent's bias changes and 13 bits of the fraction are rounded away; a carry propagates into the
    // exponent, up to infinity.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xfff + odd) >> 13;
    // Subnormal: adding 0.5, whose unit in the last place is 2^-24, lets the CPU round.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    // A NaN keeps the upper bits of its fraction and becomes quiet.
    let nan = 0x7e00 | ((magnitude >> 13) & 0x1ff);
    let finite = if magnitude < NORMAL { subnormal } else { normal };
    let number = if magnitude >= TOO_LARGE { 0x7c00 } else { finite };
    let result = if magnitude > INFINITE { nan } else { number };
    (sign | result) as u16
}

/// `h` as f32, exactly.
#[inline(always)]
pub(super) fn f32_from_f16(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let magnitude = u32::from(h & 0x7fff);
    // Interpreted as an f32, the shifted bits are the value divided by 2^112, subnormal or not.
    let scale = f32::from_bits((127 + 112) << 23);
    let finite = (f32::from_bits(magnitude << 13) * scale).to_bits();
    // Infinity stays; NaN becomes quiet.
    let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    let special = 0x7f80_0000 | (magnitude << 13) | quiet;
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

/// The bf16 nearest to `x`, ties to even.
#[inline(always)]
pub(super) fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

/// `b` as f32, exactly.
#[inline(always)]
pub(super) fn f32_from_bf16(b: u16) -> f32 {
    f32::from_bits(u32::from(b) << 16)
}
