//! Formats numbers for terminal and HTML output. JSON output is not rounded.

use half::{bf16, f16};
use skipstone::{DType, Element, Tensor};

/// Bytes with a decimal prefix: `1.25 MB` (1 MB is 10^6 bytes).
pub fn bytes(bytes: u64) -> String {
    scaled(bytes, "B")
}

/// A count with a decimal prefix: `310.3 k`, `152.9 M`.
pub fn count(count: u64) -> String {
    scaled(count, "").trim_end().to_owned()
}

fn scaled(value: u64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E"];
    let mut scaled = value as f64;
    let mut at = 0;
    // 999.95 and above would print as 1000.0.
    while scaled >= 999.95 && at + 1 < prefixes.len() {
        scaled /= 1000.0;
        at += 1;
    }
    if at == 0 { format!("{value} {unit}") } else { format!("{scaled:.*} {}{unit}", decimals(scaled), prefixes[at]) }
}

/// Decimals that leave about four digits.
fn decimals(value: f64) -> usize {
    if value < 10.0 { 2 } else { 1 }
}

/// Milliseconds with four significant digits: `0.0123`, `1.234`, `123.4`.
pub fn ms(ms: f64) -> String {
    let decimals = if ms <= 0.0 { 3 } else { (3.0 - ms.log10().floor()).clamp(1.0, 5.0) as usize };
    format!("{ms:.decimals$}")
}

/// A fraction of one, in percent.
pub fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// A number with four significant digits.
pub fn short(number: f32) -> String {
    let rounded: f32 = format!("{number:.3e}").parse().unwrap_or(number);
    rounded.to_string()
}

/// The elements of a tensor, up to `most` of them.
pub fn elements(tensor: &Tensor, most: usize) -> String {
    fn list<T: Element>(tensor: &Tensor, most: usize, show: impl Fn(&T) -> String) -> Option<String> {
        let elements = tensor.elements::<T>()?;
        let shown = elements.iter().take(most).map(show).collect::<Vec<_>>().join(", ");
        Some(if elements.len() > most { shown + ", ..." } else { shown })
    }
    let shown = match tensor.dtype() {
        DType::F32 => list(tensor, most, f32::to_string),
        DType::F64 => list(tensor, most, f64::to_string),
        DType::F16 => list(tensor, most, f16::to_string),
        DType::Bf16 => list(tensor, most, bf16::to_string),
        DType::I8 => list(tensor, most, i8::to_string),
        DType::I16 => list(tensor, most, i16::to_string),
        DType::I32 => list(tensor, most, i32::to_string),
        DType::I64 => list(tensor, most, i64::to_string),
        DType::U8 => list(tensor, most, u8::to_string),
        DType::U16 => list(tensor, most, u16::to_string),
        DType::U32 => list(tensor, most, u32::to_string),
        DType::U64 => list(tensor, most, u64::to_string),
        DType::Bool => list(tensor, most, |&byte: &u8| (byte != 0).to_string()),
    };
    shown.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_counts_and_times_are_formatted() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_240_000), "1.24 MB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(count(10), "10");
        assert_eq!(count(152_930_000), "152.9 M");
        assert_eq!(ms(0.012_345), "0.01235");
        assert_eq!(ms(1.2345), "1.234");
        assert_eq!(ms(1234.5), "1234.5");
        assert_eq!(ms(0.0), "0.000");
        assert_eq!(percent(0.5), "50.0 %");
        assert_eq!(short(-0.123_456), "-0.1235");
        assert_eq!(short(1234.5), "1234");
        assert_eq!(short(0.0), "0");
        assert_eq!(elements(&Tensor::scalar(0.1f32), 8), "0.1");
        assert_eq!(elements(&Tensor::scalar(f16::ONE), 8), "1");
        assert_eq!(elements(&Tensor::from_slice(&[3], &[1i64, -2, 3]).unwrap(), 2), "1, -2, ...");
    }
}
