//! Symbolic dimensions (`dim_param`): names such as `batch`, and small expressions of them such
//! as `floor(h/2) + 1`.
//!
//! Other parsers read them as formulas, recursively and with exact arithmetic, so that a short
//! string can cost a deep stack or huge numbers. What passes here has few parts, is hardly nested
//! and holds small numbers only.

/// Parentheses inside each other.
const MAX_NESTING: usize = 8;
/// Operators, commas and parentheses together.
const MAX_PARTS: usize = 64;
/// Product of all the integers in the expression, which bounds every constant that can be
/// computed from it by multiplication.
const MAX_PRODUCT: u64 = 1 << 31;

/// Tells what is wrong with a symbolic dimension, if anything is.
pub(super) fn fault(symbol: &str, max_bytes: usize) -> Option<&'static str> {
    if symbol.len() > max_bytes {
        return Some("the symbol is too long");
    }
    let (mut nesting, mut parts, mut product) = (0usize, 0usize, 1u64);
    let mut number: Option<u64> = None;
    let mut in_name = false;
    for c in symbol.chars() {
        if c.is_ascii_digit() && !in_name {
            let digit = u64::from(c).saturating_sub(u64::from('0'));
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            continue;
        }
        if let Some(number) = number.take() {
            product = product.saturating_mul(number.max(1));
        }
        match c {
            '(' => {
                nesting += 1;
                parts += 1;
            }
            ')' => {
                nesting = match nesting.checked_sub(1) {
                    Some(outer) => outer,
                    None => return Some("the symbol closes a parenthesis that it does not open"),
                }
            }
            '+' | '-' | '*' | '/' | '%' | ',' | '^' => parts += 1,
            // Names as exporters make them: `unk__1`, `onnx::Reshape_12_dim_0`, `input.1`, `?`.
            _ if c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '?' | ' ' | '$' | '#' | '@') => {}
            _ => return Some("the symbol holds a character that no name or expression has"),
        }
        in_name = c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '$' | '#' | '@');
        if nesting > MAX_NESTING {
            return Some("the symbol is nested too deep");
        }
        if parts > MAX_PARTS {
            return Some("the symbol has too many parts");
        }
    }
    product = product.saturating_mul(number.unwrap_or(1).max(1));
    if nesting != 0 {
        return Some("the symbol leaves a parenthesis open");
    }
    if product > MAX_PRODUCT {
        return Some("the numbers in the symbol are too large");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn names_and_small_expressions_pass() {
        for symbol in [
            "",
            "N",
            "batch",
            "batch_size",
            "unk__1",
            "?",
            "floor(h/2)",
            "a+b*2",
            "floor(W/2 - 1/2) + 1",
            "onnx::Reshape_12_dim_0",
            "input.1_dynamic_axes_2",
            "Max(1, s0)",
            "2*s0 + 1",
            "-1",
            "past_sequence_length + 1",
            "((s1 + 3)//4)",
            "größe",
            "s0*512*512",
        ] {
            assert_eq!(fault(symbol, 256), None, "{symbol}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let nested = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        let minus = format!("{}a", "-".repeat(200));
        let powers = vec!["999999999"; 20].join("*");
        let long = "a".repeat(257);
        for symbol in [&nested, &minus, &powers, &long] {
            assert!(fault(symbol, 256).is_some(), "{symbol}");
        }
        for symbol in ["99999999999999999999999", "(a", "a)", "a\0b", "a\nb", "a;b", "a&b"] {
            assert!(fault(symbol, 256).is_some(), "{symbol}");
        }
    }
}
